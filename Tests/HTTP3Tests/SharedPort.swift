import HTTPTypes
import NIOCore
import NIOPosix
import QUICEngine
import QUICTransport

@testable import HTTP3

/// A protocol that says goodbye to everyone.
final class FarewellHandler: QUICConnectionHandler {
    func handle(_ event: QUICConnectionEvent, on connection: QUICLoopConnection) {
        if case .handshakeCompleted = event { connection.close(code: 7, reason: "echo") }
    }

    func batchEnded(on connection: QUICLoopConnection) {}
}

/// A port with HTTP/3 and another protocol.
func withSharedPort(_ body: (_ port: Int, _ loop: any EventLoop) async throws -> Void) async throws {
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let service = HTTP3Service()
    let server = try await QUICServer.bind(
        addresses: [loopback()], configuration: serverConfiguration(protocols: ["h3", "echo/1", "none/1"]), group: group
    ) { _ in
        ApplicationProtocolHandler(refusalCode: 9) { name, connection in
            switch name {
            case HTTP3Service.applicationProtocol:
                HTTP3ServerSession(connection, service: service) { _, _, responder in
                    try await responder.respond(HTTPResponse(status: .ok))
                }
            case "echo/1": FarewellHandler()
            default: nil
            }
        }
    }
    let outcome: Result<Void, any Error>
    do {
        outcome = .success(try await body(server.localAddresses.first?.port ?? 0, group.next()))
    } catch {
        outcome = .failure(error)
    }
    await server.shutdownGracefully(timeout: .seconds(1))
    try await group.shutdownGracefully()
    try outcome.get()
}

/// Why a connection that speaks another protocol ended, before or after its client saw the handshake complete.
func endOfOther(_ port: Int, _ name: String, on loop: any EventLoop) async throws -> QUICCloseReason? {
    do {
        return try await QUICClient().connect(
            host: "127.0.0.1", port: port, configuration: clientConfiguration(protocols: [name]), on: loop
        ).closed()
    } catch let error as QUICTransportError {
        return error.closeReason
    }
}
