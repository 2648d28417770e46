import LonglineTestKit
import LonglineWire
import NIOCore
import Testing

@testable import LonglineStore

@Suite struct TailCacheTests {
    @Test("a page out of the cache is the page out of the database") func aPageOutOfTheCacheIsThePageOutOfTheDatabase()
        async throws
    {
        let folder = try TemporaryFolder()
        let clock = TestClock()
        var settings = configuration(folder.path)
        settings.limits.pageEntries = 7
        let store = try SQLiteStore(settings, clock: clock.read, random: SeededRandom(seed: 1))
        var random = SeededRandom(seed: 5)
        var next: [Int: PublishID] = [:]
        // Long enough that channels outgrow the cache's share of them.
        for step in 0..<150 {
            let batch = (0..<20).map { index in
                let sender = Int(random.next() % 3)
                next[sender, default: 0] += 1
                return request(
                    "user\(sender)", id: next[sender, default: 0], timeToLive: random.next() % 3 * 100,
                    "\(step) \(index)")
            }
            #expect(!(await store.append(batch)).map(\.isEntered).contains(false))
            clock.advance(2)
            if random.happens(0.05) {
                let keep = Retention(entries: 200 + Int(random.next() % 200))
                _ = try await store.trim(inbox("user\(step % 3)"), keep: keep)
            }
        }
        for sender in 0..<3 {
            let key = inbox("user\(sender)")
            let head = try #require(try await store.head(of: key))
            var pages = 0
            for after in 0...head.position.offset {
                let cached = store.cache.page(
                    key, after: after, upTo: nil, maximumBytes: 20, maximumEntries: 7, now: clock.now)
                guard let cached else { continue }
                pages += 1
                let stored = try await store.readUncached(key, after: after, maximumBytes: 20, now: clock.now)
                #expect(cached.items == stored.items && cached.first == stored.first && cached.head == stored.head)
            }
            #expect(pages > 0 && pages < Int(head.position.offset))
        }
        try await store.close()
    }

    @Test("the cache is bounded, whatever is written") func theCacheIsBoundedWhateverIsWritten() async throws {
        let folder = try TemporaryFolder()
        var settings = configuration(folder.path)
        settings.tailCacheBytes = 100_000
        let store = try SQLiteStore(settings, random: SeededRandom(seed: 1))
        let text = String(repeating: "x", count: 1_000)
        for index in 0..<40 {
            _ = await store.append((1...10 as ClosedRange<PublishID>).map { request("user\(index)", id: $0, text) })
            #expect(store.cache.bytes <= 120_000)
        }
        for index in 0..<40 { #expect(try await store.all(inbox("user\(index)")).count == 10) }
        #expect(
            store.cache.page(inbox("user0"), after: 0, upTo: nil, maximumBytes: 1, maximumEntries: 1, now: 0) == nil)
        try await store.close()
    }

    @Test("a channel that was trimmed empty leaves nothing in the cache, and is read on")
    func aChannelThatWasTrimmedEmptyLeavesNothing() async throws {
        let folder = try TemporaryFolder()
        let store = try SQLiteStore(configuration(folder.path), random: SeededRandom(seed: 1))
        for index in 0..<10 { try await store.enter(request("user\(index)", id: 1)) }
        #expect(store.cache.channelCount == 10)
        for index in 0..<10 { _ = try await store.trim(inbox("user\(index)"), keep: Retention(entries: 0)) }
        #expect(store.cache.channelCount == 0 && store.cache.bytes == 0)
        let head = try #require(try await store.head(of: inbox("user0")))
        #expect(head.first == head.position.offset && head.first > 0)
        #expect(try await store.all(inbox("user0"), after: head.first).isEmpty)
        try await store.enter(request("user0", id: 2, "more"))
        #expect(store.cache.channelCount == 1)
        #expect(try await store.all(inbox("user0"), after: head.first).map(\.text) == ["more"])
        try await store.close()
    }

    @Test("a long channel keeps its tail only, and reads on from the database")
    func aLongChannelKeepsItsTailOnlyAndReadsOnFromTheDatabase() async throws {
        let folder = try TemporaryFolder()
        let store = try SQLiteStore(configuration(folder.path), random: SeededRandom(seed: 1))
        for start in stride(from: 0 as PublishID, to: 1_000, by: 100) {
            _ = await store.append((1...100 as ClosedRange<PublishID>).map { request(id: start + $0, "\(start + $0)") })
        }
        #expect(try await store.all(inbox("alice"), pageBytes: 100).map(\.text) == (1...1_000).map { "\($0)" })
        try await store.close()
    }
}
