public import Logging
public import NIOCore
public import QUICEngine

/// One QUIC connection, confined to its event loop: the loop-level API that everything else here is built on.
///
/// Every call is made on ``eventLoop``. Calls take effect when the loop's tick ends: what was written by all handlers in
/// one tick leaves in as few system calls as possible. After the connection closed, calls do nothing or throw
/// `closed`. Values cross threads, this object never does.
public final class QUICLoopConnection {
    /// The loop that owns the connection for life.
    public let eventLoop: any EventLoop
    /// Whether this side accepted the connection.
    public let isServer: Bool
    /// A number that is never used again on this loop, for logs.
    public let id: UInt64
    /// Why the connection ended; nil while it lives.
    @exclusivity(unchecked) public private(set) var closeReason: QUICCloseReason? { didSet { isOver = true } }
    /// Whether there is a ``closeReason``, which is larger.
    @exclusivity(unchecked) private(set) var isOver = false

    let driver: LoopDriver
    @exclusivity(unchecked) var handler: (any QUICConnectionHandler)?
    /// The engine's side: nil before a client's first packet, another after an attempt started anew on another path.
    @exclusivity(unchecked) var engine: QUICEngineConnection?
    /// Takes the engine's place, with ``standing(on:isServer:eventLoop:)``.
    @exclusivity(unchecked) var standIn: (any EngineStandIn)?
    /// What only clients have: sockets of their own, and paths to change.
    @exclusivity(unchecked) var client: ClientPaths?
    /// Client: an attempt started again and doesn't know the application's streams yet. They take nothing until it does.
    @exclusivity(unchecked) var awaitsReplay = false
    /// The peer's datagrams are dropped, whichever attempt they come by.
    @exclusivity(unchecked) var refusesDatagrams = false
    /// Whether the driver has this connection on its list for the end of the batch.
    @exclusivity(unchecked) var isTouched = false
    /// Whether a client's socket received something in this tick.
    @exclusivity(unchecked) var hasNewPackets = false
    /// Client: when its server's ticket is due to be renewed.
    var renewal: Scheduled<Void>?
    private var lastPackets: UInt64 = 0

    init(accepted engine: QUICEngineConnection, driver: LoopDriver) {
        eventLoop = driver.eventLoop
        isServer = true
        id = driver.nextID()
        self.driver = driver
        self.engine = engine
    }

    init(connecting driver: LoopDriver) {
        eventLoop = driver.eventLoop
        isServer = false
        id = driver.nextID()
        self.driver = driver
    }

    init(standIn: any EngineStandIn, isServer: Bool, driver: LoopDriver) {
        eventLoop = driver.eventLoop
        self.isServer = isServer
        id = driver.nextID()
        self.driver = driver
        self.standIn = standIn
    }

    // MARK: State

    /// What the handshake agreed on; nil until it is complete.
    public var handshake: HandshakeInfo? { engine?.handshake }

    /// The ALPN protocol agreed on: on a server known from the client's first flight on, so also while 0-RTT data is read and
    /// ``handshake`` isn't there yet; on a client once the server has answered. nil before, and if there is none.
    public var applicationProtocol: String? { engine?.applicationProtocol }

    /// Runs tasks on ``eventLoop``, within the ticks of its QUIC endpoint: see ``QUICLoopExecutor`` for what they must not do.
    public var executor: QUICLoopExecutor { driver.executor }

    /// The path in use; nil before a client's first packet and after the end.
    public var path: QUICPath? { !isOver ? engine?.path : nil }

    /// The connection ID that the client chose first, in hexadecimal digits: both sides, their logs and their qlog traces
    /// know the connection by it. nil before a client's first packet and after the end; a client's changes when an
    /// attempt starts again.
    public var originalDestinationID: String? { engine?.originalDestinationIDText }

    /// What a log line about this connection should carry: `quic.connection`, the original destination ID, and
    /// `quic.role`.
    public var logMetadata: Logger.Metadata {
        var metadata: Logger.Metadata = ["quic.role": isServer ? "server" : "client"]
        if let id = originalDestinationID { metadata["quic.connection"] = "\(id)" }
        return metadata
    }

