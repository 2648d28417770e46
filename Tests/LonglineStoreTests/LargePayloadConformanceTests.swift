import GRDB
import LonglineTestKit
import LonglineWire
import NIOCore
import Testing

@testable import LonglineStore

@Suite("Large payloads in a store") struct LargePayloadConformanceTests {
    /// Bytes that tell their place.
    private func bytes(_ count: Int) -> ByteBuffer {
        ByteBuffer(bytes: (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 / 7) })
    }

    private func large(
        _ sender: String = "alice", to channel: ChannelID? = nil, recipient: String? = nil, id: PublishID, _ count: Int
    ) -> AppendRequest {
        var request = request(sender, to: channel, recipient: recipient, id: id)
        request.publish.payload = bytes(count)
        return request
    }

    /// An entry's whole payload, its head out of a page and the rest read on in steps.
    private func payload(_ entry: Entry, in channel: ChannelKey, of store: AnyStore, step: Int) async throws
        -> ByteBuffer
    {
        var whole = entry.payload
        while whole.readableBytes < entry.length {
            let next = try await store.payload(
                of: entry.offset, in: channel, from: UInt64(whole.readableBytes), maximumBytes: step)
            let bytes = try #require(next)
            try #require((1...step).contains(bytes.readableBytes))
            whole.writeImmutableBuffer(bytes)
        }
        return whole
    }

    @Test("a page holds the head, and the rest is read on", arguments: StoreKind.allCases, [10_000, 61_440, 1_000_000])
    func aPageHoldsTheHeadAndTheRestIsReadOn(_ kind: StoreKind, _ step: Int) async throws {
        try await withStore(kind) { store async throws in
            let lengths = [100, 15_360, 15_361, 76_800, 76_801, 300_000]
            for (index, length) in lengths.enumerated() {
                try await store.enter(large(id: PublishID(index) + 1, length))
            }
            let entries = try await store.all(inbox("alice")).compactMap(\.entry)
            #expect(entries.map { Int($0.length) } == lengths)
            #expect(entries.allSatisfy { $0.payload.readableBytes <= 15_360 })
            for (entry, length) in zip(entries, lengths) {
                #expect(try await payload(entry, in: inbox("alice"), of: store, step: step) == bytes(length))
            }
            let last = try #require(entries.last)
            // From within the head as well, and nothing behind the end.
            let early = try await store.payload(of: last.offset, in: inbox("alice"), from: 15_000, maximumBytes: 100)
            #expect(early == bytes(15_100).getSlice(at: 15_000, length: 100))
            #expect(try await store.payload(of: last.offset, in: inbox("alice"), from: 300_000, maximumBytes: 9) == nil)
            #expect(try await store.payload(of: last.offset + 1, in: inbox("alice"), from: 0, maximumBytes: 9) == nil)
            #expect(try await store.payload(of: last.offset, in: inbox("bob"), from: 0, maximumBytes: 9) == nil)
        }
    }

    @Test("an entry with a large payload is alone in its page", arguments: StoreKind.allCases)
    func anEntryWithALargePayloadIsAloneInItsPage(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            // Of these one has room for others beside it, by its bytes.
            let lengths: [(PublishID, Int)] = [
                (1, 10), (2, 100_000), (3, 10), (4, 10), (5, 20_000), (6, 10), (7, 15_360),
            ]
            for (id, length) in lengths {
                try await store.enter(large(id: id, length))
            }
            func counts(_ direction: HistoryDirection?) async throws -> [Int] {
                var counts: [Int] = []
                var (after, upTo) = (Offset(0), Offset.max)
                while true {
                    let page: LogPage
                    if let direction {
                        let range = LogRange(
                            after: after, upTo: upTo == .max ? nil : upTo, direction: direction, maximumEntries: 100,
                            maximumBytes: 65_536)
                        page = try await store.page(inbox("alice"), range, now: 0)
                    } else {
                        page = try await store.read(
                            inbox("alice"), after: after, upTo: nil, maximumBytes: 65_536, now: 0)
                    }
                    guard let first = page.items.first, let last = page.items.last else { return counts }
                    counts.append(page.items.count)
                    if direction == .older { upTo = first.previous } else { after = last.end }
                    if upTo == 0 { return counts }
                }
            }
            #expect(try await counts(nil) == [1, 1, 2, 1, 2])
            #expect(try await counts(.newer) == [1, 1, 2, 1, 2])
            #expect(try await counts(.older) == [2, 1, 2, 1, 1])
        }
    }

    @Test("a large payload whose time is over is passed over, from either end", arguments: StoreKind.allCases)
    func aLargePayloadWhoseTimeIsOverIsPassedOver(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            var short = large(id: 1, 200_000)
            short.publish.timeToLive = 100
            let time = try await store.enter(short).time
            try await store.enter(large(id: 2, 100_000))
            for (now, lengths) in [(time, [200_000, 100_000]), (time + 100, [nil, 100_000])] as [(UInt64, [UInt64?])] {
                var items: [LogItem] = []
                while items.count < 2 {
                    let after = items.last?.end ?? 0
                    items += try await store.read(
                        inbox("alice"), after: after, upTo: nil, maximumBytes: 65_536, now: now
                    ).items
                }
                #expect(items.map(\.entry?.length) == lengths)
                let range = LogRange(
                    after: 0, upTo: items.first?.end, direction: .older, maximumEntries: 10, maximumBytes: 65_536)
                #expect(
                    try await store.page(inbox("alice"), range, now: now).items.map(\.entry?.length) == [lengths[0]])
            }
        }
    }

    @Test(
        "bytes of a large payload count in full for retention, and the ledger knows it", arguments: StoreKind.allCases)
    func bytesCountInFull(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            let first = try await store.enter(large(id: 1, 200_000))
            #expect(try await store.append(large(id: 1, 200_000)) == .duplicate(first))
            try await store.enter(large(id: 2, 200_000))
            try await store.enter(large(id: 3, 10))
            let report = try await store.trim(inbox("alice"), keep: Retention(bytes: 250_000))
            #expect(report.entries == 1 && report.bytes == 200_000)
            #expect(try await store.all(inbox("alice")).compactMap(\.entry).map(\.length) == [200_000, 10])
            let gone = try await store.payload(
                of: first.position.offset, in: inbox("alice"), from: 100_000, maximumBytes: 10)
            #expect(gone == nil)
        }
    }

    @Test("a payload over the store's limit is refused", arguments: StoreKind.allCases)
    func aPayloadOverTheLimitIsRefused(_ kind: StoreKind) async throws {
        var limits = StoreLimits()
        limits.maximumPayload = 100_000
        try await withStore(kind, limits: limits) { store async throws in
            #expect(try await store.append(large(id: 1, 100_001)).refused?.code == .payloadTooLarge)
            var torn = request(id: 1)
            torn.publish.following = 5
            #expect(try await store.append(torn).refused?.code == .payloadTooLarge, "half of a payload")
            try await store.enter(large(id: 1, 100_000))
        }
    }

    @Test("a retraction leaves nothing of a large message and its large edits", arguments: StoreKind.allCases)
    func aRetractionLeavesNothing(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            let sent = try await store.append(large(recipient: "bob", id: 1, 200_000))
            let copy = try #require(sent.copy)
            let message = try #require(sent.published).position
            var edit = large(recipient: "bob", id: 2, 100_000)
            edit.publish.kind = .edit(message)
            try await store.enter(edit)
            let (edited, other) = (try await store.all(inbox("bob")), inbox("bob"))
            let copyOfEdit = try #require(edited.compactMap(\.entry).last)
            #expect(copyOfEdit.kind == .edited)
            #expect(try await payload(copyOfEdit, in: other, of: store, step: 50_000) == bytes(100_000))
            var retraction = request(recipient: "bob", id: 3, "")
            retraction.publish.kind = .retract(message)
            try await store.enter(retraction)
            for name in ["alice", "bob"] {
                let entries = try await store.all(inbox(name)).compactMap(\.entry)
                #expect(entries.map(\.kind) == [.retracted] && entries.allSatisfy { $0.length == 0 })
            }
            for (channel, offset) in [
                (inbox("alice"), message.offset), (inbox("bob"), copy.position.offset), (other, copyOfEdit.offset),
            ] {
                for from in [0, 20_000] as [UInt64] {
                    let rest = try await store.payload(of: offset, in: channel, from: from, maximumBytes: 100)
                    #expect(rest == nil)
                }
            }
            // What a trim gives back is what is there.
            let report = try await store.trim(inbox("bob"), keep: Retention(entries: 0))
            #expect(report.bytes == 0)
        }
    }

    @Test("the parts of a retracted message go when neither of its two entries names them")
    func thePartsOfARetractedMessageGo() async throws {
        let folder = try TemporaryFolder()
        let store = try SQLiteStore(configuration(folder.path))
        let message = try await store.enter(large(recipient: "bob", id: 1, 200_000)).position
        try await store.enter(large(recipient: "bob", id: 2, 100_000))
        var retraction = request(recipient: "bob", id: 3, "")
        retraction.publish.kind = .retract(message)
        try await store.enter(retraction)
        let other = try #require(try await store.all(inbox("bob")).compactMap(\.entry).first)
        #expect(try await payload(other, in: inbox("bob"), of: store, step: 50_000) == bytes(100_000))
        try await store.close()
        let kept = try await DatabaseQueue(path: folder.path + "/longline.db").read { db in
            try Int.fetchOne(db, sql: "SELECT sum(length(data)) FROM parts")
        }
        #expect(kept == 100_000 - 15_360)
    }

    @Test("a direct message's payload is kept once, for as long as one of the two entries is there")
    func aDirectMessagesPayloadIsKeptOnce() async throws {
        let folder = try TemporaryFolder()
        func parts() throws -> (rows: Int, bytes: Int) {
            try DatabaseQueue(path: folder.path + "/longline.db").read { db in
                let row = try Row.fetchOne(db, sql: "SELECT count(*), coalesce(sum(length(data)), 0) FROM parts")
                return (row?[0] ?? 0, row?[1] ?? 0)
            }
        }
        func open() throws -> SQLiteStore { try SQLiteStore(configuration(folder.path)) }
        var store = try open()
        let outcome = try await store.append(large(recipient: "bob", id: 1, 200_000))
        let copy = try #require(outcome.copy)
        try await store.close()
        #expect(try parts() == (4, 200_000 - 15_360))
        // The copy is whole without its record.
        store = try open()
        _ = try await store.trim(inbox("alice"), keep: Retention(entries: 0))
        let entry = try #require(try await store.all(inbox("bob")).first?.entry)
        #expect(entry.offset == copy.position.offset)
        #expect(try await payload(entry, in: inbox("bob"), of: store, step: 50_000) == bytes(200_000))
        try await store.close()
        #expect(try parts().rows == 4)
        store = try open()
        _ = try await store.trim(inbox("bob"), keep: Retention(entries: 0))
        try await store.close()
        #expect(try parts() == (0, 0))
        // And the record without its copy; an erased account takes its own away.
        store = try open()
        try await store.enter(large(recipient: "bob", id: 2, 100_000))
        _ = try await store.trim(inbox("bob"), keep: Retention(entries: 0))
        let record = try #require(try await store.all(inbox("alice")).first?.entry)
        #expect(try await payload(record, in: inbox("alice"), of: store, step: 50_000) == bytes(100_000))
        while try await !store.erase(user: user("alice"), in: tenant).isDone {}
        try await store.close()
        #expect(try parts().rows == 0)
    }
}
