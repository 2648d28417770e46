import Foundation
import LonglineTestKit
import LonglineWire
import NIOCore
import Testing

@testable import LonglineStore

#if canImport(Glibc)
    import Glibc
#endif

@Suite struct KilledProcessTests {
    /// Large payloads make the log so long that it is moved into the database again and again, and starts anew.
    @Test(
        "what was acknowledged before a kill is there once, in order, with its ledger",
        arguments: [(bytes: 100, step: 120), (bytes: 8_000, step: 500)])
    func whatWasAcknowledgedBeforeAKillIsThereOnceInOrderWithItsLedger(_ load: (bytes: Int, step: Int)) async throws {
        // Each life has a store of its own, and ends at another place.
        for life in 1...3 {
            let folder = try TemporaryFolder()
            var acknowledged: [String: [PublishID: Offset]] = [:]
            for line in try await Self.run(folder.path, senders: 8, bytes: load.bytes, killAfter: load.step * life) {
                let parts = line.split(separator: " ")
                try #require(parts.count == 3, "\(line)")
                let id = try #require(PublishID(parts[1]))
                let offset = try #require(Offset(parts[2]))
                acknowledged[String(parts[0]), default: [:]][id] = offset
            }
            try await Self.check(folder.path, acknowledged)
        }
    }

    /// Runs the helper until it said `killAfter` lines, kills it, and returns all that it said.
    private static func run(_ path: String, senders: Int, bytes: Int, killAfter: Int) async throws -> [Substring] {
        let process = Process()
        process.executableURL = try HelperProgram.url("StoreCrashHelper")
        process.arguments = [path, "\(senders)", "\(bytes)"]
        let pipe = Pipe()
        process.standardOutput = pipe
        try process.run()
        let pid = process.processIdentifier
        return await withCheckedContinuation { continuation in
            DispatchQueue.global().async {
                var said = Data()
                var isKilled = false
                while true {
                    let more = pipe.fileHandleForReading.availableData
                    guard !more.isEmpty else { break }
                    said += more
                    if !isKilled, said.count(where: { $0 == UInt8(ascii: "\n") }) >= killAfter {
                        kill(pid, SIGKILL)
                        isKilled = true
                    }
                }
                process.waitUntilExit()
                continuation.resume(returning: String(decoding: said, as: UTF8.self).split(separator: "\n"))
            }
        }
    }

    private static func check(_ path: String, _ acknowledged: [String: [PublishID: Offset]]) async throws {
        let store = try SQLiteStore(configuration(path), random: SeededRandom(seed: 9))
        #expect(!store.wasRestored)
        #expect(!acknowledged.isEmpty)
        for (sender, entries) in acknowledged {
            let log = try await store.all(inbox(sender)).compactMap(\.entry)
            let records = log.filter { $0.sender == user(sender) && $0.origin == nil }
            // Every ID once, in order, without a hole; what was acknowledged stands where the answer said.
            #expect(records.map(\.publishID) == Array(1...PublishID(records.count)))
            for record in records {
                if let offset = entries[record.publishID] { #expect(record.offset == offset) }
            }
            let last = try #require(entries.keys.max())
            #expect(records.count >= Int(last))
            // Each record has its copy, and the client that sends the last one again gets the same answer.
            let recipient = try #require(records.first?.recipient)
            let copies = try await store.all(inbox(recipient.description)).compactMap(\.entry)
                .filter { $0.sender == user(sender) && $0.origin != nil }
            #expect(copies.map { $0.origin?.offset } == records.map(\.offset))
            let again = AppendRequest(
                device: device(sender), producer: ProducerID(high: 1, low: 1), channel: .user(user(sender)),
                publish: Publish(
                    id: last, tag: last, after: last - 1, recipient: recipient, timeToLive: 0, payload: ByteBuffer()))
            #expect(try await store.append(again).published?.position.offset == entries[last])
        }
        try await store.close()
    }
}
