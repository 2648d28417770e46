import LonglineWire

/// Listing conversations, which needs no writer.
extension StoreRules {
    static func conversations(
        of user: UserID, in tenant: TenantID, after: ConversationPlace?, limit: Int, limits: StoreLimits, now: UInt64,
        _ tables: some StoreTables
    ) throws -> ConversationList {
        guard let inbox = try tables.channel(ChannelKey(tenant: tenant, channel: .user(user))) else {
            return ConversationList(items: [], next: nil)
        }
        let limit = max(limit, 1)
        // One more than asked for tells whether there is a next page.
        var places = try tables.directConversations(of: inbox, after: after, limit: limit + 1).map(Listed.direct)
        for (room, stint) in try tables.stints(of: user, in: tenant) where stint.after(deletionOf: room).left == nil {
            let place = ConversationPlace(time: room.time, conversation: room.key.channel)
            if let after, !ConversationPlace.comesBefore(after, place) { continue }
            places.append(.room(room, stint))
        }
        places.sort { ConversationPlace.comesBefore($0.place, $1.place) }
        let page = places.prefix(limit)
        // So many of each that a short count is right.
        var budget = UnreadBudget(limits, least: 256)
        let items = try page.map { listed in
            switch listed {
            case .direct(let conversation): try item(conversation, of: user, inbox, limits, now: now, tables)
            case .room(let room, let stint): try item(room, stint, of: user, inbox, &budget, now: now, tables)
            }
        }
        return ConversationList(items: items, next: places.count > limit ? page.last?.place : nil)
    }

    private enum Listed {
        case direct(ConversationRecord)
        case room(ChannelRecord, Stint)

        var place: ConversationPlace {
            switch self {
            case .direct(let conversation): conversation.place
            case .room(let room, _): ConversationPlace(time: room.time, conversation: room.key.channel)
            }
        }
    }

    /// Entries of an inbox that are looked at to leave out what expired unread in one direct conversation.
    private static var expiryLook: Int { 256 }

    /// What is unread in a direct conversation. What is kept counts what expired meanwhile as well: nothing happens when a message's
    /// time is over.
    private static func unread(
        _ conversation: ConversationRecord, _ inbox: ChannelRecord, _ limits: StoreLimits, now: UInt64,
        _ tables: some StoreTables
    ) throws -> Int {
        let looking = min(expiryLook, max(1, limits.unreadEntries))
        // Of more, these few can't be all.
        guard case .user(let peer) = conversation.name, (1...looking).contains(conversation.unread) else {
            return conversation.unread
        }
        let counted = try tables.count(
            .messages, in: inbox, above: conversation.read, through: conversation.incoming, by: .only(peer),
            limit: conversation.unread, looking: looking, now: now)
        let isWhole = counted.looked < looking || counted.last >= conversation.incoming
        return isWhole ? counted.count : conversation.unread
    }

    private static func item(
        _ conversation: ConversationRecord, of user: UserID, _ inbox: ChannelRecord, _ limits: StoreLimits,
        now: UInt64, _ tables: some StoreTables
    ) throws -> ConversationItem {
        let unread = try unread(conversation, inbox, limits, now: now, tables)
        var item = ConversationItem(
            conversation: conversation.name, last: Position(epoch: inbox.epoch, offset: conversation.last),
            time: conversation.time, unread: UInt64(min(unread, FrameLimits.maximumUnread)),
            settings: conversation.settings, read: conversation.read, peerDelivered: 0, peerRead: 0)
        guard case .user(let peer) = conversation.name, peer != user,
            let others = try tables.channel(ChannelKey(tenant: inbox.key.tenant, channel: conversation.name))
        else { return item }
        func progress(_ offset: Offset) throws -> Offset {
            try Self.progress(of: peer, at: offset, for: user, in: inbox.key.tenant, tables)?.offset ?? 0
        }
        item.peerDelivered = try progress(tables.highestCursor(of: peer, in: others))
        item.peerRead = try progress(tables.conversation(.user(user), of: others)?.shared ?? 0)
        return item
    }

