import LonglineStore

/// How upkeep leaves the store to others: after each step it rests for as long as the step took, so that at least half of the
/// store's time is theirs.
struct UpkeepPace: Sendable {
    /// A clock that never goes back.
    var now: @Sendable () -> ContinuousClock.Instant = { .now }
    /// Waits, or throws when the work is cancelled.
    var rest: @Sendable (Duration) async throws -> Void = { try await Task.sleep(for: $0) }

    /// Takes a step, and tells how long it took.
    func timed<Value>(_ step: () async throws(StoreError) -> Value) async throws(StoreError) -> (Value, Duration) {
        let start = now()
        let value = try await step()
        return (value, now() - start)
    }

    /// Rests after a step.
    /// - Returns: false when the work is cancelled.
    func rests(_ took: Duration) async -> Bool {
        do { try await rest(took) } catch { return false }
        return true
    }
}

extension UpkeepPace {
    /// Takes the steps of an erasure, to its end.
    /// - Parameters:
    ///   - turns: those of all erasures of the store.
    ///   - told: called after each step, at once.
    /// - Throws: what the store does; ``LonglineStore/StoreError/Code/closed`` when it is cancelled before its last step.
    func erase(
        _ user: UserKey, from store: any AccountErasure, _ turns: UpkeepTurns, _ told: (ErasureStep) -> Void
    ) async throws(StoreError) {
        while true {
            let hasWaited = await turns.take()
            defer { turns.give() }
            // A stop waits for the step that is being taken, not for one of each erasure.
            guard !hasWaited || !Task.isCancelled else { throw Self.stopped }
            let (step, took) = try await timed { () async throws(StoreError) in
                try await store.erase(user: user.user, in: user.tenant)
            }
            told(step)
            if step.isDone { return }
            guard await rests(took) else { throw Self.stopped }
        }
    }

    private static var stopped: StoreError {
        StoreError(.closed, message: "the erasure was stopped; it goes on at the next start")
    }
}
