import DequeModule
import LonglineStore
import LonglineWire
import NIOCore

/// How fast presence changes show.
struct PresenceTiming: Sendable {
    /// So long after the last connection, or the last one in the foreground, was lost a user still shows as before: who comes
    /// back meanwhile was never away.
    var grace: TimeAmount
    /// At most one change of a user is told in so long; then what is so by then.
    var interval: TimeAmount
}

/// The presence of the users whose home one event loop is: over all their devices, what is shown of it, and which loops
/// want to know. A pure state machine: it reads no clock; what comes of an input is taken with ``takeNews()``.
///
/// Of one user:
/// ```
///               a link in the foreground              its app says that it is in the background
///   offline ----------------------------------> online <------------------------------------> away
///      ^                                           |                                            |
///      |                                           '--- last link, or last in the foreground, gone
///      |  grace over: offline, or away where links in the background are left                   v
///      '------------------------------------------------------------------- lingering (shown as before)
///                what a link in the foreground, or one that is known, says: online or away <----'
/// ```
/// A new link in the background leaves that as it is: which of a user's devices is back first says nothing of the others.
///
/// What watchers are told follows that at most once an interval:
/// ```
///   settled --change--> told, quiet for an interval --over, and changed again--> told, quiet ...
///      ^                        '--over, unchanged--> settled
/// ```
/// Links are counted by number, so that it does not matter in which order two loops report them: a device that takes its
/// session over is on two links for a moment, and then on one. Bounded: an entry lives while the user has a link, a loop
/// wants to know, or the grace lasts.
struct PresenceHome {
    /// What some loops have to be told.
    struct News {
        let user: UserKey
        let update: PresenceUpdate
        let loops: [Int]
    }

    private struct Entry {
        /// Each link, in the foreground (online) or not (away).
        var links: [UInt64: PresenceState] = [:]
        /// The state when there were links.
        var held = PresenceState.offline
        var graceUntil: NIODeadline?
        /// Until when the user is away behind the grace, as the last link to be lost was one in the background.
        var awayUntil: NIODeadline?
        var lastSeen: UInt64 = 0
        /// nil until somebody watches: it is in the store then.
        var visibility: PresenceVisibility?
        var loops: Set<Int> = []
        /// What the loops were told last.
        var shown: PresenceUpdate?
        var quietUntil: NIODeadline?

        var isInForeground: Bool { links.values.contains(.online) }
        /// The state by what the links say; nil without any.
        private var present: PresenceState? { links.values.max { $0.rawValue < $1.rawValue } }
        var isOver: Bool { links.isEmpty && loops.isEmpty && graceUntil == nil }

        /// Shows what is so from now on.
        mutating func endGrace() {
            (graceUntil, awayUntil) = (nil, nil)
            held = present ?? held
        }

        /// The grace ran out.
        mutating func graceIsOver() {
            guard let until = awayUntil, links.isEmpty else { return endGrace() }
            held = .away
            (graceUntil, awayUntil) = (until, nil)
        }

        /// What others may see now.
        func update(_ user: UserID) -> PresenceUpdate {
            let visibility = visibility ?? .nothing
            let state = visibility == .nothing || (links.isEmpty && graceUntil == nil) ? .offline : held
            let isTold = visibility == .everything && state != .online
            return PresenceUpdate(user: user, state: state, lastSeen: isTold ? lastSeen : 0)
        }
    }

    private struct Deadline {
        let at: NIODeadline
        let user: UserKey
    }

    private let timing: PresenceTiming
    private var entries: [UserKey: Entry] = [:]
    // Each is in order, as its time is always the same.
    private var graces: Deque<Deadline> = []
    private var quiets: Deque<Deadline> = []
    private var news: [News] = []
    private var seen: [UserKey: UInt64] = [:]

    init(timing: PresenceTiming) { self.timing = timing }

    /// Users that are held.
    var count: Int { entries.count }

    /// When ``deadlineReached(now:)`` wants to be called.
    var nextDeadline: NIODeadline? {
        guard let grace = graces.first?.at, let quiet = quiets.first?.at else {
            return graces.first?.at ?? quiets.first?.at
        }
        return min(grace, quiet)
    }

    /// What has to be told, in its order.
    mutating func takeNews() -> [News] {
        defer { news = [] }
        return news
    }

    /// Who was seen, and when, to be written down.
    mutating func takeSeen() -> [UserKey: UInt64] {
        defer { seen = [:] }
        return seen
    }

