public import NIOCore
import NIOPosix

/// Stands between clients and a server on loopback as a NAT on a bad path would: it may hold datagrams up, lose or damage
/// them, bind a client anew at another port or address, fall silent, and write down what passes.
///
/// All of its state is confined to its event loop.
public final class Relay: Sendable {
    /// Where a datagram is going.
    public enum Direction: Sendable { case toServer, toClient }

    /// What becomes of a datagram.
    public enum Fate: Sendable {
        case pass, lose, damage, double
        /// Passes, and its sender gets this for an answer, at once.
        case answer([UInt8])
        /// Waits for one that is to `release` what waits.
        case hold, release
    }

    /// Decides about a datagram by its direction, its number in that direction (from 0) and its bytes.
    public typealias Policy = @Sendable (Direction, Int, ByteBuffer) -> Fate

    /// Bytes and datagrams that came from either side.
    public struct Traffic: Sendable {
        /// How many came.
        public var datagrams = 0
        /// Their payloads together.
        public var bytes = 0
    }

    /// What happens to a client that was silent for long, as a NAT or a firewall has it.
    public struct Forgetting: Sendable {
        /// The silence, both ways, after which a client is forgotten: what comes for it is lost then.
        public var timeout: TimeAmount
        /// Whether a client that was forgotten is heard again only from another port of its own. Otherwise what it sends next binds
        /// it anew.
        public var shutsPorts: Bool

        /// So long a silence, by the relay's own clock.
        public init(timeout: TimeAmount, shutsPorts: Bool) {
            self.timeout = timeout
            self.shutsPorts = shutsPorts
        }
    }

    private final class State {
        var lastUse: [SocketAddress: NIODeadline] = [:]
        var shut: Set<SocketAddress> = []
        var forgotten = 0
        var outer: [SocketAddress: any Channel] = [:]
        var waiting: [SocketAddress: [ByteBuffer]] = [:]
        var traffic: [Direction: Traffic] = [:]
        var isSilent = false
        var shutOut: String?
        var outerHost: String?
        var held: [(data: ByteBuffer, direction: Direction, client: SocketAddress)] = []
    }

    private let inner: any Channel
    private let server: SocketAddress
    private let delay: TimeAmount
    private let policy: Policy
    private let capture: PacketCapture?
    private let forgetting: Forgetting?
    private let state: NIOLoopBound<State>
    /// Clients that are served.
    private static let clientLimit = 64
    /// Datagrams that wait at a time; more are lost.
    private static let heldLimit = 64

    private init(
        inner: any Channel, server: SocketAddress, delay: TimeAmount, policy: @escaping Policy, capture: PacketCapture?,
        forgetting: Forgetting?, state: NIOLoopBound<State>
    ) {
        self.inner = inner
        self.server = server
        self.delay = delay
        self.policy = policy
        self.capture = capture
        self.forgetting = forgetting
        self.state = state
    }

    /// Opens a relay on a free loopback port.
    ///
    /// - Parameters:
    ///   - loop: one of the process by default.
    ///   - delay: of each direction.
    ///   - forgetting: nil: it never forgets.
    public static func open(
        to server: SocketAddress, on loop: (any EventLoop)? = nil,
        delay: TimeAmount = .zero, capture: PacketCapture? = nil, forgetting: Forgetting? = nil,
        policy: @escaping Policy = { _, _, _ in .pass }
    ) async throws -> Relay {
        let loop = loop ?? MultiThreadedEventLoopGroup.singleton.next()
        let inner = try await bootstrap(on: loop).bind(host: "127.0.0.1", port: 0).get()
        let state = try await loop.submit { NIOLoopBound(State(), eventLoop: loop) }.get()
        let relay = Relay(
            inner: inner, server: server, delay: delay, policy: policy, capture: capture, forgetting: forgetting,
            state: state)
        try await inner.pipeline.addHandler(DatagramReceiver { [weak relay] in relay?.fromClient($0) }).get()
        return relay
    }

