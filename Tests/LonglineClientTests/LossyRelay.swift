import LonglineTestKit
import NIOCore
import NIOPosix
import Synchronization

/// Stands between clients and a server on loopback and loses datagrams, in both directions, as a seed says.
final class LossyRelay: Sendable {
    private struct State {
        var random: SeededRandom
        var outer: [SocketAddress: EventLoopFuture<any Channel>] = [:]
        var lost = 0
    }

    private let inner: any Channel
    private let server: SocketAddress
    private let loss: Double
    private let state: Mutex<State>

    private init(inner: any Channel, server: SocketAddress, loss: Double, seed: UInt64) {
        self.inner = inner
        self.server = server
        self.loss = loss
        state = Mutex(State(random: SeededRandom(seed: seed)))
    }

    /// - Parameter loss: 0 to 1, of the datagrams of each direction.
    static func open(to port: Int, loss: Double, seed: UInt64) async throws -> LossyRelay {
        let group = MultiThreadedEventLoopGroup.singleton
        let inner = try await bootstrap(on: group.next()).bind(host: "127.0.0.1", port: 0).get()
        let relay = LossyRelay(
            inner: inner, server: try SocketAddress(ipAddress: "127.0.0.1", port: port), loss: loss, seed: seed)
        try await inner.pipeline.addHandler(Receiver { [weak relay] in relay?.fromClient($0) })
        return relay
    }

    private static func bootstrap(on loop: any EventLoop) -> DatagramBootstrap {
        DatagramBootstrap(group: loop)
            .channelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: 2048))
    }

    var port: Int { inner.localAddress?.port ?? 0 }
    var lost: Int { state.withLock { $0.lost } }

    func close() async {
        let channels = state.withLock { $0.outer.values.map { $0 } }
        for channel in channels { try? await channel.flatMap { $0.close() }.get() }
        try? await inner.close()
    }

    private func isLost() -> Bool {
        state.withLock { state in
            let lost = Double.random(in: 0..<1, using: &state.random) < loss
            if lost { state.lost += 1 }
            return lost
        }
    }

    private func fromClient(_ envelope: AddressedEnvelope<ByteBuffer>) {
        guard !isLost() else { return }
        let client = envelope.remoteAddress
        let outer = state.withLock { state in
            if let known = state.outer[client] { return known }
            let made = Self.bootstrap(on: inner.eventLoop)
                .channelInitializer { [weak self] channel in
                    channel.eventLoop.makeCompletedFuture {
                        try channel.pipeline.syncOperations.addHandler(
                            Receiver { [weak self] in self?.fromServer($0.data, to: client) })
                    }
                }
                .bind(host: "127.0.0.1", port: 0).map { $0 as any Channel }
            state.outer[client] = made
            return made
        }
        let onward = AddressedEnvelope(remoteAddress: server, data: envelope.data)
        outer.whenSuccess { $0.writeAndFlush(onward, promise: nil) }
    }

    private func fromServer(_ bytes: ByteBuffer, to client: SocketAddress) {
        guard !isLost() else { return }
        inner.writeAndFlush(AddressedEnvelope(remoteAddress: client, data: bytes), promise: nil)
    }

    private final class Receiver: ChannelInboundHandler, Sendable {
        typealias InboundIn = AddressedEnvelope<ByteBuffer>
        private let receive: @Sendable (AddressedEnvelope<ByteBuffer>) -> Void

        init(_ receive: @escaping @Sendable (AddressedEnvelope<ByteBuffer>) -> Void) { self.receive = receive }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) { receive(unwrapInboundIn(data)) }
    }
}
