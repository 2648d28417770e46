import Synchronization

/// The app's token provider: one call for all who ask at the same time, and few calls at once.
///
/// A call that nobody waits for any more is cancelled, and who asks then begins another. One that goes on all the same stays among
/// those that are under way; with ``limit`` of these, who asks waits for the last one, which may bring its token late.
final class TokenCalls: Sendable {
    /// Calls under way at most. With one alone, a call that never ends would keep the client away for good.
    static let limit = 4

    private struct Call {
        let number: UInt64
        let answer: Outcome<String>
        let task: Task<Void, Never>
        /// The questions that wait for it.
        var waiting: Set<UInt64> = []
        /// Who asks from now on is better served by another one: it was cancelled, or the path changed.
        var isOld = false
    }

    private struct State {
        /// Those that have not ended, the oldest first. Only the last may be not old.
        var calls: [Call] = []
        var lastCall: UInt64 = 0
        var lastQuestion: UInt64 = 0
    }

    /// What one question waits for.
    private struct Wait {
        let question: UInt64
        let call: UInt64
        let answer: Outcome<String>
        /// The call was old when the question came.
        let wasOld: Bool
    }

    private let provider: LonglineClient.TokenProvider
    private let state = Mutex(State())

    init(_ provider: @escaping LonglineClient.TokenProvider) { self.provider = provider }

    /// How many wait for a token.
    var waiting: Int { state.withLock { $0.calls.reduce(0) { $0 + $1.waiting.count } } }

    /// Who asks from now on shares no call that is under way now, as long as there may be another.
    func beginAnew() {
        state.withLock { state in for index in state.calls.indices { state.calls[index].isOld = true } }
    }

    /// - Throws: what the provider throws; `CancellationError` when the task is cancelled.
    func token() async throws -> String {
        while true {
            let wait = join()
            do {
                defer { leave(wait) }
                return try await withTaskCancellationHandler {
                    try await wait.answer.value()
                } onCancel: {
                    // At once: who asks after the cancellation finds that nobody waits.
                    leave(wait)
                }
            } catch {
                // What an old call ends with is perhaps its cancellation, and no answer to this question.
                guard wait.wasOld, !Task.isCancelled else { throw error }
            }
        }
    }

    private func join() -> Wait {
        state.withLock { state in
            if state.calls.last?.isOld ?? true, state.calls.count < Self.limit { begin(&state) }
            state.lastQuestion += 1
            let index = state.calls.count - 1
            state.calls[index].waiting.insert(state.lastQuestion)
            let call = state.calls[index]
            return Wait(question: state.lastQuestion, call: call.number, answer: call.answer, wasOld: call.isOld)
        }
    }

    private func begin(_ state: inout State) {
        state.lastCall += 1
        let (number, answer) = (state.lastCall, Outcome<String>())
        let task = Task {
            let result: Result<String, any Error>
            do { result = .success(try await provider()) } catch { result = .failure(error) }
            // Before it is answered: who asks again then begins another.
            ended(number)
            answer.resolve(result)
        }
        state.calls.append(Call(number: number, answer: answer, task: task))
    }

    private func ended(_ number: UInt64) {
        state.withLock { state in state.calls.removeAll { $0.number == number } }
    }

    private func leave(_ wait: Wait) {
        let task = state.withLock { state -> Task<Void, Never>? in
            guard let index = state.calls.firstIndex(where: { $0.number == wait.call }),
                state.calls[index].waiting.remove(wait.question) != nil, state.calls[index].waiting.isEmpty
            else { return nil }
            state.calls[index].isOld = true
            return state.calls[index].task
        }
        task?.cancel()
    }
}
