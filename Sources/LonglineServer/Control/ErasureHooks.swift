import LonglineStore
import LonglineWire
import Synchronization

/// Who else keeps something of users, and forgets it with them.
final class ErasureHooks: Sendable {
    typealias Hook = @Sendable (UserID, TenantID) async throws -> Void

    private let hooks = Mutex<[Hook]>([])

    func add(_ hook: @escaping Hook) { hooks.withLock { $0.append(hook) } }

    /// Asks each. An erasure that one of them could not follow is not at its end, and is made again.
    func run(_ user: UserKey) async throws(StoreError) {
        for hook in hooks.withLock({ $0 }) {
            do { try await hook(user.user, user.tenant) } catch {
                throw StoreError(
                    .unavailable, message: "what is kept of the user beside the store was not erased: \(error)",
                    advice: "find out what the disk lacks; it goes on by itself then")
            }
        }
    }
}
