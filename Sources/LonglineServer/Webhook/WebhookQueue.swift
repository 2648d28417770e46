import LonglineStore
import LonglineWire

/// What waits to be told, and when: no clock and no connection of its own.
///
/// ```
///             news of the same key                        told, and nothing new
///  put ──▶ waiting ◀──────────────▶ waiting ──take──▶ under way ─────────────────▶ gone
///             ▲                        │                 │  │
///             │                        │ read on a device │  │ told, and more came: waits again
///             └── failed: after a wait ┴──▶ gone ◀────────┘  └────────────▶ waiting
/// ```
/// What was read, forgotten or dropped while it is under way keeps its place until the request is over, so that requests of one
/// key never overlap. What was told before may be to be taken back meanwhile: that is owed, and waits in the place of news that come
/// to their end without having been told. The push of news that are told takes the other's place.
///
/// Its times are those of ``WebhookClock/steady``.
///
/// Endpoints wait apart from one another: what waits for one that takes nothing now costs nobody anything who looks.
///
/// Invariants: one notification for each key; `byUser` names exactly the keys in `items`, and has the places of those that are
/// neither void nor cancels; `due` has exactly those that aren't
/// under way, and `shares` those that aren't void; at most `limit` of them, and what is void. Beyond, ``NotificationShares`` says which
/// is dropped.
struct WebhookQueue {
    typealias Key = PendingNotification.Key

    private struct Item {
        var notification: PendingNotification
        /// Grows with each change; what is under way remembers the one that it took.
        var version: UInt64
        /// When the item came to be, as a number that grows.
        var order: UInt64
        /// The disk has something of this key, as far as is known.
        var isOnDisk: Bool
        var isUnderWay = false
        /// What is being told; nil, too, once its user is forgotten.
        var taken: PendingNotification?
        /// How many of ``PendingNotification/count`` are being told.
        var telling: UInt64 = 0
        /// Of what came since it is under way; nil when nothing did.
        var later: Later?
        /// It has no object any more, and is under way.
        var isVoid = false
        /// A device has got what is being told.
        var isTakenRead = false
        /// How the last message of what is being told was taken back; nil when it was not.
        var retraction: Retraction?
        /// Takes back what was told before, unless this is told. In memory only.
        var owed: PendingNotification?

        mutating func follow(_ news: PendingNotification) {
            later = Later(
                until: later.map { PendingNotification.later($0.until, news.until) } ?? news.until,
                since: later?.since ?? news.since)
        }
    }

    /// How a message was taken back.
    enum Retraction {
        case inTouch
        /// One of the two blocks the other.
        case outOfTouch
    }

    /// ``PendingNotification/until`` of several, and ``PendingNotification/since``.
    private struct Later {
        var until: UInt64
        var since: UInt64
    }

    /// One user's.
    private struct OfUser {
        var conversations: Set<ChannelID> = []
        /// Those of which something is under way: no more than an endpoint takes at a time.
        var underWay: Set<ChannelID> = []
        var direct = DirectNews()
    }

    /// One notification on its way, as it was when it was taken.
    struct Taken: Sendable {
        var notification: PendingNotification
        var version: UInt64
    }

    /// What has to be written.
    struct Changes: Sendable {
        var keep: [PendingNotification] = []
        var forget: [Key] = []
        /// Of what is kept that of which the disk has nothing yet.
        var fresh: Set<Key> = []

        var count: Int { keep.count + forget.count }
    }

    let limit: Int
    private let named: Set<TenantID>
    private let hasJournal: Bool
    private var items: [Key: Item] = [:]
    /// Those that are under way: no more than the endpoints take at a time.
    private var underWay: Set<Key> = []
    private var byUser: [UserKey: OfUser] = [:]
    /// What waits, by endpoint: the tenant, or nil for those that have none of their own.
    private var due: [TenantID?: DueTimes<Key>] = [:]
    private var shares = NotificationShares()
    private var lastVersion: UInt64 = 0
    private var voids = 0
    private var lastOrder: UInt64 = 0
    /// Keys whose place on the disk is not what it is here: of what waits, and of what is on the disk and waits no more.
    private(set) var changed: Set<Key> = []
    /// What was dropped because there was no room.
    private(set) var dropped: UInt64 = 0
    /// What confirmations have cost so far, in notifications looked for.
    private(set) var looks: UInt64 = 0

