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
            let visit = LoopVisit<Value?>(continuation)
            let timer = visit.giveUp(when: late, with: nil)
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

    /// Runs on the loop, and waits for that, but no longer than `patience`: on one that is stuck it runs once that goes on.
    func run(waitingAtMost patience: Duration, _ body: @escaping @Sendable (ServerLoop) -> Void) async {
        await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
            let visit = LoopVisit<Void>(continuation)
            let timer = visit.giveUp(after: patience, with: ())
            execute { loop in
                body(loop)
                timer.cancel()
                visit.take()?.resume()
            }
        }
    }

    /// Waits until no link and no store call is left on the loop, or until a time.
    /// - Parameter patience: how long behind that time the loop may take to say so.
    /// - Returns: links that are left; nil when the loop doesn't say.
    func whenIdle(until deadline: NIODeadline, patience: Duration) async -> Int? {
        let time = Duration.nanoseconds(max((deadline - NIODeadline.now()).nanoseconds, 0))
        return await withCheckedContinuation { continuation in
            let visit = LoopVisit<Int?>(continuation)
            let timer = visit.giveUp(after: time + patience, with: nil)
            execute { loop in
                let promise = eventLoop.makePromise(of: Void.self)
                // A promise that was kept in time ignores this.
                let end = eventLoop.scheduleTask(deadline: deadline) { promise.succeed() }
                promise.futureResult.whenComplete { _ in
                    end.cancel()
                    timer.cancel()
                    visit.take()?.resume(returning: self.loop.value.connections)
                }
                loop.whenIdle(promise)
            }
        }
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

    /// As ``LoopReference/run(waitingAtMost:_:)``, on all at once.
    func run(waitingAtMost patience: Duration, _ body: @escaping @Sendable (ServerLoop) -> Void) async {
        await withTaskGroup(of: Void.self) { group in
            for loop in self { group.addTask { await loop.run(waitingAtMost: patience, body) } }
        }
    }
}

/// Who waits for an event loop, until either it or the time comes.
private final class LoopVisit<Answer: Sendable>: Sendable {
    private let waiter: Mutex<CheckedContinuation<Answer, Never>?>

    init(_ waiter: CheckedContinuation<Answer, Never>) { self.waiter = Mutex(waiter) }

    /// For the first who asks.
    func take() -> CheckedContinuation<Answer, Never>? {
        waiter.withLock { waiter in
            defer { waiter = nil }
            return waiter
        }
    }

    /// Has nobody wait for longer; to be cancelled once the loop has come to it.
    func giveUp(after patience: Duration, with answer: Answer) -> Task<Void, Never> {
        giveUp(when: { try await Task.sleep(for: patience) }, with: answer)
    }

    /// As ``giveUp(after:with:)``, when `late` returns, and not where it throws.
    func giveUp(
        when late: @escaping @Sendable () async throws -> Void, with answer: Answer
    ) -> Task<Void, Never> {
        Task { if (try? await late()) != nil { take()?.resume(returning: answer) } }
    }
}
