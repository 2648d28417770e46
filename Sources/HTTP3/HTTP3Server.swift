internal import HTTPTypes
public import NIOCore
public import NIOPosix
public import QUICEngine
public import QUICTransport

/// An HTTP/3 server on ports of its own (RFC 9114).
///
/// ```swift
/// let server = try await HTTP3Server.bind(addresses: addresses, configuration: configuration, group: group) {
///     request, body, responder in
///     try await responder.respond(HTTPResponse(status: .ok), body: ByteBuffer(string: "hello"))
/// }
/// ```
/// To serve another protocol on the same port, see ``HTTP3ServerSession``.
public final class HTTP3Server: Sendable {
    private let server: QUICServer
    private let service: HTTP3Service

    private init(server: QUICServer, service: HTTP3Service) {
        self.server = server
        self.service = service
    }

    /// Binds and serves.
    /// - Parameters:
    ///   - addresses: a wildcard stands for every local address of its family; port 0 lets the system choose.
    ///   - configuration: certificate, sockets and transport. Its TLS context offers `h3`.
    ///   - options: limits, 0-RTT, logger.
    ///   - group: its loops share the connections.
    ///   - handler: answers the requests.
    /// - Throws: what `QUICServer.bind` throws; ``HTTP3Error/Code/invalidConfiguration`` if the TLS context doesn't offer `h3`.
    public static func bind(
        addresses: [SocketAddress], configuration: QUICServerConfiguration,
        options: HTTP3ServerOptions = HTTP3ServerOptions(), group: MultiThreadedEventLoopGroup,
        handler: @escaping HTTP3Handler
    ) async throws -> HTTP3Server {
        let offered = configuration.endpoint.server?.tls.applicationProtocols ?? []
        guard offered.contains(HTTP3Service.applicationProtocol) else {
            throw HTTP3Error(
                .invalidConfiguration, "the TLS context doesn't offer h3", cause: "it offers \(offered)",
                advice: "Name HTTP3Service.applicationProtocol among its applicationProtocols.")
        }
        let service = HTTP3Service(options: options)
        var configuration = configuration
        configuration.endpoint.server?.ticketContext += options.limits.ticketContext
        let server = try await QUICServer.bind(addresses: addresses, configuration: configuration, group: group) {
            HTTP3ServerSession($0, service: service, handler: handler)
        }
        return HTTP3Server(server: server, service: service)
    }

    /// What it is bound to; wildcards are expanded and ports filled in.
    public var localAddresses: [SocketAddress] { server.localAddresses }

    /// What HTTP/3 counted so far.
    public var statistics: HTTP3Statistics { service.statistics }

    /// What the transport counted so far, over all loops.
    public func counters() async -> QUICTransportCounters { await server.counters() }

    /// Serves new connections with another certificate.
    /// - Throws: `QUICError` with `invalidCertificate`; the old certificate stays then.
    public func reloadCertificate(_ credentials: TLSServerCredentials) throws {
        try server.reloadCertificate(credentials)
    }

    /// Accepts no new connections, drains those there are (GOAWAY: clients learn which requests won't be processed), closes what
    /// is left after the grace, and closes the sockets. Idempotent.
    /// - Parameters:
    ///   - grace: for how long requests under way may go on.
    ///   - timeout: sockets are closed so long after that in any case.
    public func shutdownGracefully(grace: TimeAmount = .seconds(10), timeout: TimeAmount = .seconds(5)) async {
        await server.stopAccepting()
        await service.drain(grace: .nanoseconds(grace.nanoseconds))
        await server.shutdownGracefully(
            code: HTTP3ErrorCode.noError.rawValue, reason: "the server stops", timeout: timeout)
    }
}