    /// - Parameters:
    ///   - named: the tenants that have an endpoint of their own.
    ///   - hasJournal: whether somebody takes the changes.
    init(limit: Int, named: Set<TenantID> = [], hasJournal: Bool = true) {
        self.limit = limit
        self.named = named
        self.hasJournal = hasJournal
    }

    var count: Int { items.count - voids }
    var isEmpty: Bool { count == 0 }
    subscript(key: Key) -> PendingNotification? { items[key].flatMap { $0.isVoid ? nil : $0.notification } }

    /// There are news, of a key that may have some already.
    mutating func put(_ news: PendingNotification) {
        if var item = items[news.key] {
            if item.isVoid {
                item.isVoid = false
                voids -= 1
                item.notification = news
                item.telling = 0
                item.later = nil
                item.follow(news)
                lastOrder += 1
                item.order = lastOrder
                shares.add(news.key, from: news.sender, order: lastOrder)
                return store(item)
            }
            let old = item.notification
            guard let all = old.followed(by: news) else { return }
            // The push that news bring takes the place of the one that is to be taken back, once they are told.
            if old.isCancel { item.owed = old }
            item.notification = old.isCancel ? news : all
            item.notification.failures = old.isCancel ? 0 : old.failures
            // What waits waits no longer for what comes behind it.
            item.notification.notBefore = item.isUnderWay || old.isCancel ? news.notBefore : old.notBefore
            if item.isUnderWay { item.follow(news) }
            store(item)
            return
        }
        if count >= limit { makeRoom() }
        lastOrder += 1
        byUser[UserKey(news.key), default: OfUser()].conversations.insert(news.key.conversation)
        shares.add(news.key, from: news.sender, order: lastOrder)
        // What is gone and noted still is on the disk still.
        store(Item(notification: news, version: 0, order: lastOrder, isOnDisk: changed.contains(news.key)))
    }

    /// What was told is done with. Where there are news to tell, or being told, these say more: it waits for what becomes of them.
    mutating func cancel(_ cancel: PendingNotification) {
        guard let item = items[cancel.key] else { return put(cancel) }
        if item.isVoid || !item.notification.isCancel { items[cancel.key]?.owed = cancel }
    }

    /// Whether a device has got what was taken meanwhile.
    func wasRead(_ taken: Taken) -> Bool { items[taken.notification.key]?.isTakenRead ?? false }

    /// How the last message of what was taken was taken back meanwhile; nil when it was not.
    func retraction(of taken: Taken) -> Retraction? { items[taken.notification.key]?.retraction }

    /// A message was taken back. What is being told of it shows it all the same.
    mutating func retracted(_ position: Position, of key: Key, _ retraction: Retraction) {
        guard let taken = items[key]?.taken, !taken.isCancel, taken.position == position else { return }
        items[key]?.retraction = retraction
    }

    /// Who is being told of a room.
    func usersBeingTold(of room: ChannelKey) -> [UserID] {
        underWay.filter { $0.conversationKey == room }.map(\.user)
    }

    /// Whether the user of what was taken was forgotten meanwhile.
    func wasForgotten(_ taken: Taken) -> Bool {
        items[taken.notification.key].map { $0.isUnderWay && $0.taken == nil } ?? false
    }

    private mutating func store(_ item: Item) {
        var item = item
        let key = item.notification.key
        lastVersion += 1
        item.version = lastVersion
        let user = UserKey(key)
        if let old = items[key] { byUser[user]?.direct.remove(old.notification) }
        if !item.notification.isCancel { byUser[user]?.direct.insert(item.notification) }
        items[key] = item
        noteChange(of: key)
        wait(item)
    }

