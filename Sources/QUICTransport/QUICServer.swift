internal import Dispatch
internal import Glibc
public import Logging
public import Metrics
public import NIOCore
public import NIOPosix
public import QUICEngine

/// How a server's endpoint behaves.
public struct QUICServerConfiguration: Sendable {
    /// Certificate, transport settings and limits. The worker number is the server's own business.
    public var endpoint: EndpointConfiguration
    /// The sockets.
    public var sockets = QUICSocketOptions()
    /// For what an operator should know; single connections are logged at debug level.
    public var logger = Logger(label: "longline.quic")
    /// Whether `preferredAddresses` may name what no socket here is bound to, because something outside this machine (a NAT, a
    /// load balancer) passes on what is sent there and translates the answers. It is logged as a warning then; unless
    /// this is set, binding fails.
    public var preferredAddressesAreTranslated = false
    /// Where counters go, see docs/quic.md; nil: to what `MetricsSystem` was bootstrapped with.
    public var metrics: (any MetricsFactory)?
    /// How old the newest master of the server's `TicketKeyRing` may be: then another one is drawn, and tickets of the older ones
    /// still open until the last of them has expired. 24 hours, at least a second; nil: the application rotates.
    public var ticketRotation: TimeAmount? = .hours(24)
    /// Called after each rotation, on one of the server's loops: where the ring lies in a file, save it, without blocking.
    public var onTicketRotation: (@Sendable (TicketKeyRing) -> Void)?

    /// Serves with this certificate, these protocols, and the defaults.
    public init(server: ServerConfiguration) {
        endpoint = EndpointConfiguration()
        endpoint.server = server
    }
}

/// A QUIC server on every loop of a group: the loop-level API. It serves until
/// ``shutdownGracefully(code:reason:grace:timeout:)``, also if nobody refers to it any more.
///
/// Each loop has an engine of its own, and a socket for each local address; the kernel spreads clients over the loops.
/// A connection stays on its loop, whatever its client's address: the kernel steers by the connection ID, and where it
/// can't, the loop that it chose hands the datagrams over.
public final class QUICServer: Sendable {
    /// What it is bound to; wildcards are expanded and ports filled in.
    public let localAddresses: [SocketAddress]
    private let loops: [LoopHandle]
    private let tls: TLSServerContext
    private let logger: Logger
    private let rotation: TicketRotation?
    private let users = LoopUsers()

    private init(
        localAddresses: [SocketAddress], loops: [LoopHandle], tls: TLSServerContext, logger: Logger,
        rotation: TicketRotation?
    ) {
        self.localAddresses = localAddresses
        self.loops = loops
        self.tls = tls
        self.logger = logger
        self.rotation = rotation
    }