    /// The peer's address; a client's changes when it migrates.
    public var remoteAddress: SocketAddress? { path.map { SocketAddress($0.remote) } }

    /// The local address; differs from the socket's own after a ``rebind(promise:)``.
    public var localAddress: SocketAddress? { path.map { SocketAddress($0.local) } }

    /// Present numbers; nil before a client's first packet and after the end.
    public func statistics() -> ConnectionStatistics? {
        !isOver ? engine?.statistics(now: .now()) : nil
    }

    /// Asks for a turn of the loop's sockets at the end of its present turn, as what is written does. For work that goes from task to
    /// task and may write nothing: the loop looks at sockets only when no task is left.
    public func pollSockets() { driver.needsTick() }

    // MARK: Streams

    /// Streams that can be opened now, before the peer allows more; 0 before a client's `earlyDataPossible` or handshake, and after
    /// the end.
    public func streamsLeft(bidirectional: Bool) -> Int {
        guard !isOver else { return 0 }
        return engine?.streamsLeft(bidirectional: bidirectional) ?? 0
    }

    /// Opens a stream.
    /// - Returns: nil if the peer allows no more now; `streamsAvailable` follows. Before the handshake a client gets
    ///   streams only once `earlyDataPossible` came.
    public func openStream(bidirectional: Bool) throws(QUICError) -> QUICStreamID? {
        guard let engine = try live() else {
            if let standIn { return try standIn.openStream(bidirectional: bidirectional) }
            client?.journal?.notOpened(bidirectional: bidirectional)
            return nil
        }
        let stream = try engine.openStream(bidirectional: bidirectional)
        if let stream {
            client?.journal?.opened(stream)
        } else {
            client?.journal?.notOpened(bidirectional: bidirectional)
            // Others end when what waits to be acknowledged is.
            driver.needsTick()
        }
        return stream
    }

    /// Buffers bytes to send and takes them from `bytes`, as many as the send buffer holds.
    /// - Parameters:
    ///   - bytes: what to send; afterwards what wasn't taken.
    ///   - stream: one that sends.
    ///   - finish: ends the stream; counts only if every byte was taken.
    /// - Returns: how many were taken. If fewer than offered, `streamWritable` follows.
    @discardableResult
    public func write(_ bytes: inout ByteBuffer, to stream: QUICStreamID, finish: Bool = false) throws(QUICError) -> Int
    {
        let offered = bytes.readableBytes
        guard let engine = try live() else {
            if let standIn { return try standIn.write(&bytes, to: stream, finish: finish) }
            client?.journal?.wrote(
                ByteBuffer(), to: stream, finish: finish && offered == 0, isWhole: offered == 0)
            return 0
        }
        // The buffer's storage stays as it is while somebody else refers to it: a later change of the buffer copies it. A small
        // part of a large one is copied, so that it doesn't keep all of it.
        let isMostOfIt = bytes.storageCapacity <= Self.largestOverhead * offered
        let outcome: Result<Int, QUICError> = bytes.withUnsafeReadableBytesWithStorageManagement { memory, storage in
            do throws(QUICError) {
                let owner = isMostOfIt ? storage.takeUnretainedValue() : nil
                return .success(try engine.write(memory, of: owner, to: stream, finish: finish))
            } catch {
                return .failure(error)
            }
        }
        let taken = try outcome.get()
        if let part = bytes.readSlice(length: taken) {
            client?.journal?.wrote(
                part, to: stream, finish: finish && taken == offered, isWhole: taken == offered)
        }
        driver.needsTick()
        return taken
    }

    /// How many times as large as what it is written for memory may be that is kept until all is acknowledged.
    private static let largestOverhead = 4

    /// Bytes that a write would take now.
    public func writableBytes(_ stream: QUICStreamID) -> Int { engine?.writableBytes(stream) ?? 0 }

