import NIOCore
import Synchronization

extension EventLoop {
    /// Runs on the loop and answers, unless that takes too long: then it doesn't run at all.
    /// - Parameter late: returns when it does, or throws when it is cancelled, because the loop has come to it.
    /// - Returns: nil when it took too long.
    func submit<Value: Sendable>(
        before late: @escaping @Sendable () async throws -> Void, _ body: @escaping @Sendable () -> Value
    ) async -> Value? {
        await withCheckedContinuation { continuation in
            let visit = LoopVisit<Value>(continuation)
            let timer = Task { if (try? await late()) != nil { visit.take()?.resume(returning: nil) } }
            execute {
                timer.cancel()
                guard let waiter = visit.take() else { return }
                waiter.resume(returning: body())
            }
        }
    }
}

extension LoopReference {
    /// As on its event loop.
    func submit<Value: Sendable>(
        before late: @escaping @Sendable () async throws -> Void,
        _ body: @escaping @Sendable (ServerLoop) -> Value
    ) async -> Value? {
        await eventLoop.submit(before: late) { [loop] in body(loop.value) }
    }
}

extension [LoopReference] {
    /// Runs on every loop, on all at once, and waits for all. One that is stuck holds up who waits, and no other loop.
    @discardableResult
    func submit<Value: Sendable>(_ body: @escaping @Sendable (ServerLoop) -> Value) async -> [Value] {
        await withTaskGroup(of: Value?.self) { group in
            for loop in self { group.addTask { try? await loop.submit(body) } }
            var values: [Value] = []
            for await value in group { if let value { values.append(value) } }
            return values
        }
    }
}

/// Who waits for an event loop, until either it or the time comes.
private final class LoopVisit<Value: Sendable>: Sendable {
    private let waiter: Mutex<CheckedContinuation<Value?, Never>?>

    init(_ waiter: CheckedContinuation<Value?, Never>) { self.waiter = Mutex(waiter) }

    /// For the first who asks.
    func take() -> CheckedContinuation<Value?, Never>? {
        waiter.withLock { waiter in
            defer { waiter = nil }
            return waiter
        }
    }
}
