import LonglineTestKit
import NIOCore
import NIOPosix
import Synchronization

/// A UDP socket that speaks no QUIC: it sends what it is told and keeps what comes back.
final class RawPeer: Sendable {
    private let channel: any Channel
    private let target: SocketAddress
    private let answers: Answers

    private final class Answers: Sendable {
        let all = Mutex<[ByteBuffer]>([])
    }

    private init(channel: any Channel, target: SocketAddress, answers: Answers) {
        self.channel = channel
        self.target = target
        self.answers = answers
    }

    /// Opens a socket toward a port of this machine, for as long as the body takes.
    static func run(
        to port: Int, from host: String = "127.0.0.1", on loop: any EventLoop,
        _ body: (RawPeer) async throws -> Void
    ) async throws {
        let answers = Answers()
        let channel = try await DatagramBootstrap(group: loop)
            .channelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: 2048))
            .channelInitializer { channel in
                channel.pipeline.addHandler(
                    DatagramReceiver { envelope in answers.all.withLock { $0.append(envelope.data) } })
            }
            .bind(host: host, port: 0).get()
        let peer = RawPeer(channel: channel, target: try loopback(port: port), answers: answers)
        let outcome: Result<Void, any Error>
        do {
            outcome = .success(try await body(peer))
        } catch {
            outcome = .failure(error)
        }
        try await channel.close()
        try outcome.get()
    }

    func send(_ bytes: [UInt8]) async throws {
        try await channel.writeAndFlush(AddressedEnvelope(remoteAddress: target, data: ByteBuffer(bytes: bytes)))
    }

    /// What came so far.
    var received: [[UInt8]] { answers.all.withLock { $0 }.map { Array($0.readableBytesView) } }
    var receivedBytes: Int { received.reduce(0) { $0 + $1.count } }
}
