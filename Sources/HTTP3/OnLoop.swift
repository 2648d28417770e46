internal import NIOCore
internal import QUICTransport

/// An object that lives on an event loop, for callers on any thread. A caller on the loop gets at it without a hop.
struct OnLoop<Object: AnyObject>: Sendable {
    let eventLoop: any EventLoop
    private let bound: NIOLoopBound<Object>

    /// On the loop only.
    init(_ object: Object, eventLoop: any EventLoop) {
        self.eventLoop = eventLoop
        bound = NIOLoopBound(object, eventLoop: eventLoop)
    }

    /// The object, for a caller on its loop.
    var here: Object? { eventLoop.inEventLoop ? bound.value : nil }

    /// Runs on the loop, soon.
    func perform(_ body: @escaping @Sendable (Object) -> Void) {
        if eventLoop.inEventLoop { return body(bound.value) }
        let bound = self.bound
        eventLoop.execute { body(bound.value) }
    }

    /// Runs on the loop and hands back what came of it.
    func call<Value: Sendable>(_ body: @escaping @Sendable (Object) throws -> Value) async throws -> Value {
        if eventLoop.inEventLoop { return try body(bound.value) }
        let bound = self.bound
        return try await eventLoop.submit { try body(bound.value) }.get()
    }

    /// Suspends until somebody on the loop resumes the waiter.
    /// - Parameter cancelled: runs on the loop if the task was cancelled, whether or not it had come to wait.
    func wait<Value: Sendable>(
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
