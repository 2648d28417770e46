import Synchronization

@testable import LonglineClient

/// A storage whose writes wait, or fail, as a test says.
final class FaultyDisk: ClientStorage {
    private struct State {
        var writes = 0
        var fails: @Sendable ([StorageChange]) -> Bool = { _ in false }
        var isClosed = false
        var isDead = false
        var underWay = 0
        var waiting: [CheckedContinuation<Void, Never>] = []
    }

    let inner: InMemoryClientStorage
    private let state = Mutex(State())

    init(_ state: StoredClientState = StoredClientState()) { inner = InMemoryClientStorage(state) }

    /// Writes that were begun so far.
    var writes: Int { state.withLock { $0.writes } }
    /// Writes that wait now.
    var waiting: Int { state.withLock { $0.waiting.count } }

    func fail(_ fails: Bool) { fail(where: { _ in fails }) }

    /// From now on such writes fail.
    func fail(where fails: @escaping @Sendable ([StorageChange]) -> Bool) { state.withLock { $0.fails = fails } }

    /// From now on writes wait.
    func close() { state.withLock { $0.isClosed = true } }

    /// What waits goes on, and nothing waits any more.
    func open() {
        let waiting = state.withLock { state in
            state.isClosed = false
            defer { state.waiting = [] }
            return state.waiting
        }
        for continuation in waiting { continuation.resume() }
    }

    /// The process ends here: nothing that it writes from now on is there for the next one.
    /// - Returns: what is.
    func die() async -> StoredClientState {
        state.withLock { $0.isDead = true }
        while state.withLock({ $0.underWay > 0 }) { await Task.yield() }
        return await inner.load()
    }

    func load() async throws -> StoredClientState { await inner.load() }

    func apply(_ changes: [StorageChange]) async throws {
        await withCheckedContinuation { continuation in
            let waits = state.withLock { state in
                state.writes += 1
                if state.isClosed { state.waiting.append(continuation) }
                return state.isClosed
            }
            if !waits { continuation.resume() }
        }
        let fails = state.withLock { $0.fails }
        if fails(changes) { throw ClientError(.storage, message: "the disk is full") }
        let isDead = state.withLock { state in
            if !state.isDead { state.underWay += 1 }
            return state.isDead
        }
        guard !isDead else { throw ClientError(.storage, message: "the process is gone") }
        await inner.apply(changes)
        state.withLock { $0.underWay -= 1 }
    }

    func erase() async throws { await inner.erase() }
}
