public import NIOCore
public import NIOPosix
public import QUICEngine
internal import Synchronization

/// Accepts QUIC connections for tasks, until ``shutdownGracefully(code:reason:grace:timeout:)``, which has to be called:
/// letting go of a listener closes neither its sockets nor its connections.
public final class QUICListener: Sendable {
    private let server: QUICServer
    private let mailbox: Mailbox<QUICConnection>
    private let farewell: Farewell

    private init(server: QUICServer, mailbox: Mailbox<QUICConnection>, farewell: Farewell) {
        self.server = server
        self.mailbox = mailbox
        self.farewell = farewell
    }

    /// What connections hear that nobody can take any more.
    private final class Farewell: Sendable {
        private let state: Mutex<(code: UInt64, reason: String)>

        init(code: UInt64, reason: String) { state = Mutex((code, reason)) }

        var current: (code: UInt64, reason: String) { state.withLock { $0 } }
        func set(code: UInt64, reason: String) { state.withLock { $0 = (code, reason) } }
    }

    /// Binds and accepts.
    /// - Parameters:
    ///   - addresses: a wildcard stands for every local address of its family (those that exist now). Port 0 lets the
    ///     system choose one port, the same for all addresses.
    ///   - configuration: certificate, limits, sockets, logger.
    ///   - group: its loops share the connections, each with an engine and a socket for each address. To be shut down after the
    ///     listener.
    ///   - backlog: connections that nobody took yet, at most; at least 1. More are closed with `refusalCode`.
    ///   - refusalCode: the application code for those, and for connections whose handshakes were under way when
    ///     ``stopAccepting()`` was called.
    ///   - yieldsEarly: give connections out before their handshake completed, so that 0-RTT data can be read. An
    ///     attacker may have repeated it.
    /// - Throws: what ``QUICServer/bind(addresses:configuration:group:handlerFactory:)`` throws.
    public static func bind(
        addresses: [SocketAddress], configuration: QUICServerConfiguration, group: MultiThreadedEventLoopGroup,
        backlog: Int = 1024, refusalCode: UInt64 = 0, yieldsEarly: Bool = false
    ) async throws -> QUICListener {
        let mailbox = Mailbox<QUICConnection>(limit: max(backlog, 1), policy: .refuse)
        let farewell = Farewell(code: refusalCode, reason: "no more connections are taken")
        let transport = configuration.endpoint.server?.transport ?? TransportSettings()
        let server = try await QUICServer.bind(addresses: addresses, configuration: configuration, group: group) {
            connection in
            let state = AsyncConnectionState(readiness: yieldsEarly ? .earlyData : .handshake, settings: transport)
            state.attach(connection)
            state.onReady = { [unowned state] in
                let handle = QUICConnection(state: state, of: connection)
                switch mailbox.put(handle) {
                case .taken, .tookOldestsPlace: break
                case .refused: handle.close(code: refusalCode, reason: "the backlog is full")
                case .ended:
                    let (code, reason) = farewell.current
                    handle.close(code: code, reason: reason)
                }
            }
            return state
        }
        return QUICListener(server: server, mailbox: mailbox, farewell: farewell)
    }

    /// What it is bound to; wildcards are expanded and ports filled in.
    public var localAddresses: [SocketAddress] { server.localAddresses }

    /// The connections, as they are ready; ends with the listener. Each goes to one task only.
    public var connections: Connections { Connections(mailbox: mailbox) }

    /// What was counted so far, over all loops.
    public func counters() async -> QUICTransportCounters { await server.counters() }

    /// Serves new connections with other certificates, in place of all there were; those that live keep theirs.
    /// - Parameters:
    ///   - credentials: for clients that ask for no name, or for one without a certificate of its own.
    ///   - certificatesByName: certificates by the names clients ask for, as in `TLSServerContext`.
    /// - Throws: `QUICError` with `invalidCertificate`; the old certificates stay then.
    public func reloadCertificate(
        _ credentials: TLSServerCredentials, certificatesByName: [String: TLSServerCredentials] = [:]
    ) throws {
        try server.reloadCertificate(credentials, certificatesByName: certificatesByName)
    }

    /// Accepts no new connections from now on: they are refused, so that clients try elsewhere. Those that live go on, and
    /// those that nobody took yet can be taken; ``connections`` ends behind them.
    public func stopAccepting() async {
        await server.stopAccepting()
        mailbox.finish()
    }

    /// Stops accepting, lets connections end by themselves for a while, closes the others with a code and reason, waits
    /// until the closes have left, and closes the sockets. Connections that nobody took are closed at once, with the same code.
    /// Idempotent.
    /// - Parameters:
    ///   - code: the application code that clients get, below 2^62.
    ///   - reason: a text for their logs.
    ///   - grace: for how long connections may go on; it is over when the last has ended.
    ///   - timeout: sockets are closed so long after that in any case.
    public func shutdownGracefully(
        code: UInt64 = 0, reason: String = "", grace: TimeAmount = .zero, timeout: TimeAmount = .seconds(5)
    ) async {
        farewell.set(code: code, reason: reason)
        for connection in mailbox.close() { connection.close(code: code, reason: reason) }
        await server.shutdownGracefully(code: code, reason: reason, grace: grace, timeout: timeout)
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

            /// Waits for the next connection.
            /// - Returns: nil once the listener was shut down.
            /// - Throws: `CancellationError`; no connection is lost by it.
            public mutating func next() async throws -> QUICConnection? { try await mailbox.next() }
        }

        /// Another taker: several share the connections, each goes to one of them.
        public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(mailbox: mailbox) }
    }
}
