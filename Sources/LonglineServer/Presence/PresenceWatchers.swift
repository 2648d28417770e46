import DequeModule
import LonglineStore
import LonglineWire

/// Whose presence the sessions of one loop are told of, and what the loop knows of it.
///
/// Of one user:
/// ```
///   asked for --record read--> asked at home --first news--> known --news--> known
///       '-------------------- no session left: forgotten -------'
/// ```
struct PresenceWatchers<Watcher: AnyObject> {
    private struct Watched {
        /// nil until the user's home has answered.
        var update: PresenceUpdate?
        var watchers: [ObjectIdentifier: Watcher] = [:]
        /// Whether the user's home knows of this loop.
        var isAsked = false
        /// Which of the user's places in ``unread`` counts.
        var turn: UInt64 = 0
    }

    private var users: [UserKey: Watched] = [:]
    /// Users whose record has to be read first, in the order in which they came. Those that are forgotten meanwhile are
    /// passed over, and taken out when they are more than the users that are watched.
    private var unread: Deque<(user: UserKey, turn: UInt64)> = []
    private var lastTurn: UInt64 = 0
    /// Pairs of user and watcher.
    private(set) var count = 0

    /// Places in the order of those whose record has to be read, for tests.
    var unreadCount: Int { unread.count }

    /// What is known of a user; nil while it is not.
    func known(of user: UserKey) -> PresenceUpdate? { users[user]?.update }

    /// Adds a watcher.
    mutating func add(_ watcher: Watcher, to user: UserKey) {
        if users[user] == nil {
            users[user] = Watched()
            queue(user)
        }
        if users[user]?.watchers.updateValue(watcher, forKey: ObjectIdentifier(watcher)) == nil { count += 1 }
    }

    /// Removes a watcher, if it is one.
    /// - Returns: whether it was the last one, and the user's home has to be told.
    mutating func remove(_ watcher: Watcher, from user: UserKey) -> Bool {
        guard users[user]?.watchers.removeValue(forKey: ObjectIdentifier(watcher)) != nil else { return false }
        count -= 1
        guard users[user]?.watchers.isEmpty == true else { return false }
        return users.removeValue(forKey: user)?.isAsked ?? false
    }

    /// Takes out users of one tenant whose record has to be read.
    mutating func takeUnread(limit: Int) -> [UserKey] {
        var taken: [UserKey] = []
        while taken.count < limit, let (user, turn) = unread.first {
            if let tenant = taken.first?.tenant, tenant != user.tenant { break }
            unread.removeFirst()
            if let watched = users[user], watched.turn == turn, !watched.isAsked { taken.append(user) }
        }
        return taken
    }

    /// The records could not be read: again, later.
    mutating func putBack(_ failed: [UserKey]) {
        for user in failed where users[user]?.isAsked == false { queue(user) }
    }

    /// Has a user's record read, behind those of others.
    private mutating func queue(_ user: UserKey) {
        lastTurn += 1
        users[user]?.turn = lastTurn
        unread.append((user, lastTurn))
        // Who watches and forgets while nothing can be read leaves a place each time.
        guard unread.count > 2 * users.count + Self.spare else { return }
        let watched = users
        unread.removeAll { place in watched[place.user]?.turn != place.turn }
    }

    private static var spare: Int { 16 }

    /// The record was read.
    /// - Returns: whether the user's home has to be asked: somebody still wants to know, and it was not yet.
    mutating func ask(_ user: UserKey) -> Bool {
        guard users[user]?.isAsked == false else { return false }
        users[user]?.isAsked = true
        return true
    }

    /// The home has news.
    /// - Returns: whom to tell.
    mutating func learn(_ update: PresenceUpdate, of user: UserKey) -> [Watcher] {
        guard users[user] != nil else { return [] }
        users[user]?.update = update
        return users[user].map { Array($0.watchers.values) } ?? []
    }
}
