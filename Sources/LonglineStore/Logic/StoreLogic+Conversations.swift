import LonglineWire

/// Conversations: what a publish adds to them, how far their users read, and what they decided.
///
/// The other side's progress is not stored: it follows from the other side's cursors and read place. One sequence of offsets
/// serves all channels, and a copy is drawn right after its record, so what a user sent is before a place of the recipient's
/// inbox exactly when its record's offset is below that place. What was sent before that inbox was made, to one that went with its
/// account, can't be told from it once a message was sent since.
extension StoreLogic {
    /// A conversation about which something may be known, made on first sight.
    func conversation(_ name: ChannelID, of inbox: ChannelRecord) throws -> ConversationRecord {
        try tables.conversation(name, of: inbox) ?? ConversationRecord(owner: inbox.id, name: name)
    }

    /// The conversation that a publish into an inbox belongs to; nil for a room, whose log is all there is of it.
    func conversation(with recipient: UserID?, of channel: ChannelRecord) throws -> ConversationRecord? {
        guard case .user(let owner) = channel.key.channel else { return nil }
        return try conversation(.user(recipient ?? owner), of: channel)
    }

    /// Takes note of an entry of an inbox.
    func note(_ entry: Entry, in known: ConversationRecord) throws {
        var conversation = known
        conversation.last = entry.offset
        conversation.time = entry.time
        // What names another entry may have no copy.
        if entry.origin == nil, !entry.kind.namesEntry { conversation.sent = entry.offset }
        if entry.countsAsUnread {
            conversation.incoming = entry.offset
            conversation.unread += 1
        }
        try tables.update(conversation)
    }

    /// A message left an inbox: retracted or trimmed. It can't be read any more.
    func forgetUnread(_ offset: Offset, from sender: UserID, in inbox: ChannelRecord) throws {
        guard var conversation = try tables.conversation(.user(sender), of: inbox), offset > conversation.read,
            conversation.unread > 0
        else { return }
        conversation.unread -= 1
        try tables.update(conversation)
    }

    // MARK: Reading

    /// Takes note of places that were read. However many there are, together they look at no more than a few thousand entries.
    func markRead(_ notes: [ReadNote]) throws -> [ReadOutcome?] {
        // A few for each in any case, so that every mark moves on.
        var budget = UnreadBudget(limits, least: 16)
        return try notes.map { try markRead($0, &budget) }
    }

    private func markRead(_ note: ReadNote, _ budget: inout UnreadBudget) throws -> ReadOutcome? {
        let mark = note.mark
        guard let inbox = try tables.channel(ChannelKey(tenant: note.tenant, channel: .user(note.user))) else {
            return nil
        }
        switch mark.conversation {
        case .user(let peer):
            // Who was never in touch has nothing to read, and leaves no row.
            guard mark.position.epoch == inbox.epoch, mark.position.offset <= inbox.head,
                let conversation = try tables.conversation(mark.conversation, of: inbox), conversation.last > 0
            else { return nil }
            guard let read = try advance(conversation, to: mark, in: inbox, counting: peer, &budget) else { return nil }
            let told = conversation.blocked == 0 ? try audience(of: note, peer: peer) : .nobody
            return ReadOutcome(position: Position(epoch: inbox.epoch, offset: read), audience: told)
        case .room:
            guard let room = try tables.channel(ChannelKey(tenant: note.tenant, channel: mark.conversation)),
                let last = try tables.stint(of: note.user, in: room)
            else { return nil }
            let stint = try StoreRules.ended(last, in: room, tables)
            guard mark.position.epoch == room.epoch,
                mark.position.offset <= min(room.head, stint.left ?? .max), mark.position.offset > stint.after
            else { return nil }
            let known = try conversation(mark.conversation, of: inbox)
            guard try advance(known, to: mark, in: room, counting: nil, &budget) != nil else { return nil }
            let tellsMembers = !mark.isPrivate && stint.left == nil && room.members <= limits.receiptMembers
            return ReadOutcome(position: mark.position, audience: tellsMembers ? .members : .nobody)
        case .all: return nil
        }
    }

    /// - Returns: up to where it moved; nil when nothing did. Before the mark it is where so many entries lie between that they are
    ///   not all counted at once: the next mark goes on there.
    private func advance(
        _ known: ConversationRecord, to mark: ReadMark, in channel: ChannelRecord, counting peer: UserID?,
        _ budget: inout UnreadBudget
    ) throws -> Offset? {
        var conversation = known
        let offset = mark.position.offset
        var reached = offset
        if !mark.isPrivate, conversation.blocked == 0 { conversation.shared = max(conversation.shared, offset) }
        if offset > conversation.read {
            if let peer, conversation.unread > 0 {
                // What lay between is read now. Each entry is looked at once in its life, as the place only grows.
                var read = conversation.unread
                if offset < conversation.incoming {
                    let looking = budget.next
                    let counted = try tables.count(
                        .messages, in: channel, above: conversation.read, through: offset, by: .only(peer),
                        limit: conversation.unread, looking: looking, now: 0)
                    budget.spend(counted.looked)
                    if counted.looked == looking { reached = counted.last }
                    read = counted.count
                }
                conversation.unread -= min(read, conversation.unread)
            }
            conversation.read = reached
        }
        guard conversation != known else { return nil }
        try tables.update(conversation)
        return reached
    }

