import NIOCore
import Synchronization

/// A question to the app's token provider that goes on when who asked waits no more. Who asks next joins it, or takes
/// the token that came meanwhile: a provider that needs longer than an attempt has would never give one otherwise.
///
/// ```
///   (none) --asked--> asking --token--> kept --taken, or too old--> (none)
///                       '--- no token, or cancelled ------------------^
/// ```
final class LastingTokenQuestion: Sendable {
    private struct State {
        /// Counts questions; what an earlier one still brings is not kept.
        var number: UInt64 = 0
        var answer: Outcome<String>?
        var asking: Task<Void, Never>?
        /// When it was asked, and then when its token came.
        var since = NIODeadline.uptimeNanoseconds(0)
    }

    private let state = Mutex(State())
    private let provider: @Sendable (TimeAmount) async throws -> String
    private let now: @Sendable () -> NIODeadline

    /// - Parameter provider: asks the app, for at most a time.
    init(
        provider: @escaping @Sendable (TimeAmount) async throws -> String, now: @escaping @Sendable () -> NIODeadline
    ) {
        self.provider = provider
        self.now = now
    }

    /// A token, which nobody else gets. Who is cancelled ends the wait only.
    func token() async throws -> String {
        let time = now()
        let (number, answer) = state.withLock { state -> (UInt64, Outcome<String>) in
            if let known = state.answer, time - state.since < ConnectionDriver.tokenPatience {
                return (state.number, known)
            }
            state.number += 1
            let (next, coming) = (state.number, Outcome<String>())
            state.answer = coming
            state.since = time
            state.asking = Task { await self.ask(next, coming) }
            return (next, coming)
        }
        let token = try await answer.value()
        forget(number)
        return token
    }

    /// Ends the question, and keeps no token.
    func cancel() {
        let asking = state.withLock { state -> Task<Void, Never>? in
            state.number += 1
            state.answer = nil
            defer { state.asking = nil }
            return state.asking
        }
        asking?.cancel()
    }

    private func ask(_ number: UInt64, _ answer: Outcome<String>) async {
        do {
            let token = try await provider(ConnectionDriver.tokenPatience)
            let time = now()
            state.withLock { state in if state.number == number { state.since = time } }
            answer.resolve(.success(token))
        } catch {
            // The next one asks anew.
            forget(number)
            answer.resolve(.failure(error))
        }
    }

    private func forget(_ number: UInt64) {
        state.withLock { state in
            guard state.number == number else { return }
            state.answer = nil
            state.asking = nil
        }
    }
}
