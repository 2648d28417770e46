public import NIOCore
public import QUICEngine

/// A QUIC stream for tasks: one reads, one writes, from any thread. Iterating over it reads it.
///
/// Back-pressure goes both ways: bytes that nobody reads hold the peer up, and ``write(_:)`` suspends while the peer or the
/// network hold us up. Letting go of the last reference abandons what isn't finished: the sending side is reset, the
/// receiving side stopped, both with code 0.
public final class QUICStream: Sendable {
    /// Its number within the connection.
    public let id: QUICStreamID
    /// The connection it belongs to.
    public let connection: QUICConnection
    /// The application code of the reset when a suspended write is cancelled.
    public static let cancellationCode: UInt64 = 0

    private let handover: StreamHandover

    init(_ opened: OpenedStream, connection: QUICConnection) {
        id = opened.id
        handover = opened.handover
        self.connection = connection
    }

    deinit {
        let id = self.id
        connection.perform { $0.release(id) }
    }

    /// Takes the next bytes, as they came. What came before the connection closed can be read after that; the error, or the end if
    /// that came, too, lies behind it.
    /// - Returns: nil at the stream's end.
    /// - Throws: ``QUICTransportError`` (`streamReset`, `streamState` on a stream that only sends or that was stopped here,
    ///   `connectionClosed`, `concurrentUse`), or `CancellationError`, after which reading can go on and nothing is lost.
    public nonisolated(nonsending) func read() async throws -> ByteBuffer? {
        if let result = connection.stateAtHand?.readAtOnce(id) { return try result.get() }
        return try await Waiter<ByteBuffer?>().wait { waiter in
            switch self.handover.arm(waiter) {
            case .waits: break
            case .finished(let end): waiter.finish(end)
            case .served(let bytes): waiter.resume(with: .success(bytes))
            case .asksLoop:
                self.connection.onLoop { [id = self.id, handover = self.handover] in
                    // The connection closed meanwhile.
                    if !$0.read(id, waiter) { handover.serve(waiter) }
                }
            }
        }
    }

    /// Whether what the last ``read()`` returned came, at least in part, in 0-RTT packets before the handshake was complete: an
    /// attacker may have sent it again. Only a listener that yields connections early sees such. To be asked by the task
    /// that reads.
    public var lastReadWasEarly: Bool { handover.lastReadWasEarly }

    /// Sends bytes. Returns when the stream's send buffer has room for them all; they are on their way then, not yet
    /// acknowledged.
    /// - Throws: ``QUICTransportError`` (`stopSending`, `streamState`, `connectionClosed`, `concurrentUse`), or
    ///   `CancellationError`. A cancelled write that had to wait resets the stream, since part of it may have been sent.
    public nonisolated(nonsending) func write(_ bytes: ByteBuffer) async throws {
        try Task.checkCancellation()
        let id = self.id
        let connection = self.connection
        if let state = connection.stateAtHand {
            if state.writeAtOnce(bytes, to: id) { return }
        } else {
            switch handover.write(bytes) {
            case .taken(let wakesLoop):
                if wakesLoop { connection.perform { $0.drain(id) } }
                return
            case .failed(let error): throw error
            case .mustWait: break
            }
        }
        try await connection.wait(
            cancelled: { connection.perform { $0.cancelWrite(id, code: Self.cancellationCode) } },
            { $0.write(bytes, to: id, $1) })
    }

    /// Ends the sending side behind what was written. Does not wait for the peer.
    /// - Throws: ``QUICTransportError`` (`streamState`, `stopSending`, `connectionClosed`).
    public nonisolated(nonsending) func finish() async throws {
        let id = self.id
        switch handover.finish() {
        case .taken(let wakesLoop):
            if wakesLoop { connection.onLoop { $0.drain(id) } }
        case .failed(let error): throw error
        case .mustWait: try await connection.call { try $0.finish(id) }
        }
    }

    /// Waits until the peer's QUIC stack has acknowledged everything that was written, and the end that ``finish()`` put behind
    /// it: at least a round trip. A close of the connection takes back nothing of that, and what was acknowledged by then is told
    /// behind it, too; whether the peer's application has read it is for the application's own protocol to say.
    /// - Throws: ``QUICTransportError`` (`stopSending`, `streamState` where the stream was reset, `connectionClosed`), or
    ///   `CancellationError`.
    public func delivered() async throws {
        let (id, handover) = (self.id, self.handover)
        try await connection.wait { (state, waiter: Waiter<Void>) in
            if handover.isDelivered { waiter.finish(.success(())) } else { state.waitDelivered(id, waiter) }
        }
    }

    /// Changes when the stream may send, among those of its connection that have something to send.
    public func setPriority(_ priority: StreamPriority) {
        let id = self.id
        connection.perform { $0.connection?.setPriority(priority, of: id) }
    }

    /// Abandons the sending side (RESET_STREAM, RFC 9000 section 3.1); what wasn't delivered is dropped. A write that waits
    /// throws `streamState`. Does nothing on a stream that isn't sending.
    /// - Parameter code: an application's code, below 2^62; the peer's read throws it.
    public func reset(code: UInt64) {
        let id = self.id
        connection.perform { $0.reset(id, code: code) }
    }

    /// Asks the peer to send no more (STOP_SENDING, RFC 9000 section 3.5); what comes is dropped. Does nothing on a stream
    /// that isn't receiving.
    /// - Parameter code: an application's code, below 2^62; the peer's write throws it.
    public func stopSending(code: UInt64) {
        let id = self.id
        connection.perform { $0.stopSending(id, code: code) }
    }

    /// Resets and stops what isn't over yet: what was finished still goes out.
    func giveUp(code: UInt64) {
        let id = self.id
        connection.perform { $0.giveUp(id, code: code) }
    }
}

extension QUICStream: AsyncSequence {
    /// Reads the stream.
    public struct AsyncIterator: AsyncIteratorProtocol {
        let stream: QUICStream

        /// The same as ``QUICStream/read()``: nil at the stream's end.
        public mutating func next() async throws -> ByteBuffer? { try await stream.read() }
    }

    /// A reader; a stream has one at a time.
    public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(stream: self) }
}
