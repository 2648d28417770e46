/// One QUIC connection of an endpoint, which alone makes them. Calls take effect at the next `pollTransmit`. Not
/// thread-safe: it belongs to its endpoint's owner.
public final class QUICEngineConnection {
    /// Its number.
    public let handle: ConnectionHandle
    /// Whether we are the server.
    public let isServer: Bool
    /// For the owner; the engine only holds it, until `closed` was taken.
    public var userData: AnyObject?

    init(handle: ConnectionHandle, isServer: Bool) {
        self.handle = handle
        self.isServer = isServer
    }

    /// What the handshake agreed on; nil until it is complete.
    public var handshake: HandshakeInfo? { nil }

    /// Whether it is closing or closed.
    public var isClosed: Bool { false }

    /// Opens a stream. nil: the peer allows no more now; `streamsAvailable` follows. Throws `closed`.
    public func openStream(bidirectional: Bool) throws(QUICError) -> QUICStreamID? { nil }

    /// Buffers bytes to send.
    /// - Returns: how many were accepted. If fewer than offered, `streamWritable` follows; `finish` counts only when all
    ///   were accepted.
    public func write(
        _ bytes: UnsafeRawBufferPointer, to stream: QUICStreamID, finish: Bool
    ) throws(QUICError) -> Int { 0 }

    /// Bytes that `write` would accept now; 0 for an unknown stream.
    public func writableBytes(_ stream: QUICStreamID) -> Int { 0 }

    /// Copies received bytes out, in order, and lets the peer send as many more.
    public func read(
        _ stream: QUICStreamID, into buffer: UnsafeMutableRawBufferPointer
    ) throws(QUICError) -> StreamRead { StreamRead(count: 0, finished: false) }

    /// Bytes that `read` would return.
    public func readableBytes(_ stream: QUICStreamID) -> Int { 0 }

    /// Whether bytes that are readable now came in 0-RTT packets: an attacker may have sent them again.
    public func isEarly(_ stream: QUICStreamID) -> Bool { false }

    /// Abandons our sending side; what wasn't sent is dropped. Does nothing on an unknown stream.
    public func reset(_ stream: QUICStreamID, code: UInt64) {}

    /// Asks the peer to send no more; what comes is dropped. Does nothing on an unknown stream.
    public func stopSending(_ stream: QUICStreamID, code: UInt64) {}

    /// Queues a DATAGRAM frame.
    /// - Parameter id: returned in `datagramAcknowledged` or `datagramLost`.
    /// - Returns: false if the queue is full. Throws `datagramNotSupported`, `datagramTooLarge`, `closed`.
    public func sendDatagram(_ bytes: UnsafeRawBufferPointer, id: UInt64) throws(QUICError) -> Bool { false }

    /// The largest datagram the peer accepts on the present path; nil: none, or the handshake isn't far enough.
    public var maxDatagramSize: Int? { nil }

    /// Client: moves to another local address. `pathValidated` and `pathChanged`, or `pathFailed`, follow. Throws
    /// `migrationNotPossible`, `closed`.
    public func migrate(to local: QUICSocketAddress, now: QUICInstant) throws(QUICError) {}

    /// Closes with an application code. Data not yet sent is dropped; finish and drain streams first.
    public func close(code: UInt64, reason: String, now: QUICInstant) {}

    /// Starts a key update (RFC 9001 section 6).
    /// - Returns: false while an earlier one isn't acknowledged, or before the handshake is confirmed.
    @discardableResult
    public func requestKeyUpdate(now: QUICInstant) -> Bool { false }

    /// Present numbers.
    public func statistics(now: QUICInstant) -> ConnectionStatistics { preconditionFailure() }
    /// Where packets go now.
    public var path: QUICPath { preconditionFailure() }
}
