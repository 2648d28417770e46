public import LonglineWire
public import NIOCore

/// What became of one ``ServerAction/append(channel:producer:publish:)``.
public enum PublishOutcome: Hashable, Sendable {
    /// Entered (now or by an earlier copy) and durable.
    case published(Published)
    /// Not entered.
    case refused(Refused)
}

/// One stretch of a channel's log, as the host read it.
public struct SessionPage: Sendable {
    /// One step along the log.
    public enum Item: Hashable, Sendable {
        /// An entry.
        case entry(Entry)
        /// A range that is absent on purpose.
        case skip(Skip)
    }

    /// The epoch of every offset in the page.
    public var epoch: Epoch
    /// In order and without a hole: each continues where the one before it ended.
    public var items: [Item]
    /// The offset of the channel's last entry when the page was read.
    public var head: Offset
    /// The `previous` of the first entry that is left.
    public var first: Offset

    /// A page.
    public init(epoch: Epoch, items: [Item], head: Offset, first: Offset) {
        self.epoch = epoch
        self.items = items
        self.head = head
        self.first = first
    }
}

/// One link's session on the server: a pure state machine. Inputs are methods; after each, the host drains
/// ``nextAction()``. It reads no clock: `now` is handed in, and ``nextDeadline`` says when to call back.
public struct ServerSession: Sendable {
    /// A session for a link that has just come up.
    public init(configuration: ServerSessionConfiguration, observedAddress: String, now: NIODeadline) {}

    /// A frame arrived. `early`: as 0-RTT, before the handshake completed.
    public mutating func received(_ frame: Frame, lane: LaneID, early: Bool, now: NIODeadline) {}
    /// Bytes arrived that are no frame; `close` is what the codec's error says to the peer.
    public mutating func receivedInvalid(_ close: Close, lane: LaneID, now: NIODeadline) {}
    /// The client finished (or reset) one of its lanes.
    public mutating func laneFinished(_ lane: LaneID, now: NIODeadline) {}
    /// An authenticated packet arrived, whatever it carried: proof of life.
    public mutating func packetReceived(now: NIODeadline) {}
    /// The handshake is complete: nothing after this can be a replay.
    public mutating func handshakeCompleted(now: NIODeadline) {}
    /// Answers ``ServerAction/authenticate(_:)``. `time`: the wall clock, milliseconds since 1970.
    public mutating func authenticated(_ grant: SessionGrant, time: UInt64, now: NIODeadline) {}
    /// Answers ``ServerAction/authenticate(_:)`` or ``ServerAction/refresh(token:)`` with a refusal.
    public mutating func rejected(_ close: Close, now: NIODeadline) {}
    /// Answers ``ServerAction/append(channel:producer:publish:)``; any order, results leave in the order of the appends.
    public mutating func appended(channel: ChannelID, id: PublishID, outcome: PublishOutcome, now: NIODeadline) {}
    /// The channel's log grew (or changed its epoch). It only wakes the channel's sender.
    public mutating func logAdvanced(_ channel: ChannelID, head: Position, now: NIODeadline) {}
    /// Answers ``ServerAction/read(channel:after:upTo:maximumBytes:)``.
    public mutating func pageRead(_ channel: ChannelID, page: SessionPage, now: NIODeadline) {}
    /// Answers ``ServerAction/read(channel:after:upTo:maximumBytes:)``: it could not be read now. Tried again later.
    public mutating func readFailed(_ channel: ChannelID, now: NIODeadline) {}
    /// Answers ``ServerAction/join(_:)`` or ``ServerAction/leave(_:)``. `channel` is the room as the session may read it
    /// from now on (after a leave with ``SessionChannel/upTo``); nil when the request was refused.
    public mutating func roomAnswered(_ answer: RoomAnswer, channel: SessionChannel?, now: NIODeadline) {}
    /// The user's right to a channel changed from elsewhere (another device joined, left or was removed).
    public mutating func channelChanged(_ channel: SessionChannel, now: NIODeadline) {}
    /// Answers ``ServerAction/refresh(token:)``. `time`: the wall clock, milliseconds since 1970.
    public mutating func refreshed(_ identity: SessionIdentity, time: UInt64, now: NIODeadline) {}
    /// Link back-pressure on one of the server's lanes: nothing is read for a lane that isn't writable.
    public mutating func laneWritable(_ lane: LaneID, _ writable: Bool, now: NIODeadline) {}
    /// The client's address changed.
    public mutating func observedAddressChanged(_ address: String) {}
    /// Ends the session: drained, replaced, revoked, logged out. Everything that comes later is discarded.
    public mutating func close(_ close: Close, now: NIODeadline) {}
    /// The link is gone: the session ends without a word.
    public mutating func linkClosed() {}
    /// ``nextDeadline`` has come.
    public mutating func deadlineReached(now: NIODeadline) {}
    /// When ``deadlineReached(now:)`` wants to be called, or nil.
    public var nextDeadline: NIODeadline? { nil }
    /// The next thing to do, in order; nil when there is nothing.
    public mutating func nextAction() -> ServerAction? { nil }

    /// Who it is, once authenticated.
    public var identity: SessionIdentity? { nil }
    /// Whether ``ServerAction/close(_:)`` was said or the link is gone.
    public var isClosed: Bool { false }
    /// The highest place sent per channel on this link, for ``SessionChannel/sent`` of the device's next session.
    public var sentPositions: [ChannelPosition] { [] }
}
