import LonglineSession
import LonglineWire
import NIOCore

/// Names and frames that the tests of one link share.
enum Fixture {
    static let start = NIODeadline.uptimeNanoseconds(1_000_000_000)
    static let epoch: Epoch = 77
    static let producer = ProducerID(high: 1, low: 2)
    static let room = ChannelID.room(name("room"))
    static let inbox = ChannelID.user(user("alice"))

    static func name(_ text: String) -> RoomID { require { () throws(IdentifierError) in try RoomID(text) } }
    static func user(_ text: String) -> UserID { require { () throws(IdentifierError) in try UserID(text) } }
    private static func require<Value>(_ body: () throws(IdentifierError) -> Value) -> Value {
        do { return try body() } catch { preconditionFailure("a test's name is wrong: \(error)") }
    }

    static func identity(
        mayPublish: Bool = true, mayReceive: Bool = true, mayJoin: Bool = true, expiry: UInt64 = 3_600_000
    ) -> SessionIdentity {
        do {
            return SessionIdentity(
                tenant: try TenantID("tenant"), user: user("alice"), device: try DeviceID("phone"), loginEpoch: 1,
                tokenID: "t", expiry: expiry, mayPublish: mayPublish, mayReceive: mayReceive, mayJoin: mayJoin)
        } catch { preconditionFailure("a test's name is wrong: \(error)") }
    }

    static func channel(
        _ channel: ChannelID = inbox, head: Offset = 0, first: Offset = 0, after: Offset = 0, upTo: Offset? = nil,
        cursor: Position? = nil, sent: Offset? = 0
    ) -> SessionChannel {
        SessionChannel(
            channel: channel, head: Position(epoch: epoch, offset: head), first: first, after: after, upTo: upTo,
            cursor: cursor, sent: sent)
    }

    static func entry(_ offset: Offset, after previous: Offset, bytes: Int = 10) -> Entry {
        Entry(
            offset: offset, previous: previous, kind: .message, sender: user("bob"), device: identity().device,
            producer: producer, publishID: offset, recipient: nil, origin: nil, time: 1, expiry: 0,
            payload: ByteBuffer(repeating: 1, count: bytes))
    }

    /// Entries with the offsets given, each continuing the one before, from `after`.
    static func page(_ offsets: [Offset], after: Offset = 0, head: Offset? = nil, first: Offset = 0) -> SessionPage {
        var previous = after
        let items = offsets.map { offset in
            defer { previous = offset }
            return SessionPage.Item.entry(entry(offset, after: previous))
        }
        return SessionPage(epoch: epoch, items: items, head: head ?? offsets.last ?? after, first: first)
    }

    static func publish(_ id: PublishID, after: PublishID = 0, bytes: Int = 10, timeToLive: UInt64 = 0) -> Publish {
        Publish(
            id: id, tag: id &* 31, after: after, recipient: nil, timeToLive: timeToLive,
            payload: ByteBuffer(repeating: 2, count: bytes))
    }

    static func row(
        _ id: PublishID, after: PublishID = 0, in channel: ChannelID = inbox, bytes: Int = 10, timeToLive: UInt64 = 0,
        at time: NIODeadline = start
    ) -> OutboxRow {
        OutboxRow(
            channel: channel, publish: publish(id, after: after, bytes: bytes, timeToLive: timeToLive), queuedAt: time)
    }

    static func connect(
        _ credential: Credential = .ticket(ByteBuffer(string: "t")), number: UInt64 = 2, cursors: [ChannelPosition] = []
    ) -> Connect {
        Connect(
            versions: [1], credential: credential, producer: producer, connectNumber: number, cursorVersion: 0,
            cursors: cursors, agent: "test")
    }

    static func connected(_ channels: [ChannelAnswer] = [], window: UInt64 = 1 << 20) -> Connected {
        Connected(
            version: 1, session: 1, resumed: false, serverTime: 0, observedAddress: "192.0.2.1:1",
            credentialExpiry: 1,
            limits: SessionLimits(
                maximumPayload: 10_000, channelWindow: window, maximumUnacknowledged: 100, minimumHeartbeat: 1,
                idleTimeout: 600_000),
            cursorVersion: 5, channels: channels)
    }
}

extension ServerSession {
    mutating func drain() -> [ServerAction] {
        var actions: [ServerAction] = []
        while let action = nextAction() { actions.append(action) }
        return actions
    }
}

extension ClientSession {
    mutating func drain() -> [ClientAction] {
        var actions: [ClientAction] = []
        while let action = nextAction() { actions.append(action) }
        return actions
    }
}

extension [ServerAction] {
    /// The frames sent, in order.
    var frames: [Frame] { compactMap { if case .send(let frame, _) = $0 { frame } else { nil } } }
    var closeCode: CloseCode? { compactMap { if case .close(let close) = $0 { close.code } else { nil } }.first }
    var appends: [PublishID] {
        compactMap { if case .append(_, _, let publish) = $0 { publish.id } else { nil } }
    }
    /// Publishes that are refused unless the ledger knows them, with the code.
    var lookUps: [PublishID: RefusalCode] {
        reduce(into: [:]) { if case .refuse(_, _, let publish, let code) = $1 { $0[publish.id] = code } }
    }
    var reads: [Offset] { compactMap { if case .read(_, let after, _, _) = $0 { after } else { nil } } }
    var delivered: [Offset] {
        frames.compactMap { if case .deliver(let deliver) = $0 { deliver.entry.offset } else { nil } }
    }
    var isEstablished: Bool { contains { if case .established = $0 { true } else { false } } }
    var opened: [LaneID] { compactMap { if case .openLane(let lane) = $0 { lane } else { nil } } }
    var finished: [LaneID] { compactMap { if case .finishLane(let lane) = $0 { lane } else { nil } } }
}

extension [ClientAction] {
    /// The frames sent, in order.
    var frames: [Frame] { compactMap { if case .send(let frame, _) = $0 { frame } else { nil } } }
    var publishes: [Publish] { frames.compactMap { if case .publish(let publish) = $0 { publish } else { nil } } }
    var acknowledged: [Offset] {
        frames.compactMap { if case .acknowledge(let acknowledge) = $0 { acknowledge.offset } else { nil } }
    }
    var delivered: [Offset] {
        compactMap { if case .deliver(_, _, let deliver) = $0 { deliver.entry.offset } else { nil } }
    }
    var endCode: CloseCode? { compactMap { if case .end(let end) = $0 { end.close.code } else { nil } }.first }
    var gaps: [Gap] { compactMap { if case .gap(_, _, let gap) = $0 { gap } else { nil } } }
    var pings: Int { frames.count { if case .ping = $0 { true } else { false } } }
}