    /// Binds to every address on every loop of the group.
    /// - Parameters:
    ///   - addresses: a wildcard stands for every local address of its family (those that exist now). Port 0 lets the
    ///     system choose one port, the same for all addresses.
    ///   - configuration: certificate, limits, sockets, logger.
    ///   - group: its loops share the connections. To be shut down after the server.
    ///   - handlerFactory: called on a connection's loop when its first valid packet came, before any event.
    /// - Throws: ``QUICTransportError`` with ``QUICTransportError/Code/bindFailed`` or
    ///   ``QUICTransportError/Code/preferredAddressNotBound``, or `QUICError` with `invalidConfiguration`. Nothing is bound then.
    public static func bind(
        addresses: [SocketAddress], configuration: QUICServerConfiguration, group: MultiThreadedEventLoopGroup,
        handlerFactory: @escaping @Sendable (QUICLoopConnection) -> any QUICConnectionHandler
    ) async throws -> QUICServer {
        guard let server = configuration.endpoint.server else {
            throw QUICError(
                .invalidConfiguration, "the endpoint has no server configuration", advice: "Set `endpoint.server`.")
        }
        var endpoint = configuration.endpoint
        if endpoint.staticKey == nil {
            // All loops must agree on it: any of them may have to recognize another's tokens.
            var random = SystemRandomNumberGenerator()
            endpoint.staticKey = (0..<32).map { _ in UInt8.random(in: 0...255, using: &random) }
        }
        var loops: [LoopHandle] = []
        for (worker, eventLoop) in group.makeIterator().prefix(256).enumerated() {
            endpoint.workerID = UInt8(worker)
            loops.append(
                try await LoopHandle.make(
                    on: eventLoop, configuration: endpoint, sockets: configuration.sockets,
                    logger: configuration.logger, metrics: configuration.metrics, accept: handlerFactory))
        }
        let wanted = try addresses.flatMap { address in
            try LocalAddresses.expand(address).map { ($0, address.isWildcard) }
        }
        do {
            let bound = try await bind(
                wanted, on: loops, workerOffset: endpoint.workerIDOffset, logger: configuration.logger)
            try check(
                server.preferredAddresses, areAmong: bound,
                mayBeTranslated: configuration.preferredAddressesAreTranslated,
                logger: configuration.logger)
            await LoopHandle.connect(loops, workerOffset: endpoint.workerIDOffset)
            configuration.logger.info(
                "QUIC server listens",
                metadata: [
                    "addresses": "\(bound.map { "\($0)" }.joined(separator: ", "))", "loops": "\(loops.count)",
                ])
            return QUICServer(
                localAddresses: bound, loops: loops, tls: server.tls, logger: configuration.logger,
                rotation: TicketRotation.begin(server.tls.ticketKeys, configuration, on: group.next()))
        } catch {
            for loop in loops { await loop.closePorts() }
            throw error
        }
    }

    /// A client that is sent where nobody listens tries for some seconds and stays where it was: nothing fails, and nobody
    /// would notice.
    private static func check(
        _ preferred: [QUICSocketAddress], areAmong bound: [SocketAddress], mayBeTranslated: Bool, logger: Logger
    ) throws {
        let own = bound.compactMap { QUICSocketAddress($0) }
        for address in preferred where !own.contains(address) {
            guard mayBeTranslated else {
                throw QUICTransportError(
                    .preferredAddressNotBound, "the preferred address \(address) is none that the server is bound to",
                    cause: "bound are \(own.map { "\($0)" }.joined(separator: ", "))",
                    advice:
                        "Bind to it, too, or set preferredAddressesAreTranslated if a NAT or load balancer passes on "
                        + "what is sent there.")
            }
            logger.warning(
                "clients are sent to a preferred address that is not bound here",
                metadata: ["address": "\(address)"])
        }
    }

    private typealias Wanted = (address: SocketAddress, fromWildcard: Bool)

    private struct BindFailure: Error {
        var address: SocketAddress
        var cause: any Error
        /// The system chose the port, for another address.
        var portWasChosen: Bool

        var isPortTaken: Bool { portWasChosen && (cause as? IOError)?.errnoCode == EADDRINUSE }
    }

    /// How often the system may choose a port that is another program's on one of the addresses.
    private static let portTries = 8

    private static func bind(
        _ wanted: [Wanted], on loops: [LoopHandle], workerOffset: Int, logger: Logger
    ) async throws -> [SocketAddress] {
        var tries = 0
        while true {
            do throws(BindFailure) {
                let bound = try await bindOnce(wanted, on: loops, workerOffset: workerOffset, logger: logger)
                if !bound.isEmpty { return bound }
            } catch {
                tries += 1
                if error.isPortTaken, tries < portTries { continue }
                throw QUICTransportError(
                    .bindFailed, "\(error.address) could not be bound", cause: SystemError.words(error.cause),
                    advice: "Check that the address exists here and that nothing else uses the port.")
            }
            throw QUICTransportError(
                .bindFailed, "no address could be bound", advice: "Name at least one local address.")
        }
    }

