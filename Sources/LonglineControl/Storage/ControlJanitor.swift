import Logging
import LonglineServer
import LonglineStore
import ServiceLifecycle

/// Forgets what is over, ten minutes after the start and then every hour: idempotency keys, and logins of devices that nobody uses any
/// more. Ten minutes, so that a process that is started again and again forgets all the same.
///
/// A machine may come up with its clock ahead, and have it set a moment later. What a clock that is wrong takes for over is gone, so a turn
/// forgets nothing unless the clock went on as time did since the turn before; the first turn of a process has none before it.
struct ControlJanitor: Service {
    let keys: IdempotencyKeys
    let logins: LoginEpochs
    let time: @Sendable () -> UInt64
    let tokenLifetime: Duration
    let logger: Logger
    /// How long the store remembers a device that is not seen, in milliseconds.
    var unseen = StoreLimits().unseen

    func run() async throws {
        var steadiness = ClockSteadiness()
        await turn(&steadiness, at: .now)
        var pause = Duration.seconds(600)
        while await cancelWhenGracefulShutdown({ [pause] in (try? await Task.sleep(for: pause)) != nil }) {
            await turn(&steadiness, at: .now)
            pause = .seconds(3_600)
        }
    }

    /// - Parameter instant: when, by a clock that nobody sets.
    func turn(_ steadiness: inout ClockSteadiness, at instant: ContinuousClock.Instant) async {
        let now = time()
        guard let steady = steadiness.look(at: now, instant) else { return }
        guard steady > .zero else {
            return logger.notice("the clock was set: what is over is forgotten an hour later")
        }
        await attempt("idempotency keys") { try await keys.sweep(now: now) }
        await attempt("logins") { try await logins.sweep(now: now, tokenLifetime: tokenLifetime, unseen: unseen) }
    }

    private func attempt(_ what: String, _ sweep: () async throws -> Void) async {
        do { try await sweep() } catch {
            logger.error("the control database was not swept", metadata: ["what": "\(what)", "error": "\(error)"])
        }
    }
}
