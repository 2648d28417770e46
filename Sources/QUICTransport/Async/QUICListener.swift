public import NIOCore
public import NIOPosix
public import QUICEngine

/// Accepts QUIC connections for tasks.
public final class QUICListener: Sendable {
    private let server: QUICServer
    private let mailbox: Mailbox<QUICConnection>

    private init(server: QUICServer, mailbox: Mailbox<QUICConnection>) {
        self.server = server
        self.mailbox = mailbox
    }

    /// Binds and accepts.
    /// - Parameters:
    ///   - backlog: connections that nobody took yet; more are closed with `refusalCode`.
    ///   - yieldsEarly: give connections out before their handshake completed, so that 0-RTT data can be read. An
    ///     attacker may have repeated it.
    /// - Throws: what ``QUICServer/bind(addresses:configuration:group:handlerFactory:)`` throws.
    public static func bind(
        addresses: [SocketAddress], configuration: QUICServerConfiguration, group: MultiThreadedEventLoopGroup,
        backlog: Int = 1024, refusalCode: UInt64 = 0, yieldsEarly: Bool = false
    ) async throws -> QUICListener {
        let mailbox = Mailbox<QUICConnection>(limit: backlog, policy: .refuse)
        let transport = configuration.endpoint.server?.transport ?? TransportSettings()
        let limit = Int(clamping: transport.maxBidirectionalStreams &+ transport.maxUnidirectionalStreams)
        let server = try await QUICServer.bind(addresses: addresses, configuration: configuration, group: group) {
            connection in
            let state = AsyncConnectionState(readiness: yieldsEarly ? .earlyData : .handshake, streamLimit: limit)
            state.attach(connection)
            state.onReady = { [unowned state] in
                let handle = QUICConnection(state: state, of: connection)
                if !mailbox.put(handle) { handle.close(code: refusalCode, reason: "the backlog is full") }
            }
            return state
        }
        return QUICListener(server: server, mailbox: mailbox)
    }

    /// What it is bound to; wildcards are expanded and ports filled in.
    public var localAddresses: [SocketAddress] { server.localAddresses }

    /// The connections, as they are ready; ends with the listener. Each goes to one task only.
    public var connections: Connections { Connections(mailbox: mailbox) }

    /// What was counted so far.
    public func counters() async -> QUICTransportCounters { await server.counters() }

    /// Serves new connections with other certificates, in place of all there were; those that live keep theirs.
    /// - Parameter certificatesByName: certificates by the names clients ask for, as in `TLSServerContext`.
    /// - Throws: `QUICError` with `invalidCertificate`; the old certificates stay then.
    public func reloadCertificate(
        _ credentials: TLSServerCredentials, certificatesByName: [String: TLSServerCredentials] = [:]
    ) throws {
        try server.reloadCertificate(credentials, certificatesByName: certificatesByName)
    }

    /// Stops accepting, closes every connection with a code and reason, waits until the closes have left, and closes the
    /// sockets.
    public func shutdownGracefully(code: UInt64 = 0, reason: String = "", timeout: TimeAmount = .seconds(5)) async {
        mailbox.close()
        await server.shutdownGracefully(code: code, reason: reason, timeout: timeout)
    }

    /// For tests: breaks every socket as a fatal send error would.
    package func breakSockets() async { await server.breakSockets() }
}

extension QUICListener {
    /// The connections of a listener.
    public struct Connections: AsyncSequence, Sendable {
        let mailbox: Mailbox<QUICConnection>

        /// Takes one connection after another.
        public struct AsyncIterator: AsyncIteratorProtocol {
            let mailbox: Mailbox<QUICConnection>

            public mutating func next() async throws -> QUICConnection? { try await mailbox.next() }
        }

        public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(mailbox: mailbox) }
    }
}
