import BenchmarkHarness
import CHeap
import Foundation
import NIOCore
import PeerHarness
import QUICEngine
import QUICTransport

func idleTransport(keepAlive: QUICDuration? = nil) -> TransportSettings {
    var transport = TransportSettings()
    transport.maxIdleTimeout = .seconds(600)
    transport.keepAliveInterval = keepAlive
    return transport
}

/// Sends back what comes.
final class EchoHandler: QUICConnectionHandler {
    func handle(_ event: QUICConnectionEvent, on connection: QUICLoopConnection) {
        guard case .streamReadable(let stream) = event,
            case (var bytes, let isEnd)? = try? connection.read(stream, maximumBytes: 64 << 10)
        else { return }
        _ = try? connection.write(&bytes, to: stream, finish: isEnd)
    }

    func batchEnded(on connection: QUICLoopConnection) {}
}

func runRole(_ role: Role) async throws {
    if role.name == "server" {
        return try await LoopServer.run(
            transport: idleTransport(), tickets: true,
            command: { _, server in
                ServerMemory.report(heap: heap_in_use(), count: await server.counters().connections)
            }
        ) { _ in EchoHandler() }
    }
    guard let port = role.arguments.first.flatMap({ Int($0) }) else { return }
    let crowd = ConnectionCrowd(port: port)
    while let words = readLine()?.split(separator: " "), let command = words.first {
        let number = words.count > 1 ? Int(words[1]) ?? 0 : 0
        switch command {
        case "open": try await crowd.open(number, transport: idleTransport())
        case "beat": try await crowd.open(number, transport: idleTransport(keepAlive: .seconds(2)))
        case "request": try await crowd.request(number, atOnce: words.count > 2 ? Int(words[2]) ?? 1 : 1)
        default: try await crowd.close()
        }
        Role.report("done")
    }
    exit(0)
}
