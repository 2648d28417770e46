public import LonglineWire
public import NIOCore

/// A message of the outbox, as it is kept until the service answered it.
public struct StoredPublish: Hashable, Sendable {
    /// Its number within the producer.
    public var id: PublishID
    /// Tells it from another publish that wrongly carries the same ID.
    public var tag: PublishTag
    /// The producer's previous ID in this channel that was not given up; 0 for none.
    public var after: PublishID
    /// The channel it is published to: the sender's own inbox for a direct message.
    public var channel: ChannelID
    /// The recipient of a direct message.
    public var recipient: UserID?
    /// A message, or something about another entry.
    public var kind: PublishKind
    /// How long it is worth delivering, in milliseconds from ``queuedAt``; 0 for ever.
    public var timeToLive: UInt64
    /// When the app handed it in: wall clock, milliseconds since 1970.
    public var queuedAt: UInt64
    /// The message.
    public var payload: ByteBuffer
    /// The name that the app knows it by.
    public var send: SendID
    /// Whether it may have left the device: then nobody can take it back.
    public var attempted: Bool

    /// A stored publish.
    public init(
        id: PublishID, tag: PublishTag, after: PublishID, channel: ChannelID, recipient: UserID?,
        kind: PublishKind = .message, timeToLive: UInt64, queuedAt: UInt64, payload: ByteBuffer, send: SendID,
        attempted: Bool
    ) {
        self.id = id
        self.tag = tag
        self.after = after
        self.channel = channel
        self.recipient = recipient
        self.kind = kind
        self.timeToLive = timeToLive
        self.queuedAt = queuedAt
        self.payload = payload
        self.send = send
        self.attempted = attempted
    }
}

/// A secret that shortens the next connect, with the time it stops to be of use.
public struct StoredSecret: Hashable, Sendable {
    /// Opaque bytes.
    public var bytes: [UInt8]
    /// Wall clock, milliseconds since 1970; 0 when unknown.
    public var expiry: UInt64

    /// A stored secret.
    public init(bytes: [UInt8], expiry: UInt64) {
        self.bytes = bytes
        self.expiry = expiry
    }

    /// Whether its time is over, by the wall clock.
    func isOver(at time: UInt64) -> Bool { expiry != 0 && expiry <= time }
}

/// What a client learned about a network: how long a quiet connection stays open there.
public struct StoredNetwork: Hashable, Sendable {
    /// How many networks are kept; the one that was not used for longest goes first.
    public static let limit = 20
    /// The longest name, in bytes.
    public static let maximumName = 256

    /// The app's name for it, or what was derived from the local address and the gateway. It never leaves the device.
    public var name: String
    /// The longest silence that was survived, in milliseconds; nil before the first.
    public var lived: UInt64?
    /// The shortest silence that was not, in milliseconds; nil when none is known.
    public var died: UInt64?
    /// Wall clock, milliseconds since 1970.
    public var lastUse: UInt64

    /// A stored network.
    public init(name: String, lived: UInt64?, died: UInt64?, lastUse: UInt64) {
        self.name = name
        self.lived = lived
        self.died = died
        self.lastUse = lastUse
    }

    /// Whether it can be true. A storage drops what isn't when it reads.
    public var isSound: Bool {
        let day: UInt64 = 86_400_000
        guard !name.isEmpty, name.utf8.count <= Self.maximumName, lived ?? 1 > 0, lived ?? 1 <= day else {
            return false
        }
        return died.map { $0 <= day && $0 > lived ?? 0 } ?? true
    }
}

/// The end of the user's stay in a room: of use until the room's cursor is forgotten.
public struct StoredStay: Hashable, Sendable {
    /// The place of the stay's last entry.
    public var end: Position
    /// The version of the service's cursor record with the first connect that was accepted and named this place; nil before that.
    public var namedAt: UInt64?

    /// A stored end of a stay.
    public init(end: Position, namedAt: UInt64? = nil) {
        self.end = end
        self.namedAt = namedAt
    }
}

