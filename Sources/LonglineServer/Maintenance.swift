import Logging
import LonglineStore

/// What a server does on its own while it runs: writes cursors, rotates ticket keys, sweeps the store.
struct Maintenance: Sendable {
    let core: ServerCore
    let secrets: ServerSecrets
    let store: OpenedStore
    let logger: Logger

    /// How often keys are looked at; they rotate once a day.
    private static let keyInterval = Duration.seconds(3600)
    private static let sweepInterval = Duration.seconds(24 * 3600)

    /// Runs until it is cancelled and the cursor writer is stopped.
    func run() async {
        await withTaskGroup(of: Void.self) { group in
            group.addTask { await core.cursors.run() }
            group.addTask { await every(Self.keyInterval) { rotateKeys() } }
            group.addTask { await every(Self.sweepInterval) { await sweep() } }
        }
    }

    private func every(_ interval: Duration, _ work: () async -> Void) async {
        while true {
            do { try await Task.sleep(for: interval) } catch { return }
            await work()
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
            guard let report = try await store.sweep() else { return }
            logger.info(
                "store swept", metadata: ["devices": "\(report.devices)", "producers": "\(report.producers)"])
        } catch {
            logger.error("the store was not swept", metadata: ["error": "\(error)"])
        }
    }
}
