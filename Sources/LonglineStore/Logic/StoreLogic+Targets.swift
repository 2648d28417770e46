import LonglineWire
import NIOCore

/// Entries that name another: who may name what, and what it does to the log.
extension StoreLogic {
    /// The entry that a publish names, or why it may not.
    enum Target {
        case none
        case entry(Entry)
        case refused(RefusalCode)
    }

    /// Judges what a publish names. The publisher is a member of the channel, or the app's own server.
    func target(of request: AppendRequest, in channel: ChannelRecord, now: UInt64) throws -> Target {
        let publish = request.publish
        let user = request.device.user
        let recipient = publish.recipient == user ? nil : publish.recipient
        guard let position = publish.kind.target else {
            // A request asks somebody else.
            return publish.kind == .request && recipient == nil ? .refused(.unknownRecipient) : .none
        }
        guard position.epoch == channel.epoch, let named = try tables.entry(at: position.offset, in: channel),
            try request.isModeration || isReadable(named, by: user, in: channel), named.absence(at: now) == nil
        else { return .refused(.unknownTarget) }
        // What is said of a direct message goes to whom the message went or came from, and to nobody else.
        guard named.peer == recipient else { return .refused(.invalidTarget) }
        switch publish.kind {
        case .message, .request: return .none
        case .edit:
            guard named.kind == .message, named.sender == user else { return .refused(.invalidTarget) }
            let edits = try tables.edits(of: named.offset, in: channel, limit: limits.editsPerMessage)
            guard edits.count < limits.editsPerMessage else { return .refused(.tooMany) }
        case .retract:
            guard named.kind == .message, try request.isModeration || mayRetract(named, user, in: channel) else {
                return .refused(.invalidTarget)
            }
        case .react:
            guard named.kind == .message else { return .refused(.invalidTarget) }
        case .reply:
            guard named.kind == .request, named.origin != nil else { return .refused(.invalidTarget) }
        }
        return .entry(named)
    }

    private func isReadable(_ entry: Entry, by user: UserID, in channel: ChannelRecord) throws -> Bool {
        switch channel.key.channel {
        case .user(let owner): return owner == user
        case .room:
            guard let last = try tables.stint(of: user, in: channel) else { return false }
            let stint = try StoreRules.ended(last, in: channel, tables)
            return entry.offset > stint.after && entry.offset <= stint.left ?? .max
        case .all: return true
        }
    }

    /// Whether a user may take a message back: its author may, and in a room an owner.
    private func mayRetract(_ message: Entry, _ user: UserID, in channel: ChannelRecord) throws -> Bool {
        if message.sender == user { return true }
        guard case .room = channel.key.channel else { return false }
        return try StoreRules.stay(of: user, in: channel, tables)?.role == .owner
    }

    /// When an entry stops to be worth delivering. What is said of an entry lasts as long as that does: an edit must not
    /// outlive its message, nor a reply the time its request waits. A retraction is never over.
    static func expiry(of publish: Publish, naming named: Entry?, time: UInt64) -> UInt64 {
        switch publish.kind {
        case .edit, .reply: return named?.expiry ?? 0
        case .retract: return 0
        case .message, .react, .request: break
        }
        guard publish.timeToLive != 0 else { return 0 }
        let (sum, overflow) = time.addingReportingOverflow(publish.timeToLive)
        // Beyond what a delivery can carry it means for ever: an entry that can't be sent must not come to be.
        return overflow || sum > FrameLimits.maximumNumber ? 0 : sum
    }

    /// Where what a direct message names stands in the recipient's inbox.
    ///
    /// A copy is drawn right after its record (``StoreLogic/copyToRecipient(_:origin:request:named:now:)``), and both know it.
    /// - Returns: nil when there is no such thing: the recipient never got what is named, or only into an inbox that is gone, with its
    ///   account or by a sweep.
    func counterpart(of named: Entry, in inbox: ChannelRecord) throws -> Offset? {
        let place = named.origin?.offset ?? named.offset + 1
        // What stood in an inbox before this one is not for who has the name now.
        guard place > inbox.begin else { return nil }
        // A received message is the other side's record, whether it is still in their log or not.
        if named.origin != nil { return place }
        if place > inbox.first { return try copy(of: named, in: inbox) == nil ? nil : place }
        // Trimmed there: a device may have it all the same, if it ever was there.
        return try tables.isCopyWithheld(of: named.offset) ? nil : place
    }

    /// The recipient's copy of a record, while it is in their log.
    private func copy(of record: Entry, in inbox: ChannelRecord) throws -> Entry? {
        guard let entry = try tables.entry(at: record.offset + 1, in: inbox), entry.origin?.offset == record.offset
        else {
            return nil
        }
        return entry
    }

    /// Takes a message and its edits out of a log; their places stay.
    func erase(_ offset: Offset, from channel: inout ChannelRecord) throws {
        guard let entry = try tables.entry(at: offset, in: channel), !entry.isErased else { return }
        try tables.erase(offset, in: channel)
        channel.bytes -= Int(clamping: entry.length)
        if entry.countsAsUnread { try forgetUnread(offset, from: entry.sender, in: channel) }
        for edit in try tables.edits(of: offset, in: channel, limit: .max) {
            try tables.erase(edit.offset, in: channel)
            channel.bytes -= edit.bytes
        }
        assert(channel.bytes >= 0)
        try tables.update(channel)
    }
}

extension Entry {
    /// In an inbox: the other side of a direct message; nil for a note to oneself, and in a room.
    var peer: UserID? {
        if origin != nil { return sender }
        return recipient == sender ? nil : recipient
    }
}
