import LonglineSession
import LonglineStore
import Synchronization

/// The last revocations, each from when it is durable and before live sessions are ended: whoever verified a credential
/// meanwhile asks here whether it is one of them, and verifies it again then.
///
/// What somebody else's are does not matter to a connect, however many come. The lock is held for a look at those that came
/// during one verification.
final class RevocationLog: Sendable {
    private struct State {
        var count: UInt64 = 0
        /// The last ones, each in the place of its number.
        var last: [RevocationTarget] = []
    }

    /// Revocations that are remembered: more than come during one verification.
    static let limit = 1024
    private let state = Mutex(State())

    /// Revocations so far.
    var count: UInt64 { state.withLock { $0.count } }

    func append(_ target: RevocationTarget) {
        state.withLock { state in
            if state.last.count < Self.limit {
                state.last.append(target)
            } else {
                state.last[Int(state.count % UInt64(Self.limit))] = target
            }
            state.count += 1
        }
    }

    /// Whether one of the revocations behind the first `count` may name an identity: it does, or they aren't all remembered.
    func mayName(_ identity: SessionIdentity, since count: UInt64) -> Bool {
        state.withLock { state in
            guard state.count - count <= UInt64(Self.limit) else { return true }
            return (count..<state.count).contains { state.last[Int($0 % UInt64(Self.limit))].names(identity) }
        }
    }
}

extension RevocationTarget {
    /// Whether it shuts out who this is.
    func names(_ identity: SessionIdentity) -> Bool {
        switch self {
        case .user(let user): user.tenant == identity.tenant && user.user == identity.user
        case .device(let device):
            device.tenant == identity.tenant && device.user == identity.user && device.device == identity.device
        case .token(let token, let tenant): tenant == identity.tenant && token == identity.tokenID
        }
    }
}
