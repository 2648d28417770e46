import LonglineStore
import LonglineWire
import Testing

@Suite struct HistoryConformanceTests {
    private func older(
        _ store: AnyStore, _ channel: ChannelKey, before: Offset? = nil, after: Offset = 0, entries: Int = 100,
        bytes: Int = 1_000_000, now: UInt64 = 0
    ) async throws -> LogPage {
        let range = LogRange(
            after: after, upTo: before.map { $0 - 1 }, direction: .older, maximumEntries: entries, maximumBytes: bytes)
        return try await store.page(channel, range, now: now)
    }

    private func newer(
        _ store: AnyStore, _ channel: ChannelKey, after: Offset = 0, upTo: Offset? = nil, entries: Int = 100,
        bytes: Int = 1_000_000, now: UInt64 = 0
    ) async throws -> LogPage {
        let range = LogRange(
            after: after, upTo: upTo, direction: .newer, maximumEntries: entries, maximumBytes: bytes)
        return try await store.page(channel, range, now: now)
    }

    /// Enters "1", "2", … and answers their offsets; others' entries lie between.
    private func fill(_ store: AnyStore, _ count: UInt64, lifetime: (UInt64) -> UInt64 = { _ in 0 }) async throws
        -> [Offset]
    {
        var offsets: [Offset] = []
        for id in 1...count {
            offsets.append(try await store.enter(request(id: id, timeToLive: lifetime(id), "\(id)")).position.offset)
            try await store.enter(request("bob", id: id))
        }
        return offsets
    }

