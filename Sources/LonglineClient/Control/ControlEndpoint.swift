import LonglineHTTP

/// A control service whose address was taken apart.
struct ControlEndpoint: Hashable, Sendable {
    /// As the configuration has it: by this name answers and routes are kept.
    let url: String
    /// Where `GET /v1/access` goes over HTTPS.
    let endpoint: HTTPEndpoint
    /// The configured port of HTTP/3.
    let http3Port: Int?
    /// The name that QUIC compares with the certificate.
    let serverName: String

    static let path = "/v1/access"

    /// A nonce's characters stand in a URL as they are.
    static func path(nonce: String?) -> String { nonce.map { "\(path)?nonce=\($0)" } ?? path }

    /// - Throws: ``ClientError/Code/invalidConfiguration``.
    init(_ service: ControlService) throws(ClientError) {
        func refuse(_ reason: String) -> ClientError {
            ClientError(
                .invalidConfiguration, message: "the control layer's address \(reason)",
                advice: "write it as https://host:port")
        }
        url = service.url
        http3Port = service.http3Port
        if let port = http3Port, !(1...65_535).contains(port) {
            throw ClientError(.invalidConfiguration, message: "HTTP/3's port is not from 1 to 65535")
        }
        var base = service.url
        if base.hasSuffix("/") { base.removeLast() }
        var parsed: HTTPEndpoint
        do throws(HTTPFailure) {
            guard try HTTPEndpoint(url: base).path == "/", !base.dropFirst("https://".count).contains("/") else {
                throw HTTPFailure(reason: "has a path")
            }
            parsed = try HTTPEndpoint(url: base + Self.path)
        } catch {
            throw refuse(error.reason)
        }
        guard parsed.isSecure else { throw refuse("does not begin with https://") }
        if let name = service.serverName {
            guard !name.isEmpty else { throw refuse("has an empty server name") }
            parsed.serverName = name
        }
        endpoint = parsed
        serverName = service.serverName ?? parsed.host
    }
}

/// One way to ask one control service.
struct ControlWay: Hashable, Sendable {
    var control: ControlEndpoint
    var transport: ControlTransport
    /// TCP's or UDP's.
    var port: Int
}

/// What came back, whatever HTTP it came by.
struct ControlReply: Hashable, Sendable {
    var status: Int
    /// How long not to ask again; nil when the answer didn't say.
    var retryAfter: Duration?
    /// The port of HTTP/3 that the answer announced.
    var http3Port: Int?
    var body: [UInt8]

    init(status: Int, retryAfter: String? = nil, alternatives: [String] = [], body: [UInt8] = []) {
        self.status = status
        self.body = body
        self.retryAfter = retryAfter.flatMap { UInt64($0) }.map { .seconds(Int64(min($0, Self.longestRetryAfter))) }
        http3Port = alternatives.lazy.compactMap(Self.http3Port).first
    }

    /// Seconds: a service that says more is taken to mean "later".
    private static let longestRetryAfter: UInt64 = 3_600

    /// Reads `Alt-Svc: h3=":4433"; ma=86400` (RFC 7838): only what is on the same host.
    private static func http3Port(_ field: String) -> Int? {
        for alternative in field.split(separator: ",") {
            let service = alternative.prefix { $0 != ";" }.filter { $0 != " " && $0 != "\t" }
            guard service.hasPrefix("h3=\":"), service.hasSuffix("\"") else { continue }
            if let port = Int(service.dropFirst(5).dropLast()), (1...65_535).contains(port) { return port }
        }
        return nil
    }
}

/// Asks one way. Ends promptly when its task is cancelled.
protocol ControlAsker: Sendable {
    /// - Parameters:
    ///   - way: whom, and over what.
    ///   - token: who asks.
    ///   - nonce: what the answer has to repeat, so that it can be verified; nil where nobody verifies it.
    /// - Throws: why no whole answer came; ``ClientError/Code/controlAnswerInvalid`` for one that is too large.
    func ask(_ way: ControlWay, token: String, nonce: String?) async throws -> ControlReply
}
