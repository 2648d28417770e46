import FoundationEssentials
import Logging
import NIOCore
import NIOPosix
import Synchronization

#if canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// A Unix domain socket by which an operator's process on the same machine tells a running server what to do.
///
/// The file has mode 0600 before anybody can connect: the file system decides who may. Each connection carries one
/// ``ControlRequest`` and its ``ControlAnswer``. At most ``maximumConnections`` at a time, each for ``timeout`` at most;
/// more are closed at once.
final class ControlSocket: Sendable {
    typealias Answer = @Sendable (ControlRequest) async -> ControlAnswer

    static let maximumConnections = 16
    static let timeout = TimeAmount.seconds(10)
    /// The longest request in bytes.
    static let maximumRequest = 8 * 1024
    /// The longest answer in bytes.
    static let maximumAnswer = 1024 * 1024
    /// The longest path in bytes: what `sockaddr_un` holds.
    static let maximumPath = 107

    private let channel: any Channel
    private let path: String

    private init(channel: any Channel, path: String) {
        self.channel = channel
        self.path = path
    }

    /// Listens at a path. A socket that an earlier process left there is replaced, so call it only when no other server
    /// has the folder.
    /// - Throws: ``ServerError/Code/addressUnavailable``.
    static func bind(
        _ path: String, group: any EventLoopGroup, logger: Logger, answer: @escaping Answer
    ) async throws(ServerError) -> ControlSocket {
        let descriptor = try listenable(path)
        let counter = ConnectionCounter()
        do {
            let channel = try await ServerBootstrap(group: group)
                .serverChannelOption(.backlog, value: Int32(maximumConnections))
                .childChannelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture {
                        try channel.pipeline.syncOperations.addHandler(
                            ControlConnection(counter: counter, logger: logger, answer: answer))
                    }
                }
                .withBoundSocket(descriptor).get()
            return ControlSocket(channel: channel, path: path)
        } catch {
            throw failure(path, "\(error)")
        }
    }

    /// Takes no more requests, and removes the file.
    func shutDown() async {
        unlink(path)
        try? await channel.close()
    }

    /// A bound socket that nobody can connect to yet, because it does not listen.
    private static func listenable(_ path: String) throws(ServerError) -> CInt {
        var address = sockaddr_un()
        guard path.utf8.count <= maximumPath else {
            throw failure(path, "the path has more than \(maximumPath) bytes")
        }
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        // Not `lstat`: beside Foundation's modules the compiler can't always tell whose structure that fills.
        if let attributes = try? FileManager.default.attributesOfItem(atPath: path) {
            guard attributes[.type] as? FileAttributeType == .typeSocket else {
                throw failure(path, "something else has this name")
            }
            unlink(path)
        }
        let type = CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue)
        let descriptor = socket(AF_UNIX, type, 0)
        guard descriptor >= 0 else { throw failure(path, String(cString: strerror(errno))) }
        let bound = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                attach(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        guard bound == 0, chmod(path, 0o600) == 0 else {
            let reason = String(cString: strerror(errno))
            close(descriptor)
            throw failure(path, reason)
        }
        return descriptor
    }

    /// The system's `bind`, which ``bind(_:group:logger:answer:)`` hides.
    private static func attach(_ socket: CInt, _ address: UnsafePointer<sockaddr>, _ size: socklen_t) -> CInt {
        #if canImport(Musl)
            Musl.bind(socket, address, size)
        #else
            Glibc.bind(socket, address, size)
        #endif
    }

    private static func failure(_ path: String, _ reason: String) -> ServerError {
        ServerError(
            .addressUnavailable, message: "can't listen for control requests at \(path): \(reason)",
            advice: "name a path that is short, free and in a folder of this user's own")
    }
}

/// Counts the connections of one socket, which may be on several loops.
private final class ConnectionCounter: Sendable {
    private let count = Atomic<Int>(0)

    func enter() -> Bool {
        let now = count.wrappingAdd(1, ordering: .relaxed).newValue
        if now <= ControlSocket.maximumConnections { return true }
        leave()
        return false
    }

    func leave() { count.wrappingSubtract(1, ordering: .relaxed) }
}

/// One connection: reads a line, has it answered, writes a line, closes.
private final class ControlConnection: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let counter: ConnectionCounter
    private let logger: Logger
    private let answer: ControlSocket.Answer
    private var received = ByteBuffer()
    private var isCounted = false
    private var isAsked = false

    init(counter: ConnectionCounter, logger: Logger, answer: @escaping ControlSocket.Answer) {
        self.counter = counter
        self.logger = logger
        self.answer = answer
    }

    func channelActive(context: ChannelHandlerContext) {
        isCounted = counter.enter()
        guard isCounted else { return context.close(promise: nil) }
        let channel = context.channel
        context.eventLoop.scheduleTask(in: ControlSocket.timeout) { channel.close(promise: nil) }
    }

    func channelInactive(context: ChannelHandlerContext) {
        if isCounted { counter.leave() }
        isCounted = false
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = unwrapInboundIn(data)
        guard isCounted, !isAsked else { return }
        guard received.readableBytes + bytes.readableBytes <= ControlSocket.maximumRequest else {
            return context.close(promise: nil)
        }
        received.writeBuffer(&bytes)
        let view = received.readableBytesView
        guard let end = view.firstIndex(of: UInt8(ascii: "\n")) else { return }
        isAsked = true
        guard let request = try? JSONDecoder().decode(ControlRequest.self, from: Data(view[..<end])) else {
            return send(
                ControlAnswer(error: "not a request this server knows", advice: "use the same version of longline"),
                on: context.channel)
        }
        logger.notice("control request", metadata: ["operation": "\(request.operation.rawValue)"])
        respond(to: request, on: context.channel, by: answer)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}

private func respond(to request: ControlRequest, on channel: any Channel, by answer: @escaping ControlSocket.Answer) {
    Task {
        let said = await answer(request)
        send(said, on: channel)
    }
}

/// Writes the line, then closes.
private func send(_ answer: ControlAnswer, on channel: any Channel) {
    guard let json = try? JSONEncoder().encode(answer) else { return channel.close(promise: nil) }
    var line = ByteBuffer(bytes: json)
    line.writeInteger(UInt8(ascii: "\n"))
    channel.writeAndFlush(line).whenComplete { _ in channel.close(promise: nil) }
}
