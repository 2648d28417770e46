public import NIOCore
public import QUICEngine

/// Unreliable datagrams (RFC 9221).
extension QUICLoopConnection {
    /// The largest datagram that can be sent now, in bytes; nil: none. `maxDatagramSizeChanged` tells of changes.
    public var maxDatagramSize: Int? { !isOver ? engine?.maxDatagramSize : nil }

    /// Queues an unreliable datagram.
    /// - Parameters:
    ///   - bytes: at most ``maxDatagramSize``.
    ///   - id: comes back in `datagramAcknowledged`, `datagramLost` or `datagramExpired`.
    ///   - lifetime: what couldn't leave within it is dropped; nil: it waits as long as the connection lives.
    ///   - older: a datagram that is taken back for this one, as by ``withdrawDatagram(_:)``; where this one is refused it waits on.
    /// - Returns: false if the queue is full; it was dropped then.
    /// - Throws: `datagramNotSupported`, `datagramTooLarge`, `closed`.
    public func sendDatagram(
        _ bytes: ByteBuffer, id: UInt64, lifetime: TimeAmount? = nil, replacing older: UInt64? = nil
    ) throws(QUICError) -> Bool {
        guard let engine = try live() else { return false }
        let replaced = client?.journal == nil ? older : nil
        let deadline = lifetime.map { QUICInstant.now().advanced(byNanoseconds: UInt64(max(0, $0.nanoseconds))) }
        let outcome: Result<Bool, QUICError> = bytes.withUnsafeReadableBytes { memory in
            do throws(QUICError) {
                return .success(try engine.sendDatagram(memory, id: id, deadline: deadline, replacing: replaced))
            } catch {
                return .failure(error)
            }
        }
        let queued = try outcome.get()
        if queued { client?.journal?.sent(datagram: bytes, id: id, deadline: deadline) }
        driver.needsTick()
        return queued
    }

    /// Whether a datagram waits to be sent.
    public func isDatagramWaiting(_ id: UInt64) -> Bool { engine?.isDatagramWaiting(id) ?? false }

    /// Takes a datagram back that was not sent yet; nothing is reported of it then. Not before the handshake: what was
    /// offered as early data is sent.
    /// - Returns: false if it has left, or was dropped.
    @discardableResult
    public func withdrawDatagram(_ id: UInt64) -> Bool {
        guard !isOver, client?.journal == nil else { return false }
        return engine?.withdrawDatagram(id) ?? false
    }

    /// Drops the peer's datagrams from now on, at little cost: for a protocol without datagrams on a port whose others have them,
    /// once the handshake has begun. None is reported; they count in
    /// ``/QUICEngine/EndpointCounters/datagramFramesDropped``. A client's further attempts drop them, too. Nothing happens after the
    /// end.
    public func refuseDatagrams() {
        guard !isOver else { return }
        refusesDatagrams = true
        engine?.refuseDatagrams()
    }
}