/// Everything a client keeps across its process's life.
public struct StoredClientState: Hashable, Sendable {
    /// The outbox's producer; nil before the first use.
    public var producer: ProducerID?
    /// The last publish ID that was drawn.
    public var lastID: PublishID = 0
    /// Every connect number up to this one may have been used.
    public var connectNumber: UInt64 = 0
    /// The last ID per channel that was not given up.
    public var chains: [ChannelID: PublishID] = [:]
    /// The publishes without an answer, in any order.
    public var outbox: [StoredPublish] = []
    /// What became of the publishes that left it, the oldest first; at most ``StoredOutcome/limit``.
    public var outcomes: [StoredOutcome] = []
    /// What the app confirmed, per channel.
    public var cursors: [ChannelID: Position] = [:]
    /// Rooms that the user left, and of which the service may not know yet that the app is done with them.
    public var endedStays: [ChannelID: StoredStay] = [:]
    /// The version of the service's cursor record that this client last saw.
    public var cursorVersion: UInt64 = 0
    /// The user this storage belongs to, once it is known.
    public var user: UserID?
    /// The user's device that it belongs to, once a token or the app named it.
    public var device: DeviceID?
    /// The session's resume ticket.
    public var resumeTicket: StoredSecret?
    /// The QUIC session ticket per access point, written `host:port`.
    public var transportTickets: [String: StoredSecret] = [:]
    /// The QUIC address token per access point.
    public var addressTokens: [String: [UInt8]] = [:]
    /// The networks it knows, at most ``StoredNetwork/limit``, in any order.
    public var networks: [StoredNetwork] = []
    /// The control layer's last answer.
    public var access: StoredAccess?
    /// How its services were reached last.
    public var controlRoutes: [StoredControlRoute] = []

    /// The state of a new client.
    public init() {}
}

/// One change of the durable state.
public enum StorageChange: Hashable, Sendable {
    /// A new producer: the outbox, the chains and the counters start from nothing.
    case producer(ProducerID)
    /// A publish entered the outbox.
    case insert(StoredPublish)
    /// The ``StoredPublish/after`` of a publish changed, because the one it named was given up.
    case rechain(PublishID, after: PublishID)
    /// A publish was answered: its row goes.
    case remove(PublishID)
    /// A publish may leave the device from now on.
    case attempted(PublishID)
    /// A message that another process of the app put in was taken into the outbox: it waits there no more.
    case adopted(SendID)
    /// How a publish ended; beyond ``StoredOutcome/limit`` the oldest go.
    case outcome(StoredOutcome)
    /// The last ID that was drawn.
    case lastID(PublishID)
    /// The chain of a channel.
    case chain(ChannelID, PublishID)
    /// Connect numbers up to this one may be used.
    case connectNumber(UInt64)
    /// The app confirmed everything up to here.
    case cursor(ChannelID, Position)
    /// The user's stay in a room ended, or another one began: nil.
    case endedStay(ChannelID, StoredStay?)
    /// The user left a room, the app is done with the end, and the service knows that: nothing is kept of its cursor, nor of the stay.
    case forgetCursor(ChannelID)
    /// The version of the service's cursor record.
    case cursorVersion(UInt64)
    /// The user this storage belongs to.
    case user(UserID)
    /// The device that it belongs to.
    case device(DeviceID)
    /// The resume ticket, or none any more.
    case resumeTicket(StoredSecret?)
    /// The QUIC ticket of an access point, or none any more.
    case transportTicket(String, StoredSecret?)
    /// The QUIC address token of an access point, or none any more.
    case addressToken(String, [UInt8]?)
    /// What is known of a network; beyond ``StoredNetwork/limit`` those that were not used for longest go.
    case network(StoredNetwork)
    /// The control layer's last answer, or none any more.
    case access(StoredAccess?)
    /// How the control services were reached last: all that is known, in place of what was.
    case controlRoutes([StoredControlRoute])
}

/// Where a client keeps its outbox, its cursors and its tickets.
///
/// The client calls ``load()`` once, then ``apply(_:)`` with one batch at a time, and waits for each. A storage belongs
/// to one client: two that write to the same one would both publish under the same IDs.
public protocol ClientStorage: Sendable {
    /// Reads everything.
    /// - Throws: ``ClientError`` of code ``ClientError/Code/storage`` or ``ClientError/Code/storageInUse``.
    func load() async throws -> StoredClientState

    /// Applies all changes in this order, or none of them, and returns when they are on disk.
    ///
    /// The first byte of a publish leaves only after this returned, so a storage that answers earlier loses messages
    /// with the process.
    func apply(_ changes: [StorageChange]) async throws

    /// Whether ``apply(_:)`` does next to nothing before it suspends. The client then calls it from its event loop, which saves
    /// two changes of threads for each batch. false by default: the calls come from the tasks' threads.
    var handsOverAtOnce: Bool { get }

