internal import Glibc
internal import Logging
internal import NIOCore
internal import NIOPosix
internal import QUICEngine

/// One UDP socket of one loop, as the engine knows it: by the local address it was first bound to.
///
/// ```
///  idle --bind--> bound --socket ends--> down --bound again--> bound
///                   |                     |
///                   +------- close --------+--> closed
/// ```
/// What the kernel refuses to send (a firewall, a route that went away, a full queue) is lost, as on any bad network, and the
/// socket serves on. NIO, which sends what the socket's buffer has no room for, closes a datagram channel on most errors. The
/// port then binds a new one to the same address, and the connections on it go on: to them a few datagrams were lost. A
/// client's port whose number was taken meanwhile takes another one, which the peer sees as a NAT rebinding; ``identity``
/// stays.
final class UDPPort {
    enum State { case idle, bound, down, closed }

    /// Rebinding waits this long after the second failure in a row, and twice as long after each further one.
    private static let firstRetry = TimeAmount.milliseconds(10)
    private static let lastRetry = TimeAmount.seconds(1)
    /// Remotes that can't be sent to are remembered until all are forgiven, or beyond the limit not at all.
    private static let refusedLimit = 1024
    /// Datagrams in one message: UDP_MAX_SEGMENTS of the oldest kernels that can do it.
    private static let maximumSegments = 64
    private static let refusedFor = TimeAmount.seconds(10)
    /// Bytes of payload that a path must take for QUIC to be used on it (RFC 9000 section 14).
    private static let leastPayload = 1200

    let eventLoop: any EventLoop
    /// The local address in the engine's paths.
    private(set) var identity: QUICSocketAddress
    /// The address the socket really has; differs from ``identity`` after a rebinding.
    private(set) var boundAddress: QUICSocketAddress
    private(set) var state = State.idle
    private(set) var isWritable = true {
        didSet { if isWritable != oldValue { driver?.writabilityChanged(of: self) } }
    }
    /// Whether runs leave as one message; turned off when the kernel or a device refuses that.
    private(set) var usesSegmentation: Bool
    /// A silent port drops what it is given and what it gets, as a network that went away does.
    var isSilent = false
    /// The sockets that share the address (several loops of a server); nil: nobody does.
    let group: SteeringGroup?
    /// The client connection that this port serves; nil on a server.
    weak var owner: QUICLoopConnection?

    private let options: QUICSocketOptions
    private weak var driver: LoopDriver?
    private var handler: PortHandler?
    private var retryDelay = TimeAmount.zero
    private var retry: Scheduled<Void>?
    /// Remotes that the kernel refused to send to. Nothing for them is given to the channel, which would end.
    private var refused: Set<QUICSocketAddress> = []
    /// The error that was logged last.
    private var loggedError: CInt = 0
    private var loggedSize = false
    /// The last packet of the size that QUIC needs was refused as too large, or on a server one of them, wherever it was to go.
    private(set) var refusesLeast = false
    /// The last run that the channel shall send, written with the flush.
    private var staged: (envelope: AddressedEnvelope<ByteBuffer>, remote: QUICSocketAddress)?
    /// Flushes that the channel has not done yet, because the socket's buffer is full. Until it has, it sends all.
    private var flushesPending = 0
    /// The kernel will say when there is room in the socket's buffer.
    var waitsForRoom: Bool { flushesPending > 0 }
    /// The channel has the rest of a run that the kernel refused: one that it is refused, too, would end it. So none is joined until it
    /// has sent all.
    private var isJoiningPaused = false

    init(eventLoop: any EventLoop, options: QUICSocketOptions, group: SteeringGroup?, driver: LoopDriver) {
        self.eventLoop = eventLoop
        self.options = options
        self.group = group
        self.driver = driver
        let unbound = QUICSocketAddress(ipv4: (0, 0, 0, 0), port: 0)
        identity = unbound
        boundAddress = unbound
        usesSegmentation = options.segmentationOffload && System.supportsUDPSegmentationOffload
    }

    // MARK: Binding

