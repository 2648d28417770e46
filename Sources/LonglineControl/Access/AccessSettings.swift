import Synchronization

/// What clients are told of this node, and when it is full: what may change while it runs.
public struct AccessSettings: Hashable, Sendable {
    /// Where clients reach this node, best first; empty: where the server listens.
    public var accessPoints: [NodeAddress] = []
    /// When this node is full. Connections are those that the server's limits leave room for, where that is fewer.
    public var capacity = NodeCapacity(connections: .max)
    /// What clients are told.
    public var policy = AccessPolicy()

    /// The default settings.
    public init() {}

    func validate() throws(ControlError) {
        // What clients would leave out.
        for point in accessPoints where !point.isUsable {
            throw ControlError(
                .invalidConfiguration,
                message: "host '\(point.host)' with port \(point.port) is no place to connect to",
                advice:
                    "a name in ASCII, or a numeric address without brackets, a port from 1 to 65535, and a transport")
        }
        guard capacity.connections >= 1, capacity.handshakesPerSecond >= 1, capacity.loopDelay > .zero,
            capacity.memory >= 1, policy.lifetime >= .seconds(1), policy.heartbeat >= .seconds(1),
            policy.heartbeatAnswer > .zero, policy.backOffBase > .zero, policy.backOffMaximum >= policy.backOffBase,
            policy.backOffReset >= .zero
        else { throw ControlError(.invalidConfiguration, message: "a time or a capacity is below its least value") }
    }
}

/// The settings that hold now.
final class CurrentAccess: Sendable {
    private let settings: Mutex<AccessSettings>

    init(_ settings: AccessSettings) { self.settings = Mutex(settings) }

    var value: AccessSettings {
        get { settings.withLock { $0 } }
        set { settings.withLock { $0 = newValue } }
    }
}
