import NIOCore
import NIOPosix
import QUICEngine
import QUICTransport
import Testing

@testable import HTTP3

/// A server that writes HTTP/3 byte by byte, with a real client before it.
func withRawServer(
    limits: HTTP3Limits = HTTP3Limits(),
    serve: @escaping @Sendable (RawPeer) async throws -> Void,
    _ body: (HTTP3ClientConnection, HTTP3Client) async throws -> Void
) async throws {
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let listener = try await QUICListener.bind(
        addresses: [loopback()], configuration: serverConfiguration(), group: group)
    let serving = Task {
        try await withThrowingDiscardingTaskGroup { tasks in
            for try await connection in listener.connections {
                tasks.addTask {
                    let peer = RawPeer(connection)
                    try? await serve(peer)
                    // Letting go of it would close it.
                    _ = try? await connection.closed()
                    withExtendedLifetime(peer) {}
                }
            }
        }
    }
    var options = HTTP3ClientOptions()
    options.limits = limits
    let client = HTTP3Client(options: options)
    let outcome: Result<Void, any Error>
    do {
        let connection = try await client.connect(
            host: "127.0.0.1", port: listener.localAddresses.first?.port ?? 0, configuration: clientConfiguration(),
            on: group.next())
        outcome = .success(try await body(connection, client))
    } catch {
        outcome = .failure(error)
    }
    await client.shutdownGracefully(timeout: .seconds(1))
    await listener.shutdownGracefully(timeout: .seconds(1))
    serving.cancel()
    _ = try? await serving.value
    try await group.shutdownGracefully()
    try outcome.get()
}

extension RawPeer {
    /// The next request stream, read to its end.
    func nextRequest() async throws -> QUICStream {
        for try await stream in connection.inboundStreams {
            hold(stream)
            guard stream.id.isBidirectional else { continue }
            while try await stream.read() != nil {}
            return stream
        }
        throw CancellationError()
    }
}

extension QUICStream {
    func answer(_ bytes: [UInt8], finish: Bool = true) async throws {
        try await write(ByteBuffer(bytes: bytes))
        do {
            if finish { try await self.finish() }
        } catch let error as QUICTransportError where error.code == .stopSending {
            // What was answered may be refused before its end is there: the test goes on.
        }
    }
}
