import LonglineWire

/// Names a node of a service.
public struct NodeID: Hashable, Sendable, CustomStringConvertible {
    /// 1 to 64 bytes of `A-Z a-z 0-9 . _ ~ @ + -`.
    public let description: String

    /// Checks and wraps a name; nil when it breaks the rule for names.
    public init?(_ name: String) {
        guard (try? UserID(name)) != nil else { return nil }
        description = name
    }

    private init(unchecked: String) { description = unchecked }

    /// A new name: 16 hexadecimal digits.
    static func random() -> NodeID {
        let digits = String(UInt64.random(in: .min ... .max), radix: 16)
        return NodeID(unchecked: String(repeating: "0", count: 16 - digits.count) + digits)
    }
}

/// A place where clients connect.
public struct NodeAddress: Hashable, Sendable {
    /// What carries a session there.
    public enum Transport: String, Hashable, Sendable, CaseIterable {
        /// QUIC, over UDP.
        case quic
        /// TCP with TLS.
        case tcp
        /// WebSocket over TLS.
        case webSocket = "websocket"
    }

    /// A name to resolve, or a numeric address without brackets.
    public var host: String
    /// The port, 1 to 65535.
    public var port: Int
    /// What is spoken there, best first.
    public var transports: [Transport]
    /// Whether a QUIC connection may move to another network there: not where a load balancer on the way goes by addresses.
    public var isMigrationSafe: Bool

    /// A place.
    public init(host: String, port: Int, transports: [Transport] = [.quic], isMigrationSafe: Bool = true) {
        self.host = host
        self.port = port
        self.transports = transports
        self.isMigrationSafe = isMigrationSafe
    }

    /// As one text; a numeric address of IPv6 is in brackets.
    var text: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }

    /// Whether a client would take it.
    var isUsable: Bool { (1...65_535).contains(port) && AccessHost.isValid(host) && !transports.isEmpty }
}

/// How busy a node is.
public struct NodeLoad: Hashable, Sendable {
    /// Connections now.
    public var connections: Int
    /// Handshakes completed each second, lately.
    public var handshakesPerSecond: Double
    /// How long the slowest event loop lets work wait.
    public var loopDelay: Duration
    /// Memory of the process, in bytes.
    public var memory: UInt64

    /// A load.
    public init(
        connections: Int = 0, handshakesPerSecond: Double = 0, loopDelay: Duration = .zero, memory: UInt64 = 0
    ) {
        self.connections = connections
        self.handshakesPerSecond = handshakesPerSecond
        self.loopDelay = loopDelay
        self.memory = memory
    }
}

/// At what load a node is full.
public struct NodeCapacity: Hashable, Sendable {
    /// Connections.
    public var connections: Int
    /// Handshakes each second.
    public var handshakesPerSecond: Double
    /// How long event loops may let work wait.
    public var loopDelay: Duration
    /// Memory, in bytes.
    public var memory: UInt64

    /// A capacity.
    public init(
        connections: Int = 100_000, handshakesPerSecond: Double = 2_000, loopDelay: Duration = .milliseconds(250),
        memory: UInt64 = .max
    ) {
        self.connections = connections
        self.handshakesPerSecond = handshakesPerSecond
        self.loopDelay = loopDelay
        self.memory = memory
    }
}

/// A node as it reported itself last.
public struct NodeStatus: Hashable, Sendable {
    /// Its name.
    public var id: NodeID
    /// Where clients reach it, best first. What is no place to connect to is left out of what clients are told.
    public var addresses: [NodeAddress]
    /// How busy it is.
    public var load: NodeLoad
    /// When it is full.
    public var capacity: NodeCapacity
    /// Whether it moves its clients away.
    public var isDraining: Bool

    /// A status.
    public init(
        id: NodeID, addresses: [NodeAddress], load: NodeLoad = NodeLoad(), capacity: NodeCapacity = NodeCapacity(),
        isDraining: Bool = false
    ) {
        self.id = id
        self.addresses = addresses
        self.load = load
        self.capacity = capacity
        self.isDraining = isDraining
    }

    /// How much of what it can do it does: 0 idle, 1 full. The scarcest thing counts.
    public var utilization: Double {
        let delay = load.loopDelay / max(capacity.loopDelay, .nanoseconds(1))
        return max(
            Double(load.connections) / Double(max(capacity.connections, 1)),
            load.handshakesPerSecond / max(capacity.handshakesPerSecond, 1), delay,
            Double(load.memory) / Double(max(capacity.memory, 1)))
    }

    /// Whether it takes nobody more.
    public var isFull: Bool { utilization >= 1 }
}

/// What became of a wish to drain a node.
public struct NodeDrainStatus: Hashable, Sendable {
    /// Clients moved away each second.
    public var rate: Int
    /// Connections that are left.
    public var remaining: Int

    /// A status.
    public init(rate: Int, remaining: Int) {
        self.rate = rate
        self.remaining = remaining
    }
}

/// The nodes of a service, as far as this one knows them.
public protocol NodeDirectory: Sendable {
    /// All nodes, as they reported themselves last. One that stopped reporting is to be left out: nobody else can tell how old a
    /// report is.
    func nodes() async throws -> [NodeStatus]

    /// Has a node take nobody in and move its clients away.
    /// - Parameters:
    ///   - node: which.
    ///   - rate: clients a second, 1 or more.
    /// - Returns: nil when there is no such node.
    func drain(_ node: NodeID, rate: Int) async throws -> NodeDrainStatus?
}
