public import LonglineWire
public import NIOCore

/// Names a message that was sent or received, so that it can be edited, retracted or reacted to.
public struct MessageReference: Hashable, Sendable {
    /// The room that it stands in, or the other side of a direct message; this user for a note to oneself.
    public var destination: Destination
    /// Its place: ``Message/position``, or what ``SendReceipt/acknowledged()`` returned.
    public var position: Position

    /// A reference.
    public init(_ destination: Destination, _ position: Position) {
        self.destination = destination
        self.position = position
    }
}

extension Message {
    /// Names this message to ``LonglineClient/LonglineClient/edit(_:to:)-(_,ByteBuffer)`` and the like.
    public var reference: MessageReference {
        switch channel {
        case .room(let room): MessageReference(.room(room), position)
        case .all(let broadcast): MessageReference(.all(broadcast), position)
        case .user: MessageReference(.user(recipient ?? sender), position)
        }
    }
}

extension LonglineClient {
    /// Gives a message of this user's another payload.
    ///
    /// It is an entry of its own, ``/LonglineWire/EntryKind/edited``, sent as surely as a message: every device gets it in its
    /// place in the channel's order, and history shows both. It expires with the message.
    /// - Returns: a receipt that tells when the service has it. It throws ``ClientError/Code/refused`` where the message is
    ///   not there any more (``/LonglineWire/RefusalCode/unknownTarget``), is not this user's
    ///   (``/LonglineWire/RefusalCode/invalidTarget``) or has a hundred edits (``/LonglineWire/RefusalCode/tooMany``).
    /// - Throws: as ``send(_:to:timeToLive:)-(ByteBuffer,_,_)``; ``ClientError/Code/refused`` with
    ///   ``/LonglineWire/RefusalCode/invalidTarget`` for an offset over 2^62 - 1, which no log has.
    @discardableResult
    public func edit(_ message: MessageReference, to payload: ByteBuffer) async throws -> SendReceipt {
        try await core.send(payload, .edit(message.position), to: message.destination)
    }

    /// Gives a message of this user's another text; see ``edit(_:to:)-(_,ByteBuffer)``.
    @discardableResult
    public func edit(_ message: MessageReference, to text: String) async throws -> SendReceipt {
        try await edit(message, to: ByteBuffer(string: text))
    }

    /// Takes a message of this user's back, with all its edits.
    ///
    /// The service erases the payloads; who asks for them from then on is told that they are absent. Devices that had the
    /// message get an entry ``/LonglineWire/EntryKind/retracted``.
    /// - Parameter reason: at most 64 bytes; the payload of the entry.
    /// - Returns: a receipt; it throws as that of ``edit(_:to:)-(_,ByteBuffer)``.
    /// - Throws: as ``edit(_:to:)-(_,ByteBuffer)``.
    @discardableResult
    public func retract(_ message: MessageReference, reason: String = "") async throws -> SendReceipt {
        try await core.send(ByteBuffer(string: reason), .retract(message.position), to: message.destination)
    }

    /// Says something short about a message. A later reaction of the same user takes the place of an earlier one, as far as
    /// the app means it so; an empty one takes it back.
    /// - Parameter reaction: at most 64 bytes.
    /// - Returns: a receipt; it throws as that of ``edit(_:to:)-(_,ByteBuffer)``.
    /// - Throws: as ``edit(_:to:)-(_,ByteBuffer)``.
    @discardableResult
    public func react(to message: MessageReference, with reaction: String) async throws -> SendReceipt {
        try await core.send(ByteBuffer(string: reaction), .react(message.position), to: message.destination)
    }
}
