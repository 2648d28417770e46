import NIOCore
import NIOPosix
import PeerHarness
import QUICEngine
import QUICTransport

/// The settings of both sides: windows as large as the peer's.
func bulkTransport() -> TransportSettings {
    var transport = TransportSettings()
    transport.streamWindow = 16 << 20
    transport.connectionWindow = 24 << 20
    transport.streamSendBuffer = 1 << 20
    return transport
}

/// Sends as many bytes as the eight that the client sent say.
final class DownloadServer: QUICConnectionHandler {
    private let chunk = ByteBuffer(repeating: 0x61, count: 256 << 10)
    private var left: [QUICStreamID: Int] = [:]

    func handle(_ event: QUICConnectionEvent, on connection: QUICLoopConnection) {
        switch event {
        case .streamReadable(let stream):
            guard left[stream] == nil, connection.readableBytes(stream) >= 8,
                var request = try? connection.read(stream, maximumBytes: 8).bytes,
                let count = request.readInteger(as: Int64.self)
            else { return }
            left[stream] = Int(count)
            push(stream, connection)
        case .streamWritable(let stream): push(stream, connection)
        case .streamClosed(let stream): left[stream] = nil
        default: break
        }
    }

    func batchEnded(on connection: QUICLoopConnection) {}

    private func push(_ stream: QUICStreamID, _ connection: QUICLoopConnection) {
        guard var rest = left[stream] else { return }
        while rest > 0 {
            guard var part = chunk.getSlice(at: 0, length: min(rest, chunk.readableBytes)) else { return }
            let offered = part.readableBytes
            guard let taken = try? connection.write(&part, to: stream, finish: offered == rest) else { return }
            rest -= taken
            if taken < offered { break }
        }
        left[stream] = rest
    }
}

/// Asks for bytes and reads them to the end.
final class DownloadClient: QUICConnectionHandler {
    private let size: Int
    private let done: EventLoopPromise<Int>
    private var received = 0

    init(size: Int, done: EventLoopPromise<Int>) {
        self.size = size
        self.done = done
    }

    func handle(_ event: QUICConnectionEvent, on connection: QUICLoopConnection) {
        switch event {
        case .handshakeCompleted:
            guard let stream = try? connection.openStream(bidirectional: true) else { return }
            var request = ByteBuffer(integer: Int64(size))
            _ = try? connection.write(&request, to: stream, finish: true)
        case .streamReadable(let stream):
            guard let read = try? connection.read(stream, consuming: \.count) else { return }
            received += read.count
            if read.finished { connection.close(code: 0, reason: "") }
        case .closed: done.succeed(received)
        default: break
        }
    }

    func batchEnded(on connection: QUICLoopConnection) {}
}

func runRole(_ role: Role) async throws {
    if role.name == "server" {
        try await LoopServer.run(transport: bulkTransport()) { _ in DownloadServer() }
        return
    }
    guard role.arguments.count == 2, let port = Int(role.arguments[0]), let size = Int(role.arguments[1]) else {
        return
    }
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let client = QUICClient()
    let loop = group.next()
    var configuration = ClientConfiguration(
        serverName: "localhost", applicationProtocols: [LoopServer.applicationProtocol],
        verification: .insecureNoVerification)
    configuration.transport = bulkTransport()
    let download = configuration
    let received = try await loop.flatSubmit {
        let done = loop.makePromise(of: Int.self)
        _ = client.connect(
            host: "127.0.0.1", port: port, configuration: download, on: loop,
            handler: DownloadClient(size: size, done: done))
        return done.futureResult
    }.get()
    await client.shutdownGracefully()
    try await group.shutdownGracefully()
    guard received == size else { throw ChildProcess.Failure("received \(received) bytes of \(size)") }
}
