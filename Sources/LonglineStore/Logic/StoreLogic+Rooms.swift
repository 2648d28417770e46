import LonglineWire
import NIOCore

/// Rooms: membership is what the join and leave entries of the room's log say, and so are its owners and settings.
///
/// ```
///              JOIN: owner, first settings             last member leaves, or an owner deletes it
///   no members ──────────────────────────▶ members ─────────────────────────────────────────────▶ no members
///                                           owners > 0: the last one's end makes the oldest member one
/// ```
/// Invariant: `owners > 0` as long as `members > 0`. Nothing here costs more in a larger room.
extension StoreLogic {
    mutating func change(_ room: RoomID, _ change: RoomChange, by device: DeviceKey) throws -> RoomOutcome {
        let key = ChannelKey(tenant: device.tenant, channel: .room(room))
        let known = try tables.channel(key)
        switch change {
        case .join(let create):
            guard let known else {
                guard create else { return .refused(.unknownChannel) }
                guard try makesPlace(for: device.user, in: nil, tenant: device.tenant) else {
                    return .refused(.limitReached)
                }
                return try enter(device.user, by: device, addChannel(key))
            }
            if let stay = try StoreRules.stay(of: device.user, in: known, tables) {
                return .done(Self.unchanged(known, stay, device.user))
            }
            guard known.members == 0 || known.joining == .anyone else { return .refused(.forbidden) }
            return try enter(device.user, by: device, known)
        case .appoint(let role): return try appoint(role, by: device, known, key)
        case .dissolve:
            guard let known else { return .refused(.unknownChannel) }
            return known.members > 0 ? try delete(by: device, known) : .done(Self.unchanged(known))
        case .leave:
            guard let known, let stay = try StoreRules.stay(of: device.user, in: known, tables) else {
                return .refused(.unknownChannel)
            }
            return try end(stay, of: device.user, by: device, known)
        case .act(let action):
            guard let known, let stay = try StoreRules.stay(of: device.user, in: known, tables) else {
                return .refused(.unknownChannel)
            }
            guard stay.role == .owner else { return .refused(.forbidden) }
            return try act(action, by: device, known)
        }
    }

    /// Makes a user a member with a role, as the app's own server wants it.
    private mutating func appoint(
        _ role: RoomRole?, by device: DeviceKey, _ known: ChannelRecord?, _ key: ChannelKey
    ) throws -> RoomOutcome {
        let stay = try known.flatMap { try StoreRules.stay(of: device.user, in: $0, tables) }
        guard let known, let stay else {
            // Of a room that is there it is asked once nothing else stands in the way: a refusal must not cost another room's place.
            if known == nil {
                guard try makesPlace(for: device.user, in: nil, tenant: device.tenant) else {
                    return .refused(.limitReached)
                }
            }
            let joined = try enter(device.user, by: device, known ?? addChannel(key))
            guard role == .owner, case .done(let receipt) = joined, let room = try tables.channel(key) else {
                return joined
            }
            guard case .done(let promoted) = try act(.setRole(.owner, of: device.user), by: device, room) else {
                return joined
            }
            var both = receipt
            both.head = promoted.head
            both.settings?.position = promoted.head
            both.settings?.role = .owner
            return .done(both)
        }
        guard let role, role != stay.role else { return .done(Self.unchanged(known, stay, device.user)) }
        return try act(.setRole(role, of: device.user), by: device, known)
    }

    private func act(_ action: RoomAction, by device: DeviceKey, _ known: ChannelRecord) throws -> RoomOutcome {
        var room = known
        switch action {
        case .add(let user):
            if let stay = try StoreRules.stay(of: user, in: room, tables) {
                return .done(Self.unchanged(room, stay, user))
            }
            guard room.joining != .nobody else { return .refused(.forbidden) }
            return try enter(user, by: device, room)
        case .remove(let user):
            guard let stay = try StoreRules.stay(of: user, in: room, tables) else { return .done(Self.unchanged(room)) }
            return try end(stay, of: user, by: device, room)
        case .setRole(let role, let user):
            guard var stay = try StoreRules.stay(of: user, in: room, tables) else { return .refused(.unknownRecipient) }
            guard stay.role != role else { return .done(Self.unchanged(room)) }
            guard role == .owner || room.owners > 1 else { return .refused(.forbidden) }
            stay.role = role
            room.owners += role == .owner ? 1 : -1
            try tables.set(stay, of: user, in: room)
        case .setJoining(let joining):
            guard room.joining != joining else { return .done(Self.unchanged(room)) }
            room.joining = joining
        case .setPublishing(let publishing):
            guard room.publishing != publishing else { return .done(Self.unchanged(room)) }
            room.publishing = publishing
        case .delete:
            return try delete(by: device, room)
        }
        let entry = try record(action, by: device, in: &room)
        return .done(Self.receipt(entry, room))
    }

    // MARK: Memberships

    /// Makes a user, who is no member, one.
    private func enter(_ user: UserID, by device: DeviceKey, _ known: ChannelRecord) throws -> RoomOutcome {
        var room = known
        guard room.members < limits.roomMembers else { return .refused(.roomFull) }
        guard try user == device.user || mayBeAdded(user, by: device) else { return .refused(.limitReached) }
        guard try makesPlace(for: user, in: room, tenant: device.tenant) else { return .refused(.limitReached) }
        var role = RoomRole.member
        if room.members == 0 {
            role = .owner
            room.owners = 1
            room.joining = .anyone
            room.publishing = .members
        }
        room.members += 1
        let entry = try enter(Self.draft(.joined, by: device, about: user), in: &room, now: clock())
        let stint = Stint(after: entry.previous, joined: entry.offset, role: role)
        try tables.set(stint, of: user, in: room)
        return .done(Self.receipt(entry, room, user, stint))
    }

