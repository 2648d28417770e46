import LonglineStore
import LonglineWire

/// News of users who have a session: told once their last session ends without a word of having them, and else not at all.
///
/// ```
///   put ──▶ held ──a device confirmed──▶ gone
///             │
///             └────no session is left──▶ taken, to be told
/// ```
/// In memory only, and at most `limit`: ``NotificationShares`` says which give way, and they are counted.
struct HeldNotifications {
    private struct Item {
        var notification: PendingNotification
        var order: UInt64
    }

    private struct OfUser {
        var items: [ChannelID: Item] = [:]
        var direct = DirectNews()
    }

    let limit: Int
    private var users: [UserKey: OfUser] = [:]
    /// Who has news of a room.
    private var rooms: [ChannelKey: Set<UserID>] = [:]
    private var shares = NotificationShares()
    private var lastOrder: UInt64 = 0
    private(set) var count = 0
    /// What was dropped because there was no room.
    private(set) var dropped: UInt64 = 0
    /// What confirmations have cost so far, in notifications looked for.
    private(set) var looks: UInt64 = 0

    init(limit: Int) { self.limit = limit }

    mutating func put(_ news: PendingNotification) {
        let user = UserKey(news.key)
        if var item = users[user]?.items[news.key.conversation] {
            guard let all = item.notification.followed(by: news) else { return }
            users[user]?.direct.remove(item.notification)
            users[user]?.direct.insert(all)
            item.notification = all
            users[user]?.items[news.key.conversation] = item
            return
        }
        if count >= limit { makeRoom() }
        lastOrder += 1
        users[user, default: OfUser()].items[news.key.conversation] = Item(notification: news, order: lastOrder)
        users[user]?.direct.insert(news)
        if case .room = news.key.conversation { rooms[news.key.conversationKey, default: []].insert(news.key.user) }
        shares.add(news.key, from: news.sender, order: lastOrder)
        count += 1
    }

    /// Who has news of a room.
    func users(of room: ChannelKey) -> Set<UserID> { rooms[room] ?? [] }

    /// Takes out the news of a conversation if a message is the last of them.
    mutating func take(_ key: PendingNotification.Key, endingAt position: Position) -> PendingNotification? {
        guard let news = users[UserKey(key)]?.items[key.conversation]?.notification, news.position == position else {
            return nil
        }
        remove(UserKey(key), key.conversation)
        return news
    }

    /// One of the user's devices has a channel's entries up to here.
    /// - Parameter only: of this conversation; nil: of all.
    /// - Returns: what is held no more.
    @discardableResult
    mutating func confirmed(
        _ user: UserKey, _ channel: ChannelID, _ position: Position, of only: ChannelID? = nil
    ) -> [PendingNotification] {
        guard let covered = users[user]?.direct.covered(by: position, of: channel, of: user.user, only: only)
        else { return [] }
        looks += UInt64(covered.count)
        var gone: [PendingNotification] = []
        for conversation in covered {
            guard let news = users[user]?.items[conversation]?.notification,
                news.isCovered(by: position, of: channel)
            else { continue }
            gone.append(news)
            remove(user, conversation)
        }
        return gone
    }

    /// What a user has, the first first; nothing of it is held any more.
    mutating func take(_ user: UserKey) -> [PendingNotification] {
        let items = users.removeValue(forKey: user)?.items ?? [:]
        count -= items.count
        for item in items.values {
            shares.remove(order: item.order)
            leaveRoom(item.notification.key)
        }
        return items.values.sorted { $0.order < $1.order }.map(\.notification)
    }

    private mutating func remove(_ user: UserKey, _ conversation: ChannelID) {
        guard let item = users[user]?.items.removeValue(forKey: conversation) else { return }
        users[user]?.direct.remove(item.notification)
        leaveRoom(item.notification.key)
        count -= 1
        shares.remove(order: item.order)
        if users[user]?.items.isEmpty == true { users[user] = nil }
    }

    private mutating func leaveRoom(_ key: PendingNotification.Key) {
        guard case .room = key.conversation else { return }
        let room = key.conversationKey
        rooms[room]?.remove(key.user)
        if rooms[room]?.isEmpty == true { rooms[room] = nil }
    }

    private mutating func makeRoom() {
        guard let key = shares.first else { return }
        dropped += 1
        remove(UserKey(key), key.conversation)
    }
}

extension PendingNotification.Key {
    /// The conversation, among those of all tenants.
    var conversationKey: ChannelKey { ChannelKey(tenant: tenant, channel: conversation) }
}
