public import Logging
public import Metrics
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
    private let renewals: TicketRenewals?
    private let metrics: (any MetricsFactory)?
    private let resolver: NameResolver
    private let attemptDelay: TimeAmount
    private let refusalTime: TimeAmount
    private let state = Mutex(State())
    private let users = LoopUsers()

    private struct State {
        var loops: [ObjectIdentifier: LoopHandle] = [:]
        var isShutDown = false
        var silences: [SessionCacheKey: Silence] = [:]
    }

    /// What is known of a server that does not answer.
    private struct Silence {
        /// How many attempts in a row it did not answer that began with a ticket of the cache.
        var attempts = 0
        /// One is under way that does without.
        var isTested = false
    }

    /// Of so many servers it is known; all are forgotten beyond that.
    private static let rememberedSilences = 64
    /// So many of them let the next attempt do without.
    private static let silencesBeforeFull = 2

    /// A client. It binds no socket yet.
    /// - Parameters:
    ///   - sockets: how the connections' sockets are set up.
    ///   - sessionCache: where tickets and address tokens are kept; a configuration's own ticket goes first. nil: the
    ///     application keeps what the events bring.
    ///   - ticketRenewal: how long before a ticket expires a full handshake is made in the background for a new one,
    ///     beside a connection to its server, which gets it as an event of its own: resuming never extends a ticket's
    ///     life. nil: never.
    ///   - logger: for what an operator should know; single connections are logged at debug level.
    ///   - metrics: where counters go, see docs/quic.md; nil: to what `MetricsSystem` was bootstrapped with.
    public convenience init(
        sockets: QUICSocketOptions = .client, sessionCache: (any SessionCache)? = nil,
        ticketRenewal: TimeAmount? = .hours(24), logger: Logger = Logger(label: "longline.quic"),
        metrics: (any MetricsFactory)? = nil
    ) {
        self.init(
            sockets: sockets, sessionCache: sessionCache, ticketRenewal: ticketRenewal, logger: logger,
            metrics: metrics, resolver: .shared)
    }

    /// A client that finds hosts as it is told to.
    /// - Parameters:
    ///   - attemptDelay: how long an address of a host has to answer before the next one is tried, too; RFC 8305 section 5
    ///     recommends a quarter of a second.
    ///   - refusalTime: how long the network may refuse packets of 1,200 bytes on a connection's path before that ends.
    package init(
        sockets: QUICSocketOptions = .client, sessionCache: (any SessionCache)? = nil,
        ticketRenewal: TimeAmount? = .hours(24), logger: Logger = Logger(label: "longline.quic"),
        metrics: (any MetricsFactory)? = nil, resolver: NameResolver, attemptDelay: TimeAmount = .milliseconds(250),
        refusalTime: TimeAmount = .seconds(10)
    ) {
        self.resolver = resolver
        self.attemptDelay = attemptDelay
        self.refusalTime = refusalTime
        self.metrics = metrics
        renewals = ticketRenewal.map { TicketRenewals(margin: $0) }
        self.sockets = sockets
        self.sessionCache = sessionCache
        self.logger = logger
    }

    /// Starts a connection. Called on the loop that shall own it; never blocks.
    ///
    /// The connection exists at once and may be closed at once. `earlyDataPossible` comes with the first flight where
    /// a ticket allows 0-RTT; whatever fails comes as `closed`, and so does, at once, that the client was shut down.
    /// - Parameters:
    ///   - host: a name or a numeric address; need not be the name that is verified.
    ///   - port: the server's UDP port.
    ///   - configuration: name, protocols, trust, settings.
    ///   - localAddress: where to send from; nil lets the routing table choose, and a wildcard lets it choose a host of its family.
    ///   - eventLoop: the present loop.
    ///   - handler: gets the connection's events; kept until `closed`.
    public func connect(
        host: String, port: Int, configuration: ClientConfiguration, localAddress: SocketAddress? = nil,
        on eventLoop: any EventLoop, handler: any QUICConnectionHandler
    ) -> QUICLoopConnection {
        eventLoop.preconditionInEventLoop()
        var configuration = configuration
        let key = SessionCacheKey(
            serverName: configuration.serverName, port: port,
            applicationProtocol: configuration.applicationProtocols.first ?? "")
        let server = Server(
            host: host, port: port, configuration: configuration, localAddress: localAddress, key: key)
        let connection = QUICLoopConnection(connecting: driver(on: eventLoop))
        guard !isShutDown else {
            connection.handler = handler
            connection.end(.handshakeFailed(Self.wasShutDown))
            return connection
        }
        var withheld: SessionTicket?
        if configuration.sessionTicket == nil, let known = sessionCache?.session(for: key)?.ticket {
            if doesWithoutTicket(key) { withheld = known } else { configuration.sessionTicket = known }
        }
        if configuration.addressToken == nil { configuration.addressToken = sessionCache?.takeAddressToken(for: key) }
        start(connection, server, configuration, withheld: withheld, handler: handler, isRenewal: false)
        return connection
    }

    /// Whether ``shutdownGracefully(code:reason:timeout:)`` was called: nothing can be connected then.
    var isShutDown: Bool { state.withLock(\.isShutDown) }

    private static var wasShutDown: QUICError {
        QUICError(.closed, "the client was shut down", advice: "Make another client.")
    }

    /// Where a connection goes, for another to the same server.
    private struct Server {
        var host: String
        var port: Int
        var configuration: ClientConfiguration
        var localAddress: SocketAddress?
        var key: SessionCacheKey
    }

    /// - Parameter withheld: the ticket that this attempt does without, as those before it were not answered.
    private func start(
        _ connection: QUICLoopConnection, _ server: Server, _ configuration: ClientConfiguration,
        withheld: SessionTicket? = nil, handler: any QUICConnectionHandler, isRenewal: Bool
    ) {
        connection.handler = handler
        connection.client = ClientPaths(
            connection: connection, configuration: configuration, resolver: resolver, attemptDelay: attemptDelay,
            refusalTime: refusalTime
        ) { [weak connection] event in
            switch event {
            case .sessionTicket(let ticket):
                // A renewal's comes by the connection that it was made for.
                guard !isRenewal else { return }
                self.sessionCache?.store(ticket: ticket, for: server.key)
                if let connection { self.plan(ticket, for: server, beside: connection) }
            case .handshakeCompleted(let info):
                self.state.withLock { $0.silences[server.key] = nil }
                // The server is there, so it was the ticket.
                if let withheld { self.forget(withheld, for: server.key) }
                // Not every server sends another ticket to who came with one.
                if info.resumed, !isRenewal, let ticket = configuration.sessionTicket, let connection {
                    self.plan(ticket, for: server, beside: connection)
                }
            case .addressToken(let token): self.sessionCache?.store(addressToken: token, for: server.key)
            case .closed(let reason):
                if withheld != nil, connection?.handshake == nil {
                    // One that an engine never had, as its host was not found, was not sent.
                    let wasSent = connection?.engine != nil && !reason.precedesFirstPacket
                    self.ended(withoutTicketTo: server.key, wasSent: wasSent)
                } else if let ticket = configuration.sessionTicket {
                    if reason.isOfTLS { self.forget(ticket, for: server.key) }
                    if case .handshakeTimeout = reason { self.wentUnanswered(ticket, for: server.key) }
                }
            default: break
            }
        }
        connection.driver.add(connection)
        connection.client?.start(host: server.host, port: server.port, from: server.localAddress)
    }

    /// A ticket that may be what ended its connection would end every one that comes back with it; without it the next makes
    /// a full handshake. What another connection has stored since stays.
    private func forget(_ ticket: SessionTicket, for key: SessionCacheKey) {
        guard let sessionCache, let known = sessionCache.session(for: key), known.ticket == ticket else { return }
        sessionCache.remove(key)
        if let token = known.addressToken { sessionCache.store(addressToken: token, for: key) }
    }

    /// Nothing came in time. That is the network's way, and a ticket isn't to blame for it; without one the next connect would not be
    /// one flight. But a server, or something before it, may drop what begins with a ticket without a word: after two such attempts
    /// in a row one does without.
    private func wentUnanswered(_ ticket: SessionTicket, for key: SessionCacheKey) {
        guard sessionCache?.session(for: key)?.ticket == ticket else { return }
        state.withLock { state in
            if state.silences[key] == nil, state.silences.count >= Self.rememberedSilences {
                state.silences.removeAll()
            }
            state.silences[key, default: Silence()].attempts += 1
        }
    }

    /// Whether an attempt is to be made without the ticket that is known. The next ones have it again, unless this one is answered.
    private func doesWithoutTicket(_ key: SessionCacheKey) -> Bool {
        state.withLock { state in
            guard let known = state.silences[key], known.attempts >= Self.silencesBeforeFull, !known.isTested else {
                return false
            }
            state.silences[key]?.isTested = true
            return true
        }
    }

    /// An attempt without the known ticket ended before its handshake did.
    /// - Parameter wasSent: false: it says nothing, and the next one takes its place.
    private func ended(withoutTicketTo key: SessionCacheKey, wasSent: Bool) {
        state.withLock { state in
            guard state.silences[key]?.isTested == true else { return }
            if wasSent { state.silences[key] = nil } else { state.silences[key]?.isTested = false }
        }
    }

    /// Sees to it that a ticket is renewed in time, as long as a connection to its server lives.
    private func plan(_ ticket: SessionTicket, for server: Server, beside connection: QUICLoopConnection) {
        guard let renewals, let delay = renewals.delay(until: ticket.expiresAt) else { return }
        // The ticket of a full handshake is as new as can be.
        guard delay > .zero || connection.handshake?.resumed == true else { return }
        connection.renewal?.cancel()
        connection.renewal = connection.eventLoop.assumeIsolated().scheduleTask(in: delay) { [weak connection] in
            guard let connection, connection.closeReason == nil,
                // Another connection may have brought a later one.
                self.sessionCache?.session(for: server.key)?.ticket?.expiresAt ?? 0 <= ticket.expiresAt,
                renewals.claim(server.key)
            else { return }
            self.renew(server, beside: connection)
        }
    }

    /// One full handshake, for its ticket.
    private func renew(_ server: Server, beside connection: QUICLoopConnection) {
        connection.debug("a session ticket is renewed", ["server": "\(server.key.serverName)"])
        var configuration = server.configuration
        configuration.sessionTicket = nil
        configuration.earlyData = false
        configuration.addressToken = sessionCache?.takeAddressToken(for: server.key)
        let handler = TicketRenewalHandler { [weak connection] ticket in
            guard let connection, connection.closeReason == nil else { return }
            connection.dispatch(.sessionTicket(ticket))
            connection.driver.touch(connection)
        }
        start(
            QUICLoopConnection(connecting: connection.driver), server, configuration, handler: handler,
            isRenewal: true)
    }

    /// What was counted so far, over all loops; once all is shut down, what was counted until then.
    public func counters() async -> QUICTransportCounters { await users.counters(of: loops) }

    /// Closes every connection with a code and reason, waits until the closes have left, and closes the sockets. Idempotent;
    /// calls that come together return together. Who connects later gets ``QUICTransportError/Code/shutDown``.
    /// - Parameters:
    ///   - code: the application code that servers get, below 2^62.
    ///   - reason: a text for their logs.
    ///   - timeout: sockets are closed so long after that in any case.
    public func shutdownGracefully(code: UInt64 = 0, reason: String = "", timeout: TimeAmount = .seconds(5)) async {
        guard users.begin() else { return }
        let all = state.withLock { state in
            state.isShutDown = true
            return Array(state.loops.values)
        }
        await withTaskGroup(of: Void.self) { group in
            for loop in all { group.addTask { await loop.drain(code: code, reason: reason, timeout: timeout) } }
        }
        for loop in all { await loop.closePorts() }
        await users.endShutdown(of: loops)
    }

    /// For tests: breaks every socket as a fatal send error would.
    package func breakSockets() async {
        for loop in loops { await loop.breakSockets() }
    }

    private var loops: [LoopHandle] { state.withLock { Array($0.loops.values) } }

    /// Where tasks run that are to connect on a loop: what they send as soon as 0-RTT is possible leaves with the first flight.
    package func executor(on eventLoop: any EventLoop) async throws -> QUICLoopExecutor {
        try await eventLoop.submit { self.driver(on: eventLoop).executor }.get()
    }

    private func driver(on eventLoop: any EventLoop) -> LoopDriver {
        let known = state.withLock { $0.loops[ObjectIdentifier(eventLoop)] }
        if let known { return known.value }
        let made: LoopDriver
        do {
            made = try LoopDriver(
                eventLoop: eventLoop, configuration: EndpointConfiguration(), socketOptions: sockets, logger: logger,
                metrics: metrics, accept: nil)
        } catch {
            // The engine checks configurations only, and this one is its own default.
            preconditionFailure("the engine refused its default configuration: \(error)")
        }
        state.withLock { $0.loops[ObjectIdentifier(eventLoop)] = LoopHandle(driver: made) }
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

extension QUICCloseReason {
    /// Whether it was TLS that failed, here or at the peer, who may find a client's certificate wanting only after the
    /// client's handshake is complete.
    fileprivate var isOfTLS: Bool {
        switch self {
        case .handshakeFailed: !precedesFirstPacket
        case .peerTransport(let code, _), .localTransport(let code, _): (0x100...0x1ff).contains(code)
        default: false
        }
    }

    /// Whether nothing was sent.
    fileprivate var precedesFirstPacket: Bool {
        if case .handshakeFailed(let error) = self { error.code.precedesFirstPacket } else { false }
    }
}