    // MARK: Users

    /// A link of a user is up or changed its mode, or is gone.
    /// - Parameters:
    ///   - state: online in the foreground, else away; nil: the link is gone.
    ///   - time: the wall clock, in milliseconds since 1970.
    mutating func report(_ user: UserKey, link: UInt64, state: PresenceState?, time: UInt64, now: NIODeadline) {
        var entry = entries.removeValue(forKey: user) ?? Entry()
        let (was, had) = (entry.isInForeground, entry.links.count)
        let comesLate = state == .away && entry.graceUntil != nil && entry.links[link] == nil
        entry.links[link] = state
        let isNow = entry.isInForeground
        // Noted when it begins, too: a crash leaves that.
        if was != isNow { seen[user] = time }
        if was, !isNow { entry.lastSeen = max(entry.lastSeen, time) }
        if state == nil, !isNow, was || had > 0 && entry.links.isEmpty {
            let until = now + timing.grace
            graces.append(Deadline(at: until, user: user))
            if !was, entry.graceUntil != nil {
                // Else it would show as before for longer, and one that comes and goes in the background would keep its user online.
                entry.awayUntil = until
            } else {
                (entry.graceUntil, entry.awayUntil) = (until, nil)
            }
        } else if !comesLate, state != nil || entry.graceUntil == nil {
            entry.endGrace()
        }
        keep(user, entry, now: now)
    }

    /// The user decides what others see.
    mutating func set(_ visibility: PresenceVisibility, of user: UserKey, now: NIODeadline) {
        change(user, now: now) { $0.visibility = visibility }
    }

    /// The account is gone: nothing of it shows, and who takes the name begins anew.
    mutating func forget(_ user: UserKey, now: NIODeadline) {
        guard entries[user] != nil else { return }
        seen[user] = nil
        change(user, now: now) { entry in
            entry.lastSeen = 0
            entry.visibility = .everything
            entry.endGrace()
        }
    }

    // MARK: Loops

    /// A loop wants to know; the present state is news for it.
    /// - Parameter record: what the store has of the user. What is known here is newer.
    mutating func watch(_ user: UserKey, loop: Int, record: PresenceRecord, now: NIODeadline) {
        var isFirst = false
        change(user, now: now) { entry in
            entry.visibility = entry.visibility ?? record.visibility
            entry.lastSeen = max(entry.lastSeen, record.lastSeen)
            isFirst = entry.loops.isEmpty
            entry.loops.insert(loop)
        }
        // The first is told by the change itself.
        guard !isFirst, let shown = entries[user]?.shown else { return }
        news.append(News(user: user, update: shown, loops: [loop]))
    }

    /// A loop wants to know no more.
    mutating func unwatch(_ user: UserKey, loop: Int, now: NIODeadline) {
        guard entries[user] != nil else { return }
        change(user, now: now) { $0.loops.remove(loop) }
    }

    // MARK: Time

    mutating func deadlineReached(now: NIODeadline) {
        while let first = graces.first, first.at <= now {
            graces.removeFirst()
            guard entries[first.user]?.graceUntil == first.at else { continue }
            change(first.user, now: now) { $0.graceIsOver() }
        }
        while let first = quiets.first, first.at <= now {
            quiets.removeFirst()
            guard entries[first.user]?.quietUntil == first.at else { continue }
            change(first.user, now: now) { $0.quietUntil = nil }
        }
    }

    private mutating func change(_ user: UserKey, now: NIODeadline, _ body: (inout Entry) -> Void) {
        var entry = entries.removeValue(forKey: user) ?? Entry()
        body(&entry)
        keep(user, entry, now: now)
    }

    /// Tells what changed, and keeps the entry while it is needed.
    private mutating func keep(_ user: UserKey, _ changed: Entry, now: NIODeadline) {
        var entry = changed
        if entry.loops.isEmpty {
            entry.shown = nil
            entry.quietUntil = nil
        } else if entry.quietUntil == nil {
            tell(user, &entry, now: now)
        }
        if !entry.isOver { entries[user] = entry }
    }

    private mutating func tell(_ user: UserKey, _ entry: inout Entry, now: NIODeadline) {
        let update = entry.update(user.user)
        guard update != entry.shown else { return }
        let until = now + timing.interval
        entry.shown = update
        entry.quietUntil = until
        quiets.append(Deadline(at: until, user: user))
        news.append(News(user: user, update: update, loops: Array(entry.loops)))
    }
}