    /// Bytes that were written and have not left yet. What is held up (by the congestion window or the peer's flow control)
    /// shows here first.
    public func unsentBytes(_ stream: QUICStreamID) -> Int {
        engine?.unsentBytes(stream) ?? standIn?.unsentBytes(stream) ?? 0
    }

    /// Bytes that were written and of which the peer has not acknowledged all that goes before them: what a write took, less this, is
    /// there. 0 for a stream that is no more.
    public func unacknowledgedBytes(_ stream: QUICStreamID) -> Int {
        engine?.unacknowledgedBytes(stream) ?? standIn?.unsentBytes(stream) ?? 0
    }

    /// Whether the peer's flow control for a stream held it back when it was last its turn: not congestion, the connection's flow
    /// control or other streams.
    package func isHeldBackByPeer(_ stream: QUICStreamID) -> Bool {
        engine?.isHeldBackByPeer(stream) ?? standIn?.isHeldBackByPeer(stream) ?? false
    }

    /// Asks for `streamDelivered` once the peer's QUIC stack has all that is written to a stream, and its end.
    /// - Returns: whether it has already; the event doesn't come then.
    /// - Throws: `unknownStream`.
    public func notifyDelivery(of stream: QUICStreamID) throws(QUICError) -> Bool {
        client?.journal?.awaitsDelivery(of: stream)
        guard let engine = try live() else { return try standIn?.notifyDelivery(of: stream) ?? false }
        return try engine.notifyDelivery(of: stream)
    }

