import Foundation
import NIOCore

/// Where a driver's time comes from.
struct DriverClock: Sendable {
    /// Never goes back, and counts the time the machine slept: a message's time to live runs out asleep too.
    var now: @Sendable () -> NIODeadline
    /// Wall clock, milliseconds since 1970: for what outlives the process.
    var wall: @Sendable () -> UInt64

    /// The system's clocks.
    static let system = DriverClock(
        now: { base + TimeAmount(origin.duration(to: .now)) },
        wall: { UInt64(max(0, Date().timeIntervalSince1970 * 1000)) })

    // ContinuousClock is CLOCK_BOOTTIME on Linux, and tells only differences.
    private static let origin = ContinuousClock.now
    private static let base = NIODeadline.now()
}
