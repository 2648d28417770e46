import Logging
import ServiceLifecycle

/// Forgets what is over, every hour: idempotency keys, and logins of devices that nobody uses any more.
struct ControlJanitor: Service {
    let keys: IdempotencyKeys
    let logins: LoginEpochs
    let time: @Sendable () -> UInt64
    let tokenLifetime: Duration
    let logger: Logger

    func run() async throws {
        repeat {
            await attempt("idempotency keys") { try await keys.sweep() }
            await attempt("logins") { try await logins.sweep(now: time(), tokenLifetime: tokenLifetime) }
        } while await cancelWhenGracefulShutdown { (try? await Task.sleep(for: .seconds(3_600))) != nil }
    }

    private func attempt(_ what: String, _ sweep: () async throws -> Void) async {
        do { try await sweep() } catch {
            logger.error("the control database was not swept", metadata: ["what": "\(what)", "error": "\(error)"])
        }
    }
}