    /// Takes received bytes, and lets the peer send as many more.
    /// - Parameters:
    ///   - stream: one that receives.
    ///   - maximumBytes: at most so many.
    /// - Returns: the bytes, and whether the stream ended behind them.
    public func read(
        _ stream: QUICStreamID, maximumBytes: Int
    ) throws(QUICError) -> (bytes: ByteBuffer, finished: Bool) {
        guard let engine, !awaitsReplay else {
            return try standIn?.read(stream, maximumBytes: maximumBytes) ?? (ByteBuffer(), false)
        }
        let count = min(engine.readableBytes(stream), max(maximumBytes, 0))
        var buffer = ByteBufferAllocator().buffer(capacity: count)
        var outcome: Result<StreamRead, QUICError> = .success(StreamRead(count: 0, finished: false))
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: count) { memory in
            do throws(QUICError) {
                let space = UnsafeMutableRawBufferPointer(rebasing: memory[0..<count])
                let read = try engine.read(stream, into: space)
                outcome = .success(read)
                return read.count
            } catch {
                outcome = .failure(error)
                return 0
            }
        }
        // What was read may let the peer send more: a window update leaves with the tick.
        driver.needsTick()
        return (buffer, try outcome.get().finished)
    }

    /// Shows received bytes where they lie, without a copy, takes as many as the closure says, and lets the peer send as
    /// many more.
    /// - Parameters:
    ///   - stream: one that receives.
    ///   - body: gets all that is there, perhaps nothing, and returns how many bytes it is done with. It must not
    ///     call the connection.
    /// - Returns: the bytes taken, and whether the stream ended behind them.
    public func read(
        _ stream: QUICStreamID, consuming body: (UnsafeRawBufferPointer) -> Int
    ) throws(QUICError) -> StreamRead {
        guard let engine, !awaitsReplay else {
            return try standIn?.read(stream, consuming: body) ?? StreamRead(count: 0, finished: false)
        }
        let result = try engine.read(stream, consuming: body)
        driver.needsTick()
        return result
    }

    /// Bytes that a read would return.
    public func readableBytes(_ stream: QUICStreamID) -> Int {
        engine?.readableBytes(stream) ?? standIn?.readableBytes(stream) ?? 0
    }

    /// Whether bytes that are readable now came in 0-RTT packets: an attacker may have sent them again.
    public func isEarly(_ stream: QUICStreamID) -> Bool { engine?.isEarly(stream) ?? standIn?.isEarly(stream) ?? false }

    /// Changes when a stream may send, among those of this connection.
    public func setPriority(_ priority: StreamPriority, of stream: QUICStreamID) {
        guard !isOver, let engine else { return }
        engine.setPriority(priority, of: stream)
        client?.journal?.prioritized(stream, priority)
        // It may have found room for a write that waits.
        driver.needsTick()
    }

    /// Abandons this side of a stream; what wasn't sent is dropped.
    public func reset(_ stream: QUICStreamID, code: UInt64) {
        guard !isOver, let engine else {
            standIn?.reset(stream, code: code)
            return
        }
        engine.reset(stream, code: code)
        client?.journal?.reset(stream, code: code)
        driver.needsTick()
    }

    /// Asks the peer to send no more on a stream; what comes is dropped.
    public func stopSending(_ stream: QUICStreamID, code: UInt64) {
        guard !isOver, let engine else {
            standIn?.stopSending(stream, code: code)
            return
        }
        engine.stopSending(stream, code: code)
        client?.journal?.stopped(stream, code: code)
        driver.needsTick()
    }

    // MARK: Paths

    /// Client: moves to another local address; port 0 lets the system choose one. The connection, its streams and
    /// everything under way stay.
    ///
    /// Before the handshake completed, the attempt is abandoned and starts again on the new path with its 0-RTT
    /// data; between completion and confirmation the change waits for the confirmation. A later call takes the place of
    /// one that is under way.
    /// - Parameters:
    ///   - address: where to send from.
    ///   - promise: succeeds when the new path was validated (or the new attempt's handshake completed), fails
    ///     with ``QUICTransportError`` and then the old path stays.
    public func migrate(toLocal address: SocketAddress, promise: EventLoopPromise<Void>?) {
        eventLoop.preconditionInEventLoop()
        guard !isOver, let client else {
            promise?.fail(closeReason.map(QUICTransportError.closed) ?? Self.serverCannotMove)
            return
        }
        client.change(to: address, promise: promise)
    }

    /// Client: goes on from a new port of the same local address, without telling its own engine: to the server it
    /// looks like a NAT that bound this client anew, and it validates the new address. Serves where a NAT's mapping is
    /// thought to be dead: no round trip passes before data flows again.
    /// - Parameter promise: succeeds when the new socket is in use, fails with ``QUICTransportError`` and then the old one is.
    public func rebind(promise: EventLoopPromise<Void>?) {
        eventLoop.preconditionInEventLoop()
        guard !isOver, let client else {
            promise?.fail(closeReason.map(QUICTransportError.closed) ?? Self.serverCannotMove)
            return
        }
        client.rebind(promise: promise)
    }

    private static var serverCannotMove: QUICTransportError {
        QUICTransportError(
            .pathChangeFailed, "a server can't change the path", advice: "Migrate from the client's side.")
    }

    /// Sends a packet that the peer must acknowledge: shows it where we are now, and whether the path lives. Does nothing
    /// before the handshake is complete.
    public func ping() {
        guard !isOver, let engine else { return }
        engine.ping(now: .now())
        driver.needsTick()
    }

    // MARK: The end

    /// Closes with an application code. What was not yet sent is dropped: finish streams and wait for their end first.
    /// The `closed` event follows.
    public func close(code: UInt64, reason: String) {
        eventLoop.preconditionInEventLoop()
        guard !isOver else { return }
        if let engine {
            engine.close(code: code, reason: reason, now: .now())
            driver.needsTick()
        } else {
            standIn?.close(code: code, reason: reason)
            client?.close()
            end(.localApplication(code: code, reason: reason))
        }
    }

    /// Client: from now on nothing leaves and what comes is dropped, without a word to anyone: an outage, for tests and
    /// demonstrations.
    public func goSilent() {
        eventLoop.preconditionInEventLoop()
        client?.goSilent()
    }

    /// Client: gives the connection up without a word to the server, which keeps it until its idle timeout. Nothing is
    /// called on the handler any more.
    public func abandon() {
        eventLoop.preconditionInEventLoop()
        guard !isOver, let client else { return }
        handler = nil
        client.goSilent()
        close(code: 0, reason: "")
    }

    /// Starts a key update (RFC 9001 section 6).
    /// - Returns: false if that isn't possible now.
    @discardableResult
    public func requestKeyUpdate() -> Bool {
        guard !isOver, let engine else { return false }
        defer { driver.needsTick() }
        return engine.requestKeyUpdate(now: .now())
    }

    /// Keying material for the application that both sides compute alike and nobody else can (RFC 8446 section 7.5).
    /// - Parameters:
    ///   - label: tells uses apart; from 1 to 249 bytes.
    ///   - context: anything; both sides must give the same.
    ///   - count: bytes wanted, from 1 to 8160.
    /// - Throws: `closed`; `notEstablished` before the handshake is complete.
    public func exportKeyingMaterial(
        label: String, context: [UInt8] = [], count: Int
    ) throws(QUICError) -> [UInt8] {
        guard let engine = try live() else {
            throw QUICError(
                .notEstablished, "there are no keys before the handshake is complete",
                advice: "Wait for `handshakeCompleted`.")
        }
        return try engine.exportKeyingMaterial(label: label, context: context, count: count)
    }

    // MARK: Inside

    /// A line at debug level, made only if somebody reads it.
    func debug(_ message: @autoclosure () -> Logger.Message, _ more: @autoclosure () -> Logger.Metadata) {
        guard driver.logger.logLevel <= .debug else { return }
        driver.logger.debug(message(), metadata: logMetadata.merging(more()) { $1 })
    }

    /// The transport's error for the engine's. One that is closed is ahead of its last event.
    func worded(_ error: QUICError) -> QUICTransportError {
        guard error.code == .closed, let reason = closeReason ?? engine?.closeReason else {
            return QUICTransportError(error)
        }
        return .closed(reason)
    }

    func live() throws(QUICError) -> QUICEngineConnection? {
        guard !isOver else {
            throw QUICError(.closed, "the connection is closed", advice: "Connect again if the work isn't done.")
        }
        return awaitsReplay ? nil : engine
    }

    /// Gives an event to the handler, once the client's own affairs had their look at it.
    func dispatch(_ event: QUICConnectionEvent) {
        guard !isOver else { return }
        if let client, !client.admit(event) { return }
        if case .handshakeCompleted(let info) = event {
            debug(
                "a connection is established",
                [
                    "remote": "\(remoteAddress.map { "\($0)" } ?? "?")", "resumed": "\(info.resumed)",
                    "protocol": "\(info.applicationProtocol ?? "none")",
                ])
        }
        if case .closed(let reason) = event {
            closeReason = reason
            debug("a connection closed", ["reason": "\(reason.summary)"])
            renewal?.cancel()
            client?.connectionClosed(reason)
            driver.remove(self)
        }
        handler?.handle(event, on: self)
    }

    func endBatch() {
        if hasNewPackets {
            hasNewPackets = false
            client?.packetsCame()
            if !isOver, let engine {
                // Anyone may send to our address; only what the peer's keys authenticate tells of the path.
                let authenticated = engine.packetsReceived
                if authenticated != lastPackets { handler?.packetsReceived(on: self) }
                lastPackets = authenticated
            }
        }
        handler?.batchEnded(on: self)
        guard isOver else { return }
        handler = nil
        client = nil
        standIn = nil
        engine?.userData = nil
        engine = nil
    }

    /// A new attempt's packets are counted anew.
    func restarted(_ engine: QUICEngineConnection, awaitsReplay: Bool) {
        self.engine = engine
        self.awaitsReplay = awaitsReplay
        lastPackets = 0
        if refusesDatagrams { engine.refuseDatagrams() }
    }

    /// Ends a connection that the engine doesn't know, on the loop's next turn: never inside the caller.
    func end(_ reason: QUICCloseReason) {
        eventLoop.assumeIsolated().execute {
            guard !self.isOver else { return }
            self.dispatch(.closed(reason))
            self.driver.touch(self)
        }
    }
}