    private func audience(of note: ReadNote, peer: UserID) throws -> ReadOutcome.Audience {
        guard !note.mark.isPrivate, peer != note.user,
            let place = try StoreRules.progress(
                of: note.user, at: note.mark.position.offset, for: peer, in: note.tenant, tables)
        else { return .nobody }
        return .peer(peer, place)
    }

    // MARK: Settings

    mutating func set(
        _ setting: ConversationSetting, of name: ChannelID, for user: UserID, in tenant: TenantID
    ) throws -> ConversationSettings? {
        guard let inbox = try channel(ChannelKey(tenant: tenant, channel: .user(user))), name != .user(user) else {
            return nil
        }
        if case .all = name { return nil }
        let known = try tables.conversation(name, of: inbox)
        let isForeign = try isRoomOfOthers(name, for: user, in: tenant)
        // What was muted as a member can be ended by who is none any more.
        if isForeign, setting != .mute(until: 0) || known == nil { return nil }
        var conversation = known ?? ConversationRecord(owner: inbox.id, name: name)
        switch (setting, name) {
        case (.mute(let until), _): conversation.mutedUntil = min(until, FrameLimits.maximumNumber)
        case (.block, .room), (.block, .all): return nil
        case (.block(true), .user):
            // From here on nothing of the other side's arrives: what it is told of us ends here.
            if conversation.blocked == 0 { conversation.blocked = max(inbox.head, 1) }
        case (.block(false), .user): conversation.blocked = 0
        }
        // Taking back what was never set leaves no row.
        guard conversation != known, known != nil || conversation.hasSettings else { return conversation.settings }
        if !(known?.hasSettings ?? false), conversation.hasSettings, try !hasPlaceForSettings(of: user, inbox, tenant) {
            throw StoreError(
                .limitExceeded, message: "user \(user) has settings for \(limits.settingsPerUser) conversations")
        }
        try keep(conversation, isForeign: isForeign, of: inbox)
        return conversation.settings
    }

    /// Whether a conversation is a room that the user is not in.
    private func isRoomOfOthers(_ name: ChannelID, for user: UserID, in tenant: TenantID) throws -> Bool {
        guard case .room = name else { return false }
        guard let room = try tables.channel(ChannelKey(tenant: tenant, channel: name)) else { return true }
        return try StoreRules.stay(of: user, in: room, tables) == nil
    }

    private func keep(_ conversation: ConversationRecord, isForeign: Bool, of inbox: ChannelRecord) throws {
        let isForSettings =
            if case .user = conversation.name { conversation.last == 0 } else { isForeign }
        if isForSettings, !conversation.hasSettings {
            // Nothing was ever said in it, or nothing of it is readable any more: it was there for its settings.
            try tables.removeConversation(conversation.name, of: inbox)
        } else {
            try tables.update(conversation)
        }
    }

    /// Whether a user may have settings for one more conversation. When all are taken, mutes give way that mute nothing any more:
    /// those whose time is over, then those of rooms that the user left, which no list shows.
    private mutating func hasPlaceForSettings(
        of user: UserID, _ inbox: ChannelRecord, _ tenant: TenantID
    ) throws -> Bool {
        guard try tables.countSettings(of: inbox) >= limits.settingsPerUser else { return true }
        let now = clock()
        let mutes = try tables.conversationsWithSettings(of: inbox).filter { $0.blocked == 0 }
        func looked(at some: [ConversationRecord]) throws -> [(conversation: ConversationRecord, isForeign: Bool)] {
            try some.map { (conversation: $0, isForeign: try isRoomOfOthers($0.name, for: user, in: tenant)) }
        }
        var void = try looked(at: mutes.filter { $0.mutedUntil <= now })
        if void.isEmpty { void = try looked(at: mutes).filter(\.isForeign) }
        for (var mute, isForeign) in void {
            mute.mutedUntil = 0
            try keep(mute, isForeign: isForeign, of: inbox)
        }
        return try tables.countSettings(of: inbox) < limits.settingsPerUser
    }
}

extension Entry {
    /// Whether it is a message of somebody else's in an inbox.
    var countsAsUnread: Bool { kind == .message && origin != nil }
}
