public import LonglineWire
public import NIOCore

/// A device's session on the client: a pure state machine that survives its links. Inputs are methods; after each, the
/// host drains ``nextAction()``.
public struct ClientSession: Sendable {
    /// A session that has no link yet. `cursors`: what the app confirmed, per channel; `cursorVersion`: of the server's
    /// cursor record as the client last saw it (0 for none).
    public init(
        configuration: ClientSessionConfiguration, producer: ProducerID, cursors: [ChannelID: Position],
        cursorVersion: UInt64
    ) {}

    /// A link can carry frames (perhaps as 0-RTT): sends `CONNECT`, and with a ticket the waiting publishes.
    ///
    /// `outbox` holds every row that waits, in ID order; it replaces what the session had.
    public mutating func linkOpened(
        credential: Credential, connectNumber: UInt64, supportsPathChange: Bool, outbox: [OutboxRow], now: NIODeadline
    ) {}
    /// The link is gone.
    public mutating func linkClosed(now: NIODeadline) {}
    /// A frame arrived.
    public mutating func received(_ frame: Frame, lane: LaneID, now: NIODeadline) {}
    /// Bytes arrived that are no frame; `close` is what the codec's error says to the peer.
    public mutating func receivedInvalid(_ close: Close, lane: LaneID, now: NIODeadline) {}
    /// The server finished (or reset) one of its lanes.
    public mutating func laneFinished(_ lane: LaneID, now: NIODeadline) {}
    /// Link back-pressure on one of the client's lanes.
    public mutating func laneWritable(_ lane: LaneID, _ writable: Bool, now: NIODeadline) {}
    /// A row was written to the outbox (durable already; IDs grow). False: the channel's queue is full.
    public mutating func enqueue(_ row: OutboxRow, now: NIODeadline) -> Bool { true }
    /// The app is done with everything up to `position`.
    public mutating func confirm(channel: ChannelID, position: Position, now: NIODeadline) {}
    /// Asks to join a room; false while not connected or when too many requests wait.
    public mutating func join(_ room: RoomID, request: UInt64, now: NIODeadline) -> Bool { true }
    /// Asks to leave a room; false while not connected or when too many requests wait.
    public mutating func leave(_ room: RoomID, request: UInt64, now: NIODeadline) -> Bool { true }
    /// Sends a fresh token; false while not connected.
    public mutating func refresh(token: String, now: NIODeadline) -> Bool { true }
    /// Ends the link with a word to the server.
    public mutating func close(_ close: Close, now: NIODeadline) {}
    /// The link moved to another path: prove it alive.
    public mutating func pathChanged(now: NIODeadline) {}
    /// An authenticated packet arrived: proof of life.
    public mutating func packetReceived(now: NIODeadline) {}
    /// The host drew a new producer and renumbered its outbox, after ``ClientAction/renewProducer``.
    public mutating func producerRenewed(_ producer: ProducerID) {}
    /// ``nextDeadline`` has come.
    public mutating func deadlineReached(now: NIODeadline, random: inout some RandomNumberGenerator) {}
    /// When ``deadlineReached(now:random:)`` wants to be called, or nil.
    public var nextDeadline: NIODeadline? { nil }
    /// The next thing to do, in order; nil when there is nothing.
    public mutating func nextAction() -> ClientAction? { nil }

    /// What the app confirmed, per channel: durable state of the host.
    public var cursors: [ChannelID: Position] { [:] }
    /// The version of the server's cursor record as last seen.
    public var cursorVersion: UInt64 { 0 }
    /// Whether the server accepted the connect on the present link.
    public var isConnected: Bool { false }
}
