import LonglineTestKit
import NIOCore
import NIOPosix
import NIOSSL

@testable import LonglineControl

/// A connection to a listener that says what a test wants, and nothing else.
final class RawConnection {
    let channel: any Channel
    private var parts: AsyncStream<ByteBuffer>.Iterator
    private var received = ""

    /// - Parameter version: what TLS negotiates, `h2` or `http/1.1`; nil: TCP alone.
    init(_ service: ControlService, _ version: String?) async throws {
        let (stream, continuation) = AsyncStream.makeStream(of: ByteBuffer.self)
        parts = stream.makeAsyncIterator()
        let context = try version.map { version in
            var tls = TLSConfiguration.makeClientConfiguration()
            tls.trustRoots = .certificates(try NIOSSLCertificate.fromPEMBytes(Array(service.certificatePEM.utf8)))
            tls.applicationProtocols = [version]
            return try NIOSSLContext(configuration: tls)
        }
        let address = try await service.control.localAddresses(.service)[0]
        channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let pipeline = channel.pipeline.syncOperations
                    if let context {
                        try pipeline.addHandler(NIOSSLClientHandler(context: context, serverHostname: "localhost"))
                    }
                    try pipeline.addHandler(Received(continuation))
                }
            }
            .connect(to: address).get()
    }

    /// A service that stops waits for its clients to end their connections.
    deinit { channel.close(promise: nil) }

    /// Sends, with TLS done before.
    func send(_ bytes: [UInt8]) async throws { try await channel.writeAndFlush(ByteBuffer(bytes: bytes)) }
    func send(_ text: String) async throws { try await send(Array(text.utf8)) }

    /// Waits for this; whether it came before the end. Bytes are read as Latin-1.
    func receives(_ text: String) async -> Bool {
        while !received.contains(text) { if await !receivesMore() { return false } }
        received = ""
        return true
    }

    /// Waits for the end of the connection, as an event; what came before it.
    func end() async -> String {
        while await receivesMore() {}
        return received
    }

    private func receivesMore() async -> Bool {
        guard let part = await parts.next(isolation: #isolation) else { return false }
        received += Self.latin1(part.readableBytesView)
        return true
    }

    private static func latin1(_ bytes: some Sequence<UInt8>) -> String {
        String(String.UnicodeScalarView(bytes.map { Unicode.Scalar($0) }))
    }

    /// Waits for the next frame of HTTP/2. Not for a connection that ``receives(_:)`` was asked of, which stops in the middle of one.
    /// - Returns: nil: the end came before.
    func nextFrame() async -> (type: UInt8, flags: UInt8, payload: [UInt8])? {
        while true {
            let bytes = received.unicodeScalars.map { UInt8($0.value) }
            if bytes.count >= 9 {
                let end = 9 + (Int(bytes[0]) << 16 | Int(bytes[1]) << 8 | Int(bytes[2]))
                if bytes.count >= end {
                    received = Self.latin1(bytes[end...])
                    return (bytes[3], bytes[4], Array(bytes[9..<end]))
                }
            }
            if await !receivesMore() { return nil }
        }
    }

    /// What a client of HTTP/2 begins with: the preface, and settings.
    static func preface(window: UInt32 = 65_535) -> [UInt8] {
        Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)
            + frame(4, [0, 4] + withUnsafeBytes(of: window.bigEndian) { Array($0) })
    }

    /// A frame of HTTP/2 (RFC 9113, section 4.1).
    static func frame(_ type: UInt8, flags: UInt8 = 0, stream: UInt8 = 0, _ payload: [UInt8]) -> [UInt8] {
        [0, UInt8(payload.count >> 8), UInt8(payload.count & 255), type, flags, 0, 0, 0, stream] + payload
    }

    /// The headers of `GET` and this path, without Huffman's code, as a whole request.
    static func get(_ path: String, stream: UInt8 = 1) -> [UInt8] {
        frame(
            1, flags: 5, stream: stream, [0x82, 0x87, 0x01, 1, 0x78, 0x04, UInt8(path.utf8.count)] + Array(path.utf8))
    }

    private final class Received: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        private let continuation: AsyncStream<ByteBuffer>.Continuation

        init(_ continuation: AsyncStream<ByteBuffer>.Continuation) { self.continuation = continuation }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) { continuation.yield(unwrapInboundIn(data)) }
        func channelInactive(context: ChannelHandlerContext) { continuation.finish() }
        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
    }
}