    private static func bootstrap(on loop: any EventLoop) -> DatagramBootstrap {
        DatagramBootstrap(group: loop)
            .channelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: 2048))
            .channelOption(.socketOption(.so_rcvbuf), value: 4 << 20)
            .channelOption(.socketOption(.so_sndbuf), value: 4 << 20)
    }

    /// Where clients send to, on 127.0.0.1.
    public var port: Int { inner.localAddress?.port ?? 0 }

    /// What came in so far from one side.
    public func traffic(_ direction: Direction) async throws -> Traffic {
        try await inner.eventLoop.submit { self.state.value.traffic[direction] ?? Traffic() }.get()
    }

    /// Forgets its bindings: every client goes on from another port, or from another address.
    public func rebind(host: String? = nil) async throws {
        let old = try await inner.eventLoop.submit { () -> [any Channel] in
            let state = self.state.value
            defer { state.outer = [:] }
            state.outerHost = host
            return Array(state.outer.values)
        }.get()
        for channel in old { try await channel.close() }
    }

    /// How often it forgot a client, as far as traffic showed it.
    public func forgotten() async throws -> Int {
        try await inner.eventLoop.submit { self.state.value.forgotten }.get()
    }

    /// While it is silent everything is lost.
    public func setSilent(_ isSilent: Bool) async throws {
        try await inner.eventLoop.submit { self.state.value.isSilent = isSilent }.get()
    }

    /// From now on what clients send from this host is lost, and what is sent to them.
    public func shutOut(host: String?) async throws {
        try await inner.eventLoop.submit { self.state.value.shutOut = host }.get()
    }

    /// Ends it, with its sockets.
    public func close() async {
        try? await inner.close()
        let outer = try? await inner.eventLoop.submit { Array(self.state.value.outer.values) }.get()
        for channel in outer ?? [] { try? await channel.close() }
    }

    // MARK: On the loop

    private func fromClient(_ envelope: AddressedEnvelope<ByteBuffer>) {
        let client = envelope.remoteAddress
        for data in admitted(envelope.data, .toServer, client: client) { pass(data, .toServer, client: client) }
    }

    /// Hands a datagram on when its delay is over.
    private func pass(_ data: ByteBuffer, _ direction: Direction, client: SocketAddress) {
        guard delay > .zero else { return handOn(data, direction, client: client) }
        inner.eventLoop.assumeIsolated().scheduleTask(in: delay) { [weak self] in
            self?.handOn(data, direction, client: client)
        }
    }

    private func handOn(_ data: ByteBuffer, _ direction: Direction, client: SocketAddress) {
        switch direction {
        case .toServer: toServer(data, client: client)
        case .toClient: toClient(data, client: client)
        }
    }

    private func toServer(_ data: ByteBuffer, client: SocketAddress) {
        let state = self.state.value
        if let outer = state.outer[client] {
            return outer.writeAndFlush(AddressedEnvelope(remoteAddress: server, data: data), promise: nil)
        }
        let isFirst = state.waiting[client] == nil
        guard state.waiting.count < Self.clientLimit else { return }
        state.waiting[client, default: []].append(data)
        if isFirst { bindOuter(for: client, host: state.outerHost ?? client.ipAddress ?? "127.0.0.1") }
    }

    private func bindOuter(for client: SocketAddress, host: String) {
        Self.bootstrap(on: inner.eventLoop).bind(host: host, port: 0).flatMap { outer in
            outer.pipeline.addHandler(DatagramReceiver { [weak self] in self?.fromServer($0, client: client) })
                .map { outer }
        }.assumeIsolated().whenComplete { result in
            let waiting = self.state.value.waiting.removeValue(forKey: client) ?? []
            guard case .success(let outer) = result else { return }
            self.state.value.outer[client] = outer
            for data in waiting {
                outer.writeAndFlush(AddressedEnvelope(remoteAddress: self.server, data: data), promise: nil)
            }
        }
    }

    private func fromServer(_ envelope: AddressedEnvelope<ByteBuffer>, client: SocketAddress) {
        for data in admitted(envelope.data, .toClient, client: client) { pass(data, .toClient, client: client) }
    }

    private func toClient(_ data: ByteBuffer, client: SocketAddress) {
        inner.writeAndFlush(AddressedEnvelope(remoteAddress: client, data: data), promise: nil)
    }

    private func record(_ data: ByteBuffer, _ direction: Direction, client: SocketAddress) {
        guard let here = inner.localAddress else { return }
        capture?.record(data, from: direction == .toServer ? client : here, to: direction == .toServer ? here : client)
    }

    private func release() {
        let held = state.value.held
        state.value.held = []
        for (data, direction, client) in held {
            record(data, direction, client: client)
            pass(data, direction, client: client)
        }
    }

    /// Whether a datagram may pass, or was too long in coming.
    private func isRemembered(_ client: SocketAddress, _ direction: Direction) -> Bool {
        guard let forgetting else { return true }
        let state = self.state.value
        guard !state.shut.contains(client) else { return false }
        let now = NIODeadline.now()
        if let last = state.lastUse[client], now - last > forgetting.timeout {
            if direction == .toClient { return false }
            state.forgotten += 1
            state.outer.removeValue(forKey: client)?.close(promise: nil)
            if forgetting.shutsPorts {
                if state.shut.count < Self.clientLimit { state.shut.insert(client) }
                return false
            }
        }
        state.lastUse[client] = now
        return true
    }

    /// Counts a datagram, writes it down, and decides what becomes of it.
    private func admitted(_ data: ByteBuffer, _ direction: Direction, client: SocketAddress) -> [ByteBuffer] {
        let state = self.state.value
        let number = state.traffic[direction]?.datagrams ?? 0
        state.traffic[direction, default: Traffic()].datagrams += 1
        state.traffic[direction, default: Traffic()].bytes += data.readableBytes
        guard !state.isSilent, state.shutOut == nil || state.shutOut != client.ipAddress else { return [] }
        guard isRemembered(client, direction) else { return [] }
        switch policy(direction, number, data) {
        case .lose:
            return []
        case .hold:
            if state.held.count < Self.heldLimit { state.held.append((data, direction, client)) }
            return []
        case .pass:
            record(data, direction, client: client)
            return [data]
        case .release:
            record(data, direction, client: client)
            // Behind this one.
            inner.eventLoop.execute { self.release() }
            return [data]
        case .double:
            return [data, data]
        case .answer(let bytes):
            switch direction {
            case .toServer: toClient(ByteBuffer(bytes: bytes), client: client)
            case .toClient: toServer(ByteBuffer(bytes: bytes), client: client)
            }
            return [data]
        case .damage:
            // A bit of the payload, behind every header field.
            var damaged = data
            let index = data.readerIndex + data.readableBytes * 3 / 4
            damaged.setInteger((data.getInteger(at: index, as: UInt8.self) ?? 0) ^ 0x10, at: index)
            return [damaged]
        }
    }
}

/// Hands each datagram on.
public final class DatagramReceiver: ChannelInboundHandler, Sendable {
    public typealias InboundIn = AddressedEnvelope<ByteBuffer>
    private let receive: @Sendable (AddressedEnvelope<ByteBuffer>) -> Void

    /// - Parameter receive: called on the channel's event loop.
    public init(_ receive: @escaping @Sendable (AddressedEnvelope<ByteBuffer>) -> Void) { self.receive = receive }

    public func channelRead(context: ChannelHandlerContext, data: NIOAny) { receive(unwrapInboundIn(data)) }
}
