import Logging
import NIOCore

/// Something that a driver does at a time of its clock, which goes on while the machine sleeps; the loop's doesn't. Confined to the
/// loop.
///
/// The loop wakes it up. What became due asleep is done when the driver is seen to be late: see ``ConnectionDriver/noticeTime()``.
final class DriverTimer {
    let due: NIODeadline
    fileprivate let body: (ConnectionDriver) -> Void
    fileprivate var task: Scheduled<Void>?
    private weak var driver: ConnectionDriver?

    fileprivate init(due: NIODeadline, of driver: ConnectionDriver, body: @escaping (ConnectionDriver) -> Void) {
        self.due = due
        self.driver = driver
        self.body = body
    }

    func cancel() {
        task?.cancel()
        task = nil
        driver?.timers[ObjectIdentifier(self)] = nil
    }
}

/// The loop keeps a timer that waits, and with it the driver; a loop that is shut down lets go of them.
struct WaitingTimer {
    weak var timer: DriverTimer?
}

extension ConnectionDriver {
    /// How far the driver's clock is ahead of the loop's: it goes on while the machine sleeps. Only differences mean something.
    var timeSlept: TimeAmount { clock.now() - loop.now }

    /// Calls `body` after a time, unless cancelled.
    func schedule(in delay: TimeAmount, _ body: @escaping (ConnectionDriver) -> Void) -> DriverTimer {
        if timers.isEmpty { sleepNoticed = timeSlept }
        let timer = DriverTimer(due: clock.now() + delay, of: self, body: body)
        timers[ObjectIdentifier(timer)] = WaitingTimer(timer: timer)
        arm(timer)
        return timer
    }

    private func arm(_ timer: DriverTimer) {
        timer.task?.cancel()
        let bound = NIOLoopBound((driver: self, timer: timer), eventLoop: loop)
        timer.task = loop.scheduleTask(in: max(.zero, timer.due - clock.now())) {
            bound.value.driver.fire(bound.value.timer)
        }
    }

    private func fire(_ timer: DriverTimer) {
        timers[ObjectIdentifier(timer)] = nil
        noticeTime()
        timer.body(self)
    }

    /// Looks whether the machine slept since the timers began: those that are due by now are done at once, behind what is being done,
    /// and the others in time. Called with everything that comes from outside: nothing tells that a machine woke up.
    func noticeTime() {
        guard !timers.isEmpty else { return }
        let slept = timeSlept
        guard slept - sleepNoticed >= .seconds(1) else { return }
        logger.debug("the machine slept", metadata: ["time": "\(Duration(slept - sleepNoticed))"])
        sleepNoticed = slept
        for timer in timers.values.compactMap(\.timer).sorted(by: { $0.due < $1.due }) { arm(timer) }
    }
}
