import LonglineSession
import Testing

@Suite("The queue that keeps the newest")
struct LatestQueueTests {
    @Test("A newer element stands where the older one stood")
    func replaces() {
        var queue = LatestQueue<String, Int>(limit: 3)
        let dropped = [(1, "a"), (2, "b"), (3, "a")].map { queue.put($0.0, for: $0.1) }
        #expect(dropped == [0, 0, 1] && queue.count == 2)
        let taken = (0..<3).map { _ in queue.popFirst()?.element }
        #expect(taken == [3, 2, nil] && queue.isEmpty)
    }

    @Test("Beyond the limit the longest waiting goes")
    func bounded() {
        var queue = LatestQueue<Int, Int>(limit: 3)
        let dropped = (0..<10).map { queue.put($0, for: $0) }
        #expect(dropped == [0, 0, 0, 1, 1, 1, 1, 1, 1, 1])
        let all = queue.takeAll()
        #expect(all == [7, 8, 9] && queue.isEmpty)
        queue.put(1, for: 1)
        let later = queue.takeAll()
        #expect(later == [1])
    }

    @Test("What is removed makes room, and the rest keeps its order")
    func removes() {
        var queue = LatestQueue<Int, Int>(limit: 3)
        for key in 0..<3 { queue.put(key, for: key) }
        queue.remove([1, 7])
        let dropped = [3, 1].map { queue.put($0, for: $0) }
        #expect(dropped == [0, 1])
        let all = queue.takeAll()
        #expect(all == [2, 3, 1] && queue.isEmpty)
    }
}