    /// Ends a user's stay.
    private func end(_ stay: Stint, of user: UserID, by device: DeviceKey, _ known: ChannelRecord) throws -> RoomOutcome
    {
        var room = known
        precondition(room.members > 0, "who leaves was a member")
        room.members -= 1
        if stay.role == .owner { room.owners -= 1 }
        let entry = try enter(Self.draft(.left, by: device, about: user), in: &room, now: clock())
        var ended = stay
        ended.left = entry.offset
        ended.role = .member
        try tables.set(ended, of: user, in: room)
        if room.owners == 0, let heir = try tables.oldestMember(of: room),
            var stay = try StoreRules.stay(of: heir, in: room, tables)
        {
            stay.role = .owner
            room.owners = 1
            try tables.set(stay, of: heir, in: room)
            _ = try record(.setRole(.owner, of: heir), by: device, in: &room)
        }
        assert(room.owners > 0 || room.members == 0, "a room with members has an owner")
        return .done(Self.receipt(entry, room, user, ended))
    }

    /// One entry ends every stay: see ``StoreRules/ended(_:in:_:)``.
    private func delete(by device: DeviceKey, _ known: ChannelRecord) throws -> RoomOutcome {
        var room = known
        room.members = 0
        room.owners = 0
        let entry = try record(.delete, by: device, in: &room)
        room.deleted = entry.offset
        try tables.update(room)
        try tables.addDeletion(entry.offset, of: room)
        var receipt = Self.receipt(entry, room)
        receipt.isDeleted = true
        return .done(receipt)
    }

    /// Whether a user takes being added to one more room. Who blocked the other side is not, with the same answer as who is in
    /// many rooms: nobody is told of a block.
    private func mayBeAdded(_ user: UserID, by device: DeviceKey) throws -> Bool {
        let settings = try StoreRules.settings(of: .user(device.user), for: user, in: device.tenant, tables)
        guard !settings.isBlocked else { return false }
        let stays = try tables.stints(of: user, in: device.tenant).count { $1.after(deletionOf: $0).left == nil }
        return stays < limits.roomsWhenAdded
    }

    /// Makes sure that the user may be in one more room: the room left longest ago gives way.
    /// - Returns: false when the user is in as many as one may be.
    private func makesPlace(for user: UserID, in room: ChannelRecord?, tenant: TenantID) throws -> Bool {
        if let room, try tables.stint(of: user, in: room) != nil { return true }
        let stints = try tables.stints(of: user, in: tenant)
        guard stints.count >= limits.roomsPerUser else { return true }
        let ended = stints.compactMap { room, stint in
            stint.after(deletionOf: room).left.map { (room: room, left: $0) }
        }
        guard let oldest = ended.min(by: { $0.left < $1.left }) else { return false }
        try forgetStint(of: user, in: oldest.room)
        return true
    }

    /// Forgets that a user was in a room: nothing of it is readable any more, and nothing of it is to be confirmed.
    func forgetStint(of user: UserID, in room: ChannelRecord) throws {
        try tables.removeCursors(of: user, in: room)
        try tables.removeStint(of: user, in: room)
        guard let inbox = try tables.channel(ChannelKey(tenant: room.key.tenant, channel: .user(user))) else { return }
        // What the user read there; muted it may be for when the user comes back, as many times as one has settings.
        if let conversation = try tables.conversation(room.key.channel, of: inbox), !conversation.hasSettings {
            try tables.removeConversation(room.key.channel, of: inbox)
        }
    }

    // MARK: Entries and receipts

    private func record(_ action: RoomAction, by device: DeviceKey, in room: inout ChannelRecord) throws -> Entry {
        var draft = Self.draft(.changed, by: device, about: action.user)
        draft.recipient = action.user
        draft.payload = Entry.payload(of: action)
        return try enter(draft, in: &room, now: clock())
    }

    /// The sender is who did it; the recipient is whom it is about, where that is somebody else.
    private static func draft(_ kind: EntryKind, by device: DeviceKey, about user: UserID?) -> Entry {
        Entry(
            offset: 0, previous: 0, kind: kind, sender: device.user, device: device.device,
            producer: ProducerID(high: 0, low: 0), publishID: 0, recipient: user == device.user ? nil : user,
            origin: nil, time: 0, expiry: 0, payload: ByteBuffer())
    }

    private static func receipt(
        _ entry: Entry, _ room: ChannelRecord, _ user: UserID? = nil, _ stint: Stint? = nil
    ) -> RoomReceipt {
        RoomReceipt(
            position: Position(epoch: room.epoch, offset: entry.offset), head: room.ends.position, isNew: true,
            user: user, entitlement: stint.map { StoreRules.entitlement($0, in: room) },
            settings: stint.flatMap { StoreRules.settings($0, in: room) })
    }

    private static func unchanged(_ room: ChannelRecord, _ stay: Stint? = nil, _ user: UserID? = nil) -> RoomReceipt {
        RoomReceipt(
            position: Position(epoch: room.epoch, offset: stay?.joined ?? room.head), head: room.ends.position,
            isNew: false, user: user, entitlement: stay.map { StoreRules.entitlement($0, in: room) },
            settings: stay.flatMap { StoreRules.settings($0, in: room) })
    }
}