    /// Nothing is bound where this fails.
    private static func bindOnce(
        _ wanted: [Wanted], on loops: [LoopHandle], workerOffset: Int, logger: Logger
    ) async throws(BindFailure) -> [SocketAddress] {
        var bound: [SocketAddress] = []
        var chosenPort: Int?
        for (address, fromWildcard) in wanted {
            var target = address
            if target.port == 0, let chosenPort { target.port = chosenPort }
            // A wildcard names it as well, before or after.
            let isOfWildcard = fromWildcard || wanted.contains { $0.fromWildcard && $0.address == address }
            if isOfWildcard, bound.contains(target) { continue }
            let own: SocketAddress?
            do {
                own = try await bind(
                    target, mayBeGone: fromWildcard, on: loops, workerOffset: workerOffset, logger: logger)
            } catch {
                for address in bound { for loop in loops { await loop.closePort(at: address) } }
                throw BindFailure(
                    address: target, cause: error, portWasChosen: address.port == 0 && chosenPort != nil)
            }
            guard let own else { continue }
            if address.port == 0 { chosenPort = own.port }
            bound.append(own)
        }
        return bound
    }

    /// Binds one address on every loop.
    /// - Returns: nil: it went away while a wildcard was expanded, which is no reason to fail.
    private static func bind(
        _ address: SocketAddress, mayBeGone: Bool, on loops: [LoopHandle], workerOffset: Int, logger: Logger
    ) async throws -> SocketAddress? {
        var target = address
        var taken: [LoopHandle] = []
        do {
            // The first loop finds the port, the others share it.
            let group = loops.count > 1 ? SteeringGroup(workerOffset: workerOffset) : nil
            for (index, loop) in loops.enumerated() {
                target = try await loop.bind(to: target, group: group, first: index == 0)
                taken.append(loop)
            }
            return target
        } catch {
            // Some loops may have it already, and would serve it without the others.
            for loop in taken { await loop.closePort(at: target) }
            let number = (error as? IOError)?.errnoCode
            guard mayBeGone, number != EADDRINUSE, number != EACCES else { throw error }
            logger.warning("an address is left out", metadata: ["address": "\(address)", "error": "\(error)"])
            return nil
        }
    }

    /// What was counted so far, over all loops; once all is shut down, what was counted until then.
    public func counters() async -> QUICTransportCounters { await users.counters(of: loops) }

    /// Serves new connections with other certificates, in place of all there were; those that live keep theirs.
    /// - Parameters:
    ///   - credentials: for clients that ask for no name, or for one without a certificate of its own.
    ///   - certificatesByName: certificates by the names clients ask for, as in `TLSServerContext`.
    /// - Throws: `QUICError` with `invalidCertificate`; the old certificates stay then.
    public func reloadCertificate(
        _ credentials: TLSServerCredentials, certificatesByName: [String: TLSServerCredentials] = [:]
    ) throws {
        try tls.reload(credentials, certificatesByName: certificatesByName)
        logger.info("the certificate was reloaded")
    }

    /// Accepts no new connections from now on; those that live go on.
    public func stopAccepting() async {
        guard users.begin() else { return }
        for loop in loops { await loop.stopAccepting() }
        users.end()
    }

    /// Stops accepting, lets connections end by themselves for a while, closes the others with a code and reason, waits
    /// until the closes have left, and closes the sockets. Idempotent; calls that come together return together. A session layer that
    /// wants to move its clients elsewhere does that first.
    /// - Parameters:
    ///   - code: the application code that clients get, below 2^62.
    ///   - reason: a text for their logs.
    ///   - grace: for how long connections may go on; it is over when the last has ended.
    ///   - timeout: sockets are closed so long after that in any case.
    public func shutdownGracefully(
        code: UInt64 = 0, reason: String = "", grace: TimeAmount = .zero, timeout: TimeAmount = .seconds(5)
    ) async {
        guard users.begin() else { return }
        rotation?.end()
        await stopAccepting()
        await withTaskGroup(of: Void.self) { group in
            for loop in loops { group.addTask { await loop.waitForConnections(grace: grace) } }
        }
        await withTaskGroup(of: Void.self) { group in
            for loop in loops { group.addTask { await loop.drain(code: code, reason: reason, timeout: timeout) } }
        }
        for loop in loops { await loop.closePorts() }
        await users.endShutdown(of: loops)
    }

    /// For tests: breaks every socket as a fatal send error would.
    package func breakSockets() async {
        for loop in loops { await loop.breakSockets() }
    }
}
