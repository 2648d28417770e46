import LonglineSession
import Synchronization

/// Tells any number of readers of the newest value of each key: a reader that lags finds the last one, not all.
///
/// Bounded for each reader by so many keys; the longest waiting is dropped beyond.
final class LatestBroadcast<Key: Hashable & Sendable, Element: Sendable>: Sendable {
    private struct Weak { weak var reader: Reader? }

    private struct State {
        var readers: [ObjectIdentifier: Weak] = [:]
        var isFinished = false
    }

    private let state = Mutex(State())
    private let limit: Int

    init(limit: Int) { self.limit = limit }

    func send(_ element: Element, for key: Key) {
        for reader in readers { reader.put(element, for: key) }
    }

    /// A sequence of its own for each caller.
    /// - Parameters:
    ///   - first: what a reader finds at once.
    ///   - isCurrent: asked when a value is about to be read; what is not is passed over.
    func stream(
        first: [(Key, Element)] = [], isCurrent: @escaping @Sendable (Element) -> Bool = { _ in true }
    ) -> AsyncStream<Element> {
        let reader = Reader(owner: self, limit: limit)
        for (key, element) in first { reader.put(element, for: key) }
        let isOver = state.withLock { state in
            state.readers[ObjectIdentifier(reader)] = Weak(reader: reader)
            return state.isFinished
        }
        if isOver { reader.finish() }
        return AsyncStream(
            unfolding: { await reader.next(isCurrent) },
            // Whoever else reads this very sequence reads no more then, as of any AsyncStream: it need not wait for that.
            onCancel: { [weak reader] in reader?.endWaits() })
    }

    /// Ends every sequence, behind what waits in it.
    func finish() {
        state.withLock { $0.isFinished = true }
        for reader in readers { reader.finish() }
    }

    private var readers: [Reader] { state.withLock { $0.readers.values.compactMap(\.reader) } }

    private func remove(_ reader: ObjectIdentifier) { state.withLock { $0.readers[reader] = nil } }

    /// One reader's queue. It goes with the reader's sequence.
    final class Reader: Sendable {
        private struct Waiting {
            var queue: LatestQueue<Key, Element>
            var isFinished = false
        }

        private let owner: LatestBroadcast
        private let waiting: Mutex<Waiting>
        private let wakes: AsyncStream<Void>
        private let wake: AsyncStream<Void>.Continuation

        init(owner: LatestBroadcast, limit: Int) {
            self.owner = owner
            waiting = Mutex(Waiting(queue: LatestQueue(limit: limit)))
            (wakes, wake) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
        }

        deinit { owner.remove(ObjectIdentifier(self)) }

        func put(_ element: Element, for key: Key) {
            waiting.withLock { _ = $0.queue.put(element, for: key) }
            wake.yield()
        }

        func finish() {
            waiting.withLock { $0.isFinished = true }
            endWaits()
        }

        /// Nobody waits any more, now or later.
        func endWaits() { wake.finish() }

        func next(_ isCurrent: (Element) -> Bool) async -> Element? {
            var wakesEnded = false
            while !Task.isCancelled {
                let (element, isOver) = waiting.withLock { waiting in
                    (waiting.queue.popFirst()?.element, waiting.isFinished)
                }
                if let element {
                    if isCurrent(element) { return element }
                } else if isOver || wakesEnded {
                    return nil
                } else {
                    wakesEnded = true
                    for await _ in wakes {
                        wakesEnded = false
                        break
                    }
                }
            }
            return nil
        }
    }
}
