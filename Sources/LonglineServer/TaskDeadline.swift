import Synchronization

extension Task where Failure == any Error {
    /// Waits for a task for a while. The task goes on either way: it is not cancelled here, and need not heed that.
    /// - Returns: its value, or nil when it is not over by then.
    package func value(within time: Duration) async throws -> Success? {
        try await withCheckedThrowingContinuation { continuation in
            let first = FirstAnswer(continuation)
            let timer = Task<Void, Never> {
                guard (try? await Task<Never, Never>.sleep(for: time)) != nil else { return }
                first.give(.success(nil))
            }
            Task<Void, Never> {
                first.give(await result.map { $0 })
                timer.cancel()
            }
        }
    }
}

/// The first of two answers counts.
private final class FirstAnswer<Value: Sendable>: Sendable {
    private let continuation: Mutex<CheckedContinuation<Value, any Error>?>

    init(_ continuation: CheckedContinuation<Value, any Error>) { self.continuation = Mutex(continuation) }

    func give(_ answer: Result<Value, any Error>) {
        let waiting = continuation.withLock { continuation in
            defer { continuation = nil }
            return continuation
        }
        waiting?.resume(with: answer)
    }
}
