import BenchmarkHarness
import Foundation
import Logging
import LonglineClient
import LonglineServer
import LonglineStore
import LonglineWire
import PeerHarness
import SessionHarness

/// One of a user's devices, with the SDK. It joins the room, goes away, and comes back.
final class Device: Sendable {
    private let client: LonglineClient

    init(_ number: Int, folder: String, port: Int) throws {
        let directory = try ServerDirectory(folder)
        let pin = try directory.developmentIdentity(names: ["localhost"]).pin
        let phone = try Names.phone(number)
        var configuration = LonglineClient.Configuration(
            accessPoints: [AccessPoint(host: "127.0.0.1", port: port)], trust: .pinnedPublicKey([pin])
        ) {
            try await directory.sign(
                tenant: phone.tenant, user: phone.user, device: phone.device, lifetime: 3_600_000)
        }
        configuration.watchesNetwork = false
        configuration.logger.logLevel = .error
        client = try LonglineClient(configuration: configuration)
    }

    func join(_ room: RoomID) async throws {
        try await client.connect()
        try await client.join(room)
    }

    func leave() async { await client.disconnect() }

    /// Publishes so many messages of 128 bytes, with many under way.
    func publish(_ count: Int, to room: RoomID) async throws {
        let payload = String(repeating: "a", count: 128)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<count {
                if number >= 256 { try await group.next() }
                group.addTask { [client] in _ = try await client.send(payload, to: .room(room)).acknowledged() }
            }
            try await group.waitForAll()
        }
    }

    /// Connects, and takes the messages that wait, as an app does that needs no time for one.
    /// - Returns: the time to the first and to the last of them.
    func comeBack(to count: Int) async throws -> (first: Duration, all: Duration) {
        let clock = ContinuousClock()
        let start = clock.now
        try await client.connect()
        var first: Duration?
        var left = count
        for await message in client.messages where message.kind == .message {
            first = first ?? (clock.now - start)
            left -= 1
            if left == 0 { break }
        }
        guard let first, left == 0 else { throw ChildProcess.Failure("\(left) messages are missing") }
        return (first, clock.now - start)
    }
}
