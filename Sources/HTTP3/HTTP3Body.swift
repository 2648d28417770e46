public import HTTPTypes
public import NIOCore
internal import QUICTransport

/// The body of a received message: a sequence of pieces as they come, for one task. Its values can be handed to any task.
///
/// Bytes that nobody asks for hold up the peer: no more are kept than the QUIC stream's window
/// (``/QUICEngine/TransportSettings/streamWindow``).
public struct HTTP3Body: AsyncSequence, Sendable {
    let exchange: OnLoop<Exchange>
    /// Keeps what must live as long as somebody may read.
    let owner: (any AnyObject & Sendable)?

    /// Waits for the next bytes.
    /// - Returns: nil at the body's end.
    /// - Throws: ``HTTP3Error``: `streamReset`, `cancelled`, `malformedMessage`, `bodyTooLarge`, `timeout`, `connectionClosed`;
    ///   `CancellationError`, after which nothing is lost.
    public nonisolated(nonsending) func read() async throws -> ByteBuffer? {
        if let exchange = exchange.here, let result = exchange.readAtOnce() { return try result.get() }
        return try await exchange.wait(cancelled: { $0.forgetReader() }, { $0.read($1) })
    }

    /// The whole body.
    /// - Parameter limit: bytes that are taken at most.
    /// - Throws: what ``read()`` throws; ``HTTP3Error/Code/bodyTooLarge`` if there are more.
    public nonisolated(nonsending) func collect(upTo limit: Int) async throws -> ByteBuffer {
        guard var all = try await read() else { return ByteBuffer() }
        while all.readableBytes <= limit, var next = try await read() { all.writeBuffer(&next) }
        guard all.readableBytes <= limit else {
            throw HTTP3Error(
                .bodyTooLarge, "the body has more than \(limit) bytes", advice: "Take more, or refuse the message.")
        }
        return all
    }

    /// The trailer section; nil before the body's end was read, and if there is none.
    public func trailers() async -> HTTPFields? {
        try? await exchange.call { $0.trailers }
    }

    /// Wants no more of it: the peer is asked to stop.
    /// - Parameter code: ``HTTP3ErrorCode/noError`` where a server has answered all the same (RFC 9114 section 4.1).
    public func stop(code: HTTP3ErrorCode = .requestCancelled) {
        exchange.perform { $0.stopReading(code) }
    }

    /// Takes one piece after another.
    public struct AsyncIterator: AsyncIteratorProtocol {
        let body: HTTP3Body

        /// As ``HTTP3Body/read()``.
        public mutating func next() async throws -> ByteBuffer? { try await body.read() }
    }

    /// Another reader; only one may wait at a time.
    public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(body: self) }
}

/// Sends the body of a message, for one task. Its values can be handed to any task.
public struct HTTP3BodyWriter: Sendable {
    let exchange: OnLoop<Exchange>

    /// Sends bytes as one DATA frame. Returns when the stream's send buffer has taken them: a peer that reads slowly suspends the
    /// caller, and nothing is queued beyond the buffer (``/QUICEngine/TransportSettings/streamSendBuffer``).
    /// - Throws: ``HTTP3Error``: `bodyRefused` (client), `cancelled`, `streamReset`, `timeout`, `invalidMessage` for more bytes than
    ///   the content length, `connectionClosed`; `CancellationError`, and then the exchange is cancelled, since nobody knows how
    ///   much was taken.
    public nonisolated(nonsending) func write(_ bytes: ByteBuffer) async throws {
        try await send { try $0.sendBody(bytes, finish: false) }
    }

    /// Ends the body, behind the last bytes and before a trailer section.
    /// - Parameters:
    ///   - bytes: the last of the body.
    ///   - trailers: a trailer section (RFC 9110 section 6.5).
    /// - Throws: what ``write(_:)`` throws; `invalidMessage` for fewer bytes than the content length, or trailers that can't be
    ///   sent: the stream is reset then.
    public nonisolated(nonsending) func finish(_ bytes: ByteBuffer? = nil, trailers: HTTPFields? = nil) async throws {
        try await send { try $0.sendBody(bytes, trailers: trailers, finish: true) }
    }

    nonisolated(nonsending) func send(_ body: @escaping @Sendable (Exchange) throws -> Void) async throws {
        if let exchange = exchange.here {
            try body(exchange)
            if exchange.isFlushed { return }
            return try await flushed()
        }
        try await exchange.call(body)
        try await flushed()
    }

    private nonisolated(nonsending) func flushed() async throws {
        try await exchange.wait(
            cancelled: { $0.cancel() }, { (exchange, waiter: Waiter<Void>) in exchange.awaitFlush(waiter) })
    }
}
