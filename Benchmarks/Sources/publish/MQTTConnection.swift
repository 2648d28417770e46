import NIOCore
import NIOPosix
import NIOSSL

/// As much of an MQTT 3.1.1 client as it takes to publish and receive with QoS 1 in a persistent session. Confined to its loop.
final class MQTTConnection: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    struct Failure: Error, CustomStringConvertible { let description: String }

    private enum Kind {
        static let connect: UInt8 = 0x10
        static let connectAck: UInt8 = 0x20
        static let publish: UInt8 = 0x30
        static let publishAck: UInt8 = 0x40
        static let subscribe: UInt8 = 0x82
        static let subscribeAck: UInt8 = 0x90
        static let qosOne: UInt8 = 0x02
    }

    private let clientID: String
    private let topic: String
    private let subscribes: Bool
    private let received: @Sendable (ByteBuffer) -> Void
    private let ready: EventLoopPromise<Void>
    private var context: ChannelHandlerContext?
    private var input = ByteBuffer()
    private var lastID: UInt16 = 0
    private var waiting: [UInt16: EventLoopPromise<Void>] = [:]
    private var flushIsDue = false

    private init(
        clientID: String, topic: String, subscribes: Bool, ready: EventLoopPromise<Void>,
        received: @escaping @Sendable (ByteBuffer) -> Void
    ) {
        (self.clientID, self.topic, self.subscribes, self.ready, self.received) =
            (clientID, topic, subscribes, ready, received)
    }

    /// Connects to a broker on this machine; done when it accepted, and subscribed if that is wanted.
    static func connect(
        port: Int, tls: NIOSSLContext?, clientID: String, topic: String, subscribes: Bool, on loop: any EventLoop,
        received: @escaping @Sendable (ByteBuffer) -> Void = { _ in }
    ) async throws -> NIOLoopBound<MQTTConnection> {
        try await loop.flatSubmit {
            let ready = loop.makePromise(of: Void.self)
            let connection = NIOLoopBound(
                MQTTConnection(
                    clientID: clientID, topic: topic, subscribes: subscribes, ready: ready, received: received),
                eventLoop: loop)
            ClientBootstrap(group: loop)
                .channelOption(.tcpOption(.tcp_nodelay), value: 1)
                .channelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture {
                        if let tls {
                            try channel.pipeline.syncOperations.addHandler(
                                NIOSSLClientHandler(context: tls, serverHostname: "localhost"))
                        }
                        try channel.pipeline.syncOperations.addHandler(connection.value)
                    }
                }
                .connect(host: "127.0.0.1", port: port).whenFailure { ready.fail($0) }
            return ready.futureResult.map { connection }
        }.get()
    }

    /// Publishes; the future succeeds with the broker's acknowledgement.
    func publish(_ payload: ByteBuffer) -> EventLoopFuture<Void> {
        guard let context else { return ready.futureResult.eventLoop.makeFailedFuture(Failure(description: "closed")) }
        let promise = context.eventLoop.makePromise(of: Void.self)
        // 0 is no ID, and one without an answer is taken.
        repeat { lastID &+= 1 } while lastID == 0 || waiting[lastID] != nil
        waiting[lastID] = promise
        send(Kind.publish | Kind.qosOne) { body in
            body.writeText(topic)
            body.writeInteger(lastID)
            body.writeImmutableBuffer(payload)
        }
        return promise.futureResult
    }

    func close() { context?.close(promise: nil) }

    func channelActive(context: ChannelHandlerContext) {
        self.context = context
        send(Kind.connect) { body in
            body.writeText("MQTT")
            body.writeBytes([4, 0, 0, 60])  // version 3.1.1; the session is kept; keep-alive in seconds
            body.writeText(clientID)
        }
    }

    func channelInactive(context: ChannelHandlerContext) {
        self.context = nil
        let failure = Failure(description: "the broker closed")
        for promise in waiting.values { promise.fail(failure) }
        waiting.removeAll()
        ready.fail(failure)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = unwrapInboundIn(data)
        input.writeBuffer(&bytes)
        while let (kind, body) = nextPacket() { handle(kind, body) }
        input.discardReadBytes()
    }

    private func nextPacket() -> (UInt8, ByteBuffer)? {
        let start = input.readerIndex
        guard let kind = input.readInteger(as: UInt8.self) else { return nil }
        var (length, shift) = (0, 0)
        while true {
            guard let byte = input.readInteger(as: UInt8.self) else {
                input.moveReaderIndex(to: start)
                return nil
            }
            length |= Int(byte & 0x7f) << shift
            shift += 7
            if byte & 0x80 == 0 || shift > 21 { break }
        }
        guard let body = input.readSlice(length: length) else {
            input.moveReaderIndex(to: start)
            return nil
        }
        return (kind, body)
    }

    private func handle(_ kind: UInt8, _ body: ByteBuffer) {
        var body = body
        switch kind & 0xf0 {
        case Kind.connectAck:
            guard body.getInteger(at: body.readerIndex + 1, as: UInt8.self) == 0 else {
                return ready.fail(Failure(description: "the broker refused"))
            }
            guard subscribes else { return ready.succeed() }
            send(Kind.subscribe) { body in
                body.writeInteger(UInt16(1))
                body.writeText(topic)
                body.writeInteger(UInt8(1))
            }
        case Kind.subscribeAck: ready.succeed()
        case Kind.publish:
            guard let length = body.readInteger(as: UInt16.self), body.readSlice(length: Int(length)) != nil,
                let id = body.readInteger(as: UInt16.self)
            else { return }
            received(body)
            send(Kind.publishAck) { $0.writeInteger(id) }
        case Kind.publishAck:
            if let id = body.readInteger(as: UInt16.self) { waiting.removeValue(forKey: id)?.succeed() }
        default: break
        }
    }

    private func send(_ kind: UInt8, _ write: (inout ByteBuffer) -> Void) {
        guard let context else { return }
        var body = ByteBuffer()
        write(&body)
        var packet = context.channel.allocator.buffer(capacity: body.readableBytes + 5)
        packet.writeInteger(kind)
        var length = body.readableBytes
        repeat {
            packet.writeInteger(UInt8(length & 0x7f) | (length > 0x7f ? 0x80 : 0))
            length >>= 7
        } while length > 0
        packet.writeBuffer(&body)
        context.write(NIOAny(packet), promise: nil)
        guard !flushIsDue else { return }
        // What a turn of the loop writes leaves together.
        flushIsDue = true
        context.eventLoop.assumeIsolated().execute {
            self.flushIsDue = false
            self.context?.flush()
        }
    }
}

extension ByteBuffer {
    fileprivate mutating func writeText(_ text: String) {
        writeInteger(UInt16(text.utf8.count))
        writeString(text)
    }
}
