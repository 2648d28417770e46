/// Work took longer than it may.
struct DeadlineExceeded: Error {}

/// Runs work that is cancelled after a time.
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
