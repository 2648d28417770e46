internal import NIOCore
internal import QUICTransport

/// An object that lives on an event loop, for callers on any thread. A caller on the loop gets at it without a hop.
///
/// Unchecked, because each request has one and `NIOLoopBound` carries the loop a second time: the object is private, and every
/// member gives it only to code that runs on its loop; elsewhere references to it are counted, which any thread may do.
struct OnLoop<Object: AnyObject>: @unchecked Sendable {
    let eventLoop: any EventLoop
    private let object: Object

    /// On the loop only.
    init(_ object: Object, eventLoop: any EventLoop) {
        assert(eventLoop.inEventLoop, "the object is on its loop")
        self.eventLoop = eventLoop
        self.object = object
    }

    /// The object, for a caller on its loop.
    var here: Object? { eventLoop.inEventLoop ? object : nil }

    /// Runs on the loop, soon.
    func perform(_ body: @escaping @Sendable (Object) -> Void) {
        if eventLoop.inEventLoop { return body(object) }
        eventLoop.execute { body(object) }
    }

    /// Runs on the loop and hands back what came of it.
    nonisolated(nonsending) func call<Value: Sendable>(_ body: @escaping @Sendable (Object) throws -> Value)
        async throws -> Value
    {
        if eventLoop.inEventLoop { return try body(object) }
        return try await eventLoop.submit { try body(object) }.get()
    }

    /// Suspends until somebody on the loop resumes the waiter.
    /// - Parameter cancelled: runs on the loop if the task was cancelled, whether or not it had come to wait.
    nonisolated(nonsending) func wait<Value: Sendable>(
        cancelled: @escaping @Sendable (Object) -> Void,
        _ arrange: @escaping @Sendable (Object, Waiter<Value>) -> Void
    ) async throws -> Value {
        do {
            return try await Waiter<Value>().wait({ waiter in perform { arrange($0, waiter) } })
        } catch let error as CancellationError {
            perform(cancelled)
            throw error
        }
    }
}
