import NIOCore
import PeerHarness
import QUICEngine
import QUICTransport

/// Sends back what comes, on the loop.
final class EchoHandler: QUICConnectionHandler {
    func handle(_ event: QUICConnectionEvent, on connection: QUICLoopConnection) {
        guard case .streamReadable(let stream) = event,
            case (var bytes, let isEnd)? = try? connection.read(stream, maximumBytes: 64 << 10)
        else { return }
        _ = try? connection.write(&bytes, to: stream, finish: isEnd)
    }

    func batchEnded(on connection: QUICLoopConnection) {}
}

/// The same through the async API: a task for each connection and each stream.
/// - Parameter onLoop: whether the tasks run on the connection's loop, where ``QUICListener/serve`` puts them.
func serveWithTasks(_ listener: QUICListener, onLoop: Bool) async throws {
    if onLoop {
        return try await listener.serve { connection in
            try await connection.serveStreams { stream in try await echo(stream) }
        }
    }
    try await withThrowingDiscardingTaskGroup { connections in
        for try await connection in listener.connections {
            connections.addTask {
                try? await withThrowingDiscardingTaskGroup { streams in
                    for try await stream in connection.inboundStreams { streams.addTask { try? await echo(stream) } }
                }
            }
        }
    }
}

private func echo(_ stream: QUICStream) async throws {
    while let bytes = try await stream.read() { try await stream.write(bytes) }
    try await stream.finish()
}
