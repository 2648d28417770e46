public import LonglineWire
public import NIOCore

/// Names one send for as long as anybody may ask for it: drawn when it enters the outbox, the same after a restart of the app,
/// and whatever number the message is published under.
public struct SendID: Hashable, Sendable, LosslessStringConvertible {
    let high: UInt64
    let low: UInt64

    init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// Reads what ``description`` wrote: 32 hexadecimal digits; nil for anything else.
    public init?(_ description: String) {
        guard description.utf8.count == 32, description.allSatisfy(\.isHexDigit),
            let high = UInt64(description.prefix(16), radix: 16), let low = UInt64(description.suffix(16), radix: 16)
        else { return nil }
        self.init(high: high, low: low)
    }

    static func random(using generator: inout some RandomNumberGenerator) -> SendID {
        SendID(high: generator.next(), low: generator.next())
    }

    public var description: String { ProducerID(high: high, low: low).description }
}

/// How far a message is.
///
/// ```
///            leaves this device              the service answered
///   queued ---------------------> sent ------------------------------> acknowledged, refused, expired, outcomeUnknown
///      |                           |
///      '-- cancel(_:) --> cancelled '- the link is lost: sent again on the next one, and still `sent`
/// ```
public enum SendState: Hashable, Sendable {
    /// On this device's disk, and not on any link yet.
    case queued
    /// It left this device, or may have, and no answer has come.
    case sent
    /// The service has it on its disk.
    case acknowledged(Published)
    /// The service refused it for good.
    case refused(RefusalCode)
    /// Its time to live was over before the service entered it.
    case expired
    /// The service forgot whether it entered it, and nobody will ever know: it won't from now on.
    case outcomeUnknown
    /// The app took it back before it left the device.
    case cancelled

    /// Whether nothing follows.
    public var isFinal: Bool {
        switch self {
        case .queued, .sent: false
        case .acknowledged, .refused, .expired, .outcomeUnknown, .cancelled: true
        }
    }

    /// What an answer that refuses means.
    init(refusal: RefusalCode) {
        switch refusal {
        case .expired: self = .expired
        case .outcomeUnknown: self = .outcomeUnknown
        default: self = .refused(refusal)
        }
    }
}

/// A message of the outbox, or one that left it, and how far it is.
public struct SendStatus: Hashable, Sendable {
    /// Which one.
    public var send: SendID
    /// Where it goes: this user's own inbox for a direct message.
    public var channel: ChannelID
    /// Whom a direct message is for.
    public var recipient: UserID?
    /// When the app handed it in: wall clock, milliseconds since 1970.
    public var queuedAt: UInt64
    /// How far it is.
    public var state: SendState
    /// Whether ``LonglineClient/LonglineClient/cancel(_:)`` would take it back now.
    public var isCancellable: Bool
    /// A message, or something about another entry, while it is in the outbox.
    public var kind: PublishKind?
    /// Its payload, while it is in the outbox; nil in ``LonglineClient/LonglineClient/sends``, whose readers may lag by many.
    public var payload: ByteBuffer?

    /// For a reader that may lag.
    var withoutPayload: SendStatus {
        var status = self
        status.payload = nil
        return status
    }
}

/// What became of a wish to take a message back.
public enum CancelResult: Hashable, Sendable {
    /// It had not left the device, is out of the outbox, durably, and will never be published.
    case cancelled
    /// Too late: it left this device, or may have, or it is finished. It goes on as if nobody had asked.
    case tooLate(SendState)
    /// No message of this name is in the outbox or among those that were finished last.
    case unknown
}
