internal import Glibc
internal import Logging
internal import NIOCore
internal import QUICEngine

/// Draws new masters for a server's session tickets, as long as the server lives.
final class TicketRotation: Sendable {
    private let task: RepeatedTask

    private init(task: RepeatedTask) { self.task = task }

    /// - Returns: nil if the server has no ring, or rotates by itself.
    static func begin(
        _ ring: TicketKeyRing?, _ configuration: QUICServerConfiguration, on eventLoop: any EventLoop
    ) -> TicketRotation? {
        guard let ring, let interval = configuration.ticketRotation else { return nil }
        let age = max(UInt64(clamping: interval.nanoseconds / 1_000_000_000), 1)
        let (logger, saved) = (configuration.logger, configuration.onTicketRotation)
        // Another server of the group may rotate a shared ring, or it comes from a file with an age of its own: looked at often.
        let period = min(TimeAmount.seconds(Int64(clamping: age)), .minutes(10))
        let task = eventLoop.scheduleRepeatedTask(initialDelay: .zero, delay: period) { _ in
            var random = SystemRandomNumberGenerator()
            guard ring.rotate(now: UInt64(time(nil)), ifOlderThan: age, random: &random) else { return }
            logger.info("the masters of session tickets were rotated")
            saved?(ring)
        }
        return TicketRotation(task: task)
    }

    func end() { task.cancel() }
}
