import NIOCore
import Synchronization

/// Has a writer that gathers what it is given write it once in a while.
///
/// ```
///           noteWork              delay over                flush: all written
///   idle ------------> waiting ----------------> flushing -----------------------> idle
///                         ^                         | not all: longer delays
///                         '-------------------------'
///   any --stop--> the last flush, and run() returns
/// ```
final class WritePacer: Sendable {
    private struct State {
        var hasWork = false
        var stopped = false
        var wake: CheckedContinuation<Void, Never>?
    }

    private let delay: TimeAmount
    private let failureDelays: Int64
    private let state = Mutex(State())

    /// - Parameters:
    ///   - delay: from the first work to the write.
    ///   - failureDelays: after a write that was not complete the next waits for so many delays.
    init(delay: TimeAmount, failureDelays: Int64) {
        self.delay = delay
        self.failureDelays = failureDelays
    }

    /// Whether ``stop()`` was called.
    var isStopped: Bool { state.withLock { $0.stopped } }

    /// There is something to write. Call it after it can be found.
    func noteWork() { change { $0.hasWork = true } }

    /// Lets ``run(_:)`` end.
    func stop() { change { $0.stopped = true } }

    /// Flushes what is noted, until ``stop()``; then once more. Its task's cancellation only ends a delay.
    /// - Parameter flush: writes what waits, and tells whether it wrote all of it.
    func run(_ flush: () async -> Bool) async {
        var delays: Int64 = 1
        while await waitForWork() {
            try? await Task.sleep(for: .nanoseconds(delay.nanoseconds * delays))
            state.withLock { $0.hasWork = false }
            if await flush() {
                delays = 1
            } else {
                delays = failureDelays
                state.withLock { $0.hasWork = true }
            }
        }
        _ = await flush()
    }

    private func change(_ body: (inout State) -> Void) {
        let wake = state.withLock { state in
            body(&state)
            defer { state.wake = nil }
            return state.wake
        }
        wake?.resume()
    }

    /// Waits until there is work: true; or until there will be none: false.
    private func waitForWork() async -> Bool {
        await withCheckedContinuation { continuation in
            let now = state.withLock { state in
                if state.stopped || state.hasWork { return true }
                assert(state.wake == nil, "run() runs twice")
                state.wake = continuation
                return false
            }
            if now { continuation.resume() }
        }
        return !isStopped
    }
}
