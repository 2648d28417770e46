import FoundationEssentials
import HTTPTypes
import Hummingbird

extension Problem {
    /// What is wrong with a request that HTTP/3 answers by itself.
    init(answering status: HTTPResponse.Status) {
        switch status.code {
        case 408: self.init(.bodyTimeout)
        case 413: self.init(.bodyTooLarge)
        case 425: self.init(.tooEarly)
        case 431: self.init(.headersTooLarge)
        case 501: self.init(.notImplemented)
        default: self.init(.internalError)
        }
    }
}

/// Why a request was not served, as its caller is told: a problem document (RFC 9457). It says nothing of the inside.
struct Problem: Error, Sendable {
    /// The kinds; each has a stable URI, `urn:longline:problem:` and its name.
    enum Kind: String, Sendable, CaseIterable {
        case unauthorized = "unauthorized"
        case forbidden = "forbidden"
        case tenantNotServed = "tenant-not-served"
        case notFound = "not-found"
        case methodNotAllowed = "method-not-allowed"
        case invalidRequest = "invalid-request"
        case unsupportedMediaType = "unsupported-media-type"
        case headersTooLarge = "headers-too-large"
        case bodyTooLarge = "body-too-large"
        case bodyTimeout = "body-timeout"
        case payloadTooLarge = "payload-too-large"
        case limitReached = "limit-reached"
        case blocked = "blocked"
        case cursorExpired = "cursor-expired"
        case idempotencyKeyMissing = "idempotency-key-missing"
        case idempotencyKeyReused = "idempotency-key-reused"
        case idempotencyKeyInUse = "idempotency-key-in-use"
        case outcomeUnknown = "outcome-unknown"
        case tooEarly = "too-early"
        case notImplemented = "not-implemented"
        case storageFull = "storage-full"
        case overloaded = "overloaded"
        case noAccessPoint = "no-access-point"
        case unavailable = "unavailable"
        case internalError = "internal-error"

        var uri: String { "urn:longline:problem:\(rawValue)" }

        var status: HTTPResponse.Status {
            switch self {
            case .unauthorized: .unauthorized
            case .forbidden, .tenantNotServed, .blocked: .forbidden
            case .notFound: .notFound
            case .methodNotAllowed: .methodNotAllowed
            case .invalidRequest, .idempotencyKeyMissing: .badRequest
            case .unsupportedMediaType: .unsupportedMediaType
            case .headersTooLarge: .requestHeaderFieldsTooLarge
            case .bodyTooLarge, .payloadTooLarge: .contentTooLarge
            case .bodyTimeout: .requestTimeout
            case .limitReached, .idempotencyKeyInUse, .outcomeUnknown: .conflict
            case .cursorExpired: .gone
            case .idempotencyKeyReused: .unprocessableContent
            case .tooEarly: .tooEarly
            case .notImplemented: .notImplemented
            case .storageFull, .overloaded, .noAccessPoint, .unavailable: .serviceUnavailable
            case .internalError: .internalServerError
            }
        }

        var title: String {
            switch self {
            case .unauthorized: "A valid credential is needed"
            case .forbidden: "The credential does not allow this"
            case .tenantNotServed: "The credential's tenant is not served here"
            case .notFound: "There is nothing here"
            case .methodNotAllowed: "This method is not for this resource"
            case .invalidRequest: "The request breaks a rule"
            case .unsupportedMediaType: "The body has to be JSON"
            case .headersTooLarge: "The header fields are too many or too large"
            case .bodyTooLarge: "The body is too large"
            case .bodyTimeout: "The body did not come in time"
            case .payloadTooLarge: "The message is too large"
            case .limitReached: "A limit is reached"
            case .blocked: "The sender blocked the recipient"
            case .cursorExpired: "The cursor counts no more"
            case .idempotencyKeyMissing: "An idempotency key is needed"
            case .idempotencyKeyReused: "The idempotency key was used with another request"
            case .idempotencyKeyInUse: "A request with this idempotency key is under way"
            case .outcomeUnknown: "Nobody knows whether this was done, and it will not be done again"
            case .tooEarly: "A request that changes something has to come after the handshake"
            case .notImplemented: "This method is not known here"
            case .storageFull: "There is no room to write it down"
            case .overloaded: "Too much at once"
            case .noAccessPoint: "No node takes clients now"
            case .unavailable: "The service is not available now"
            case .internalError: "Something went wrong inside the service"
            }
        }
    }

    let kind: Kind
    /// What of the request breaks which rule; never anything of the inside.
    var detail: String?
    /// Seconds after which another try is worth it.
    var retryAfter: Int?
    /// For ``Kind/methodNotAllowed``: what is allowed.
    var allow: String?
    /// What went wrong inside: for the log alone.
    var cause: (any Error)?

    init(
        _ kind: Kind, _ detail: String? = nil, retryAfter: Int? = nil, allow: String? = nil,
        cause: (any Error)? = nil
    ) {
        self.kind = kind
        self.detail = detail
        self.retryAfter = retryAfter
        self.allow = allow
        self.cause = cause
    }

    private struct Document: Encodable {
        var type: String
        var title: String
        var status: Int
        var detail: String?
        var requestId: String
    }

    /// The document, as its bytes.
    func document(requestID: String) -> Data {
        let document = Document(
            type: kind.uri, title: kind.title, status: kind.status.code, detail: detail, requestId: requestID)
        do { return try ControlJSON.encode(document) } catch {
            preconditionFailure("a problem document can be encoded: \(error)")
        }
    }

    /// The answer with the document.
    func response(requestID: String) -> Response { response(document(requestID: requestID)) }

    func response(_ document: Data) -> Response {
        var response = Response.json(document, status: kind.status)
        response.headers[.contentType] = "application/problem+json"
        if let retryAfter { response.headers[.retryAfter] = "\(retryAfter)" }
        if let allow { response.headers[.allow] = allow }
        if kind == .unauthorized { response.headers[.wwwAuthenticate] = "Bearer" }
        return response
    }
}