    private static func item(
        _ room: ChannelRecord, _ stint: Stint, of user: UserID, _ inbox: ChannelRecord,
        _ budget: inout UnreadBudget, now: UInt64, _ tables: some StoreTables
    ) throws -> ConversationItem {
        let conversation = try tables.conversation(room.key.channel, of: inbox)
        let read = conversation?.read ?? 0
        let unread = try tables.count(
            .messages, in: room, above: max(read, stint.joined), through: room.head, by: .allBut(user),
            limit: FrameLimits.maximumUnread, looking: budget.next, now: now)
        budget.spend(unread.looked)
        return ConversationItem(
            conversation: room.key.channel, last: room.ends.position, time: room.time, unread: UInt64(unread.count),
            settings: conversation?.settings ?? ConversationSettings(), read: read, peerDelivered: 0, peerRead: 0)
    }

    /// How far what `teller` did up to an offset of its inbox reaches in the inbox of `told`: everything that `told` sent to
    /// `teller` up to there is covered.
    /// - Returns: nil when that is nothing, or nobody's to know: one of the two blocked the other.
    static func progress(
        of teller: UserID, at offset: Offset, for told: UserID, in tenant: TenantID, _ tables: some StoreTables
    ) throws -> Position? {
        guard offset > 1, let inbox = try tables.channel(ChannelKey(tenant: tenant, channel: .user(told))),
            let others = try tables.channel(ChannelKey(tenant: tenant, channel: .user(teller))),
            let own = try tables.conversation(.user(teller), of: inbox), own.blocked == 0, own.last > 0,
            // What went to whoever had the name before never arrived. Of who sent no message since that is noted the last entry has to do.
            (own.sent > 0 ? own.sent : own.last) >= others.begin
        else { return nil }
        // What was sent since the block never arrived.
        let blocked = try tables.conversation(.user(told), of: others)?.blocked ?? 0
        let reached = blocked == 0 ? offset : min(offset, blocked)
        guard reached > 1 else { return nil }
        return Position(epoch: inbox.epoch, offset: min(reached - 1, own.last))
    }

    static func receipt(for note: DeliveryNote, _ tables: some StoreTables) throws -> DeliveryNote? {
        guard try outOfTouch(note.recipient, with: [note.sender], in: note.tenant, tables).isEmpty,
            let inbox = try tables.channel(ChannelKey(tenant: note.tenant, channel: .user(note.sender))),
            // What whoever had the name before sent is not for who has it now.
            note.origin.offset > inbox.begin
        else { return nil }
        var note = note
        // A copy from before the store was restored names the record's place in the epoch that was then.
        note.origin.epoch = inbox.epoch
        return note
    }

    /// Those of `others` whom a user blocked, or who blocked the user.
    static func outOfTouch(
        _ user: UserID, with others: some Sequence<UserID>, in tenant: TenantID, _ tables: some StoreTables
    ) throws -> Set<UserID> {
        let inbox = try tables.channel(ChannelKey(tenant: tenant, channel: .user(user)))
        func isBlocked(_ user: UserID, in inbox: ChannelRecord?) throws -> Bool {
            guard let inbox, let conversation = try tables.conversation(.user(user), of: inbox) else { return false }
            return conversation.blocked != 0
        }
        return try Set(
            others.filter { other in
                if try isBlocked(other, in: inbox) { return true }
                let theirs = try tables.channel(ChannelKey(tenant: tenant, channel: .user(other)))
                return try isBlocked(user, in: theirs)
            })
    }

    static func settings(
        of conversation: ChannelID, for user: UserID, in tenant: TenantID, _ tables: some StoreTables
    ) throws -> ConversationSettings {
        guard let inbox = try tables.channel(ChannelKey(tenant: tenant, channel: .user(user))) else {
            return ConversationSettings()
        }
        return try tables.conversation(conversation, of: inbox)?.settings ?? ConversationSettings()
    }
}