    /// Binds for the first time; the address, with the port the system chose, becomes ``identity``.
    /// - Parameter isFirst: whether the address must be free. Only then is it shared: the system would else let us share
    ///   it with another program, and might choose a port that another one has.
    func bind(to address: SocketAddress, isFirst: Bool = true) -> EventLoopFuture<Void> {
        eventLoop.preconditionInEventLoop()
        precondition(state == .idle, "a port is bound once")
        return open(address, isFirst: isFirst).map { handler, bound in
            self.identity = bound
            self.install(handler, bound)
        }.nonisolated()
    }

    /// Moves to a new port number on the same host, under the same identity: to the peer a NAT rebinding.
    ///
    /// A connection that the peer's windows hold up says nothing by itself, and the peer sends to the old address: a
    /// ping behind every rebinding keeps the two from waiting for each other.
    func rebind() -> EventLoopFuture<Void> {
        eventLoop.preconditionInEventLoop()
        guard state == .bound || state == .down else {
            return eventLoop.makeFailedFuture(
                QUICTransportError(.pathChangeFailed, "the port is closed", advice: "Connect again."))
        }
        return open(SocketAddress(boundAddress.with(port: 0))).flatMapThrowing { handler, bound in
            guard self.state != .closed else {
                handler.detach()
                throw QUICTransportError(.pathChangeFailed, "the port was closed", advice: "Connect again.")
            }
            self.handler?.detach()
            self.retry?.cancel()
            self.retry = nil
            self.install(handler, bound)
            self.owner?.ping()
        }.nonisolated()
    }

    func close() {
        eventLoop.preconditionInEventLoop()
        guard state != .closed else { return }
        state = .closed
        retry?.cancel()
        retry = nil
        if handler != nil { leave() }
        handler?.detach()
        handler = nil
    }

    private func install(_ handler: PortHandler, _ bound: QUICSocketAddress) {
        self.handler = handler
        boundAddress = bound
        state = .bound
        isWritable = true
        handler.port = self
        driver?.needsTick()
    }

