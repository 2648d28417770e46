internal import Synchronization

/// One suspended task. It is resumed exactly once: by whoever claims it first, or by its cancellation; that the states see
/// to it is why the continuation need not be a checked one.
package final class Waiter<Value: Sendable>: Sendable {
    private enum State {
        case new
        case waiting(UnsafeContinuation<Value, any Error>)
        case claimed(UnsafeContinuation<Value, any Error>)
        case cancelled
        case done
    }

    private let state = Mutex(State.new)

    package init() {}

    /// Suspends the calling task.
    /// - Parameters:
    ///   - arrange: makes sure that somebody will claim the waiter; called once, while suspended.
    ///   - cancelled: called if the task was cancelled before it was claimed.
    package nonisolated(nonsending) func wait(
        _ arrange: @escaping @Sendable (Waiter<Value>) -> Void,
        cancelled: @escaping @Sendable () -> Void = {}
    ) async throws -> Value {
        try await withTaskCancellationHandler {
            try await withUnsafeThrowingContinuation { continuation in
                let isCancelled = state.withLock { state in
                    guard case .new = state else { return true }
                    state = .waiting(continuation)
                    return false
                }
                if isCancelled {
                    continuation.resume(throwing: CancellationError())
                } else {
                    arrange(self)
                }
            }
        } onCancel: {
            let continuation: UnsafeContinuation<Value, any Error>? = state.withLock { state in
                switch state {
                case .new:
                    state = .cancelled
                    return nil
                case .waiting(let continuation):
                    state = .cancelled
                    return continuation
                case .claimed, .cancelled, .done: return nil
                }
            }
            if let continuation {
                cancelled()
                continuation.resume(throwing: CancellationError())
            }
        }
    }

    /// Whether the task is still suspended and nobody has claimed it.
    package var isWaiting: Bool {
        state.withLock { state in
            if case .waiting = state { true } else { false }
        }
    }

    /// Takes the right to resume the task. False if it was cancelled or claimed before: nothing may be consumed for it.
    package func claim() -> Bool {
        state.withLock { state in
            guard case .waiting(let continuation) = state else { return false }
            state = .claimed(continuation)
            return true
        }
    }

    /// Resumes a task that was claimed.
    package func resume(with result: Result<Value, any Error>) {
        let continuation: UnsafeContinuation<Value, any Error>? = state.withLock { state in
            guard case .claimed(let continuation) = state else { return nil }
            state = .done
            return continuation
        }
        assert(continuation != nil, "a waiter is claimed before it is resumed, once")
        continuation?.resume(with: result)
    }

    /// Claims and resumes. Does nothing if the task was cancelled.
    package func finish(_ result: Result<Value, any Error>) {
        if claim() { resume(with: result) }
    }
}
