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
            let upkeep = StoreUpkeep(
                core: core, store: store.maintenance, own: store.own, retention: retention, logger: logger)
            if upkeep.own != nil {
                group.addTask {
                    var steadiness = ClockSteadiness()
                    await turns { await upkeep.sweep(&steadiness) }
                }
            }
            if !retention.keepsAll, upkeep.store != nil {
                group.addTask {
                    var steadiness = ClockSteadiness()
                    await turns { await upkeep.retain(&steadiness) }
                }
            }
        }
    }

    /// - Parameter turn: answers how long it is until the next one.
    private func turns(_ turn: () async -> Duration) async {
        while true {
            let wait = await turn()
            do { try await Task.sleep(for: wait) } catch { return }
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
}

extension UpkeepPace {
    /// Takes the steps of a sweep through a store, to its end.
    /// - Parameters:
    ///   - report: what was forgotten so far: known as well where it does not come to its end, or fails.
    ///   - goesOn: asked before each step.
    /// - Returns: whether it came to its end; false when it was cancelled, or does not go on.
    func sweep(
        _ store: any StoreMaintenance, _ report: inout SweepReport, while goesOn: () -> Bool = { true }
    ) async throws(StoreError) -> Bool {
        repeat {
            guard goesOn() else { return false }
            let place = report.next
            let (step, took) = try await timed { () async throws(StoreError) in try await store.sweep(from: place) }
            report.add(step)
            guard await rests(took) else { break }
        } while report.next != nil
        return report.next == nil
    }
}
