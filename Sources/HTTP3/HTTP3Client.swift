internal import HTTPTypes
public import Logging
public import NIOCore
public import QUICEngine
public import QUICTransport

/// How a client speaks HTTP/3.
public struct HTTP3ClientOptions: Sendable {
    /// What is accepted.
    public var limits = HTTP3Limits()
    /// For what ends requests and connections, at debug level; nothing of a request's fields or body is logged.
    public var logger = Logger(label: "longline.http3")

    /// The defaults.
    public init() {}
}

/// Connects to HTTP/3 servers (RFC 9114).
public final class HTTP3Client: Sendable {
    private let client: QUICClient
    private let options: HTTP3ClientOptions
    private let meter = Meter()

    /// A client.
    /// - Parameters:
    ///   - options: limits, logger.
    ///   - sessionCache: where tickets are kept, for resumption and 0-RTT; nil: nowhere.
    ///   - sockets: how the connections' sockets are set up.
    ///   - logger: for the transport.
    public init(
        options: HTTP3ClientOptions = HTTP3ClientOptions(), sessionCache: (any SessionCache)? = nil,
        sockets: QUICSocketOptions = .client, logger: Logger = Logger(label: "longline.quic")
    ) {
        self.options = options
        client = QUICClient(sockets: sockets, sessionCache: sessionCache, logger: logger)
    }

    /// A client that finds hosts as it is told to.
    package init(
        options: HTTP3ClientOptions = HTTP3ClientOptions(), sessionCache: (any SessionCache)? = nil,
        logger: Logger = Logger(label: "longline.quic"), resolver: NameResolver
    ) {
        self.options = options
        client = QUICClient(sessionCache: sessionCache, logger: logger, resolver: resolver)
    }

    /// What HTTP/3 counted so far.
    public var statistics: HTTP3Statistics { meter.statistics }

    /// What the transport counted so far.
    public func counters() async -> QUICTransportCounters { await client.counters() }

    /// Connects, and returns when the handshake is complete.
    /// - Parameters:
    ///   - host: a name or a numeric address; the name that is verified is `configuration.serverName`.
    ///   - port: the server's UDP port.
    ///   - configuration: name, trust, transport. Its protocols are replaced with `h3`.
    ///   - returnsEarly: return as soon as 0-RTT is possible, if a ticket allows it: requests with safe methods and without a body
    ///     then leave in the first flight, others wait for the handshake. An attacker can repeat the former (RFC 8470).
    ///   - eventLoop: the loop that owns the connection.
    /// - Throws: ``HTTP3Error/Code/connectFailed``, or `CancellationError`, after which the attempt is given up.
    public func connect(
        host: String, port: Int, configuration: ClientConfiguration, returnsEarly: Bool = false,
        on eventLoop: any EventLoop
    ) async throws -> HTTP3ClientConnection {
        var configuration = configuration
        configuration.applicationProtocols = [HTTP3Service.applicationProtocol]
        let (final, options, meter, client) = (configuration, options, meter, client)
        let connection = try await eventLoop.submit {
            let handler = ClientSession()
            let connection = client.connect(
                host: host, port: port, configuration: final, on: eventLoop, handler: handler)
            return try Self.attach(handler, to: connection, options: options, meter: meter)
        }.get()
        do {
            try await connection.ready(early: returnsEarly)
        } catch {
            connection.close()
            throw error
        }
        return connection
    }

    private static func attach(
        _ handler: ClientSession, to connection: QUICLoopConnection, options: HTTP3ClientOptions, meter: Meter
    ) throws -> HTTP3ClientConnection {
        guard let session = Session(connection, limits: options.limits, meter: meter, logger: options.logger) else {
            connection.close(code: HTTP3ErrorCode.internalError.rawValue, reason: "no memory")
            throw HTTP3Error(.connectFailed, "no memory for a session", advice: "Use fewer connections.")
        }
        handler.attach(session)
        return HTTP3ClientConnection(handler, session, executor: connection.executor)
    }

    /// Speaks HTTP/3 on a connection that the caller has made, and whose events it hands on.
    package static func speak(
        on connection: QUICLoopConnection, options: HTTP3ClientOptions
    ) throws -> (connection: HTTP3ClientConnection, handler: any QUICConnectionHandler) {
        let handler = ClientSession()
        return (try attach(handler, to: connection, options: options, meter: Meter()), handler)
    }

    /// Connects, runs the body on the connection's event loop, where requests change no thread, lets what is under way finish, and
    /// closes. With `returnsEarly`, requests that may be early and that the body makes before it waits for anything else leave with the
    /// first packets, whatever else the process is busy with. See ``/QUICTransport/QUICLoopExecutor`` for what the body must not do there.
    /// - Throws: what ``connect(host:port:configuration:returnsEarly:on:)`` and the body throw; the connection is closed at once
    ///   where the body threw.
    public func withConnection<Result: Sendable>(
        host: String, port: Int, configuration: ClientConfiguration, returnsEarly: Bool = false,
        on eventLoop: any EventLoop, _ body: (HTTP3ClientConnection) async throws -> Result
    ) async throws -> Result {
        try await withTaskExecutorPreference(client.executor(on: eventLoop)) {
            let connection = try await connect(
                host: host, port: port, configuration: configuration, returnsEarly: returnsEarly, on: eventLoop)
            do {
                let result = try await body(connection)
                await connection.shutdownGracefully()
                return result
            } catch {
                connection.close()
                throw error
            }
        }
    }

    /// Closes every connection with H3_NO_ERROR, waits until the closes have left, and closes the sockets. Idempotent.
    /// - Parameter timeout: sockets are closed so long after that in any case.
    public func shutdownGracefully(timeout: TimeAmount = .seconds(5)) async {
        await client.shutdownGracefully(
            code: HTTP3ErrorCode.noError.rawValue, reason: "the client stops", timeout: timeout)
    }
}
