import Synchronization

/// Who else goes by the keys of tokens, and reads them again with the server.
final class TokenKeyHooks: Sendable {
    typealias Hook = @Sendable () async throws -> Void

    private let hooks = Mutex<[Hook]>([])

    func add(_ hook: @escaping Hook) { hooks.withLock { $0.append(hook) } }

    /// Asks each, whatever becomes of another.
    /// - Returns: what the first threw that failed.
    func run() async -> (any Error)? {
        var failure: (any Error)?
        for hook in hooks.withLock({ $0 }) {
            do { try await hook() } catch { failure = failure ?? error }
        }
        return failure
    }
}
