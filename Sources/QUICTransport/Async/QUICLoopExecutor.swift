public import NIOCore

/// Runs tasks on an event loop.
///
/// A task that prefers the executor of a connection's loop works where the connection lives: its reads and writes change no
/// thread, and return at once where they need not wait. It shares the loop with every other connection there, so it must
/// not block nor compute for long.
///
/// ```swift
/// await withTaskExecutorPreference(connection.executor) {
///     // reads, writes and answers on the connection's loop
/// }
/// ```
public final class QUICLoopExecutor: TaskExecutor {
    /// The loop.
    public let eventLoop: any EventLoop

    /// An executor for a loop; it may be used as long as the loop runs.
    public init(eventLoop: any EventLoop) { self.eventLoop = eventLoop }

    public func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        eventLoop.execute { job.runSynchronously(on: self.asUnownedTaskExecutor()) }
    }
}
