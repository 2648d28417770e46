import HTTP3
import HTTPTypes
import HummingbirdCore
import HummingbirdHTTP2
import Logging
import NIOCore
import ServiceLifecycle
import Synchronization

/// One address with HTTP/1.1 and HTTP/2 over TLS. Ends by a graceful shutdown: connections are told, and requests under way
/// are answered, for ``ControlLimits/closeTimeout`` at most. ``ConnectionGuard`` bounds what a connection may hold until then.
final class HTTPSListener: Service {
    let kind: ControlListener
    private let address: SocketAddress
    private let responder: ControlResponder
    private let certificate: ServingCertificate
    private let limits: ControlLimits
    private let logger: Logger
    private let alternative: AlternativeService
    private let group: any EventLoopGroup
    private let bound = Mutex<Result<SocketAddress, ControlError>?>(nil)
    private let waiters: AsyncStream<Void>
    private let ready: AsyncStream<Void>.Continuation

    init(
        _ kind: ControlListener, _ address: SocketAddress, responder: ControlResponder, certificate: ServingCertificate,
        limits: ControlLimits, alternative: AlternativeService, group: any EventLoopGroup, logger: Logger
    ) {
        self.kind = kind
        self.address = address
        self.responder = responder
        self.certificate = certificate
        self.limits = limits
        self.alternative = alternative
        self.group = group
        self.logger = logger
        (waiters, ready) = AsyncStream.makeStream()
    }

    /// Waits until it listens.
    /// - Returns: where, with the port that the system chose.
    /// - Throws: ``ControlError/Code/addressUnavailable``.
    func localAddress() async throws(ControlError) -> SocketAddress {
        for await _ in waiters {}
        guard let bound = bound.withLock({ $0 }) else {
            throw ControlError(.addressUnavailable, message: "the listener ended before it listened")
        }
        return try bound.get()
    }

    func run() async throws {
        defer { ready.finish() }
        do {
            let connections = OpenConnections(limit: limits.connections)
            let server = try server(connections)
            try await withThrowingTaskGroup { group in
                group.addTask { try await server.run() }
                // The server's own end waits for each connection, and some never do their part.
                group.addTask { [limits] in
                    try? await gracefulShutdown()
                    try? await Task.sleep(for: limits.closeTimeout)
                    connections.endAll()
                }
                defer { group.cancelAll() }
                try await group.next()
            }
        } catch {
            let failure =
                (error as? ControlError)
                ?? ControlError(
                    .addressUnavailable, message: "can't serve HTTPS on \(address)", cause: error,
                    advice: "choose a free TCP port, and an address of this host")
            bound.withLock { if $0 == nil { $0 = .failure(failure) } }
            throw failure
        }
    }

    /// Header and trailer fields of a request over HTTP/1.1. The type for those of a message ends the process at twice as many, and a byte
    /// is enough for one.
    private static let mostFields = 32 * 1024

    private func server(_ connections: OpenConnections) throws -> any Service {
        let timeouts = ConnectionGuard.Timeouts(limits)
        let stream = HTTP1Channel.Configuration(
            additionalChannelHandlers: [RequestWatch(timeout: timeouts.idle)],
            idleTimeout: .init(limits.idleTimeout),
            httpDecoderConfiguration: .init(
                maxHeaderFieldSize: limits.headerBytes, maxHeaderListSize: limits.headerBytes,
                // The responder counts them, whatever HTTP they came by: of so many no message is made.
                maxHeaderFieldCount: Self.mostFields)
        )
        let configuration = HTTP2ChannelConfiguration(
            idleTimeout: limits.idleTimeout, gracefulCloseTimeout: limits.closeTimeout, streamConfiguration: stream)
        let builder = HTTPServerBuilder { [certificate, limits] responder in
            let base = try HTTP2UpgradeChannel(
                tlsConfiguration: certificate.configuration(), configuration: configuration, responder: responder)
            return GuardedChannel(
                base: base, connections: connections, timeouts: timeouts, headerBytes: limits.headerBytes)
        }
        let host = address.ipAddress ?? ""
        return try builder.buildServer(
            configuration: ServerConfiguration(
                address: .hostname(host, port: address.port ?? 0),
                availableConnectionsDelegate: MaximumAvailableConnections(limits.connections, logger: logger)),
            eventLoopGroup: group, logger: logger,
            responder: { [responder, kind, alternative] request, writer, channel in
                // A stream of HTTP/2 has the connection as its parent, and ends without it: see RequestWatch.
                let isStream = channel.parent?.parent != nil
                let problem = Self.hostProblem(request, isStream: isStream)
                let (asking, demand) = request.asking(over: channel)
                let response = await responder.respond(
                    to: asking, from: channel.remoteAddress, on: kind, unless: problem)
                var head = response.head
                if kind == .service, let value = alternative.header { head.headerFields[.altSvc] = value }
                // Whether a body that nobody asked for comes is up to the client: what comes next may be that, or another request.
                let isHeldBack = demand?.wasMade == false && Self.announcedBody(request) != 0
                let isLast =
                    !isStream && (problem != nil || isHeldBack || Self.leavesBody(request, response.head.status))
                // Hummingbird ends the connection behind this one, and does not say so.
                let isClientsLast = !isStream && request.headers[.connection] == "close"
                if isLast || isClientsLast { head.headerFields[.connection] = "close" }
                try await writer.write(response: head, body: response.body)
                // What comes of the body is not worth reading: the end of the connection says so.
                if isLast { throw UnreadBody() }
            },
            onServerRunning: { [weak self] channel in self?.listens(channel) })
    }

