package import NIOCore

/// Runs tasks on an event loop, so that a call of the store costs no change of threads on its way there, and one on its way
/// back.
///
/// What a task does between two suspensions holds up the loop: for calls that hand their work to somebody else, as a store's
/// writer and readers are.
package final class LoopExecutor: TaskExecutor {
    private let eventLoop: any EventLoop

    /// An executor of a loop.
    package init(eventLoop: any EventLoop) { self.eventLoop = eventLoop }

    package func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        eventLoop.execute { job.runSynchronously(on: self.asUnownedTaskExecutor()) }
    }
}