    private func open(_ address: SocketAddress, isFirst: Bool = false)
        -> EventLoopFuture<(PortHandler, QUICSocketAddress)>.Isolated
    {
        let handler = PortHandler()
        let boundHandler = NIOLoopBound(handler, eventLoop: eventLoop)
        return DatagramBootstrap(group: eventLoop)
            .channelOption(.socketOption(.init(rawValue: SO_REUSEPORT)), value: group == nil || isFirst ? 0 : 1)
            // The channel reads one message, the driver those behind it.
            .channelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: 1 << 16))
            .channelOption(.maxMessagesPerRead, value: 1)
            .channelOption(.writeBufferWaterMark, value: .init(low: 256 << 10, high: 1 << 20))
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(boundHandler.value)
                }
            }
            .bind(to: address)
            .assumeIsolated()
            .flatMapThrowing { channel in
                guard let local = channel.localAddress, let bound = QUICSocketAddress(local) else {
                    channel.close(promise: nil)
                    throw QUICTransportError(
                        .bindFailed, "\(address) is neither IPv4 nor IPv6", advice: "Use an IP address.")
                }
                handler.socket = self.options.setUp(channel, isIPv6: bound.isIPv6)
                if let group = self.group { try self.join(group, channel) }
                return (handler, bound)
            }
    }

    private func join(_ group: SteeringGroup, _ channel: any Channel) throws {
        try channel.syncOptions?.setOption(.socketOption(.init(rawValue: SO_REUSEPORT)), value: 1)
        guard options.kernelSteering, let driver else { return }
        if group.joined(driver.configuration.workerID, channel: channel) {
            driver.socketCounters.socketsSteered += 1
        }
    }

    private func leave() {
        guard options.kernelSteering, let driver else { return }
        group?.left(driver.configuration.workerID)
    }

    // MARK: Receiving

    func received(_ envelope: AddressedEnvelope<ByteBuffer>) {
        guard !isSilent else { return }
        driver?.received(envelope, on: self)
    }

    /// Takes what waits in the socket, whether or not the loop has noticed.
    func read(now: QUICInstant) {
        if !isSilent, let socket = handler?.socket { driver?.read(socket, on: self, now: now) }
    }

    func readComplete() {
        driver?.readComplete(isSilent ? nil : handler?.socket, on: self)
    }

    // MARK: Sending

    /// Sends one run of datagrams; what the socket's buffer doesn't hold leaves with the next ``flush()`` or later. While the
    /// port is down they are lost, as on any bad network.
    func send(_ run: ByteBuffer, to remote: QUICSocketAddress, ecn: ECNCodepoint, segmentSize: Int) {
        guard !isSilent, let driver else { return }
        var run = run
        // A socket may end in the midst of a run.
        while state == .bound, let handler, run.readableBytes > 0 {
            // The channel has sent all.
            if staged == nil, flushesPending == 0 { isJoiningPaused = false }
            let joins = usesSegmentation && !isJoiningPaused
            let joined = joins ? segmentSize * Self.maximumSegments : segmentSize
            guard let part = run.readSlice(length: min(joined, run.readableBytes)), part.readableBytes > 0 else {
                return
            }
            let isRun = part.readableBytes > segmentSize
            driver.socketCounters.messagesSent += 1
            driver.socketCounters.datagramsSent += UInt64((part.readableBytes + segmentSize - 1) / max(segmentSize, 1))
            if isRun { driver.socketCounters.segmentedMessagesSent += 1 }
            if sendDirectly(part, to: remote, ecn: ecn, segmentSize: isRun ? segmentSize : 0, handler) { continue }
            stage(part, to: remote, ecn: ecn, segmentSize: isRun ? segmentSize : nil, handler)
        }
    }

    /// Leaves a message to the channel.
    private func stage(
        _ message: ByteBuffer, to remote: QUICSocketAddress, ecn: ECNCodepoint, segmentSize: Int?,
        _ handler: PortHandler
    ) {
        guard refused.isEmpty || !refused.contains(remote) else {
            driver?.socketCounters.blockedRuns += 1
            return
        }
        let envelope = AddressedEnvelope(
            remoteAddress: SocketAddress(remote), data: message,
            metadata: .init(ecnState: .init(ecn), packetInfo: nil, segmentSize: segmentSize))
        if let staged { handler.write(staged.envelope, promise: traced(staged, handler)) }
        staged = (envelope, remote)
    }

    /// - Returns: whether that is done; else the channel shall send it.
    private func sendDirectly(
        _ message: ByteBuffer, to remote: QUICSocketAddress, ecn: ECNCodepoint, segmentSize: Int, _ handler: PortHandler
    ) -> Bool {
        guard staged == nil, flushesPending == 0, let socket = handler.socket else { return false }
        let outcome = message.withUnsafeReadableBytes {
            socket.send($0, segmentSize: segmentSize, ecn: ecn, to: remote)
        }
        switch outcome {
        case .sent:
            if refusesLeast { tookPacket(of: segmentSize > 0 ? segmentSize : message.readableBytes, to: remote) }
            return true
        case .failed(EMSGSIZE) where segmentSize == 0:
            tooLarge(message.readableBytes, to: remote)
            return true
        case .full, .closed:
            return false
        case .failed(let number) where number == EBADF || number == ENOTSOCK || number == EPIPE:
            // There is no socket any more, whoever closed it.
            handler.lastError = IOError(errnoCode: number, reason: "sendmsg")
            handler.breakChannel()
            return true
        case .failed(let number) where segmentSize > 0 && [EIO, EINVAL, EMSGSIZE].contains(number):
            sendApart(message, to: remote, ecn: ecn, segmentSize: segmentSize, handler, socket, error: number)
            return true
        case .failed(let number):
            sendFailed(remote, error: number)
            return true
        }
    }

    /// Sends the datagrams of a run one by one, because the kernel refused them together: devices without checksum offload
    /// answer EIO, old kernels EINVAL. Where they leave so, the port joins no more. A run whose datagrams are too large is
    /// answered with EINVAL, too, or with EMSGSIZE: the last one may be smaller. What the socket's buffer doesn't hold is left to
    /// the channel, as of any other message.
    private func sendApart(
        _ run: ByteBuffer, to remote: QUICSocketAddress, ecn: ECNCodepoint, segmentSize: Int, _ handler: PortHandler,
        _ socket: DatagramSocket, error: CInt
    ) {
        var run = run
        var isTooLarge = error == EMSGSIZE
        var isFull = false
        while let part = run.readSlice(length: min(segmentSize, run.readableBytes)), part.readableBytes > 0 {
            driver?.socketCounters.messagesSent += 1
            let outcome: DatagramSocket.Outcome =
                isFull
                ? .full : part.withUnsafeReadableBytes { socket.send($0, segmentSize: 0, ecn: ecn, to: remote) }
            switch outcome {
            // The path takes no datagrams of this size any more: path MTU discovery finds that out, and the peer is there.
            // Only a last one that is smaller is worth another try.
            case .failed(EMSGSIZE):
                isTooLarge = true
                tooLarge(part.readableBytes, to: remote)
                run.moveReaderIndex(to: run.writerIndex - run.readableBytes % segmentSize)
            case .sent:
                if refusesLeast { tookPacket(of: part.readableBytes, to: remote) }
                guard usesSegmentation, !isTooLarge else { continue }
                usesSegmentation = false
                driver?.logger.info(
                    "the kernel joins no datagrams here; they leave one by one",
                    metadata: ["local": "\(boundAddress)", "error": "\(error)"])
            case .full:
                isFull = true
                isJoiningPaused = true
                stage(part, to: remote, ecn: ecn, segmentSize: nil, handler)
            case .closed: return
            // It wasn't that they were joined. The rest is lost, as it would have been together.
            case .failed(let number): return sendFailed(remote, error: number)
            }
        }
    }

    /// A datagram is larger than the interface takes. Above the size that QUIC needs, path MTU discovery asked for that.
    private func tooLarge(_ size: Int, to remote: QUICSocketAddress) {
        guard size <= Self.leastPayload else { return }
        driver?.socketCounters.minimumSizeErrors += 1
        refusesLeast = true
        owner?.client?.takesTooLittle(self, toward: SocketAddress(remote))
        driver?.sizeWatch?.refused(on: QUICPath(local: identity, remote: remote))
        guard !loggedSize else { return }
        loggedSize = true
        driver?.logger.info(
            "the network takes no packets of 1,200 bytes here: QUIC can't be used",
            metadata: ["local": "\(boundAddress)", "remote": "\(remote)", "size": "\(size)"])
    }

    /// A packet left behind one that was refused.
    private func tookPacket(of size: Int, to remote: QUICSocketAddress) {
        guard size >= Self.leastPayload else { return }
        driver?.sizeWatch?.passed(on: QUICPath(local: identity, remote: remote))
        refusesLeast = !(driver?.sizeWatch?.isEmpty ?? true)
        owner?.client?.takesEnough(self)
    }

    private func sendFailed(_ remote: QUICSocketAddress, error: CInt) {
        sendFailed(remote, error: error, concernsRemote: Self.concernsRemote(error))
    }

    /// A message was lost.
    private func sendFailed(_ remote: QUICSocketAddress, error: CInt, concernsRemote: Bool) {
        driver?.socketCounters.sendErrors += 1
        if concernsRemote {
            refuse(remote)
            owner?.client?.race?.cannotSend(to: SocketAddress(remote))
        }
        guard error != loggedError else { return }
        loggedError = error
        driver?.logger.debug(
            "the kernel refuses to send",
            metadata: ["local": "\(boundAddress)", "remote": "\(remote)", "error": "\(error)"])
    }

    private func refuse(_ remote: QUICSocketAddress) {
        // A client has only one peer, which it must not shut out.
        guard owner == nil, refused.count < Self.refusedLimit else { return }
        if refused.isEmpty {
            eventLoop.assumeIsolated().scheduleTask(in: Self.refusedFor) { self.refused.removeAll() }
        }
        refused.insert(remote)
    }

    func flush() {
        guard let last = staged, let handler else { return }
        staged = nil
        flushesPending += 1
        let promise = traced(last, handler)
        promise.futureResult.assumeIsolated().whenComplete { _ in self.flushesPending -= 1 }
        handler.write(last.envelope, promise: promise)
        handler.flush()
    }

    /// A promise on a write learns what the kernel said of it, as `sendDirectly` does.
    private func traced(
        _ message: (envelope: AddressedEnvelope<ByteBuffer>, remote: QUICSocketAddress), _ handler: PortHandler
    ) -> EventLoopPromise<Void> {
        let promise = eventLoop.makePromise(of: Void.self)
        let (remote, segmentSize) = (message.remote, message.envelope.metadata?.segmentSize)
        let size = segmentSize ?? message.envelope.data.readableBytes
        promise.futureResult.assumeIsolated().whenComplete { result in
            switch result {
            case .success:
                if self.refusesLeast { self.tookPacket(of: size, to: remote) }
            case .failure(ChannelError.writeMessageTooLarge): self.tooLarge(size, to: remote)
            case .failure(ChannelError.writeHostUnreachable): self.sendFailed(remote, error: EHOSTUNREACH)
            case .failure(let failure as IOError) where handler.isMet(failure):
                self.writeFailed(remote, error: failure.errnoCode, isRun: segmentSize != nil)
            case .failure: break
            }
        }
        return promise
    }

    private func writeFailed(_ remote: QUICSocketAddress, error: CInt, isRun: Bool) {
        // Devices without checksum offload answer EIO, old kernels EINVAL: nothing is wrong with where it was to go.
        let isOfRun = isRun && (error == EIO || error == EINVAL)
        if isOfRun { usesSegmentation = false }
        sendFailed(remote, error: error, concernsRemote: !isOfRun && Self.concernsRemote(error))
    }

    /// Whether an error says something about where the message was to go, and not about this machine or the run alone.
    private static func concernsRemote(_ error: CInt) -> Bool { ![EIO, ENOBUFS, ENOMEM].contains(error) }

    func writabilityChanged(_ writable: Bool) { isWritable = writable }

    // MARK: Dying and coming back

    /// The channel closed without having been asked to.
    func died(_ dead: PortHandler, error: (any Error)?) {
        guard dead === handler, state == .bound else { return }
        handler = nil
        staged = nil
        state = .down
        leave()
        // A port that can't send doesn't hold up the others: what is polled for it meanwhile is lost.
        isWritable = true
        driver?.socketCounters.socketFailures += 1
        driver?.logger.debug(
            "a UDP socket failed and is bound again",
            metadata: ["local": "\(boundAddress)", "error": "\(error.map { "\($0)" } ?? "none")"])
        scheduleRebind()
    }

    /// For tests: what a fatal send error does to the channel.
    func breakSocket() { handler?.breakChannel() }

    private func scheduleRebind() {
        let delay = retryDelay
        retryDelay = delay == .zero ? Self.firstRetry : min(delay * 2, Self.lastRetry)
        retry = eventLoop.assumeIsolated().scheduleTask(in: delay) { self.bindAgain() }
    }

    private func bindAgain() {
        guard state == .down else { return }
        let wanted = boundAddress
        open(SocketAddress(wanted)).whenComplete { result in
            switch result {
            case .success((let handler, let bound)):
                self.cameBack(handler, bound)
            case .failure where self.group == nil && self.owner != nil:
                // The port number is gone; the peer will validate the new one like a NAT rebinding.
                self.open(SocketAddress(wanted.with(port: 0))).whenComplete { second in
                    switch second {
                    case .success((let handler, let bound)): self.cameBack(handler, bound)
                    case .failure: if self.state == .down { self.scheduleRebind() }
                    }
                }
            case .failure:
                if self.state == .down { self.scheduleRebind() }
            }
        }
    }

    private func cameBack(_ handler: PortHandler, _ bound: QUICSocketAddress) {
        guard state == .down else {
            leave()
            handler.detach()
            return
        }
        driver?.socketCounters.socketsRebound += 1
        install(handler, bound)
        owner?.ping()
        // A socket that lives for a while has earned a quick rebinding again.
        eventLoop.assumeIsolated().scheduleTask(in: .seconds(5)) {
            if self.state == .bound, self.handler === handler { self.retryDelay = .zero }
        }
    }
}