    /// Has an item wait for its time, unless it is under way.
    private mutating func wait(_ item: Item) {
        guard !item.isUnderWay else { return }
        let key = item.notification.key
        due[slot(key.tenant), default: DueTimes()].insert(key, time: item.notification.notBefore, order: item.order)
    }

    private func slot(_ tenant: TenantID) -> TenantID? { named.contains(tenant) ? tenant : nil }

    /// What looking for what is due has cost so far, in entries put somewhere.
    var moves: UInt64 { due.values.reduce(0) { $0 + $1.moves } }

    /// When the next one for an endpoint is due; nil when none waits.
    func nextTime(for slot: TenantID? = nil) -> UInt64? { due[slot]?.first?.time }

    /// Takes the next one for an endpoint that is due.
    mutating func take(for slot: TenantID? = nil, now: UInt64) -> Taken? {
        guard let (time, key) = due[slot]?.first, time <= now, var item = items[key] else { return nil }
        due[slot]?.removeFirst()
        item.isUnderWay = true
        (item.isTakenRead, item.retraction) = (false, nil)
        item.taken = item.notification
        item.telling = item.notification.count
        item.later = nil
        items[key] = item
        underWay.insert(key)
        byUser[UserKey(key)]?.underWay.insert(key.conversation)
        return Taken(notification: item.notification, version: item.version)
    }

    /// Puts what was taken back, to be taken again at a time, without counting it as a failure.
    mutating func postpone(_ taken: Taken, until time: UInt64) {
        guard var item = ended(taken, owedAt: time) else { return }
        item.notification.notBefore = max(item.notification.notBefore, time)
        // The disk need not know: a process after this one has no reason to wait.
        items[taken.notification.key] = item
        wait(item)
    }

    /// It was told. What came meanwhile waits from then on.
    mutating func told(_ taken: Taken) {
        // Its push is in the other's place, or took it back.
        items[taken.notification.key]?.owed = nil
        giveUp(taken)
    }

    /// It could not be told: again at a time.
    mutating func failed(_ taken: Taken, until time: UInt64) {
        guard var item = ended(taken, owedAt: time) else { return }
        item.notification.failures += 1
        item.notification.notBefore = max(item.notification.notBefore, time)
        store(item)
    }

    /// It will not be told, unless something came meanwhile.
    mutating func giveUp(_ taken: Taken) {
        let key = taken.notification.key
        guard var item = ended(taken) else { return }
        guard item.version != taken.version else { return removeForOwed(key) }
        if item.notification.count > 1 { item.notification.count -= min(item.notification.count - 1, item.telling) }
        item.notification.failures = 0
        if let later = item.later { (item.notification.until, item.notification.since) = (later.until, later.since) }
        store(item)
    }

    /// - Parameter time: when what is owed may leave, at the earliest.
    private mutating func ended(_ taken: Taken, owedAt time: UInt64 = 0) -> Item? {
        let key = taken.notification.key
        guard var item = items[key], item.isUnderWay else { return nil }
        item.isUnderWay = false
        underWay.remove(key)
        byUser[UserKey(key)]?.underWay.remove(key.conversation)
        (item.taken, item.isTakenRead, item.retraction) = (nil, false, nil)
        if let owed = item.owed { item.owed?.notBefore = max(owed.notBefore, time) }
        items[key] = item
        guard !item.isVoid else {
            voids -= 1
            removeForOwed(key)
            return nil
        }
        return item
    }

