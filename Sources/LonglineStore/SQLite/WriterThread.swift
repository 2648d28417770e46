import Foundation
import Synchronization

/// The thread of a store's writer. A dispatch queue would take up another thread of its pool for nearly every transaction,
/// each time with cold caches.
///
/// ```
///            run                    done
///   asleep ------> at work -------------------> asleep
///     '------ end ---'------> over, when what was given before is done
/// ```
final class WriterThread: Sendable {
    /// What the thread sees of it, so that it doesn't keep its owner.
    private final class Desk: Sendable {
        let wake = DispatchSemaphore(value: 0)
        let work = Mutex([@Sendable () -> Void]())
        let isOver = Atomic(false)
    }

    private let desk = Desk()

    init() {
        let desk = desk
        let thread = Thread {
            while true {
                desk.wake.wait()
                let work = desk.work.withLock { work in
                    defer { work = [] }
                    return work
                }
                for job in work { job() }
                if work.isEmpty && desk.isOver.load(ordering: .acquiring) { return }
            }
        }
        thread.name = "longline.store"
        thread.start()
    }

    /// Runs something on the thread, behind what was given before.
    func run(_ job: @escaping @Sendable () -> Void) {
        desk.work.withLock { $0.append(job) }
        desk.wake.signal()
    }

    /// Ends the thread once it has nothing to do.
    func end() {
        desk.isOver.store(true, ordering: .releasing)
        desk.wake.signal()
    }
}
