import BenchmarkHarness
import Foundation
import LonglineWire
import NIOCore

/// What a device missed in a room where four users wrote: sentences of this project's own pages, none twice.
struct CatchUp {
    let runs: [[Frame]]
    let batches: [Batch]
    /// Bytes of the frames, and of the batches they become.
    let plain: Int
    let compressed: Int

    var frames: Int { runs.reduce(0) { $0 + $1.count } }

    init(messages: Int) throws {
        let sentences = try Self.sentences()
        precondition(sentences.count >= messages, "the pages have \(sentences.count) sentences")
        let users = try ["alice", "bob", "carol", "dave"].map { try UserID($0) }
        let device = try DeviceID("phone")
        let frames = sentences.prefix(messages).enumerated().map { index, sentence -> Frame in
            let offset = 1_000_000 + UInt64(index) * 3
            // A conversation: one says a few things, then another.
            let who = (index / 3 &+ index / 7) % users.count
            let entry = Entry(
                offset: offset, previous: offset - 3, kind: .message, sender: users[who], device: device,
                producer: ProducerID(high: 0x9e37_79b9_7f4a_7c15 &* UInt64(who + 1), low: 0xbf58_476d_1ce4_e5b9),
                publishID: UInt64(index + 1), recipient: nil, origin: nil,
                time: 1_767_225_600_000 + UInt64(index) * 8_123, expiry: 0, payload: ByteBuffer(string: sentence))
            return .deliver(Deliver(entry: entry, redelivered: false))
        }
        runs = stride(from: 0, to: frames.count, by: 150).map { Array(frames[$0..<min($0 + 150, frames.count)]) }
        batches = runs.compactMap { Batch(of: $0) }
        precondition(batches.count == runs.count, "a run that does not shrink")
        plain = try frames.reduce(0) { $0 + (try FrameEncoder.encodedSize($1)) }
        compressed = try batches.reduce(0) { $0 + (try FrameEncoder.encodedSize(.batch($1))) }
    }

    /// Sentences of a chat message's length.
    private static func sentences() throws -> [String] {
        let docs = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../../../docs").standardized
        return try ["protocol.md", "server.md", "client.md"].flatMap { name in
            try String(contentsOf: docs.appending(path: name), encoding: .utf8)
                .replacing("\n", with: " ").split(separator: ". ").map(String.init)
        }.filter { (20...200).contains($0.utf8.count) && !$0.contains("|") }
    }
}
