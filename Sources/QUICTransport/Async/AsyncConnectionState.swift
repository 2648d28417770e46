internal import DequeModule
internal import NIOCore
internal import QUICEngine

/// The loop's side of a ``QUICConnection``: who waits for what. Confined to the connection's loop.
final class AsyncConnectionState: QUICConnectionHandler {
    /// When a connect is done.
    enum Readiness { case handshake, earlyData }

    /// Bytes taken from a stream by one read.
    static let readSize = 64 << 10
    private(set) var connection: QUICLoopConnection?
    let inbound: Mailbox<OpenedStream>
    let datagrams: Mailbox<QUICDatagram>
    /// Server: the connection is ready for the application.
    var onReady: (() -> Void)?

    private var streams: [QUICStreamID: AsyncStreamState] = [:]
    private typealias Opener = (priority: StreamPriority, waiter: Waiter<OpenedStream>)
    /// Those who wait for a stream, by whether it is bidirectional. There may be thousands: only those are looked at whose turn it is.
    private var openers: [Bool: Deque<Opener>] = [:]
    /// Those who wait to hear what became of a datagram. Numbers start at 1: nobody waits for 0.
    private var datagramWaiters: [UInt64: Waiter<DatagramOutcome>] = [:]
    private var lastDatagramID: UInt64 = 0
    private var readyWaiters: [(readiness: Readiness, waiter: Waiter<Void>)] = []
    private var closeWaiters: [Waiter<QUICCloseReason>] = []
    private var handshakeWaiters: [Waiter<HandshakeInfo>] = []
    private var closeReason: QUICCloseReason?
    /// nil until it is complete.
    private var handshake: HandshakeInfo?
    private var earlyDataPossible = false
    private let readiness: Readiness

    /// - Parameters:
    ///   - readiness: when a connect is done.
    ///   - settings: no more streams can wait to be taken than the peer may have open; and of the datagrams that wait
    ///     beyond the limit the oldest is dropped.
    init(readiness: Readiness, settings: TransportSettings) {
        self.readiness = readiness
        let streamLimit = Int(clamping: settings.maxBidirectionalStreams &+ settings.maxUnidirectionalStreams)
        inbound = Mailbox(limit: max(streamLimit, 1), policy: .refuse)
        datagrams = Mailbox(limit: max(settings.receivedDatagramLimit, 1), policy: .dropOldest) {
            $0.bytes.readableBytes
        }
    }

    func attach(_ connection: QUICLoopConnection) { self.connection = connection }

    // MARK: Events

    func handle(_ event: QUICConnectionEvent, on connection: QUICLoopConnection) {
        switch event {
        case .accepted:
            if readiness == .earlyData { becomeReady() }
        case .earlyDataPossible:
            earlyDataPossible = true
            succeedReady { $0 == .earlyData }
            openMore()
        case .handshakeCompleted(let info):
            handshake = info
            becomeReady()
            succeedReady { _ in true }
            for waiter in handshakeWaiters { waiter.finish(.success(info)) }
            handshakeWaiters.removeAll()
            openMore()
        case .streamOpened(let stream):
            let state = AsyncStreamState(id: stream, connection: connection)
            streams[stream] = state
            if inbound.put(state.opened) != .taken { drop(stream) }
        case .streamReadable(let stream): streams[stream]?.readable(connection)
        case .streamWritable(let stream):
            streams[stream]?.writable(connection)
            forgetIfReleased(stream)
        case .streamReset(let stream, let code): streams[stream]?.wasReset(code: code)
        case .stopSending(let stream, let code):
            streams[stream]?.wasStopped(code: code)
            forgetIfReleased(stream)
        case .streamDelivered(let stream): streams[stream]?.wasDelivered()
        case .streamClosed(let stream):
            streams[stream]?.closed(connection)
            forgetIfReleased(stream)
        case .streamsAvailable(let bidirectional): openMore(bidirectional: bidirectional)
        case .datagram(let bytes, let isEarly):
            if datagrams.put(QUICDatagram(bytes: ByteBuffer(bytes: bytes), isEarly: isEarly)) == .tookOldestsPlace {
                connection.driver.datagramsNotTaken += 1
            }
            countDatagrams()
        case .datagramAcknowledged(let id): datagramEnded(id, .acknowledged)
        case .datagramLost(let id): datagramEnded(id, .lost)
        case .datagramExpired(let id): datagramEnded(id, .expired)
        case .closed(let reason): closed(reason)
        case .earlyDataRejected, .handshakeConfirmed, .maxDatagramSizeChanged, .sessionTicket, .addressToken,
            .pathValidated, .pathFailed, .pathChanged:
            break
        }
    }

    func batchEnded(on connection: QUICLoopConnection) {}

    private func becomeReady() {
        onReady?()
        onReady = nil
    }

