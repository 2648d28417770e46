import CHeap
import LonglineLinks
import LonglineServer
import NIOCore
import PeerHarness
import QUICEngine
import QUICTransport
import SessionHarness

/// A connection that nothing is said on.
private final class SilentHandler: QUICConnectionHandler {
    func handle(_ event: QUICConnectionEvent, on connection: QUICLoopConnection) {}
    func batchEnded(on connection: QUICLoopConnection) {}
}

func runRole(_ role: Role) async throws {
    if role.name == "bare" {
        // What a session's connection is beneath it.
        return try await LoopServer.run(
            transport: .longline, tickets: true,
            command: { _, server in
                ServerMemory.report(heap: heap_in_use(), count: await server.counters().connections)
            }
        ) { _ in SilentHandler() }
    }
    guard let folder = role.arguments.first else { throw ChildProcess.Failure("the server takes a folder") }
    try await SessionServer.run(folder) { _, server in
        ServerMemory.report(heap: heap_in_use(), count: (try? await server.statistics().sessions) ?? 0)
    }
}
