import LonglineLinks
import LonglineWire
import NIOCore
import NIOPosix
import QUICEngine
import QUICTransport

/// Links over QUIC, on every loop of the server.
final class QUICListener: LinkListener {
    private let listener: QUICLinkListener

    private init(listener: QUICLinkListener) { self.listener = listener }

    /// Reads the certificate and binds.
    static func bind(
        _ configuration: LonglineServer.Configuration, certificates: CertificateWatch, secrets: ServerSecrets,
        runtime: ServerRuntime, others: QUICProtocolHandlers, group: MultiThreadedEventLoopGroup
    ) async throws(ServerError) -> QUICListener {
        let tls: TLSServerContext
        do {
            let credentials = try configuration.certificate()
            tls = try TLSServerContext(
                credentials: credentials,
                applicationProtocols: [QUICLinkProtocol.applicationProtocol] + others.keys.sorted(),
                ticketKeys: secrets.tlsTicketKeys,
                replayStore: ReplayStore(), keyLog: configuration.keyLog)
            certificates.use(credentials)
        } catch {
            throw ServerError(
                .certificate, message: "can't use the certificate", cause: error,
                advice: "check both PEM files, and that the key belongs to the certificate")
        }
        var settings = QUICLinkServerConfiguration(tls: tls)
        settings.quic.endpoint.server?.transport = transport(for: configuration.limits)
        settings.quic.endpoint.staticKey = secrets.endpointKey
        // Each loop has an endpoint; the server's own count over all of them is exact and closes with a code.
        settings.quic.endpoint.maxConnections = configuration.limits.maximumConnections + 1024
        settings.quic.sockets.busyPoll = configuration.busyPoll
        settings.quic.logger = configuration.logger
        settings.maximumWaitingBytes = waitingBytes(for: configuration.limits)
        do {
            for address in configuration.addresses { try await checkFree(address, group) }
            let listener = try await QUICLinkListener.bind(
                addresses: configuration.addresses, configuration: settings, group: group,
                others: counted(others, runtime)
            ) { runtime.makeHandler(on: $0) }
            return QUICListener(listener: listener)
        } catch {
            throw ServerError(
                .addressUnavailable, message: "can't listen on \(configuration.addresses)", cause: error,
                advice: "choose a free UDP port, and addresses of this host")
        }
    }

    /// What waits for a client that takes nothing: all that its session may have unacknowledged, and many answers.
    static func waitingBytes(for limits: ServerLimits) -> Int { 2 * limits.unacknowledgedBytesPerSession + 16 << 20 }

    /// How connections are set up. One lives a minute longer than the longest silence of its session, which ends it with a word.
    static func transport(for limits: ServerLimits) -> TransportSettings {
        var transport = TransportSettings.longlineServer
        let silence = UInt64(max(0, limits.idleTimeout.nanoseconds)) + UInt64(TimeAmount.minutes(1).nanoseconds)
        transport.maxIdleTimeout = max(transport.maxIdleTimeout, .nanoseconds(silence))
        return transport
    }

    /// Other protocols' handlers, whose handshakes count with those of links.
    private static func counted(_ others: QUICProtocolHandlers, _ runtime: ServerRuntime) -> QUICProtocolHandlers {
        others.mapValues { make in
            { connection in
                let eventLoop = connection.eventLoop
                return make(connection).map { handler in
                    CountedHandler(handler) { info in
                        runtime.noteHandshake(
                            resumed: info.resumed, earlyDataAccepted: info.earlyData == .accepted, on: eventLoop)
                    }
                }
            }
        }
    }

    /// Loops share a port (SO_REUSEPORT), and the kernel would as gladly share it with another server of the same user,
    /// which would then get half of the clients. A socket that doesn't share can only be bound where nobody is.
    private static func checkFree(_ address: SocketAddress, _ group: MultiThreadedEventLoopGroup) async throws {
        guard address.port != 0 else { return }
        try await DatagramBootstrap(group: group).bind(to: address).get().close()
    }

    var localAddresses: [SocketAddress] { listener.localAddresses }

    func reloadCertificate(_ credentials: TLSServerCredentials) throws { try listener.reloadCertificate(credentials) }

    func stopAccepting() async { await listener.stopAccepting() }

    func close(timeout: TimeAmount) async {
        await listener.shutdownGracefully(.shuttingDown, reason: "the server stops", timeout: timeout)
    }
}
