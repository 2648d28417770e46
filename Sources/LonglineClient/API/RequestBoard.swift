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

    /// Requests that the app let go of are looked for from here on.
    private static let crowd = 128
    private let held = Mutex<[Position: Held]>([:])

    /// A request came.
    func open(_ request: Position) -> RequestAnswer {
        held.withLock { held in
            if let known = held[request]?.answer { return known }
            if held.count >= Self.crowd { held = held.filter { $0.value.answer != nil } }
            let answer = RequestAnswer()
            held[request] = Held(answer: answer)
            return answer
        }
    }

    /// A reply of this user's came.
    func answered(_ request: Position) {
        let answer = held.withLock { $0.removeValue(forKey: request)?.answer }
        answer?.came()
    }

    /// Nothing more is told.
    func finish() {
        let all = held.withLock { held in
            defer { held = [:] }
            return held.values.compactMap { $0.answer }
        }
        for answer in all { answer.finish() }
    }

    deinit { finish() }
}
