import NIOCore
import NIOEmbedded

/// A loop whose time only a test moves.
struct VirtualLoop {
    let loop = NIOAsyncTestingEventLoop()

    /// The loop's time. Its type has a `now` for NIO's own tests only, beside which the rest of the world's is found.
    var now: NIODeadline { (loop as any EventLoop).now }

    /// Does something while the loop runs what is due, at its present time.
    func running<Value: Sendable>(_ body: @escaping @Sendable () async throws -> Value) async throws -> Value {
        let loop = loop
        return try await withThrowingTaskGroup(of: Value?.self) { group in
            group.addTask { try await body() }
            group.addTask {
                while !Task.isCancelled {
                    await loop.run()
                    await Task.yield()
                }
                return nil
            }
            defer { group.cancelAll() }
            guard let first = try await group.next(), let value = first else { throw CancellationError() }
            return value
        }
    }

    /// Time passes: what becomes due is run, and what that leads to at once.
    func pass(_ time: TimeAmount) async {
        await loop.advanceTime(by: time)
        for _ in 0..<100 {
            await loop.run()
            await Task.yield()
        }
    }

    /// The same, and what leaves the loop meanwhile has time until this holds.
    func pass(_ time: TimeAmount, until holds: @escaping @Sendable () async throws -> Bool) async throws {
        await loop.advanceTime(by: time)
        while try await !running(holds) { await Task.yield() }
    }
}