    private func succeedReady(_ isMet: (Readiness) -> Bool) {
        let met = readyWaiters.filter { isMet($0.readiness) }
        readyWaiters.removeAll { isMet($0.readiness) }
        for entry in met { entry.waiter.finish(.success(())) }
    }

    private func closed(_ reason: QUICCloseReason) {
        closeReason = reason
        onReady = nil
        inbound.finish()
        datagrams.finish()
        // What is left goes with the application's reference to the connection.
        keep(0)
        let error = QUICTransportError.closed(reason)
        if let connection {
            for stream in streams.values { stream.fail(error, connection) }
        }
        streams.removeAll()
        for opener in openers.values.joined() { opener.waiter.finish(.failure(error)) }
        openers.removeAll()
        for entry in readyWaiters { entry.waiter.finish(.failure(QUICTransportError.connectFailed(reason))) }
        readyWaiters.removeAll()
        for waiter in handshakeWaiters { waiter.finish(.failure(QUICTransportError.connectFailed(reason))) }
        handshakeWaiters.removeAll()
        for waiter in datagramWaiters.values { waiter.finish(.failure(error)) }
        datagramWaiters.removeAll()
        for waiter in closeWaiters { waiter.finish(.success(reason)) }
        closeWaiters.removeAll()
        connection = nil
    }

    private func drop(_ stream: QUICStreamID) {
        streams[stream] = nil
        connection?.reset(stream, code: 0)
        connection?.stopSending(stream, code: 0)
    }

    // MARK: Calls

    func waitReady(_ readiness: Readiness, _ waiter: Waiter<Void>) {
        // It was established, also where it ended since, before whoever connects came to ask.
        if handshake != nil { return waiter.finish(.success(())) }
        if let closeReason { return waiter.finish(.failure(QUICTransportError.connectFailed(closeReason))) }
        if readiness == .earlyData, earlyDataPossible { return waiter.finish(.success(())) }
        readyWaiters.append((readiness, waiter))
    }

    func waitHandshake(_ waiter: Waiter<HandshakeInfo>) {
        if let handshake { return waiter.finish(.success(handshake)) }
        if let closeReason { return waiter.finish(.failure(QUICTransportError.closed(closeReason))) }
        handshakeWaiters.append(waiter)
    }

    func waitClosed(_ waiter: Waiter<QUICCloseReason>) {
        if let closeReason { return waiter.finish(.success(closeReason)) }
        closeWaiters.append(waiter)
    }

    func exportKeyingMaterial(label: String, context: [UInt8], count: Int) throws(QUICTransportError) -> [UInt8] {
        guard let connection else { throw gone }
        do throws(QUICError) {
            return try connection.exportKeyingMaterial(label: label, context: context, count: count)
        } catch {
            throw connection.worded(error)
        }
    }

    func sendDatagram(_ bytes: ByteBuffer, id: UInt64 = 0, lifetime: TimeAmount?) throws(QUICTransportError) -> Bool {
        guard let connection else { throw gone }
        do throws(QUICError) {
            return try connection.sendDatagram(bytes, id: id, lifetime: lifetime)
        } catch {
            throw connection.worded(error)
        }
    }

    func deliverDatagram(_ bytes: ByteBuffer, lifetime: TimeAmount?, _ waiter: Waiter<DatagramOutcome>) {
        lastDatagramID += 1
        do throws(QUICTransportError) {
            guard try sendDatagram(bytes, id: lastDatagramID, lifetime: lifetime) else {
                return waiter.finish(.success(.queueFull))
            }
            datagramWaiters[lastDatagramID] = waiter
        } catch {
            waiter.finish(.failure(error))
        }
    }

    /// Datagrams that wait count among what the endpoint's connections hold, as they did before they came here.
    func countDatagrams() { keep(datagrams.recordSize()) }

    private func keep(_ count: Int) {
        if let engine = connection?.engine, engine.bytesKeptByOwner != count { engine.bytesKeptByOwner = count }
    }

    private func datagramEnded(_ id: UInt64, _ outcome: DatagramOutcome) {
        datagramWaiters.removeValue(forKey: id)?.finish(.success(outcome))
    }

    func open(bidirectional: Bool, priority: StreamPriority, _ waiter: Waiter<OpenedStream>) {
        if let closeReason { return waiter.finish(.failure(QUICTransportError.closed(closeReason))) }
        openers[bidirectional, default: Deque()].append((priority, waiter))
        openMore(bidirectional: bidirectional)
    }

    /// Tasks that were cancelled wait for nothing any more.
    func forgetCancelled() {
        for kind in openers.keys { openers[kind]?.removeAll { !$0.waiter.isWaiting } }
        readyWaiters.removeAll { !$0.waiter.isWaiting }
        closeWaiters.removeAll { !$0.isWaiting }
        handshakeWaiters.removeAll { !$0.isWaiting }
        for stream in streams.values { stream.forgetCancelled() }
    }

    /// Streams that somebody holds, or that have something left to write.
    var streamCount: Int { streams.count }

