// What an idle session holds over its QUIC connection: heap and resident memory, with and without rooms, and after a message.

import BenchmarkHarness
import Foundation
import LonglineLinks
import LonglineWire
import NIOCore
import PeerHarness
import SessionHarness

if let role = Role.current {
    try await runRole(role)
    exit(0)
}

let options = Options(extra: ["--sessions": 5_000, "--rooms": 5])
let count = Int(options["--sessions"])
let rooms = Int(options["--rooms"])
/// These come first: what they need is the process's own, code that is first used and tables.
let first = 20

/// What `count` of something hold each, in KiB.
struct Holding {
    let heap: Double
    let resident: Double

    init(_ now: ServerMemory, over before: ServerMemory, _ name: String) throws {
        guard now.count - before.count == count else {
            throw ChildProcess.Failure("\(name): the server has \(now.count) of them, and had \(before.count)")
        }
        heap = (now.heap - before.heap) / Double(count) / 1024
        resident = (now.resident - before.resident) / Double(count) / 1024
        print("\(name): heap \(heap.readable) KiB, resident \(resident.readable) KiB each")
    }
}

/// Connections without sessions.
func bare() async throws -> Holding {
    let server = try ChildProcess(role: "bare", core: 0)
    defer { server.end() }
    guard let port = Int(try server.line()) else { throw ChildProcess.Failure("the server said no port") }
    let crowd = ConnectionCrowd(port: port)
    try await crowd.open(first, transport: .longline)
    let before = try ServerMemory.ask(server)
    try await crowd.open(count, transport: .longline)
    let holding = try Holding(try ServerMemory.ask(server), over: before, "connection")
    try await crowd.close()
    return holding
}

/// Sessions of users in so many rooms, fresh, and after each has sent itself a message.
func sessions(rooms: Int) async throws -> (fresh: Holding, used: Holding) {
    let folder = FileManager.default.benchmarkFolder()
    defer { try? FileManager.default.removeItem(at: folder) }
    // Rooms of 50 users.
    let roomsOfUser = { @Sendable (user: Int) in (0..<rooms).map { "room\(user / 50 * rooms + $0)" } }
    try await SessionServer.fill(folder.path, users: first + count, rooms: roomsOfUser)
    let cursors = try await SessionServer.read(folder.path, users: first + count, rooms: roomsOfUser)
    let server = try ChildProcess(role: "server", [folder.path], core: 0)
    defer { server.end() }
    guard let port = Int(try server.line()) else { throw ChildProcess.Failure("the server said no port") }
    let tally = Tally()
    let crowd = Crowd(sockets: .crowd) { _ in tally.count += 1 }
    try await crowd.connect(first, folder: folder.path, port: port, cursors: cursors)
    let before = try ServerMemory.ask(server)
    try await crowd.connect(count, folder: folder.path, port: port, cursors: cursors)
    let fresh = try Holding(try ServerMemory.ask(server), over: before, "session with \(rooms) rooms")
    try await crowd.publishToInboxes(Array(first..<(first + count)))
    for _ in 0..<100 where try await crowd.loop.submit({ tally.count }).get() < count {
        try await Task.sleep(for: .milliseconds(100))
    }
    let came = try await crowd.loop.submit { tally.count }.get()
    guard came == count else { throw ChildProcess.Failure("\(came) of \(count) messages came back within 10 s") }
    let used = try Holding(try ServerMemory.ask(server), over: before, "the same after a message to itself")
    await crowd.end()
    return (fresh, used)
}

/// What came back, counted on the crowd's loop.
final class Tally: @unchecked Sendable {
    // Proof: touched on the crowd's loop only.
    var count = 0
}

extension Crowd {
    /// Some at a time, each from a user to the user's other devices, and so to itself.
    func publishToInboxes(_ users: [Int]) async throws {
        for start in stride(from: 0, to: users.count, by: 50) {
            let batch = users[start..<min(start + 50, users.count)]
            let inboxes = try batch.map { ($0, ChannelID.user(try UserID(Names.user($0)))) }
            try await loop.submit { [self] in
                for (user, inbox) in inboxes {
                    members[user].publish(ByteBuffer(repeating: 0x61, count: 128), to: inbox)
                }
            }.get()
            try await Task.sleep(for: .milliseconds(20))
        }
    }
}

let connection = try await bare()
let alone = try await sessions(rooms: 0)
let inRooms = try await sessions(rooms: rooms)
var report = Report("session-idle")
report.add("sessions", count)
report.add("connection_heap_kib", connection.heap)
report.add("connection_rss_kib", connection.resident)
report.add("session_heap_kib", alone.fresh.heap - connection.heap)
report.add("session_rss_kib", alone.fresh.resident - connection.resident)
report.add("used_session_heap_kib", alone.used.heap - connection.heap)
report.add("used_session_rss_kib", alone.used.resident - connection.resident)
report.add("room_heap_kib", (inRooms.fresh.heap - alone.fresh.heap) / Double(rooms))
report.finish()
