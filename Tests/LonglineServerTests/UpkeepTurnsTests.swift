import LonglineStore
import LonglineWire
import Synchronization
import Testing

@testable import LonglineServer

/// Erasures of many accounts at one time.
@Suite(.timeLimit(.minutes(1))) struct UpkeepTurnsTests {
    /// Three steps for each user; the very first waits until the test lets it go.
    private final class Store: AccountErasure {
        private struct State {
            var steps: [UserID] = []
            var busy = 0
            var mostBusy = 0
        }

        private let state = Mutex(State())
        private let gate: AsyncStream<Void>
        private let opener: AsyncStream<Void>.Continuation

        init() { (gate, opener) = AsyncStream.makeStream() }

        var steps: [UserID] { state.withLock { $0.steps } }
        var mostBusy: Int { state.withLock { $0.mostBusy } }

        func open() { opener.finish() }

        /// A step, or a rest.
        func begin() {
            state.withLock { state in
                state.busy += 1
                state.mostBusy = max(state.mostBusy, state.busy)
            }
        }

        func end() { state.withLock { $0.busy -= 1 } }

        func requestErasure(of user: UserID, in tenant: TenantID) async throws(StoreError) {}
        func isErasurePending(of user: UserID, in tenant: TenantID) async throws(StoreError) -> Bool { true }
        func pendingErasures(limit: Int) async throws(StoreError) -> [PendingErasure] { [] }

        func erase(user: UserID, in tenant: TenantID) async throws(StoreError) -> ErasureStep {
            begin()
            defer { end() }
            let taken = state.withLock { state in
                state.steps.append(user)
                return state.steps.count { $0 == user }
            }
            for await _ in gate {}
            return ErasureStep(isDone: taken == 3, left: [])
        }
    }

    private func user(_ number: Int) -> UserKey {
        UserKey(tenant: TokenIssuer.tenant, user: identifier { try UserID("user-\(number)") })
    }

    private func pace(_ store: Store) -> UpkeepPace {
        UpkeepPace(rest: { _ in
            store.begin()
            await Task.yield()
            store.end()
            try Task.checkCancellation()
        })
    }

    /// Begins erasures, one behind the other.
    private func begin(_ count: Int, _ store: Store, _ turns: UpkeepTurns) async -> [Task<Void, any Error>] {
        var tasks: [Task<Void, any Error>] = []
        for number in 0..<count {
            let (erased, upkeep) = (user(number), pace(store))
            tasks.append(Task { try await upkeep.erase(erased, from: store, turns) { _ in } })
            while number == 0 ? store.steps.isEmpty : turns.waitingCount < number { await Task.yield() }
        }
        return tasks
    }

    @Test func theyTakeTheirStepsAndRestsInTurn() async throws {
        let (store, turns) = (Store(), UpkeepTurns())
        let tasks = await begin(5, store, turns)
        #expect(store.steps == [user(0).user], "the others wait")
        store.open()
        for task in tasks { try await task.value }
        #expect(store.steps.count == 15 && store.mostBusy == 1)
        #expect(Array(store.steps.prefix(5)) == (0..<5).map { user($0).user })
        // The turn is free again.
        #expect(await turns.take() == false)
    }

    @Test func whatIsStoppedWhileItWaitsTakesNoStep() async throws {
        let (store, turns) = (Store(), UpkeepTurns())
        let tasks = await begin(3, store, turns)
        // The one that has the turn last: the others are cancelled when they get it.
        for task in tasks.reversed() { task.cancel() }
        store.open()
        for task in tasks {
            let error = await #expect(throws: StoreError.self) { try await task.value }
            #expect(error?.code == .closed)
        }
        #expect(store.steps == [user(0).user])
    }
}
