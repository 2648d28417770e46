/// All QUIC connections of one event loop: datagrams in, datagrams, events and the next deadline out. It reads no
/// clock, socket or random source of its own. Not thread-safe: one owner calls it.
///
/// The owner's loop: for each datagram `receive`; at `nextDeadline` `handleDeadline`; then `pollEvent` until nil,
/// reacting through the connections; then `pollTransmit` until nil; then look at `nextDeadline`.
public final class QUICEndpoint {
    /// What was counted since the start.
    public private(set) var counters = EndpointCounters()

    /// Makes an endpoint. Throws `invalidConfiguration`.
    /// - Parameter random: cryptographically secure except in tests; the only randomness in what the engine itself decides.
    public init(configuration: EndpointConfiguration, random: any RandomNumberGenerator) throws(QUICError) {
    }

    /// Takes one UDP payload. Bytes are copied as needed; nothing is kept of the buffer.
    public func receive(
        _ datagram: UnsafeRawBufferPointer, path: QUICPath, ecn: ECNCodepoint, now: QUICInstant
    ) {}

    /// Starts a connection; its first flight is ready in `pollTransmit`. Throws `invalidConfiguration`,
    /// `connectionLimit`.
    public func connect(
        to remote: QUICSocketAddress, from local: QUICSocketAddress, configuration: ClientConfiguration,
        now: QUICInstant
    ) throws(QUICError) -> QUICEngineConnection {
        throw QUICError(.internalError, "not yet", advice: "")
    }

    /// Lets timers act that are due.
    public func handleDeadline(now: QUICInstant) {}

    /// When `handleDeadline` wants to be called; nil: only after another call.
    public var nextDeadline: QUICInstant? { nil }

    /// Writes the next run of datagrams. nil: nothing to send now; ask again after any other call.
    /// - Parameter buffer: at least 1,452 bytes; 64 KiB let a run use all that GSO allows.
    public func pollTransmit(into buffer: UnsafeMutableRawBufferPointer, now: QUICInstant) -> QUICTransmit? { nil }

    /// The next event, in order of each connection.
    public func pollEvent() -> (QUICEngineConnection, QUICConnectionEvent)? { nil }

    /// Whether new connections are accepted; off while draining.
    public var acceptsConnections = true

    /// Connections that aren't closed.
    public var connectionCount: Int { 0 }

    /// Closes every connection with an application code.
    public func closeAll(code: UInt64, reason: String, now: QUICInstant) {}
}
