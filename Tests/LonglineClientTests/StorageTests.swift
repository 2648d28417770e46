import Foundation
import LonglineTestKit
import LonglineWire
import NIOCore
import Testing

@testable import LonglineClient

@Suite("Durable state")
struct StorageTests {
    /// A change of every kind, drawn at random.
    private func change(_ random: inout SeededRandom, rows: inout [PublishID]) throws -> StorageChange {
        func number() -> UInt64 { random.next() }
        let channel =
            random.happens(0.5)
            ? ChannelID.room(try RoomID("r\(Int.random(in: 0..<3, using: &random))")) : .user(try UserID("u"))
        let point = "host:\(Int.random(in: 1...3, using: &random))"
        let secret =
            random.happens(0.3)
            ? nil : StoredSecret(bytes: [1, 2, UInt8(truncatingIfNeeded: number())], expiry: number())
        switch Int.random(in: 0..<19, using: &random) {
        case 0 where random.happens(0.1):
            rows = []
            return .producer(ProducerID(high: number(), low: number()))
        case 0, 1, 2, 3, 4:
            let id = (rows.last ?? 0) + UInt64.random(in: 1...3, using: &random)
            rows.append(id)
            return .insert(
                StoredPublish(
                    id: id, tag: number(), after: rows.dropLast().last ?? 0, channel: channel,
                    recipient: random.happens(0.5) ? try UserID("bob") : nil, timeToLive: number(),
                    queuedAt: number(), payload: ByteBuffer(bytes: [UInt8(truncatingIfNeeded: number())]),
                    send: SendID(high: number(), low: number()), attempted: random.happens(0.5)))
        case 5: return rows.isEmpty ? .lastID(number()) : .rechain(rows[0], after: 0)
        case 6: return rows.isEmpty ? .lastID(number()) : .remove(rows.removeFirst())
        case 16: return rows.isEmpty ? .lastID(number()) : .attempted(rows[rows.count - 1])
        case 17, 18:
            let states: [SendState] = [
                .acknowledged(
                    Published(id: number(), position: Position(epoch: number(), offset: number()), time: number())),
                .refused(RefusalCode(rawValue: .max)), .expired, .outcomeUnknown, .cancelled,
            ]
            return .outcome(
                StoredOutcome(
                    send: SendID(high: number(), low: number()), channel: channel,
                    recipient: random.happens(0.5) ? try UserID("bob") : nil, queuedAt: number(),
                    state: states[Int.random(in: 0..<states.count, using: &random)]))
        case 7: return .chain(channel, number())
        case 8: return .connectNumber(number())
        case 9:
            guard random.happens(0.7) else { return .forgetCursor(channel) }
            let place = Position(epoch: number(), offset: number())
            guard random.happens(0.5) else {
                let stay = StoredStay(end: place, namedAt: random.happens(0.5) ? number() : nil)
                return .endedStay(channel, random.happens(0.8) ? stay : nil)
            }
            return .cursor(channel, place)
        case 10:
            guard random.happens(0.5) else { return .device(try DeviceID("d\(number())")) }
            return .cursorVersion(number())
        case 11: return .resumeTicket(secret)
        case 12: return .transportTicket(point, secret)
        case 13, 14:
            let lived = UInt64.random(in: 1...1_000_000, using: &random)
            return .network(
                StoredNetwork(
                    name: "network \(Int.random(in: 0..<40, using: &random))",
                    lived: random.happens(0.8) ? lived : nil, died: random.happens(0.8) ? lived + 1 : nil,
                    lastUse: UInt64.random(in: 0...1_000_000, using: &random)))
        default: return .addressToken(point, secret?.bytes)
        }
    }

    @Test("a file holds what memory holds, through every reopening", arguments: 1...8)
    func model(seed: UInt64) async throws {
        var random = SeededRandom(seed: seed)
        let directory = try TemporaryFolder()
        let path = directory.file("client.sqlite")
        let model = InMemoryClientStorage()
        var rows: [PublishID] = []
        for _ in 0..<6 {
            let storage = try SQLiteClientStorage(path: path)
            for _ in 0..<10 {
                var batch: [StorageChange] = []
                for _ in 0..<Int.random(in: 1...5, using: &random) { batch.append(try change(&random, rows: &rows)) }
                try await storage.apply(batch)
                await model.apply(batch)
            }
            try storage.close()
            let reopened = try SQLiteClientStorage(path: path)
            var (stored, expected) = (try await reopened.load(), await model.load())
            stored.outbox.sort { $0.id < $1.id }
            expected.outbox.sort { $0.id < $1.id }
            #expect(stored == expected, "seed \(seed)")
            try reopened.close()
        }
    }

    @Test("only the owner may read the files, and only one process at a time")
    func permissions() async throws {
        let directory = try TemporaryFolder()
        let path = directory.file("sub/client.sqlite")
        let storage = try SQLiteClientStorage(path: path)
        try await storage.apply([.resumeTicket(StoredSecret(bytes: [1], expiry: 2))])
        for name in try FileManager.default.contentsOfDirectory(atPath: directory.file("sub")) {
            let mode = try FileManager.default.attributesOfItem(atPath: directory.file("sub/\(name)"))[
                .posixPermissions]
            #expect(mode as? Int == 0o600, "\(name)")
        }
        let error = #expect(throws: ClientError.self) { try SQLiteClientStorage(path: path) }
        #expect(error?.code == .storageInUse)
        try storage.close()
        try SQLiteClientStorage(path: path).close()
    }

    @Test("a file that is no database is told by name")
    func damaged() throws {
        let directory = try TemporaryFolder()
        let path = directory.file("client.sqlite")
        try Data(repeating: 0x55, count: 8192).write(to: URL(fileURLWithPath: path))
        let error = #expect(throws: ClientError.self) { try SQLiteClientStorage(path: path) }
        #expect(error?.code == .storage)
        #expect(throws: ClientError.self) { try SQLiteClientStorage(path: "/proc/none/client.sqlite") }
    }

    @Test("a folder in the file's place is told by name, and who may look into it stays as it was")
    func folderInItsPlace() throws {
        let directory = try TemporaryFolder()
        let path = directory.file("home")
        try FileManager.default.createDirectory(
            atPath: path, withIntermediateDirectories: false, attributes: [.posixPermissions: 0o755])
        let error = #expect(throws: ClientError.self) { try SQLiteClientStorage(path: path) }
        #expect(error?.code == .storage)
        #expect(error?.message.contains("\(path) is there, and is no file") == true)
        #expect(try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int == 0o755)
    }

    @Test("a write that failed goes under what came since, without its inserts")
    func restored() throws {
        let channel = ChannelID.room(try RoomID("a"))
        var failed = PendingWrites()
        failed.inserts = [1, 2]
        failed.removes = [9]
        failed.cursors[channel] = Position(epoch: 1, offset: 1)
        failed.connectNumber = 64
        var pending = PendingWrites()
        pending.inserts = [3]
        pending.cursors[channel] = Position(epoch: 1, offset: 2)
        pending.restore(failed)
        #expect(pending.inserts == [3] && pending.removes == [9] && pending.connectNumber == 64)
        #expect(pending.cursors[channel]?.offset == 2)
    }
}