    private func listens(_ channel: any Channel) {
        if let address = channel.localAddress { bound.withLock { $0 = .success(address) } }
        ready.finish()
    }

    private struct UnreadBody: Error {}

    /// What is wrong with whom a request says that it is for. Over HTTP/1.1 it has one Host (RFC 9112, section 3.2), of which the first is
    /// the authority; a request of HTTP/1.0, which needs none, has an empty one. Over HTTP/2 a Host says what the authority does
    /// (RFC 9113, section 8.3.1).
    private static func hostProblem(_ request: Request, isStream: Bool) -> Problem? {
        let (authority, host) = (request.head.authority, request.headers[.furtherHost])
        if isStream {
            // No URI of https is without a host (RFC 9110, section 4.2.2).
            guard authority != "", host != "" else {
                return Problem(.invalidRequest, "a request's authority is not empty")
            }
            if let authority, let host, host.lowercased() != authority.lowercased() {
                return Problem(.invalidRequest, "a request's Host says what its authority does")
            }
        } else if authority == nil || host != nil {
            return Problem(.invalidRequest, "a request has to have one Host, and no other")
        }
        // A request of HTTP/1.0 may name none.
        guard let target = authority ?? host, !target.isEmpty else { return nil }
        guard TargetSyntax.isAuthority(target) else {
            return Problem(.invalidRequest, "a Host is the name of a host, and nothing else but a port")
        }
        return nil
    }

    /// Bytes of body that a request over HTTP/1.1 announces; nil: as many as come, or no number.
    private static func announcedBody(_ request: Request) -> Int? {
        guard let length = request.headers[.contentLength] else {
            return request.headers[.transferEncoding] == nil ? 0 : nil
        }
        return Int(length)
    }

    /// Whether a refused request has a body that may be large, or has no end, or that was waited for long enough.
    private static func leavesBody(_ request: Request, _ status: HTTPResponse.Status) -> Bool {
        guard status.code >= 400 else { return false }
        guard status != .requestTimeout else { return true }
        return announcedBody(request).map { $0 > RequestReader.standardBody } ?? true
    }
}

/// Where the same routes answer over HTTP/3, as `Alt-Svc` says it.
final class AlternativeService: Sendable {
    // Not the function itself in the lock: each access would wrap it once more, into one that calls the last.
    private enum Source {
        case asked(@Sendable () -> Int?)
        case known(Int?)
    }

    private let source: Mutex<Source>

    /// - Parameter port: asked each time; it is known once the server listens.
    init(_ port: @escaping @Sendable () -> Int?) { source = Mutex(.asked(port)) }

    func set(_ port: Int?) { source.withLock { $0 = .known(port) } }

    /// The header's value; nil: nowhere.
    var header: String? {
        let port: Int? =
            switch source.withLock({ $0 }) {
            case .asked(let ask): ask()
            case .known(let port): port
            }
        return port.map { "h3=\":\($0)\"; ma=86400" }
    }
}
