public import HTTPTypes
internal import QUICTransport

/// A request under way: its body goes out while its response comes in. Letting go of it, and of its response's body, cancels what
/// isn't over.
public final class HTTP3ClientExchange: Sendable {
    private let exchange: OnLoop<Exchange>
    private let connection: HTTP3ClientConnection

    init(_ exchange: OnLoop<Exchange>, connection: HTTP3ClientConnection) {
        self.exchange = exchange
        self.connection = connection
    }

    deinit { exchange.perform { $0.cancel() } }

    /// Sends the request's body. It must be finished, or the exchange cancelled.
    public var writer: HTTP3BodyWriter { HTTP3BodyWriter(exchange: exchange) }

    /// Waits for the final response's header section; once. A cancelled call cancels the exchange.
    /// - Throws: as ``HTTP3ClientConnection/request(_:body:trailers:priority:onInformational:)``.
    public func response() async throws -> HTTP3ClientResponse {
        let response: HTTPResponse = try await exchange.wait(
            cancelled: { $0.cancel() }, { $0.awaitResponse($1) })
        return HTTP3ClientResponse(head: response, body: HTTP3Body(exchange: exchange, owner: self), exchange: self)
    }

    /// Tells the server of another priority (PRIORITY_UPDATE, RFC 9218 section 7).
    public func setPriority(_ priority: HTTP3Priority) { connection.prioritize(exchange, priority) }

    /// Gives the exchange up: the server sees H3_REQUEST_CANCELLED.
    public func cancel() { exchange.perform { $0.cancel() } }

    /// Gives up what isn't sent yet of the request; the response may come all the same.
    func giveUpSending() { exchange.perform { $0.giveUpSending() } }

    /// Whether the request's body can't be sent any more: the server refused it, or the connection is over.
    var hasFailedSending: Bool {
        get async { (try? await exchange.call { $0.hasFailedSending }) ?? true }
    }

    /// Whether the request left before the handshake was complete.
    var wasEarly: Bool {
        get async { (try? await exchange.call { $0.isEarly }) ?? false }
    }
}

/// A response: its header section, and its body as it comes in.
public struct HTTP3ClientResponse: Sendable {
    /// Status and header fields.
    public let head: HTTPResponse
    /// The body. Letting go of it before its end cancels the exchange.
    public let body: HTTP3Body
    private let exchange: HTTP3ClientExchange

    init(head: HTTPResponse, body: HTTP3Body, exchange: HTTP3ClientExchange) {
        self.head = head
        self.body = body
        self.exchange = exchange
    }

    /// The status.
    public var status: HTTPResponse.Status { head.status }

    /// Tells the server of another priority for the rest of the response (PRIORITY_UPDATE, RFC 9218 section 7).
    public func setPriority(_ priority: HTTP3Priority) { exchange.setPriority(priority) }

    /// Gives the response up: the server sees H3_REQUEST_CANCELLED.
    public func cancel() { exchange.cancel() }
}
