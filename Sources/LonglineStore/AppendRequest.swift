public import LonglineWire

/// One publish on its way into the log, with the key that the ledger knows it by.
public struct AppendRequest: Sendable {
    /// The publishing device.
    public var device: DeviceKey
    /// Its outbox.
    public var producer: ProducerID
    /// Where the entry goes. A direct message goes into the sender's own inbox and names a recipient.
    public var channel: ChannelID
    /// The publish as it came.
    public var publish: Publish
    /// Why it is not to be entered; nil: it is. Then nothing is stored, and only the ledger is asked: what was entered before
    /// is acknowledged again, anything else is refused with this code, for good. The payload does not count.
    public var refusal: RefusalCode?
    /// Whether the app's own server publishes: then neither membership nor the room's settings count, but the room has to exist. It may
    /// retract what it names whoever wrote it.
    public var isService: Bool

    /// An append request.
    public init(
        device: DeviceKey, producer: ProducerID, channel: ChannelID, publish: Publish, refusal: RefusalCode? = nil,
        isService: Bool = false
    ) {
        self.isService = isService
        self.refusal = refusal
        self.device = device
        self.producer = producer
        self.channel = channel
        self.publish = publish
    }
}

extension AppendRequest {
    /// Whether the app's own server takes a message back: who wrote it does not count, nor who blocked whom.
    var isModeration: Bool {
        guard isService, case .retract = publish.kind else { return false }
        return true
    }
}

/// What became of one ``AppendRequest``.
public enum AppendOutcome: Hashable, Sendable {
    /// Entered now, and durable. `expiry` is when the entry stops to be worth delivering, in milliseconds since 1970, or 0 for never:
    /// by the clock, which the entry's time may be ahead of. `copy` is the recipient's inbox and the offset of the copy there.
    case entered(Published, previous: Offset, expiry: UInt64, copy: InboxCopy?)
    /// Entered by an earlier request with the same ID and tag: the same acknowledgement again.
    case duplicate(Published)
    /// Not entered, and nothing stored.
    case refused(Refused)
}

/// The recipient's copy of a direct message.
public struct InboxCopy: Hashable, Sendable {
    /// The recipient's inbox.
    public var channel: ChannelID
    /// Where the copy stands there.
    public var position: Position
    /// The entry that it names there, where it names one.
    public var target: Offset?
    /// Whether one of the two blocks the other, so that what arrives all the same does so without a word.
    public var isOutOfTouch: Bool

    /// An inbox copy.
    public init(channel: ChannelID, position: Position, target: Offset? = nil, isOutOfTouch: Bool = false) {
        self.channel = channel
        self.position = position
        self.target = target
        self.isOutOfTouch = isOutOfTouch
    }
}
