public import LonglineWire
public import NIOCore

/// Whom a message is for.
public enum Destination: Hashable, Sendable, CustomStringConvertible {
    /// A user: all devices of both sides see it.
    case user(UserID)
    /// A room, of which the sender is a member.
    case room(RoomID)
    /// Every user of the tenant. It takes a token whose scope names the broadcast: `publish:all/news`.
    case all(BroadcastID)

    /// A user by name.
    /// - Throws: ``/LonglineWire/IdentifierError``.
    public static func user(_ name: String) throws(IdentifierError) -> Destination { .user(try UserID(name)) }
    /// A room by name.
    /// - Throws: ``/LonglineWire/IdentifierError``.
    public static func room(_ name: String) throws(IdentifierError) -> Destination { .room(try RoomID(name)) }
    /// A broadcast by name.
    /// - Throws: ``/LonglineWire/IdentifierError``.
    public static func all(_ name: String) throws(IdentifierError) -> Destination { .all(try BroadcastID(name)) }

    public var description: String {
        switch self {
        case .user(let user): "user/\(user)"
        case .room(let room): "room/\(room)"
        case .all(let broadcast): "all/\(broadcast)"
        }
    }
}

/// One entry of a channel, in the channel's order.
public struct Message: Sendable {
    /// The channel it came in: this user's inbox, a room, or a broadcast.
    public let channel: ChannelID
    /// Its place there. An app that commits its own cursors writes this one.
    public let position: Position
    /// A message, something about another (see ``target``), or a join, a leave or another change of the room.
    public let kind: EntryKind
    /// Who sent it, or did it.
    public let sender: UserID
    /// The device it was sent from.
    public let device: DeviceID
    /// The recipient of a direct message that this user sent, from this device or another. In a room: see ``member``.
    public let recipient: UserID?
    /// In a direct message from someone else: where the sender's own record stands.
    public let origin: Position?
    /// The message that an edit, a retraction or a reaction is about: its place in this channel. This device may never have
    /// had it.
    public let target: Position?
    /// The service's time, in milliseconds since 1970; never decreasing along a channel.
    public let time: UInt64
    /// When its time to live is over, on the service's clock in milliseconds since 1970; nil: never. It says when to hide the message:
    /// one that the app has is not taken back by itself.
    public let expiry: UInt64?
    /// The message.
    public let payload: ByteBuffer
    /// Whether the app may have seen it before: never with a ``CursorStore``.
    public let redelivered: Bool
    /// Whether this very outbox sent it.
    public let isOwn: Bool
    /// What is lost right before this message, if anything is.
    public let gapBefore: MessageGap?

    /// nil in a page of history.
    let confirmer: MessageConfirmer?

    /// The payload as text; bytes that are not UTF-8 are replaced.
    public var text: String { String(buffer: payload) }

    /// The app is done with this message and everything before it in its channel: none of it comes again.
    ///
    /// From any thread, and harmless when repeated. For a message of a ``HistoryPage`` it does nothing; nor for one that its log has lost
    /// since with its end, though another may stand at its place by now.
    public func confirm() { confirmer?.confirm(in: channel) }
}

extension Message {
    /// An entry of a channel's log as the app sees it.
    init(
        _ entry: Entry, in channel: ChannelID, epoch: Epoch, redelivered: Bool = false, isOwn: Bool,
        gapBefore: MessageGap? = nil, confirmer: MessageConfirmer? = nil
    ) {
        self.init(
            channel: channel, position: Position(epoch: epoch, offset: entry.offset), kind: entry.kind,
            sender: entry.sender, device: entry.device, recipient: entry.recipient, origin: entry.origin,
            target: entry.target.map { Position(epoch: epoch, offset: $0) }, time: entry.time,
            expiry: entry.expiry == 0 ? nil : entry.expiry, payload: entry.payload, redelivered: redelivered,
            isOwn: isOwn, gapBefore: gapBefore, confirmer: confirmer)
    }
}
