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

    /// A server's configuration with a certificate of its own, and no limit that a single client host could reach.
    /// - Parameter tickets: whether sessions can be resumed, with 0-RTT.
    public static func configuration(
        transport: TransportSettings, tickets: Bool = false, credentials: TLSServerCredentials? = nil
    ) throws -> QUICServerConfiguration {
        let now = UInt64(Date().timeIntervalSince1970)
        let credentials = try credentials ?? DevelopmentCertificate.generate(names: ["localhost"], now: now).credentials
        var random = SystemRandomNumberGenerator()
        let tls = try TLSServerContext(
            credentials: credentials, applicationProtocols: [applicationProtocol],
            ticketKeys: tickets ? TicketKeyRing(random: &random, now: now) : nil,
            replayStore: tickets ? ReplayStore() : nil)
        var server = ServerConfiguration(tls: tls)
        server.transport = transport
        server.maxHandshakesPerAddress = 1 << 20
        server.maxHandshakes = 1 << 20
        server.retryThreshold = 1 << 20
        var configuration = QUICServerConfiguration(server: server)
        configuration.logger.logLevel = .error
        return configuration
    }

    /// Serves until the parent closes our standard input.
    /// - Parameter command: answers a line that the parent sent.
    public static func run(
        transport: TransportSettings, tickets: Bool = false,
        command: @escaping @Sendable (String, QUICServer) async -> Void = { _, _ in },
        handler: @escaping @Sendable (QUICLoopConnection) -> any QUICConnectionHandler
    ) async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let bound = try await QUICServer.bind(
            addresses: [try SocketAddress(ipAddress: "127.0.0.1", port: 0)],
            configuration: try configuration(transport: transport, tickets: tickets), group: group,
            handlerFactory: handler)
        Role.report("\(bound.localAddresses.first?.port ?? 0)")
        while let line = readLine() { await command(line, bound) }
        await bound.shutdownGracefully(timeout: .seconds(1))
        try await group.shutdownGracefully()
    }
}
