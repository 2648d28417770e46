import NIOCore
import NIOPosix
public import QUICEngine
public import QUICTransport

/// A client connection that does nothing until it is told to make requests, one after the other on one stream.
private final class IdleHandler: QUICConnectionHandler {
    var connection: QUICLoopConnection?
    var whenReady: EventLoopPromise<Void>?
    var whenDone: EventLoopPromise<Void>?
    var whenClosed: EventLoopPromise<Void>?
    private var stream: QUICStreamID?
    private var left = 0
    private var missing = 0

    func request(_ count: Int) {
        left = count
        ask()
    }

    private func ask() {
        guard left > 0, let connection else {
            whenDone?.succeed()
            whenDone = nil
            return
        }
        left -= 1
        missing = 100
        if stream == nil { stream = (try? connection.openStream(bidirectional: true)) ?? nil }
        var bytes = ByteBuffer(repeating: 0x61, count: 100)
        if let stream { _ = try? connection.write(&bytes, to: stream) }
    }

    func handle(_ event: QUICConnectionEvent, on connection: QUICLoopConnection) {
        switch event {
        case .handshakeConfirmed: whenReady?.succeed()
        case .streamReadable(let stream):
            guard let read = try? connection.read(stream, consuming: \.count) else { return }
            missing -= read.count
            if missing == 0 { ask() }
        case .closed(let reason):
            whenReady?.fail(ChildProcess.Failure("closed: \(reason)"))
            whenDone?.fail(ChildProcess.Failure("closed: \(reason)"))
            whenClosed?.succeed()
            self.connection = nil
        default: break
        }
    }

    func batchEnded(on connection: QUICLoopConnection) {}
}

/// Client connections without anything above QUIC, all on one loop.
public final class ConnectionCrowd: @unchecked Sendable {
    // Proof: everything in it is touched on its loop only, where each method brings its work.
    private let loop: any EventLoop
    private let client: QUICClient
    private let port: Int
    private var handlers: [IdleHandler] = []

    /// Nobody yet.
    public init(port: Int) {
        loop = MultiThreadedEventLoopGroup(numberOfThreads: 1).next()
        client = QUICClient(sockets: .crowd)
        self.port = port
    }

    /// Opens connections, some at a time: a thousand handshakes at once would lose packets.
    public func open(_ count: Int, transport: TransportSettings) async throws {
        var configuration = ClientConfiguration(
            serverName: "localhost", applicationProtocols: [LoopServer.applicationProtocol],
            verification: .insecureNoVerification)
        configuration.transport = transport
        let chosen = configuration
        var left = count
        while left > 0 {
            let batch = min(left, 50)
            left -= batch
            try await loop.flatSubmit {
                let ready = (0..<batch).map { _ in
                    let handler = IdleHandler()
                    let promise = self.loop.makePromise(of: Void.self)
                    handler.whenReady = promise
                    handler.connection = self.client.connect(
                        host: "127.0.0.1", port: self.port, configuration: chosen, on: self.loop, handler: handler)
                    self.handlers.append(handler)
                    return promise.futureResult
                }
                return EventLoopFuture.andAllSucceed(ready, on: self.loop)
            }.get()
        }
    }

    /// Every connection makes `count` requests of 100 bytes, `atOnce` connections at a time.
    public func request(_ count: Int, atOnce: Int) async throws {
        var next = 0
        var isMore = true
        while isMore {
            let begin = next
            next += atOnce
            isMore = try await loop.flatSubmit {
                let done = self.handlers.dropFirst(begin).prefix(atOnce).map { handler in
                    let promise = self.loop.makePromise(of: Void.self)
                    handler.whenDone = promise
                    handler.request(count)
                    return promise.futureResult
                }
                let isMore = begin + atOnce < self.handlers.count
                return EventLoopFuture.andAllSucceed(done, on: self.loop).map { isMore }
            }.get()
        }
    }

    /// Closes all of them.
    public func close() async throws {
        try await loop.flatSubmit {
            let closed = self.handlers.map { handler in
                let promise = self.loop.makePromise(of: Void.self)
                handler.whenClosed = promise
                handler.connection?.close(code: 0, reason: "")
                return promise.futureResult
            }
            self.handlers.removeAll()
            return EventLoopFuture.andAllSucceed(closed, on: self.loop)
        }.get()
    }
}

extension QUICSocketOptions {
    /// For thousands of clients in one process.
    public static var crowd: QUICSocketOptions {
        var sockets = QUICSocketOptions.client
        sockets.messagesPerRead = 1
        sockets.receiveBuffer = 64 << 10
        sockets.sendBuffer = 64 << 10
        return sockets
    }
}
