import LonglineWire
import Synchronization

@testable import LonglineServer

/// Answers as a test says, and holds back what it names.
final class ScriptedPolicy: AuthorizationPolicy {
    private struct State {
        var asked: [AuthorizationQuestion] = []
        var holds: @Sendable (AuthorizationQuestion) -> Bool = { _ in false }
        var held: [CheckedContinuation<Void, Never>] = []
        var observers: [(count: Int, continuation: CheckedContinuation<Void, Never>)] = []
    }
    private let state = Mutex(State())
    private let answer: @Sendable (AuthorizationQuestion) throws -> AuthorizationDecision

    init(_ answer: @escaping @Sendable (AuthorizationQuestion) throws -> AuthorizationDecision) {
        self.answer = answer
    }

    var asked: [AuthorizationQuestion] { state.withLock { $0.asked } }

    func hold(_ holds: @escaping @Sendable (AuthorizationQuestion) -> Bool) { state.withLock { $0.holds = holds } }
    func stopHolding() { hold { _ in false } }

    /// Lets go of everything that is held, and holds nothing more.
    func release() {
        let held = state.withLock { state in
            state.holds = { _ in false }
            defer { state.held = [] }
            return state.held
        }
        for continuation in held { continuation.resume() }
    }

    func waitUntilHeld(count: Int = 1) async {
        await withCheckedContinuation { continuation in
            let isThere = state.withLock { state in
                if state.held.count >= count { return true }
                state.observers.append((count, continuation))
                return false
            }
            if isThere { continuation.resume() }
        }
    }

    func decide(_ question: AuthorizationQuestion) async throws -> AuthorizationDecision {
        await withCheckedContinuation { continuation in
            let told: [CheckedContinuation<Void, Never>]? = state.withLock { state in
                state.asked.append(question)
                guard state.holds(question) else { return nil }
                state.held.append(continuation)
                let count = state.held.count
                defer { state.observers.removeAll { $0.count <= count } }
                return state.observers.filter { $0.count <= count }.map(\.continuation)
            }
            if let told { for observer in told { observer.resume() } } else { continuation.resume() }
        }
        return try answer(question)
    }
}
