import NIOCore
import QUICEngine
import Testing

@testable import QUICTransport

@Suite("Priorities of streams over loopback", .timeLimit(.minutes(1)))
struct StreamPriorityTests {
    @Test("A write that waits for room among the background streams has it once its stream is none of them")
    func moreUrgent() async throws {
        let server = try serverConfiguration {
            $0.streamWindow = 1024
            $0.discoverPathMTU = false
        }
        try await withPair(configuration: server, serve: { _ = try await $0.closed() }) { client, listener, loop in
            let configuration = clientConfiguration {
                $0.backgroundSendBuffer = 4096
                $0.discoverPathMTU = false
            }
            let connection = try await client.connect(to: listener, configuration, on: loop)
            let stream = try await connection.openStream(priority: StreamPriority(urgency: 7))
            let writing = Task { try await stream.write(ByteBuffer(repeating: 1, count: 32 << 10)) }
            let id = stream.id
            while try await !connection.call({ Self.isHeldUp(id, $0) }) { await Task.yield() }
            stream.setPriority(.standard)
            try await writing.value
        }
    }

    /// Whether all that the server takes is acknowledged, and the next tick that comes by itself is far away.
    private static func isHeldUp(_ stream: QUICStreamID, _ state: AsyncConnectionState) -> Bool {
        guard let connection = state.connection else { return false }
        return connection.unacknowledgedBytes(stream) == 3072
            && connection.driver.timerDeadline > NIODeadline.now() + .seconds(5)
    }
}
