public import NIOCore

/// What a signal is about. Values up to 127 belong to the protocol, those from 128 to the app.
public struct SignalKind: RawRepresentable, Hashable, Sendable {
    /// The number on the wire.
    public let rawValue: UInt8

    /// Wraps a number, known or not: receivers pass over kinds that they don't know.
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// The user writes something. It means so until its deadline; a user who goes on writing says it again.
    public static let typing = SignalKind(rawValue: 0)
    /// The user has read up to a place, which the payload names. A hint that is quicker than what is durable.
    public static let readPosition = SignalKind(rawValue: 1)
    /// The user is there, or is not: a hint that is quicker than presence.
    public static let presenceHint = SignalKind(rawValue: 2)

    /// One of the app's own kinds.
    /// - Parameter number: 0 to 127; only its lower seven bits count.
    public static func app(_ number: UInt8) -> SignalKind { SignalKind(rawValue: 128 | number) }
}

/// Who sent a signal.
public struct SignalSender: Hashable, Sendable {
    /// The user.
    public var user: UserID
    /// The user's device.
    public var device: DeviceID

    /// A sender.
    public init(user: UserID, device: DeviceID) {
        self.user = user
        self.device = device
    }
}

/// Something that is worth telling now or never: it is not stored, not acknowledged, and may be lost.
public struct Signal: Hashable, Sendable {
    /// The room it is for, or the inbox of the user it is for.
    public var channel: ChannelID
    /// What it is about.
    public var kind: SignalKind
    /// How long it is still worth delivering, in milliseconds; at most ``FrameLimits/maximumSignalDeadline`` counts.
    public var deadline: UInt64
    /// Who sent it, as the server says; nil from the client that sends it.
    public var sender: SignalSender?
    /// At most ``FrameLimits/maximumSignalPayload`` bytes.
    public var payload: ByteBuffer

    /// A signal.
    public init(
        channel: ChannelID, kind: SignalKind, deadline: UInt64, sender: SignalSender? = nil,
        payload: ByteBuffer = ByteBuffer()
    ) {
        self.channel = channel
        self.kind = kind
        self.deadline = deadline
        self.sender = sender
        self.payload = payload
    }
}

extension Signal {
    func write(to sink: inout some FrameSink) throws(FrameError) {
        sink.byte(sender == nil ? 0 : 1)
        sink.channel(channel)
        sink.byte(kind.rawValue)
        try sink.varint(deadline, "deadline")
        if let sender {
            sink.identifier(sender.user.description)
            sink.identifier(sender.device.description)
        }
        try sink.bytes(payload, limit: FrameLimits.maximumSignalPayload, "payload")
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        let hasSender = try reader.flags("flags", known: 1) == 1
        channel = try reader.channel("channel")
        kind = SignalKind(rawValue: try reader.byte("kind"))
        deadline = try reader.varint("deadline")
        if hasSender {
            sender = SignalSender(user: try reader.user("sender"), device: try reader.device("device"))
        } else {
            sender = nil
        }
        payload = try reader.bytes("payload", limit: FrameLimits.maximumSignalPayload)
    }
}
