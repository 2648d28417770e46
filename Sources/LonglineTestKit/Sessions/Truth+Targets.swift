import LonglineWire

/// Entries that name another, by the rules of the specification.
extension Truth {
    /// Why a publish may not name what it names, or nil.
    func refusal(of publish: Publish, by user: UserID, in channel: ChannelID, at time: UInt64) -> RefusalCode? {
        guard let target = publish.kind.target else {
            let asksOther = publish.recipient != nil && publish.recipient != user
            return publish.kind == .request && !asksOther ? .unknownRecipient : nil
        }
        guard let log = logs[channel], log.epoch == target.epoch, target.offset > log.first,
            let named = log.entry(at: target.offset), let stint = stint(of: user, in: channel),
            named.offset > stint.after, named.offset <= stint.upTo ?? .max, !log.erased.contains(named.offset),
            named.expiry == 0 || named.expiry > time
        else { return .unknownTarget }
        if case .user = channel {
            let other = named.origin == nil ? named.recipient : named.sender
            guard (other ?? user) == (publish.recipient ?? user) else { return .invalidTarget }
        }
        let mayName =
            switch publish.kind {
            case .message, .request: false
            case .edit: named.kind == .message && named.sender == user
            case .retract:
                named.kind == .message
                    && (named.sender == user || rooms[channel]?.owners.contains(user) == true)
            case .react: named.kind == .message
            case .reply: named.kind == .request && named.origin != nil
            }
        return mayName ? nil : .invalidTarget
    }

    /// The entry that a publish names.
    func named(by publish: Publish, in channel: ChannelID) -> Entry? {
        publish.kind.target.flatMap { logs[channel]?.entry(at: $0.offset) }
    }

    /// Where what a direct message names stands in the other's inbox, or stood before it was trimmed; nil where it never got there, or
    /// only into one that went with its account.
    func counterpart(of named: Entry, in inbox: ChannelID) -> Offset? {
        if let origin = named.origin { return logs[inbox]?.entry(at: origin.offset)?.offset }
        return logs[inbox]?.entries.first { $0.origin?.offset == named.offset }?.offset
    }

    // MARK: Blocks

    /// Whether nothing of a user's direct messages reaches another, but for retractions.
    func isBlocked(_ user: UserID, by other: UserID) -> Bool { blocks[other]?.contains(user) ?? false }

    /// Whether a direct message has no copy: its recipient blocks its sender, who does not take anything back, or never got what it
    /// names.
    func isWithheld(_ record: Entry, from recipient: UserID, naming named: Entry?) -> Bool {
        if record.kind != .retracted, isBlocked(record.sender, by: recipient) { return true }
        return named.map { counterpart(of: $0, in: .user(recipient)) == nil } ?? false
    }
}
