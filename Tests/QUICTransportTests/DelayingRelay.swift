import NIOCore
import NIOPosix

/// Stands between clients and a server on loopback and holds each datagram up for a while, as a long path would. All of its
/// state is confined to its event loop.
final class DelayingRelay: Sendable {
    private final class State {
        var outer: [SocketAddress: EventLoopFuture<any Channel>] = [:]
        var shutOut: String?
    }

    private let inner: any Channel
    private let server: SocketAddress
    private let delay: TimeAmount
    private let state: NIOLoopBound<State>

    private init(inner: any Channel, server: SocketAddress, delay: TimeAmount, state: NIOLoopBound<State>) {
        self.inner = inner
        self.server = server
        self.delay = delay
        self.state = state
    }

    /// - Parameter delay: of each direction.
    static func open(to server: SocketAddress, delay: TimeAmount) async throws -> DelayingRelay {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let inner = try await bootstrap(on: loop).bind(host: "127.0.0.1", port: 0).get()
        let state = try await loop.submit { NIOLoopBound(State(), eventLoop: loop) }.get()
        let relay = DelayingRelay(inner: inner, server: server, delay: delay, state: state)
        try await inner.pipeline.addHandler(Receiver { [weak relay] in relay?.fromClient($0) })
        return relay
    }

    private static func bootstrap(on loop: any EventLoop) -> DatagramBootstrap {
        DatagramBootstrap(group: loop)
            .channelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: 2048))
            .channelOption(.socketOption(.so_rcvbuf), value: 4 << 20)
    }

    var port: Int { inner.localAddress?.port ?? 0 }

    /// From now on what a client sends from this host is lost, and what is sent to it.
    func shutOut(host: String?) async throws {
        try await inner.eventLoop.submit { self.state.value.shutOut = host }.get()
    }

    func close() async {
        let outer = try? await inner.eventLoop.submit { Array(self.state.value.outer.values) }.get()
        for channel in outer ?? [] { try? await channel.flatMap { $0.close() }.get() }
        try? await inner.close()
    }

    private func fromClient(_ envelope: AddressedEnvelope<ByteBuffer>) {
        let client = envelope.remoteAddress
        guard client.ipAddress != state.value.shutOut else { return }
        let onward = AddressedEnvelope(remoteAddress: server, data: envelope.data)
        later { $0.outer(for: client).whenSuccess { $0.writeAndFlush(onward, promise: nil) } }
    }

    private func outer(for client: SocketAddress) -> EventLoopFuture<any Channel> {
        if let known = state.value.outer[client] { return known }
        let made = Self.bootstrap(on: inner.eventLoop)
            .channelInitializer { [weak self] channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(
                        Receiver { [weak self] in self?.fromServer($0.data, to: client) })
                }
            }
            .bind(host: "127.0.0.1", port: 0).map { $0 as any Channel }
        state.value.outer[client] = made
        return made
    }

    private func fromServer(_ bytes: ByteBuffer, to client: SocketAddress) {
        guard client.ipAddress != state.value.shutOut else { return }
        let onward = AddressedEnvelope(remoteAddress: client, data: bytes)
        later { $0.inner.writeAndFlush(onward, promise: nil) }
    }

    private func later(_ body: @escaping @Sendable (DelayingRelay) -> Void) {
        inner.eventLoop.scheduleTask(in: delay) { [weak self] in
            if let self { body(self) }
        }
    }

    private final class Receiver: ChannelInboundHandler, Sendable {
        typealias InboundIn = AddressedEnvelope<ByteBuffer>
        private let receive: @Sendable (AddressedEnvelope<ByteBuffer>) -> Void

        init(_ receive: @escaping @Sendable (AddressedEnvelope<ByteBuffer>) -> Void) { self.receive = receive }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) { receive(unwrapInboundIn(data)) }
    }
}
