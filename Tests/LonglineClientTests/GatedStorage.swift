@testable import LonglineClient

/// A storage that lets a test hold what the client asks of it.
actor GatedStorage: ClientStorage {
    enum Operation: Hashable { case load, apply, erase }

    private let inner = InMemoryClientStorage()
    private var held: Set<Operation> = []
    private var waiting: [CheckedContinuation<Void, Never>] = []
    private var observers: [CheckedContinuation<Void, Never>] = []
    private var failsErasure = false
    /// Erasures that were begun.
    private(set) var erasures = 0

    /// From now on such operations wait.
    func shut(_ operation: Operation) { held.insert(operation) }

    /// What waits goes on, and nothing waits any more.
    func open() {
        held = []
        for continuation in waiting { continuation.resume() }
        waiting = []
    }

    /// Returns once an operation waits.
    func waitUntilHeld() async {
        if waiting.isEmpty { await withCheckedContinuation { observers.append($0) } }
    }

    /// The next erasure fails.
    func failErasure() { failsErasure = true }

    private func pass(_ operation: Operation) async {
        guard held.contains(operation) else { return }
        await withCheckedContinuation { continuation in
            waiting.append(continuation)
            for observer in observers { observer.resume() }
            observers = []
        }
    }

    func load() async -> StoredClientState {
        await pass(.load)
        return await inner.load()
    }

    func apply(_ changes: [StorageChange]) async {
        await pass(.apply)
        await inner.apply(changes)
    }

    func erase() async throws {
        erasures += 1
        await pass(.erase)
        if failsErasure {
            failsErasure = false
            throw ClientError(.storage, message: "the disk is full")
        }
        await inner.erase()
    }
}
