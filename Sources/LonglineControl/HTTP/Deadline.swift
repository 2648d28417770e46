import LonglineServer
import Synchronization

/// Work took longer than it may.
struct DeadlineExceeded: Error {}

/// Runs work that is cancelled after a time, and waits until it heeded that.
/// - Throws: ``DeadlineExceeded``, or what the work throws.
func withDeadline<Value: Sendable>(
    _ duration: Duration, _ work: @escaping @Sendable () async throws -> Value
) async throws -> Value {
    try await withThrowingTaskGroup(of: Value?.self) { group in
        group.addTask { try await work() }
        group.addTask {
            try await Task.sleep(for: duration)
            return nil
        }
        defer { group.cancelAll() }
        guard let first = try await group.next(), let value = first else { throw DeadlineExceeded() }
        return value
    }
}

/// Work that is left behind when its time is over: what waits for the store does not heed a cancellation, and goes on to its end,
/// while its caller has an answer.
final class OverdueWork: Sendable {
    private let limit: Int
    private let count = Atomic<Int>(0)

    /// - Parameter limit: how many may be left behind at a time.
    init(limit: Int) { self.limit = limit }

    /// Whether another may be.
    var hasRoom: Bool { count.load(ordering: .relaxed) < limit }

    /// Runs work that is cancelled after a time, and waits for it no longer; only where it can't be left it is waited for.
    /// - Parameter mayLeave: asked when the time is over.
    /// - Throws: ``DeadlineExceeded``, or what the work throws.
    func run<Value: Sendable>(
        atMost duration: Duration, when mayLeave: @Sendable () -> Bool,
        _ work: @escaping @Sendable () async throws -> Value
    ) async throws -> Value {
        let task = Task { try await work() }
        let value = try await withTaskCancellationHandler {
            try await task.value(within: duration)
        } onCancel: {
            task.cancel()
        }
        if let value { return value }
        task.cancel()
        guard mayLeave(), enter() else {
            _ = await task.result
            throw DeadlineExceeded()
        }
        Task {
            _ = await task.result
            count.wrappingSubtract(1, ordering: .relaxed)
        }
        throw DeadlineExceeded()
    }

    private func enter() -> Bool {
        guard count.wrappingAdd(1, ordering: .relaxed).newValue > limit else { return true }
        count.wrappingSubtract(1, ordering: .relaxed)
        return false
    }
}
