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

extension LoopExecutor {
    /// Starts a call of a store, on the executor's loop: it runs at once as far as it gets without waiting, and goes on there.
    ///
    /// - Parameter executor: nil: the tasks' threads run it, later.
    package static func start(on executor: LoopExecutor?, _ body: @escaping @Sendable () async -> Void) {
        guard let executor else {
            Task(operation: body)
            return
        }
        executor.eventLoop.assertInEventLoop()
        Task.immediate(executorPreference: executor, operation: body)
    }
}
