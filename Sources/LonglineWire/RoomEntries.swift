public import NIOCore

/// What an entry of a room's log says about the room.
extension Entry {
    /// The member whom a join, a leave or a change of an owner is about. It is the sender, unless somebody else did it.
    public var member: UserID? {
        switch kind {
        case .joined, .left: recipient ?? sender
        case .changed: recipient
        case .message, .edited, .retracted, .reacted, .reply, .request: nil
        }
    }

    /// What an entry of kind ``EntryKind/changed`` records; nil for other entries, and for what a later version may record.
    public var change: RoomAction? {
        guard kind == .changed, payload.readableBytes == Self.changeSize,
            let number = payload.getInteger(at: payload.readerIndex, as: UInt8.self),
            let value = payload.getInteger(at: payload.readerIndex + 1, as: UInt8.self)
        else { return nil }
        return RoomAction(number: number, user: recipient, value: value)
    }

    /// The payload of the entry that records a change: two bytes, the action's number and its value as in `ROOM`.
    public static func payload(of change: RoomAction) -> ByteBuffer {
        var payload = ByteBuffer()
        payload.writeMultipleIntegers(change.number, change.value)
        return payload
    }

    /// Whether a user's stay in the room ends with this entry.
    public func endsStay(of user: UserID) -> Bool {
        switch kind {
        case .message, .joined, .edited, .retracted, .reacted, .reply, .request: false
        case .left: member == user
        case .changed: change == .delete
        }
    }

    private static let changeSize = 2
}
