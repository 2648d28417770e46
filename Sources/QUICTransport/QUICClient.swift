public import Logging
public import NIOCore
internal import NIOPosix
public import QUICEngine
internal import Synchronization

/// QUIC connections to servers: the loop-level API.
///
/// Each connection has a socket of its own, so that it can move alone. The connections of one loop share an engine.
public final class QUICClient: Sendable {
    private let sockets: QUICSocketOptions
    private let logger: Logger
    private let sessionCache: (any SessionCache)?
    private let loops = Mutex<[ObjectIdentifier: LoopHandle]>([:])

    /// A client.
    /// - Parameters:
    ///   - sessionCache: where tickets and address tokens are kept; a configuration's own ticket goes first. nil: the
    ///     application keeps what the events bring.
    public init(
        sockets: QUICSocketOptions = .client, sessionCache: (any SessionCache)? = nil,
        logger: Logger = Logger(label: "longline.quic")
    ) {
        self.sockets = sockets
        self.sessionCache = sessionCache
        self.logger = logger
    }

    /// Starts a connection. Called on the loop that shall own it; never blocks.
    ///
    /// The connection exists at once and may be closed at once. `earlyDataPossible` comes with the first flight where
    /// a ticket allows 0-RTT; whatever fails comes as `closed`.
    /// - Parameters:
    ///   - host: a name or a numeric address; need not be the name that is verified.
    ///   - localAddress: where to send from; nil lets the routing table choose.
    public func connect(
        host: String, port: Int, configuration: ClientConfiguration, localAddress: SocketAddress? = nil,
        on eventLoop: any EventLoop, handler: any QUICConnectionHandler
    ) -> QUICLoopConnection {
        eventLoop.preconditionInEventLoop()
        var configuration = configuration
        let key = SessionCacheKey(
            serverName: configuration.serverName, port: port,
            applicationProtocol: configuration.applicationProtocols.first ?? "")
        if let sessionCache, configuration.sessionTicket == nil, let known = sessionCache.session(for: key) {
            configuration.sessionTicket = known.ticket
            if configuration.addressToken == nil { configuration.addressToken = known.addressToken }
        }
        let connection = QUICLoopConnection(connecting: driver(on: eventLoop))
        connection.handler = handler
        let cache = sessionCache
        connection.client = ClientPaths(connection: connection, configuration: configuration) { event in
            switch event {
            case .sessionTicket(let ticket): cache?.store(ticket: ticket, for: key)
            case .addressToken(let token): cache?.store(addressToken: token, for: key)
            default: break
            }
        }
        connection.driver.add(connection)
        connection.client?.start(host: host, port: port, from: localAddress)
        return connection
    }

    /// What was counted so far, over all loops.
    public func counters() async -> QUICTransportCounters {
        var total = QUICTransportCounters()
        for loop in loops.withLock({ Array($0.values) }) { total.add(await loop.counters()) }
        return total
    }

    /// Closes every connection with a code and reason, waits until the closes have left, and closes the sockets.
    public func shutdownGracefully(code: UInt64 = 0, reason: String = "", timeout: TimeAmount = .seconds(5)) async {
        let all = loops.withLock { Array($0.values) }
        await withTaskGroup(of: Void.self) { group in
            for loop in all { group.addTask { await loop.drain(code: code, reason: reason, timeout: timeout) } }
        }
        for loop in all { await loop.closePorts() }
    }

    /// For tests: breaks every socket as a fatal send error would.
    package func breakSockets() async {
        for loop in loops.withLock({ Array($0.values) }) { await loop.breakSockets() }
    }

    private func driver(on eventLoop: any EventLoop) -> LoopDriver {
        let known = loops.withLock { $0[ObjectIdentifier(eventLoop)] }
        if let known { return known.value }
        let made: LoopDriver
        do {
            made = try LoopDriver(
                eventLoop: eventLoop, configuration: EndpointConfiguration(), socketOptions: sockets, logger: logger,
                accept: nil)
        } catch {
            // The engine checks configurations only, and this one is its own default.
            preconditionFailure("the engine refused its default configuration: \(error)")
        }
        loops.withLock { $0[ObjectIdentifier(eventLoop)] = LoopHandle(driver: made) }
        return made
    }
}

extension QUICSocketOptions {
    /// For clients: as a server's, but with room for fewer messages at a time.
    public static var client: QUICSocketOptions {
        var options = QUICSocketOptions()
        options.messagesPerRead = 4
        return options
    }
}
