public import Logging
public import LonglineWire
public import NIOCore
public import NIOPosix
public import QUICEngine
public import QUICTransport

/// Opens links over QUIC.
public final class QUICLinkConnector: Sendable {
    private let client: QUICClient
    private let logger: Logger

    /// A connector with sockets of its own.
    public init(sockets: QUICSocketOptions = .client, logger: Logger = Logger(label: "longline.links")) {
        client = QUICClient(sockets: sockets, logger: logger)
        self.logger = logger
    }

    /// A connector that finds hosts as it is told to.
    package init(resolver: NameResolver, logger: Logger) {
        client = QUICClient(logger: logger, resolver: resolver)
        self.logger = logger
    }

    /// Starts a link; called on the loop that shall own it, never blocks.
    ///
    /// The link exists at once and may be closed or abandoned at once. ``LinkHandler/linkEstablished(_:)`` follows, or
    /// ``LinkHandler/linkClosed(_:reason:)`` as the only call if the connection could not be made; neither comes before
    /// this returned.
    public func open(_ target: QUICLinkTarget, on eventLoop: any EventLoop, handler: any LinkHandler) -> QUICLink {
        eventLoop.preconditionInEventLoop()
        var configuration = ClientConfiguration(
            serverName: target.serverName, applicationProtocols: [QUICLinkProtocol.applicationProtocol],
            verification: target.verification)
        configuration.transport = target.transport
        configuration.addressToken = target.addressToken
        configuration.earlyData = target.earlyData
        configuration.keyLog = target.keyLog
        if let bytes = target.sessionTicket {
            do throws(QUICError) {
                configuration.sessionTicket = try SessionTicket(bytes: bytes)
            } catch {
                logger.debug("a stored session ticket is ignored", metadata: ["error": "\(error)"])
            }
        }
        let link = QUICLink(eventLoop: eventLoop, isServer: false, handler: handler)
        link.attach(
            client.connect(
                host: target.host, port: target.port, configuration: configuration, localAddress: target.localAddress,
                on: eventLoop, handler: QUICLinkEvents(link)))
        return link
    }

    /// What was counted so far.
    public func counters() async -> QUICTransportCounters { await client.counters() }

    /// Closes every link and all sockets.
    public func shutdownGracefully(_ code: CloseCode = .normal, reason: String = "") async {
        await client.shutdownGracefully(code: UInt64(code.rawValue), reason: reason)
    }
}

/// Other protocols that share the port with links, by their ALPN names. Called on a connection's loop, once for each; nil: it is
/// closed.
public typealias QUICProtocolHandlers = [String: @Sendable (QUICLoopConnection) -> (any QUICConnectionHandler)?]

/// How links are accepted over QUIC.
public struct QUICLinkServerConfiguration: Sendable {
    /// The endpoint's limits and its server configuration. The TLS context must offer
    /// ``QUICLinkProtocol/applicationProtocol``.
    public var quic: QUICServerConfiguration
    /// Bytes that may wait on all lanes of a link together while the client takes nothing; beyond it is told by
    /// ``LinkHandler/laneOverfull(_:link:)``. Above what a session sends on its own account, which is twice what it may have
    /// unacknowledged, and 16 MiB for answers: 24 MiB.
    public var maximumWaitingBytes = 24 << 20

    /// Accepts links with this TLS context and the settings for sessions.
    public init(tls: TLSServerContext) {
        var server = ServerConfiguration(tls: tls)
        server.transport = .longlineServer
        quic = QUICServerConfiguration(server: server)
        // The server's secrets are rotated, and saved, together.
        quic.ticketRotation = nil
    }
}

/// Accepts links over QUIC on every loop of a group.
public final class QUICLinkListener: Sendable {
    private let server: QUICServer

    private init(server: QUICServer) { self.server = server }

    /// Binds and accepts.
    /// - Parameters:
    ///   - addresses: a wildcard stands for every local address of its family; port 0 lets the system choose.
    ///   - configuration: certificate, limits, sockets.
    ///   - group: its loops share the links.
    ///   - others: what else is served; the TLS context must offer it, too.
    ///   - handlerFactory: called on a link's loop, once for each link, before any of its events.
    /// - Throws: what `QUICServer.bind` throws.
    public static func bind(
        addresses: [SocketAddress], configuration: QUICLinkServerConfiguration, group: MultiThreadedEventLoopGroup,
        others: QUICProtocolHandlers = [:],
        handlerFactory: @escaping @Sendable (any EventLoop) -> any LinkHandler
    ) async throws -> QUICLinkListener {
        let maximumWaitingBytes = configuration.maximumWaitingBytes
        let accept: @Sendable (QUICLoopConnection) -> any QUICConnectionHandler = { connection in
            let link = QUICLink(
                eventLoop: connection.eventLoop, isServer: true, handler: handlerFactory(connection.eventLoop),
                maximumWaitingBytes: maximumWaitingBytes)
            link.attach(connection)
            return QUICLinkEvents(link)
        }
        let server = try await QUICServer.bind(
            addresses: addresses, configuration: configuration.quic, group: group
        ) { connection in
            // Where there is nothing to choose, nothing stands between.
            guard !others.isEmpty else { return accept(connection) }
            return ApplicationProtocolHandler { name, connection in
                name == QUICLinkProtocol.applicationProtocol ? accept(connection) : others[name]?(connection)
            }
        }
        return QUICLinkListener(server: server)
    }

    /// What it is bound to; wildcards are expanded and ports filled in.
    public var localAddresses: [SocketAddress] { server.localAddresses }

    /// What was counted so far.
    public func counters() async -> QUICTransportCounters { await server.counters() }

    /// Serves new links with another certificate.
    /// - Throws: `QUICError` with `invalidCertificate`; the old certificate stays then.
    public func reloadCertificate(_ credentials: TLSServerCredentials) throws {
        try server.reloadCertificate(credentials)
    }

    /// Accepts no new links from now on; those that live go on.
    public func stopAccepting() async { await server.stopAccepting() }

    /// Closes every link with a code, waits until the closes have left, and closes the sockets. What sessions have to
    /// say before that is said with ``Link/close(_:reason:)``.
    public func shutdownGracefully(
        _ code: CloseCode = .shuttingDown, reason: String = "", timeout: TimeAmount = .seconds(5)
    ) async {
        await server.shutdownGracefully(code: UInt64(code.rawValue), reason: reason, timeout: timeout)
    }
}
