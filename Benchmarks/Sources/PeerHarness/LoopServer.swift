import Foundation
import Logging
public import NIOCore
public import NIOPosix
public import QUICEngine
public import QUICTransport

/// A QUIC server on one event loop, as the benchmarks' server processes run it.
public enum LoopServer {
    /// The protocol that the benchmarks speak.
    public static let applicationProtocol = "benchmark"

    /// Serves until the parent closes our standard input or sends a line that `command` doesn't take.
    /// - Parameter tickets: whether sessions can be resumed, with 0-RTT.
    public static func run(
        transport: TransportSettings, tickets: Bool = false,
        command: @escaping @Sendable (String, any EventLoopGroup) async -> Bool = { _, _ in false },
        handler: @escaping @Sendable (QUICLoopConnection) -> any QUICConnectionHandler
    ) async throws {
        let certificate = try DevelopmentCertificate.generate(
            names: ["localhost"], now: UInt64(Date().timeIntervalSince1970))
        var random = SystemRandomNumberGenerator()
        let tls = try TLSServerContext(
            credentials: certificate.credentials, applicationProtocols: [applicationProtocol],
            ticketKeys: tickets ? TicketKeyRing(random: &random, now: UInt64(Date().timeIntervalSince1970)) : nil,
            replayStore: tickets ? ReplayStore() : nil)
        var server = ServerConfiguration(tls: tls)
        server.transport = transport
        // All clients come from one address.
        server.maxHandshakesPerAddress = 1 << 20
        server.maxHandshakes = 1 << 20
        server.retryThreshold = 1 << 20
        var configuration = QUICServerConfiguration(server: server)
        configuration.logger.logLevel = .error
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let bound = try await QUICServer.bind(
            addresses: [try SocketAddress(ipAddress: "127.0.0.1", port: 0)], configuration: configuration, group: group,
            handlerFactory: handler)
        Role.report("\(bound.localAddresses.first?.port ?? 0)")
        while let line = readLine(), await command(line, group) {}
        await bound.shutdownGracefully(timeout: .seconds(1))
        try await group.shutdownGracefully()
    }
}
