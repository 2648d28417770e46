import LonglineStore
import LonglineWire
import NIOCore
import Testing

@Suite struct ReadConformanceTests {
    @Test("offsets are sparse per channel, and each entry names the one before", arguments: StoreKind.allCases)
    func offsetsAreSparsePerChannelAndEachEntryNamesTheOneBefore(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            for id in 1...6 as ClosedRange<PublishID> {
                try await store.enter(request("alice", id: id, "a\(id)"))
                try await store.enter(request("bob", id: id, "b\(id)"))
            }
            let items = try await store.all(inbox("alice"), pageBytes: 3)
            #expect(items.map(\.text) == ["a1", "a2", "a3", "a4", "a5", "a6"])
            #expect(items.first?.previous == 0)
            let head = try await store.head(of: inbox("alice"))
            #expect(head?.position.offset == items.last?.end)
            #expect(head?.first == 0)
        }
    }

    @Test("a page has at least one item and no more than its bytes beyond", arguments: StoreKind.allCases)
    func aPageHasAtLeastOneItemAndNoMoreThanItsBytesBeyond(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            for id in 1...5 as ClosedRange<PublishID> { try await store.enter(request(id: id, "0123456789")) }
            func count(_ bytes: Int) async throws -> Int {
                try await store.read(inbox("alice"), after: 0, upTo: nil, maximumBytes: bytes, now: 0).items.count
            }
            #expect(try await count(0) == 1)
            #expect(try await count(9) == 1)
            #expect(try await count(20) == 2)
            #expect(try await count(29) == 2)
            #expect(try await count(1_000) == 5)
        }
    }

    @Test("empty payloads don't make a page endless", arguments: StoreKind.allCases)
    func emptyPayloadsDontMakeAPageEndless(_ kind: StoreKind) async throws {
        var limits = StoreLimits()
        limits.pageEntries = 10
        try await withStore(kind, limits: limits) { store async throws in
            for id in 1...25 as ClosedRange<PublishID> { try await store.enter(request(id: id, "")) }
            let page = try await store.read(inbox("alice"), after: 0, upTo: nil, maximumBytes: 1, now: 0)
            #expect(page.items.count == 10)
            #expect(try await store.all(inbox("alice")).count == 25)
        }
    }

    @Test("expired entries become skips, and the chain holds", arguments: StoreKind.allCases)
    func expiredEntriesBecomeSkipsAndTheChainHolds(_ kind: StoreKind) async throws {
        let clock = TestClock()
        try await withStore(kind, clock: clock) { store async throws in
            for id in 1...6 as ClosedRange<PublishID> {
                try await store.enter(request(id: id, timeToLive: [2, 3, 6].contains(id) ? 100 : 0, "\(id)"))
            }
            let before = try await store.all(inbox("alice"), now: clock.now + 99)
            #expect(before.map(\.text) == ["1", "2", "3", "4", "5", "6"])
            let after = try await store.all(inbox("alice"), now: clock.now + 100)
            #expect(after.map(\.text) == ["1", "<expired>", "4", "5", "<expired>"])
            #expect(after[1].end == before[2].end)
            #expect(after.last?.end == before.last?.end)
        }
    }

    @Test("a time to live that overflows means for ever", arguments: StoreKind.allCases)
    func aTimeToLiveThatOverflowsMeansForEver(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            try await store.enter(request(id: 1, timeToLive: .max))
            #expect(try await store.all(inbox("alice"), now: FrameLimits.maximumNumber).map(\.text) == ["hello"])
        }
    }

    @Test("reading stops at the entitlement's end", arguments: StoreKind.allCases)
    func readingStopsAtTheEntitlementsEnd(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            var offsets: [Offset] = []
            for id in 1...5 as ClosedRange<PublishID> {
                offsets.append(try await store.enter(request(id: id, "\(id)")).position.offset)
            }
            #expect(try await store.all(inbox("alice"), after: offsets[0], upTo: offsets[2]).map(\.text) == ["2", "3"])
            #expect(try await store.all(inbox("alice"), after: offsets[2], upTo: offsets[2]).isEmpty)
            #expect(try await store.all(inbox("alice"), after: offsets[4] + 1_000).isEmpty)
        }
    }

    @Test("an inbox is there on first sight, and a room isn't", arguments: StoreKind.allCases)
    func anInboxIsThereOnFirstSightAndARoomIsnt(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            let page = try await store.read(inbox("new"), after: 0, upTo: nil, maximumBytes: 10, now: 0)
            #expect(page.items.isEmpty && page.head == 0 && page.epoch != 0)
            #expect(try await store.head(of: inbox("new"))?.position == Position(epoch: page.epoch, offset: 0))
            #expect(try await store.head(of: inbox("other"))?.position.epoch != page.epoch)
            #expect(try await store.head(of: roomKey("none")) == nil)
            let error = await #expect(throws: StoreError.self) {
                try await store.read(roomKey("none"), after: 0, upTo: nil, maximumBytes: 10, now: 0)
            }
            #expect(error?.code == .unknownChannel)
        }
    }

    @Test("trimming by number, bytes and age reports the first entry left", arguments: StoreKind.allCases)
    func trimmingByNumberBytesAndAgeReportsTheFirstEntryLeft(_ kind: StoreKind) async throws {
        let clock = TestClock()
        try await withStore(kind, clock: clock) { store async throws in
            var offsets: [Offset] = []
            for id in 1...10 as ClosedRange<PublishID> {
                offsets.append(try await store.enter(request(id: id, "0123456789")).position.offset)
                clock.advance(10)
            }
            let key = inbox("alice")
            #expect(try await store.trim(key, keep: Retention(entries: 8)).more == false)
            #expect(try await store.head(of: key)?.first == offsets[1])
            #expect(try await store.all(key).map(\.previous).first == offsets[1])
            #expect(try await store.trim(key, keep: Retention(bytes: 65)).more == false)
            #expect(try await store.all(key).count == 6)
            #expect(try await store.trim(key, keep: Retention(age: 30)).more == false)
            let page = try await store.read(key, after: 0, upTo: nil, maximumBytes: 1_000, now: 0)
            #expect(page.items.count == 3)
            #expect(page.first == offsets[6])
            #expect(page.head == offsets[9])
            #expect(try await store.trim(key, keep: Retention(entries: 0)).more == false)
            #expect(try await store.head(of: key)?.first == offsets[9])
            #expect(try await store.all(key).isEmpty)
            // The next entry follows the trimmed ones, and what was acknowledged stays acknowledged.
            #expect(try await store.append(request(id: 4, "0123456789")).published?.position.offset == offsets[3])
            let next = try await store.enter(request(id: 11, "after"))
            #expect(next.position.offset > offsets[9])
            #expect(try await store.all(key).map(\.previous) == [offsets[9]])
            #expect(try await store.append(request(id: 99, after: 98)).refused?.lastID == 11)
        }
    }

    @Test("a long trim goes in steps", arguments: StoreKind.allCases)
    func aLongTrimGoesInSteps(_ kind: StoreKind) async throws {
        var limits = StoreLimits()
        limits.trimEntries = 3
        try await withStore(kind, limits: limits) { store async throws in
            _ = await store.append((1...8 as ClosedRange<PublishID>).map { request(id: $0, "\($0)") })
            let keep = Retention(entries: 1)
            #expect(try await store.trim(inbox("alice"), keep: keep).more == true)
            #expect(try await store.trim(inbox("alice"), keep: keep).more == true)
            #expect(try await store.trim(inbox("alice"), keep: keep).more == false)
            #expect(try await store.all(inbox("alice")).map(\.text) == ["8"])
            #expect(try await store.trim(roomKey("none"), keep: keep).more == false)
        }
    }
}
