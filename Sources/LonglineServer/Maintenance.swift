import Logging
import LonglineStore
import NIOCore

/// What a server does on its own while it runs: writes cursors and presence, rotates ticket keys, sweeps the store, applies
/// retention, brings erasures to their end.
struct Maintenance: Sendable {
    let core: ServerCore
    let loops: [LoopReference]
    let secrets: ServerSecrets
    let certificates: CertificateWatch
    let store: OpenedStore
    let retention: RetentionPolicy
    let logger: Logger

    /// How often keys are looked at; they rotate once a day.
    private static let keyInterval = Duration.seconds(3600)
    private static let certificateInterval = Duration.seconds(24 * 3600)
    private static let sweepInterval = Duration.seconds(24 * 3600)
    /// The first sweep comes soon, so that a server that is restarted every day sweeps all the same, and not at once, when
    /// every client comes back.
    private static let firstSweep = Duration.seconds(600)
    /// The same for retention, which a short interval brings forward.
    private static let firstRetention = Duration.seconds(60)
    private static let erasureInterval = Duration.seconds(120)

    /// Runs until it is cancelled and the writers are stopped.
    func run() async {
        await withTaskGroup(of: Void.self) { group in
            group.addTask { await core.cursors.run() }
            group.addTask { await core.presence.run() }
            if let webhooks = core.webhooks { group.addTask { await webhooks.run() } }
            group.addTask { await every(Self.keyInterval, first: Self.keyInterval) { rotateKeys() } }
            group.addTask {
                await every(Self.certificateInterval, first: Self.certificateInterval) { certificates.warn() }
            }
            group.addTask {
                await every(Self.erasureInterval, first: .zero) { await core.resumeErasures(on: loops) }
            }
            group.addTask { await every(Self.sweepInterval, first: Self.firstSweep) { await sweep() } }
            if !retention.keepsAll, let maintenance = store.maintenance {
                let interval = Duration.nanoseconds(retention.interval.nanoseconds)
                group.addTask {
                    await every(interval, first: min(interval, Self.firstRetention)) {
                        // A failure is counted and logged there, and the next sweep begins anew.
                        _ = try? await core.apply(retention, to: maintenance, logger: logger)
                    }
                }
            }
        }
    }

    private func every(_ interval: Duration, first: Duration, _ work: () async -> Void) async {
        var wait = first
        while true {
            do { try await Task.sleep(for: wait) } catch { return }
            await work()
            wait = interval
        }
    }

    private func rotateKeys() {
        do {
            let now = core.time()
            try core.authenticator.tickets.rotateKeysIfDue(now: now, savingTo: secrets.resumeTicketPath)
            try secrets.rotateTLSTicketKeys(now: now)
        } catch {
            logger.error("ticket keys were not rotated", metadata: ["error": "\(error)"])
        }
    }

    private func sweep() async {
        do {
            // A store that is shared is swept by whoever opened it.
            guard let own = store.own, let report = try await core.upkeep.sweep(own) else { return }
            logger.info(
                "store swept",
                metadata: [
                    "devices": "\(report.devices)", "producers": "\(report.producers)",
                    "channels": "\(report.channels)",
                ])
        } catch {
            logger.error("the store was not swept", metadata: ["error": "\(error)"])
        }
    }
}

extension UpkeepPace {
    /// Takes the steps of a sweep through a store, to its end.
    /// - Returns: what it forgot; nil when it was cancelled.
    func sweep(_ store: any StoreMaintenance) async throws(StoreError) -> SweepReport? {
        var report = SweepReport()
        repeat {
            let (step, took) = try await timed { () async throws(StoreError) in
                try await store.sweep(from: report.next)
            }
            report.add(step)
            guard await rests(took) else { return nil }
        } while report.next != nil
        return report
    }
}
