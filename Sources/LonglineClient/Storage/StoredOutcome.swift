public import LonglineWire

/// What became of a message that left the outbox: kept for a while, so that an app that crashed meanwhile can still ask.
public struct StoredOutcome: Hashable, Sendable {
    /// How many are kept; the oldest goes first.
    public static let limit = 1_000

    /// Which message.
    public var send: SendID
    /// Where it went.
    public var channel: ChannelID
    /// Whom a direct message was for.
    public var recipient: UserID?
    /// When the app handed it in: wall clock, milliseconds since 1970.
    public var queuedAt: UInt64
    /// How it ended: a final state.
    public var state: SendState

    /// An outcome.
    public init(send: SendID, channel: ChannelID, recipient: UserID?, queuedAt: UInt64, state: SendState) {
        self.send = send
        self.channel = channel
        self.recipient = recipient
        self.queuedAt = queuedAt
        self.state = state
    }

    var status: SendStatus {
        SendStatus(
            send: send, channel: channel, recipient: recipient, queuedAt: queuedAt, state: state, isCancellable: false,
            kind: nil, payload: nil)
    }
}
