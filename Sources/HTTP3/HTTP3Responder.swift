public import HTTPTypes
public import NIOCore
public import QUICEngine
internal import QUICTransport

/// Answers one request. Its values can be handed to any task; one response is sent.
public struct HTTP3Responder: Sendable {
    let exchange: OnLoop<Exchange>
    /// Whether the request came in 0-RTT packets, so that an attacker may have sent it again (RFC 8470).
    public let isEarly: Bool
    /// The number of the request's stream.
    public let streamID: QUICStreamID
    let remote: QUICSocketAddress?

    /// The client's address when the request came; nil: the connection had ended.
    public var remoteAddress: SocketAddress? { remote.map { SocketAddress($0) } }

    /// Sends a whole response.
    /// - Parameters:
    ///   - response: its final status and header fields. A body is left out where method or status forbid it; the content length
    ///     is sent as it is given, but with 204, which has none.
    ///   - body: all of the body.
    ///   - trailers: a trailer section.
    /// - Throws: ``HTTP3Error``: `invalidMessage`, `fieldSectionTooLarge`, `invalidState` after another response, `cancelled`,
    ///   `connectionClosed`; `CancellationError`, and then the exchange is cancelled.
    public nonisolated(nonsending) func respond(
        _ response: HTTPResponse, body: ByteBuffer? = nil, trailers: HTTPFields? = nil
    ) async throws {
        try Self.checkFinal(response)
        try await HTTP3BodyWriter(exchange: exchange).send {
            try $0.send(response, body: body, trailers: trailers, finish: true)
        }
    }

    /// Sends a response's header section; the body follows through the writer, which must finish it.
    /// - Throws: what ``respond(_:body:trailers:)`` throws.
    public nonisolated(nonsending) func start(_ response: HTTPResponse) async throws -> HTTP3BodyWriter {
        try Self.checkFinal(response)
        let writer = HTTP3BodyWriter(exchange: exchange)
        try await writer.send { try $0.send(response, body: nil, trailers: nil, finish: false) }
        return writer
    }

    /// Sends an interim response (RFC 9110 section 15.2), such as 103 with links; the response itself follows.
    /// - Throws: ``HTTP3Error``: `invalidMessage` for another status than 1xx, or for 101; else as ``respond(_:body:trailers:)``.
    public func sendInformational(_ response: HTTPResponse) async throws {
        guard response.status.kind == .informational else {
            throw HTTP3Error(
                .invalidMessage, "\(response.status.code) is no interim status", advice: "Use respond or start.")
        }
        try await HTTP3BodyWriter(exchange: exchange).send {
            try $0.send(response, body: nil, trailers: nil, finish: false)
        }
    }

    /// Decides when the response is sent, whatever the client asked for or will ask for (RFC 9218 section 8).
    public func setPriority(_ priority: HTTP3Priority) {
        exchange.perform {
            $0.isPriorityDecided = true
            $0.setPriority(priority)
        }
    }

    /// The priority that the client asked for last, or that was set here.
    public func priority() async -> HTTP3Priority {
        (try? await exchange.call { $0.priority }) ?? .standard
    }

    /// Gives the exchange up: the client sees the stream end with a code.
    public func cancel(code: HTTP3ErrorCode = .requestCancelled) {
        exchange.perform { $0.abandon(code, .cancelled) }
    }

    private static func checkFinal(_ response: HTTPResponse) throws {
        guard response.status.kind != .informational else {
            throw HTTP3Error(
                .invalidMessage, "\(response.status.code) is an interim status", advice: "Use sendInformational.")
        }
    }
}
