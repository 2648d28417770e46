public import NIOCore
import NIOPosix
import Synchronization

/// A UDP socket that hears and never answers: an address that leads nowhere.
public final class DeafSocket: Sendable {
    private let channel: any Channel
    private let counter: DatagramCounter

    private init(channel: any Channel, counter: DatagramCounter) {
        self.channel = channel
        self.counter = counter
    }

    /// Binds it.
    public static func open(_ host: String, port: Int, on group: any EventLoopGroup) async throws -> DeafSocket {
        let counter = DatagramCounter()
        let channel = try await DatagramBootstrap(group: group)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(counter) }
            }
            .bind(host: host, port: port).get()
        return DeafSocket(channel: channel, counter: counter)
    }

    /// Datagrams that came.
    public var heard: Int { counter.count.withLock { $0 } }

    /// Closes it.
    public func close() async throws { try await channel.close() }
}

private final class DatagramCounter: ChannelInboundHandler, Sendable {
    typealias InboundIn = AddressedEnvelope<ByteBuffer>
    let count = Mutex(0)

    func channelRead(context: ChannelHandlerContext, data: NIOAny) { count.withLock { $0 += 1 } }
}
