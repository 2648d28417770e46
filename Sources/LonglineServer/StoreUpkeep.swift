import Logging
import LonglineStore
import NIOCore

/// Removes from the store what is over: by retention, and what a sweep forgets.
///
/// A machine may come up with its clock ahead, and have it set a moment later. What a clock that is wrong takes for over is gone, so
/// nothing is removed by age until the clock has gone on for ``steadyTime`` as time does. A walk may take hours, and the clock is looked
/// at again before each of its steps. What is removed by number and bytes needs no clock.
struct StoreUpkeep: Sendable {
    let core: ServerCore
    /// Nil: it can't remove anything.
    let store: (any StoreMaintenance)?
    /// The store, where it is the server's own: one that is shared is swept by whoever opened it.
    let own: (any StoreMaintenance)?
    let retention: RetentionPolicy
    let logger: Logger

    /// For how long a clock has to go evenly to be believed, and when the first sweep comes: soon, so that a server that is restarted
    /// every day sweeps all the same, and not at once, when every client comes back.
    static let steadyTime = Duration.seconds(600)
    private static let sweepInterval = Duration.seconds(24 * 3600)
    /// When a sweep is tried again that a clock was in the way of.
    private static let sweepRetry = Duration.seconds(3600)
    /// When retention comes first, unless its interval is shorter.
    private static let firstRetention = Duration.seconds(60)

    private func look(_ steadiness: inout ClockSteadiness) -> Duration? {
        steadiness.look(at: core.time(), core.upkeep.now())
    }

    private func isSteady(_ steadiness: inout ClockSteadiness) -> Bool {
        (look(&steadiness) ?? .zero) >= Self.steadyTime
    }

    /// A turn of the sweep; the first one looks at the clock.
    /// - Returns: how long it is until the next turn.
    func sweep(_ steadiness: inout ClockSteadiness) async -> Duration {
        guard let steady = look(&steadiness) else { return Self.steadyTime }
        var goesOn = steady >= Self.steadyTime
        if goesOn {
            await sweep {
                goesOn = isSteady(&steadiness)
                return goesOn
            }
        }
        guard goesOn else {
            logger.notice("the clock was set: the store is swept an hour later")
            return Self.sweepRetry
        }
        return Self.sweepInterval
    }

    private func sweep(while goesOn: () -> Bool) async {
        guard let own else { return }
        var report = SweepReport()
        do {
            let isThrough = try await core.upkeep.sweep(own, &report, while: goesOn)
            logger.info(isThrough ? "store swept" : "store swept in part", metadata: Self.counts(report))
        } catch {
            var metadata = Self.counts(report)
            metadata["error"] = "\(error)"
            logger.error("the store was not swept to the end", metadata: metadata)
        }
    }

    private static func counts(_ report: SweepReport) -> Logger.Metadata {
        [
            "devices": "\(report.devices)", "producers": "\(report.producers)", "tokens": "\(report.tokens)",
            "channels": "\(report.channels)",
        ]
    }

    /// A turn of retention; the first one looks at the clock.
    /// - Returns: how long it is until the next turn.
    func retain(_ steadiness: inout ClockSteadiness) async -> Duration {
        let interval = Duration.nanoseconds(retention.interval.nanoseconds)
        guard let steady = look(&steadiness) else { return min(interval, Self.firstRetention) }
        let hasAges = retention != retention.withoutAges
        let needsClock = hasAges && steady >= Self.steadyTime
        var goesByAge = needsClock || !hasAges
        if steady == .zero, !goesByAge { noteSet() }
        let policy = goesByAge ? retention : retention.withoutAges
        if let store, !policy.keepsAll {
            // A failure is counted and logged there, and the next turn begins anew.
            _ = try? await core.apply(policy, to: store, logger: logger) {
                if needsClock, !isSteady(&steadiness) {
                    if goesByAge { noteSet() }
                    goesByAge = false
                }
                return goesByAge
            }
        }
        return goesByAge ? interval : min(interval, Self.steadyTime)
    }

    private func noteSet() { logger.notice("the clock was set: nothing is removed by age for ten minutes") }
}