    @Test("pages back hold the newest entries below a place, in the log's order", arguments: StoreKind.allCases)
    func pagesBackHoldTheNewestEntriesBelowAPlace(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            let offsets = try await fill(store, 10)
            let last = try await older(store, inbox("alice"), entries: 4)
            #expect(last.items.map(\.text) == ["7", "8", "9", "10"])
            #expect(last.items.first?.previous == offsets[5] && last.head == offsets[9])
            let before = try await older(store, inbox("alice"), before: offsets[5] + 1, entries: 4)
            #expect(before.items.map(\.text) == ["3", "4", "5", "6"])
            let first = try await older(store, inbox("alice"), before: offsets[2], entries: 4)
            #expect(first.items.map(\.text) == ["1", "2"])
            #expect(first.items.first?.previous == 0)
            #expect(try await older(store, inbox("alice"), before: offsets[0]).items.isEmpty)
        }
    }

    @Test("a page of a room tells the reader's stay as it is then", arguments: StoreKind.allCases)
    func pagesTellTheReadersStay(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            let hall = room("hall")
            func stay(of user: UserID?, _ direction: HistoryDirection = .older) async throws -> Entitlement? {
                let range = LogRange(
                    after: 0, upTo: nil, direction: direction, maximumEntries: 1, maximumBytes: 1_000, reader: user)
                return try await store.page(roomKey("hall"), range, now: 0).stay
            }
            try await store.join(hall, by: device("alice"), create: true)
            let joined = try #require(try await store.join(hall, by: device("bob"), create: false)).offset
            #expect(try await stay(of: nil) == nil)
            #expect(try await stay(of: user("carol")) == nil)
            let lasting = try #require(try await stay(of: user("bob")))
            #expect(lasting.after == joined - 1 && lasting.upTo == nil)
            let removed = try await store.act(hall, .remove(user("bob")), by: device("alice")).receipt
            let end = try #require(removed).position.offset
            try await store.enter(request("alice", to: .room(hall), id: 1))
            for direction in [HistoryDirection.older, .newer] {
                #expect(try await stay(of: user("bob"), direction)?.upTo == end)
            }
            let again = try #require(try await store.join(hall, by: device("bob"), create: false)).offset
            #expect(try await stay(of: user("bob"))?.after == again - 1)
            let deleted = try await store.act(hall, .delete, by: device("alice")).receipt
            #expect(try await stay(of: user("bob"))?.upTo == deleted?.position.offset)
        }
    }

    @Test("pages in both directions cover the log once, whatever their size", arguments: StoreKind.allCases)
    func pagesInBothDirectionsCoverTheLogOnce(_ kind: StoreKind) async throws {
        let clock = TestClock()
        try await withStore(kind, clock: clock) { store async throws in
            _ = try await fill(store, 30) { [4, 5, 6, 17, 30].contains($0) ? 10 : 0 }
            let now = clock.now + 10
            let whole = try await store.all(inbox("alice"), now: now)
            for entries in [1, 2, 3, 7, 50] {
                var back: [LogItem] = []
                var before: Offset?
                while true {
                    let page = try await older(store, inbox("alice"), before: before, entries: entries, now: now)
                    guard let first = page.items.first else { break }
                    #expect(page.items.count { $0.entry != nil } <= entries)
                    back = page.items + back
                    before = first.previous + 1
                }
                var forth: [LogItem] = []
                while true {
                    let page = try await newer(
                        store, inbox("alice"), after: forth.last?.end ?? 0, entries: entries, now: now)
                    guard !page.items.isEmpty else { break }
                    #expect(page.items.count { $0.entry != nil } <= entries)
                    forth += page.items
                }
                for items in [back, forth] {
                    #expect(items.compactMap(\.entry) == whole.compactMap(\.entry), "pages of \(entries)")
                    #expect(items.first?.previous == 0 && items.last?.end == whole.last?.end)
                    for (item, next) in zip(items, items.dropFirst()) { #expect(item.end == next.previous) }
                }
            }
        }
    }

    @Test("a page back ends by its bytes, but has an entry", arguments: StoreKind.allCases)
    func aPageBackEndsByItsBytesButHasAnEntry(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            for id in 1...5 as ClosedRange<PublishID> { try await store.enter(request(id: id, "0123456789")) }
            for (bytes, count) in [(0, 1), (9, 1), (20, 2), (29, 2), (1_000, 5)] {
                #expect(try await older(store, inbox("alice"), bytes: bytes).items.count == count, "\(bytes) bytes")
                #expect(try await newer(store, inbox("alice"), bytes: bytes).items.count == count, "\(bytes) bytes")
            }
        }
    }

    @Test("a page back looks at a bounded number of entries", arguments: StoreKind.allCases)
    func aPageBackLooksAtABoundedNumberOfEntries(_ kind: StoreKind) async throws {
        var limits = StoreLimits()
        limits.pageEntries = 10
        let clock = TestClock()
        try await withStore(kind, limits: limits, clock: clock) { store async throws in
            let offsets = try await fill(store, 25) { $0 > 3 ? 10 : 0 }
            let page = try await older(store, inbox("alice"), now: clock.now + 10)
            #expect(page.items.map(\.text) == ["<expired>"])
            #expect(page.items.first?.previous == offsets[14])
        }
    }

    @Test("pages keep to both ends of the range", arguments: StoreKind.allCases)
    func pagesKeepToBothEndsOfTheRange(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            let offsets = try await fill(store, 10)
            let back = try await older(store, inbox("alice"), before: offsets[7] + 1, after: offsets[4])
            #expect(back.items.map(\.text) == ["6", "7", "8"])
            #expect(back.items.first?.previous == offsets[4])
            let forth = try await newer(store, inbox("alice"), after: offsets[4], upTo: offsets[7])
            #expect(forth.items == back.items)
            #expect(try await newer(store, inbox("alice"), after: offsets[7], upTo: offsets[7]).items.isEmpty)
            #expect(try await newer(store, inbox("alice"), after: offsets[9] + 50).items.isEmpty)
        }
    }

    @Test("what was trimmed is in no page, and the page says where the log begins", arguments: StoreKind.allCases)
    func whatWasTrimmedIsInNoPage(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            let offsets = try await fill(store, 10)
            _ = try await store.trim(inbox("alice"), keep: Retention(entries: 3))
            let back = try await older(store, inbox("alice"))
            #expect(back.items.map(\.text) == ["8", "9", "10"])
            #expect(back.first == offsets[6] && back.items.first?.previous == offsets[6])
            #expect(try await newer(store, inbox("alice")).items == back.items)
            #expect(try await older(store, inbox("alice"), before: offsets[4]).items.isEmpty)
        }
    }

    @Test(
        "an inbox that isn't has an empty page, which makes none, and a room that isn't has no page",
        arguments: StoreKind.allCases)
    func anInboxThatIsNotHasAnEmptyPage(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            for page in [try await older(store, inbox("new")), try await newer(store, inbox("new"))] {
                #expect(page.items.isEmpty && page.epoch == 0 && page.head == 0 && page.first == 0)
            }
            #expect(try await store.channels(after: 0, limit: 5).channels.isEmpty)
            let error = await #expect(throws: StoreError.self) { try await older(store, roomKey("none")) }
            #expect(error?.code == .unknownChannel)
        }
    }

    // MARK: The list of channels

    @Test("the list of channels has each once, page by page, with what it holds", arguments: StoreKind.allCases)
    func theListOfChannelsHasEachOnce(_ kind: StoreKind) async throws {
        let clock = TestClock()
        try await withStore(kind, clock: clock) { store async throws in
            #expect(try await store.channels(after: 0, limit: 5) == ChannelList(channels: [], next: nil))
            for index in 0..<7 { try await store.enter(request("user\(index)", id: 1, "0123456789")) }
            let first = clock.now
            clock.advance(50)
            try await store.enter(request("user3", id: 2, "more"))
            _ = try await store.join(room("hall"), by: device("user0"), create: true)
            _ = try await store.head(of: inbox("empty"))
            var all: [ChannelSummary] = []
            var mark: UInt64? = 0
            var pages = 0
            while let begin = mark {
                let page = try await store.channels(after: begin, limit: 4)
                #expect(page.channels.count <= 4)
                all += page.channels
                mark = page.next
                pages += 1
            }
            #expect(pages == 3)
            #expect(Set(all.map(\.key)).count == 9 && all.count == 9)
            let byKey = Dictionary(all.map { ($0.key, $0) }) { first, _ in first }
            #expect(
                byKey[inbox("user3")] == ChannelSummary(key: inbox("user3"), entries: 2, bytes: 14, oldest: first))
            #expect(byKey[roomKey("hall")]?.entries == 1 && byKey[roomKey("hall")]?.oldest == first + 50)
            let empty = ChannelSummary(key: inbox("empty"), entries: 0, bytes: 0, oldest: nil)
            #expect(byKey[inbox("empty")] == empty)
        }
    }

    @Test("a summary tells whether a trim would remove something", arguments: StoreKind.allCases)
    func aSummaryTellsWhetherATrimWouldRemoveSomething(_ kind: StoreKind) async throws {
        let clock = TestClock()
        try await withStore(kind, clock: clock) { store async throws in
            for id in 1...10 as ClosedRange<PublishID> {
                try await store.enter(request(id: id, "0123456789"))
                clock.advance(10)
            }
            for rule in [
                Retention(), Retention(entries: 10), Retention(entries: 9), Retention(bytes: 100), Retention(bytes: 99),
                Retention(age: 90), Retention(age: 80), Retention(age: 1_000, entries: 3),
            ] {
                let summary = try #require(try await store.channels(after: 0, limit: 1).channels.first)
                let expected = rule.removesSome(of: summary, now: clock.now)
                let report = try await store.trim(inbox("alice"), keep: rule)
                #expect((report.entries > 0) == expected, "\(rule)")
                #expect(report.bytes == 10 * report.entries)
            }
            #expect(try await store.all(inbox("alice")).count == 3)
        }
    }
}
