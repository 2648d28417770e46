import Synchronization

/// The end of an erasure, for any number that wait for it for a while: who waits no longer leaves nothing behind, however long the
/// erasure goes on and however often somebody asks.
final class ErasureEnd: Sendable {
    private struct Waiting {
        let continuation: CheckedContinuation<Bool, any Error>
        let timer: Task<Void, Never>
    }

    private struct State {
        var result: Result<Void, any Error>?
        var waiting: [UInt64: Waiting] = [:]
        var last: UInt64 = 0
    }

    private let state = Mutex(State())

    /// Who waits, for tests.
    var waiterCount: Int { state.withLock { $0.waiting.count } }

    /// It came to its end: whoever waits is told, and who asks later. Once.
    func settle(_ result: Result<Void, any Error>) {
        let waiting = state.withLock { state in
            state.result = result
            defer { state.waiting = [:] }
            return state.waiting
        }
        for one in waiting.values {
            one.timer.cancel()
            one.continuation.resume(with: result.map { _ in true })
        }
    }

    /// Waits for the end for a while.
    /// - Returns: whether it came.
    /// - Throws: what the erasure failed with.
    func came(within time: Duration) async throws -> Bool {
        try await withCheckedThrowingContinuation { continuation in
            let result = state.withLock { state -> Result<Void, any Error>? in
                if let result = state.result { return result }
                state.last += 1
                let number = state.last
                let timer = Task<Void, Never> {
                    guard (try? await Task<Never, Never>.sleep(for: time)) != nil else { return }
                    self.giveUp(number)
                }
                state.waiting[number] = Waiting(continuation: continuation, timer: timer)
                return nil
            }
            if let result { continuation.resume(with: result.map { _ in true }) }
        }
    }

    private func giveUp(_ number: UInt64) {
        let waiting = state.withLock { $0.waiting.removeValue(forKey: number) }
        waiting?.continuation.resume(returning: false)
    }
}
