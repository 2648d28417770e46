public import NIOCore

/// Runs tasks on the event loop of a QUIC endpoint.
///
/// A task that prefers the executor of a connection's loop works where the connection lives: its reads and writes change no
/// thread, return at once where they need not wait, and what it writes in answer to an event leaves with it. It shares the
/// loop with every other connection there, so it must not block, compute for long, or yield in a loop until something
/// happens: an event loop takes in nothing while a job is always ready.
///
/// ```swift
/// await withTaskExecutorPreference(connection.executor) {
///     // reads, writes and answers on the connection's loop
/// }
/// ```
public final class QUICLoopExecutor: TaskExecutor {
    /// The loop.
    public let eventLoop: any EventLoop
    let driver: NIOLoopBound<Weak<LoopDriver>>

    /// On the loop only.
    init(driver: LoopDriver) {
        eventLoop = driver.eventLoop
        self.driver = NIOLoopBound(Weak(driver), eventLoop: driver.eventLoop)
    }

    /// Takes a job from the Swift runtime; nobody else calls it. A job that comes from the loop itself runs within the
    /// tick that is under way, others run at the loop's next turn.
    public func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        if eventLoop.inEventLoop, driver.value.object?.take(job) == true { return }
        runLater(job)
    }

    func runLater(_ job: UnownedJob) {
        eventLoop.execute { job.runSynchronously(on: self.asUnownedTaskExecutor()) }
    }
}