    /// Forgets everything, and returns when nothing of it can be read on the disk any more: what ``load()`` answers next is
    /// the state of a new client.
    ///
    /// Called after the last ``apply(_:)``, when the user logs out.
    func erase() async throws
}

extension ClientStorage {
    /// false.
    public var handsOverAtOnce: Bool { false }
}

/// An app's own record of what it has processed: it turns "at least once" into "exactly once".
///
/// The app writes each message's ``Message/position`` in the transaction that holds the message's effect, and confirms
/// the message after the commit. When a client starts it asks for these positions instead of its own, so a crash
/// between the two neither repeats nor loses an effect. Requests have no position: of them the client keeps its own record. Where a log
/// lost its end (``MessageGap``) the app takes its record back by itself.
public protocol CursorStore: Sendable {
    /// The last position per channel that the app committed.
    func cursors() async throws -> [ChannelID: Position]
}

/// Keeps a client's state in memory: it is lost with the process.
///
/// For tests, and for tools that send one message and don't care whether it survives a crash.
public actor InMemoryClientStorage: ClientStorage {
    /// true: there is nothing to wait for.
    public nonisolated var handsOverAtOnce: Bool { true }
    private var state: StoredClientState

    /// A storage that starts from `state`.
    public init(_ state: StoredClientState = StoredClientState()) { self.state = state }

    public func load() -> StoredClientState { state }

    public func apply(_ changes: [StorageChange]) {
        state.apply(changes)
    }

    public func erase() { state = StoredClientState() }
}

extension StoredClientState {
    /// Applies changes in their order. Rows that leave one after the other leave in one pass over the outbox, and outcomes that
    /// are forgotten at the end.
    public mutating func apply(_ changes: [StorageChange]) {
        var removed: Set<PublishID> = []
        for change in changes {
            if case .remove(let id) = change {
                removed.insert(id)
                continue
            }
            remove(&removed)
            if case .outcome(let outcome) = change { outcomes.append(outcome) } else { apply(change) }
        }
        remove(&removed)
        forgetOutcomes()
    }

    private mutating func forgetOutcomes() {
        if outcomes.count > StoredOutcome.limit { outcomes.removeFirst(outcomes.count - StoredOutcome.limit) }
    }

    private mutating func remove(_ ids: inout Set<PublishID>) {
        guard !ids.isEmpty else { return }
        outbox.removeAll { ids.contains($0.id) }
        ids.removeAll()
    }

    /// Applies one change: the meaning that every storage has to follow.
    public mutating func apply(_ change: StorageChange) {
        switch change {
        case .producer(let producer):
            self.producer = producer
            lastID = 0
            connectNumber = 0
            chains = [:]
            outbox = []
        case .insert(let row): outbox.append(row)
        case .rechain(let id, let after):
            if let index = outbox.firstIndex(where: { $0.id == id }) { outbox[index].after = after }
        case .remove(let id): outbox.removeAll { $0.id == id }
        case .adopted: break
        case .attempted(let id):
            if let index = outbox.firstIndex(where: { $0.id == id }) { outbox[index].attempted = true }
        case .outcome(let outcome):
            outcomes.append(outcome)
            forgetOutcomes()
        case .lastID(let id): lastID = id
        case .chain(let channel, let id): chains[channel] = id
        case .connectNumber(let number): connectNumber = number
        case .cursor(let channel, let position): cursors[channel] = position
        case .endedStay(let channel, let stay): endedStays[channel] = stay
        case .forgetCursor(let channel): (cursors[channel], endedStays[channel]) = (nil, nil)
        case .cursorVersion(let version): cursorVersion = version
        case .user(let user): self.user = user
        case .device(let device): self.device = device
        case .resumeTicket(let ticket): resumeTicket = ticket
        case .transportTicket(let accessPoint, let ticket): transportTickets[accessPoint] = ticket
        case .addressToken(let accessPoint, let token): addressTokens[accessPoint] = token
        case .network(let network):
            networks.removeAll { $0.name == network.name }
            networks.append(network)
            networks.sort { ($0.lastUse, $0.name) > ($1.lastUse, $1.name) }
            networks = Array(networks.prefix(StoredNetwork.limit))
        case .access(let access): self.access = access
        case .controlRoutes(let routes): controlRoutes = routes
        }
    }
}
