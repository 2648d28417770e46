import Synchronization

/// Tells any number of readers of every value, each reader through a bounded buffer that drops its oldest.
final class Broadcast<Element: Sendable>: Sendable {
    private struct State {
        var latest: Element?
        var readers: [UInt64: AsyncStream<Element>.Continuation] = [:]
        var nextReader: UInt64 = 0
        var isFinished = false
    }

    private let state: Mutex<State>
    private let replaysLatest: Bool
    private let limit: Int
    private let isRepeated: @Sendable (_ latest: Element, _ next: Element) -> Bool

    /// - Parameters:
    ///   - replaysLatest: whether a new reader first gets the last value sent.
    ///   - limit: values kept for a reader that lags.
    ///   - isRepeated: whether a value is not worth telling behind the latest one, which is known if it is replayed.
    init(
        replaysLatest: Bool, initial: Element? = nil, limit: Int = 256,
        isRepeated: @escaping @Sendable (_ latest: Element, _ next: Element) -> Bool = { _, _ in false }
    ) {
        self.replaysLatest = replaysLatest
        self.limit = limit
        self.isRepeated = isRepeated
        state = Mutex(State(latest: initial))
    }

    var latest: Element? { state.withLock { $0.latest } }

    func send(_ element: Element) {
        state.withLock { state in
            if let latest = state.latest, isRepeated(latest, element) { return }
            if replaysLatest { state.latest = element }
            for reader in state.readers.values { reader.yield(element) }
        }
    }

    func stream() -> AsyncStream<Element> {
        AsyncStream(bufferingPolicy: .bufferingNewest(limit)) { continuation in
            let id = state.withLock { state in
                state.nextReader += 1
                if let latest = state.latest { continuation.yield(latest) }
                if state.isFinished { continuation.finish() } else { state.readers[state.nextReader] = continuation }
                return state.nextReader
            }
            continuation.onTermination = { [weak self] _ in
                _ = self?.state.withLock { $0.readers.removeValue(forKey: id) }
            }
        }
    }

    /// Ends every stream, also those to come.
    func finish() {
        let readers = state.withLock { state in
            state.isFinished = true
            defer { state.readers = [:] }
            return state.readers
        }
        for reader in readers.values { reader.finish() }
    }
}
