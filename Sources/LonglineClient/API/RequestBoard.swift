import LonglineWire
import Synchronization

/// Whether one of the user's devices answered a request that the app has.
final class RequestAnswer: Sendable {
    private let news = Broadcast<Bool>(replaysLatest: true, initial: false)

    var isKnown: Bool { news.latest ?? false }

    /// - Returns: whether it was answered; false when the task was cancelled, or the client is gone.
    func wait() async -> Bool {
        for await isAnswered in news.stream() where isAnswered { return true }
        return isKnown
    }

    fileprivate func came() { news.send(true) }
    fileprivate func finish() { news.finish() }
}

/// Tells the app which of the requests that it has were answered, on whatever device of the user.
final class RequestBoard: Sendable {
    private struct Held {
        weak var answer: RequestAnswer?
    }

    private struct State {
        var held: [Position: Held] = [:]
        /// Requests that the app let go of are looked for from here on.
        var crowd = RequestBoard.leastCrowd
        var isFinished = false
    }

    private static let leastCrowd = 128
    private let state = Mutex(State())

    /// A request came.
    func open(_ request: Position) -> RequestAnswer {
        state.withLock { state in
            if let known = state.held[request]?.answer { return known }
            if state.held.count >= state.crowd {
                state.held = state.held.filter { $0.value.answer != nil }
                // As many again may come before each is looked at once more.
                state.crowd = max(Self.leastCrowd, state.held.count * 2)
            }
            let answer = RequestAnswer()
            if state.isFinished { answer.finish() }
            state.held[request] = Held(answer: answer)
            return answer
        }
    }

    /// A reply of this user's came.
    func answered(_ request: Position) {
        let answer = state.withLock { $0.held.removeValue(forKey: request)?.answer }
        answer?.came()
    }

    /// Nobody waits for what is told from now on.
    func finish() {
        let all = state.withLock { state in
            state.isFinished = true
            defer { state.held = [:] }
            return state.held.values.compactMap { $0.answer }
        }
        for answer in all { answer.finish() }
    }

    deinit { finish() }
}