    /// How many tasks wait for a stream, the handshake or the end.
    var waiterCount: Int {
        openers.values.reduce(0) { $0 + $1.count } + readyWaiters.count + closeWaiters.count + handshakeWaiters.count
    }

    private func openMore() {
        for bidirectional in [true, false] { openMore(bidirectional: bidirectional) }
    }

    /// Opens streams for those who wait, first come first served within each kind.
    private func openMore(bidirectional: Bool) {
        guard let connection else { return }
        while let opener = openers[bidirectional]?.first {
            guard opener.waiter.isWaiting else {
                openers[bidirectional]?.removeFirst()
                continue
            }
            // Claimed only with a stream in hand: a stream that nobody waits for would be lost.
            do throws(QUICError) {
                guard let stream = try connection.openStream(bidirectional: bidirectional) else { return }
                openers[bidirectional]?.removeFirst()
                give(stream, to: opener, on: connection)
            } catch {
                // Its last event is on the way and says why, unless another attempt takes the place of this one.
                if error.code == .closed { return }
                openers[bidirectional]?.removeFirst()
                opener.waiter.finish(.failure(connection.worded(error)))
            }
        }
    }

    private func give(_ stream: QUICStreamID, to opener: Opener, on connection: QUICLoopConnection) {
        guard opener.waiter.claim() else {
            connection.reset(stream, code: 0)
            if stream.isBidirectional { connection.stopSending(stream, code: 0) }
            return
        }
        let state = AsyncStreamState(id: stream, connection: connection)
        streams[stream] = state
        if opener.priority != .standard { connection.setPriority(opener.priority, of: stream) }
        opener.waiter.resume(with: .success(state.opened))
    }

    /// What a read gets without waiting; nil: it must wait, or get what the stream's handover has.
    func readAtOnce(_ stream: QUICStreamID) -> Result<ByteBuffer?, any Error>? {
        guard let state = streams[stream], let connection else { return closeReason == nil ? .failure(gone) : nil }
        return state.readAtOnce(connection)
    }

    /// - Returns: whether all was taken; false: nothing was.
    func writeAtOnce(_ bytes: ByteBuffer, to stream: QUICStreamID) -> Bool {
        guard let state = streams[stream], let connection else { return false }
        return state.writeAtOnce(bytes, connection)
    }

    /// - Returns: false when the connection is closed: the stream's handover has what is left.
    func read(_ stream: QUICStreamID, _ waiter: Waiter<ByteBuffer?>) -> Bool {
        guard closeReason == nil else { return false }
        if let state = streams[stream], let connection {
            state.read(waiter, connection)
        } else {
            waiter.finish(.failure(gone))
        }
        return true
    }

    func write(_ bytes: ByteBuffer, to stream: QUICStreamID, _ waiter: Waiter<Void>) {
        guard let state = streams[stream], let connection else { return waiter.finish(.failure(gone)) }
        state.write(bytes, waiter, connection)
    }

    func waitDelivered(_ stream: QUICStreamID, _ waiter: Waiter<Void>) {
        guard let state = streams[stream], let connection else { return waiter.finish(.failure(gone)) }
        state.waitDelivered(waiter, connection)
    }

    func finish(_ stream: QUICStreamID) throws {
        guard let state = streams[stream], let connection else { throw gone }
        try state.finish(connection)
    }

    /// Writes what the stream's tasks left for the loop.
    func drain(_ stream: QUICStreamID) {
        guard let state = streams[stream], let connection else { return }
        state.drain(connection)
    }

    func cancelWrite(_ stream: QUICStreamID, code: UInt64) {
        guard let state = streams[stream], let connection else { return }
        state.cancelWrite(code: code, connection)
    }

    func reset(_ stream: QUICStreamID, code: UInt64) {
        guard let state = streams[stream], let connection else { return }
        state.reset(code: code, connection)
    }

    func giveUp(_ stream: QUICStreamID, code: UInt64) {
        guard let state = streams[stream], let connection else { return }
        state.giveUp(code: code, connection)
    }

    func stopSending(_ stream: QUICStreamID, code: UInt64) {
        guard let state = streams[stream], let connection else { return }
        state.stopSending(code: code, connection)
    }

    /// The application let go of a stream: what is unfinished is abandoned, so that it doesn't hold credit for ever. What was
    /// finished and had no room in the engine yet is still written.
    func release(_ stream: QUICStreamID) {
        guard let state = streams[stream], let connection else { return }
        state.abandon(connection)
        forgetIfReleased(stream)
    }

    private func forgetIfReleased(_ stream: QUICStreamID) {
        if let state = streams[stream], state.isReleased, !state.owesWrites { streams[stream] = nil }
    }

    /// Why there is no connection, or no stream, for a call.
    var gone: QUICTransportError {
        if let closeReason { return .closed(closeReason) }
        return QUICTransportError(.streamState, "the stream is over", advice: "Open another.")
    }
}
