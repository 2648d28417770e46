/// What a publish does. All but a message and a request name an entry: by its place in the room, in the publisher's own inbox
/// for the record of a direct message that was sent, and there as well for one that was received.
public enum PublishKind: Hashable, Sendable {
    /// Enters a message.
    case message
    /// Gives a message of the publisher's another payload. Both stay in the log, in their places.
    case edit(Position)
    /// Takes a message back: its payload goes from the log. The payload is a reason, or empty.
    case retract(Position)
    /// Says something short about a message. An empty payload takes it back.
    case react(Position)
    /// Answers a request that was received.
    case reply(Position)
    /// Asks another user for a reply within the time to live.
    case request

    /// The kind of the entry that it makes.
    public var entryKind: EntryKind {
        switch self {
        case .message: .message
        case .edit: .edited
        case .retract: .retracted
        case .react: .reacted
        case .reply: .reply
        case .request: .request
        }
    }

    /// The entry that it names.
    public var target: Position? {
        switch self {
        case .message, .request: nil
        case .edit(let target), .retract(let target), .react(let target), .reply(let target): target
        }
    }

    /// The largest payload, in bytes.
    public var maximumPayload: Int {
        switch self {
        case .message, .edit, .reply, .request: FrameLimits.maximumWholePayload
        case .retract, .react: FrameLimits.maximumRemark
        }
    }

    /// The kind that an entry of `kind` is made by.
    /// - Returns: nil for one that isn't published: a join, a leave, a change of a room.
    public init?(_ kind: EntryKind, target: Position) {
        switch kind {
        case .message: self = .message
        case .edited: self = .edit(target)
        case .retracted: self = .retract(target)
        case .reacted: self = .react(target)
        case .reply: self = .reply(target)
        case .request: self = .request
        case .joined, .left, .changed: return nil
        }
    }
}

extension PublishKind {
    /// What stands for "none" where a target is always written.
    private static let noTarget = Position(epoch: 0, offset: 0)

    func write(to sink: inout some FrameSink) throws(FrameError) {
        sink.byte(entryKind.rawValue)
        try sink.position(target ?? Self.noTarget, "target offset")
    }

    /// A message is written without these fields, so that it has one form.
    init(from reader: inout FrameReader) throws(FrameError) {
        let kind: EntryKind = try reader.choice("kind")
        let target = try reader.position("target")
        guard let known = PublishKind(kind, target: target), known != .message else {
            throw reader.malformed("kind", "can't be published with a target")
        }
        self = known
    }
}
