public import LonglineWire
import Synchronization

/// Where another user is, as far as this client knows.
public struct Presence: Hashable, Sendable {
    /// The user.
    public let user: UserID
    /// Over all of the user's devices: one in the foreground is online, one in the background away.
    public let state: PresenceState
    /// When a device of the user was last in the foreground, in milliseconds since 1970; nil when one is now, when nobody
    /// knows, and when the user does not show it.
    public let lastSeen: UInt64?
    /// Whether the service said so on the present connection. Without one, it is what was so before.
    public let isCurrent: Bool
}

extension LonglineClient {
    /// Tells of users' presence from now on: at first where each is, then every change, on this connection and the next ones,
    /// until ``unwatch(_:)``.
    ///
    /// Returns when the service has told where each of them is; waits for a connection if there is none. Cancelling the task
    /// ends the wait only, unless the client is still reading its storage: then nobody is watched. Watching a user twice is watching once.
    /// - Parameter users: with those that are watched already, at most 1,000.
    /// - Throws: ``ClientError``: ``ClientError/Code/refused`` with ``ClientError/refusal`` `forbidden` (the token lacks the
    ///   right `presence`, for one of them at least) or `tooManySubscriptions`; then none of the call is watched.
    ///   ``ClientError/Code/notConnected`` before ``connect()``.
    public func watch(_ users: [UserID]) async throws {
        guard !users.isEmpty else { return }
        let handle = try await core.handleUnlessCancelled()
        try await handle.call(ignoring: ()) { driver, done in
            driver.watch(users, done: done)
        } cancel: { driver, id in
            driver.cancelWatch(id)
        }
    }

    /// Ends what ``watch(_:)`` began, for these users. When it returns nothing is known of them any more.
    /// - Throws: ``ClientError`` when the durable state can't be read.
    public func unwatch(_ users: [UserID]) async throws {
        try await run { $0.unwatch(users) }
    }

    /// Where a watched user is; nil for one that isn't watched, or not known yet.
    public func presence(of user: UserID) -> Presence? { core.outlets.presence.presence(of: user) }

    /// Where all watched users are, as far as it is known.
    public var presences: [UserID: Presence] { core.outlets.presence.all }

    /// First where the watched users are, then every change. Each call makes a sequence of its own; a reader that lags finds
    /// the newest of each user. It ends with the client.
    public var presenceChanges: AsyncStream<Presence> { core.outlets.presence.stream() }

    /// Decides what other users see of this one, whichever device they or this user have. The service keeps it; here it is
    /// remembered until the process ends, and said again with each connection.
    /// - Throws: ``ClientError`` when the durable state can't be read.
    public func setVisibility(_ visibility: PresenceVisibility) async throws {
        try await run { $0.setVisibility(visibility) }
    }
}

/// What is known of watched users, for readers in any thread.
final class PresenceBoard: Sendable {
    /// Changes are told with its lock held, so that a new reader finds each of them in what is so at first, or after that.
    private let known = Mutex<[UserID: Presence]>([:])
    /// As many as may be watched.
    private let changes = LatestBroadcast<UserID, Presence>(limit: PresenceBoard.maximumUsers)

    /// Users that may be watched.
    static let maximumUsers = 1000

    var all: [UserID: Presence] { known.withLock { $0 } }
    func presence(of user: UserID) -> Presence? { known.withLock { $0[user] } }

    func stream() -> AsyncStream<Presence> {
        known.withLock { known in changes.stream(first: known.map { ($0.key, $0.value) }) }
    }

    func learn(_ update: PresenceUpdate) {
        let presence = Presence(
            user: update.user, state: update.state, lastSeen: update.lastSeen > 0 ? update.lastSeen : nil,
            isCurrent: true)
        known.withLock { known in
            let before = known.updateValue(presence, forKey: update.user)
            // What is so again after a reconnect is no change.
            guard before?.state != presence.state || before?.lastSeen != presence.lastSeen else { return }
            changes.send(presence, for: update.user)
        }
    }

    /// The connection is gone: what is known is what was.
    func connectionLost() {
        known.withLock { known in
            known = known.mapValues {
                Presence(user: $0.user, state: $0.state, lastSeen: $0.lastSeen, isCurrent: false)
            }
        }
    }

    func forget(_ users: some Sequence<UserID>) {
        known.withLock { known in for user in users { known[user] = nil } }
    }

    func finish() { changes.finish() }
}
