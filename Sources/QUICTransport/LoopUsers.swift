internal import Synchronization

/// Calls that use an endpoint's event loops. Whoever shuts it down may end the loops right behind that, and no call may still be on its
/// way to them then: those that shut it down return together, when no other call is left.
final class LoopUsers: Sendable {
    private struct State {
        var count = 0
        var isOver = false
        /// What the loops had counted at the end.
        var counters = QUICTransportCounters()
        var leaving: [CheckedContinuation<Void, Never>] = []

        /// - Returns: who can return now.
        mutating func leave() -> [CheckedContinuation<Void, Never>] {
            count -= 1
            guard count == 0, !leaving.isEmpty else { return [] }
            isOver = true
            defer { leaving = [] }
            return leaving
        }
    }

    private let state = Mutex(State())

    /// - Returns: false: the endpoint was shut down, and its loops may be no more. Else a call of ``end()`` or ``endShutdown()`` is due.
    func begin() -> Bool {
        state.withLock { state in
            guard !state.isOver else { return false }
            state.count += 1
            return true
        }
    }

    /// The call is done with the loops.
    func end() {
        for call in state.withLock({ $0.leave() }) { call.resume() }
    }

    /// What the loops have counted; once the endpoint was shut down, what they had then.
    func counters(of loops: [LoopHandle]) async -> QUICTransportCounters {
        guard begin() else { return state.withLock { $0.counters } }
        defer { end() }
        return await loops.counters()
    }

    /// The endpoint is shut down.
    func endShutdown(of loops: [LoopHandle]) async {
        let counters = await loops.counters()
        await withCheckedContinuation { call in
            let ready = state.withLock { state in
                state.counters = counters
                state.leaving.append(call)
                return state.leave()
            }
            for call in ready { call.resume() }
        }
    }
}

extension [LoopHandle] {
    fileprivate func counters() async -> QUICTransportCounters {
        var total = QUICTransportCounters()
        for loop in self { total.add(await loop.counters()) }
        return total
    }
}