    /// One of the user's devices has a channel's entries up to here.
    /// - Parameter only: of this conversation; nil: of all.
    /// - Returns: how many notifications are without an object now.
    mutating func confirmed(
        _ user: UserKey, _ channel: ChannelID, _ position: Position, of only: ChannelID? = nil
    ) -> Int {
        guard let underWay = byUser[user]?.underWay else { return 0 }
        for conversation in underWay where only == nil || only == conversation {
            looks += 1
            let key = Key(tenant: user.tenant, user: user.user, conversation: conversation)
            guard let taken = items[key]?.taken, !taken.isCancel, taken.isCovered(by: position, of: channel) else {
                continue
            }
            items[key]?.isTakenRead = true
        }
        let covered = byUser[user]?.direct.covered(by: position, of: channel, of: user.user, only: only) ?? []
        looks += UInt64(covered.count)
        var count = 0
        for conversation in covered {
            let key = Key(tenant: user.tenant, user: user.user, conversation: conversation)
            guard let waiting = self[key], !waiting.isCancel, waiting.isCovered(by: position, of: channel) else {
                continue
            }
            removeForOwed(key)
            count += 1
        }
        return count
    }

    /// Forgets a user.
    mutating func forget(_ user: UserKey) {
        for conversation in byUser[user]?.conversations ?? [] {
            let key = Key(tenant: user.tenant, user: user.user, conversation: conversation)
            items[key]?.owed = nil
            items[key]?.taken = nil
            items[key]?.isTakenRead = false
            remove(key)
        }
    }

    /// Removes what comes to its end without having been told: what it would have taken the place of is taken back.
    private mutating func removeForOwed(_ key: Key) {
        let owed = items[key]?.owed
        remove(key)
        // What is under way keeps it until the request is over. Taking a push back is worth nobody's news.
        if let owed, items[key] == nil, count < limit { put(owed) }
    }

    private mutating func remove(_ key: Key) {
        guard var item = items[key] else { return }
        // Of what was never written there is nothing to be forgotten.
        if item.isOnDisk { noteChange(of: key) } else { changed.remove(key) }
        shares.remove(order: item.order)
        let user = UserKey(key)
        byUser[user]?.direct.remove(item.notification)
        if item.isUnderWay {
            guard !item.isVoid else { return }
            item.isVoid = true
            voids += 1
            items[key] = item
            return
        }
        items[key] = nil
        due[slot(key.tenant)]?.remove(order: item.order)
        byUser[user]?.conversations.remove(key.conversation)
        if byUser[user]?.conversations.isEmpty == true { byUser[user] = nil }
    }

    private mutating func makeRoom() {
        guard let key = shares.first else { return }
        dropped += 1
        remove(key)
    }

    // MARK: The disk

    /// Takes up what a process before this one left.
    mutating func restore(_ notifications: some Sequence<PendingNotification>) {
        for notification in notifications {
            put(notification)
            items[notification.key]?.isOnDisk = true
        }
        // What had no room is on the disk still.
        changed = changed.filter { self[$0] == nil }
    }

    private mutating func noteChange(of key: Key) {
        if hasJournal { changed.insert(key) }
    }

    /// What has to be written, so many at most, which counts as written from now on.
    mutating func takeChanges(limit: Int = .max) -> Changes {
        let keys = Array(changed.prefix(limit))
        if keys.count == changed.count { changed.removeAll() } else { changed.subtract(keys) }
        var changes = Changes()
        for key in keys {
            if let waiting = self[key] {
                changes.keep.append(waiting)
                if items[key]?.isOnDisk == false { changes.fresh.insert(key) }
                items[key]?.isOnDisk = true
            } else {
                changes.forget.append(key)
                items[key]?.isOnDisk = false
            }
        }
        return changes
    }

    /// What was taken could not be written: the disk is as it was before.
    mutating func notWritten(_ changes: Changes) {
        restoreChanges(changes.forget)
        restoreChanges(changes.keep.map(\.key).filter { !changes.fresh.contains($0) })
        for key in changes.fresh {
            items[key]?.isOnDisk = false
            if self[key] == nil { changed.remove(key) } else { noteChange(of: key) }
        }
    }

    /// What is on the disk, and not as it is here.
    mutating func restoreChanges(_ keys: some Sequence<Key>) {
        for key in keys {
            items[key]?.isOnDisk = true
            noteChange(of: key)
        }
    }
}

extension UserKey {
    init(_ key: PendingNotification.Key) { self.init(tenant: key.tenant, user: key.user) }
}
