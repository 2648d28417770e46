public import HTTPTypes
public import QUICEngine
internal import QUICTransport

/// What went wrong between an application and HTTP/3, in words a person can act on.
public struct HTTP3Error: Error, Sendable, Hashable, CustomStringConvertible {
    /// The kinds of failure.
    public enum Code: String, Sendable, Hashable {
        /// The connection couldn't be established; ``HTTP3Error/closeReason`` says why.
        case connectFailed
        /// The connection is closed; ``HTTP3Error/closeReason`` says why.
        case connectionClosed
        /// The connection takes no new requests, or the server said that it won't process this one (GOAWAY).
        case goingAway
        /// The server didn't process the request at all (H3_REQUEST_REJECTED).
        case requestRejected
        /// The request was given up, here or by the peer.
        case cancelled
        /// The peer abandoned the stream with another code: ``HTTP3Error/protocolCode``.
        case streamReset
        /// The peer wants no more of the body that is being sent.
        case bodyRefused
        /// The peer's message breaks a rule (RFC 9114 section 4.1.2).
        case malformedMessage
        /// A header or trailer section is larger than allowed, here or at the peer.
        case fieldSectionTooLarge
        /// A body is larger than allowed.
        case bodyTooLarge
        /// The peer sent or took too little for too long.
        case timeout
        /// The message can't be sent as it is.
        case invalidMessage
        /// The call isn't possible now: a second response, a second reader.
        case invalidState
        /// Too many requests wait for a stream.
        case tooManyRequests
        /// An address can't be bound, or a configuration can't be used.
        case invalidConfiguration
    }

    /// The kind of failure.
    public let code: Code
    /// What happened, in a sentence.
    public let message: String
    /// What the layer below or the peer said, if anything.
    public let cause: String?
    /// What to do about it.
    public let advice: String
    /// The code that the stream ended with, if it did.
    public let protocolCode: HTTP3ErrorCode?
    /// Why the connection ended, with ``Code/connectFailed`` and ``Code/connectionClosed``.
    public let closeReason: QUICCloseReason?

    /// Makes an error.
    public init(
        _ code: Code, _ message: String, cause: String? = nil, advice: String, protocolCode: HTTP3ErrorCode? = nil,
        closeReason: QUICCloseReason? = nil
    ) {
        self.code = code
        self.message = message
        self.cause = cause
        self.advice = advice
        self.protocolCode = protocolCode
        self.closeReason = closeReason
    }

    /// Whether the request is known not to have been processed: it may be sent again on another connection, whatever its method
    /// (RFC 9114 sections 4.1.1 and 5.2).
    public var wasNotProcessed: Bool {
        isUnsent || code == .goingAway || code == .requestRejected || code == .tooManyRequests
    }

    /// Whether it was the peer, or the connection to it, that brought it about, and no mistake of this side's. At a server a client
    /// that announces a small SETTINGS_MAX_FIELD_SECTION_SIZE causes a `fieldSectionTooLarge` with every response, for one.
    public var isCausedByPeer: Bool {
        switch code {
        case .connectionClosed, .cancelled, .streamReset, .bodyRefused, .malformedMessage, .fieldSectionTooLarge,
            .bodyTooLarge, .timeout:
            true
        case .connectFailed, .goingAway, .requestRejected, .invalidMessage, .invalidState, .tooManyRequests,
            .invalidConfiguration:
            false
        }
    }

    /// The request never left: there was no connection any more.
    var isUnsent = false

    public var description: String {
        let reason = cause.map { " (\($0))" } ?? ""
        return "\(code.rawValue): \(message)\(reason). \(advice)"
    }
}

extension HTTP3Error {
    static func closed(_ reason: QUICCloseReason) -> HTTP3Error {
        HTTP3Error(
            .connectionClosed, "the connection is closed", cause: reason.summary,
            advice: "Connect again if the work isn't done.", protocolCode: HTTP3ErrorCode(reason), closeReason: reason)
    }

    /// Of a request that had not been sent.
    var unsent: HTTP3Error {
        var error = self
        error.isUnsent = true
        return error
    }

    static func connectFailed(_ reason: QUICCloseReason) -> HTTP3Error {
        HTTP3Error(
            .connectFailed, "the connection could not be established", cause: reason.summary,
            advice: "Check the server's address, its certificate and that UDP reaches it.",
            protocolCode: HTTP3ErrorCode(reason), closeReason: reason)
    }

    static let goingAway = HTTP3Error(
        .goingAway, "the connection takes no more requests", advice: "Send the request on another connection.")

    static let cancelled = HTTP3Error(
        .cancelled, "the request was cancelled", advice: "Nothing more is known of it.",
        protocolCode: .requestCancelled)

    static func state(_ message: String) -> HTTP3Error {
        HTTP3Error(.invalidState, message, advice: "One task reads, one writes, and each part is sent once, in order.")
    }

    /// The peer reset its side of a stream, or refused ours.
    /// - Parameter isUnanswered: whether H3_REQUEST_REJECTED can mean what it says: only a server rejects (RFC 9114 section 4.1.1), and
    ///   nothing that it has answered.
    static func reset(_ code: UInt64, isUnanswered: Bool) -> HTTP3Error {
        let code = HTTP3ErrorCode(rawValue: code)
        switch code {
        case .requestRejected where isUnanswered:
            return HTTP3Error(
                .requestRejected, "the server didn't process the request", advice: "Send it again.",
                protocolCode: code)
        case .requestCancelled:
            return HTTP3Error(
                .cancelled, "the peer cancelled the exchange", advice: "Nothing more is known of it.",
                protocolCode: code)
        default:
            return HTTP3Error(
                .streamReset, "the peer abandoned the exchange", cause: "\(code)",
                advice: "What was read before may be incomplete.", protocolCode: code)
        }
    }

    static func malformed(_ what: String, _ code: HTTP3ErrorCode) -> HTTP3Error {
        HTTP3Error(
            .malformedMessage, "the peer's message is malformed", cause: what, advice: "Its sender has a defect.",
            protocolCode: code)
    }
}

extension HTTP3ErrorCode {
    /// The code that an application closed with, if one did.
    init?(_ reason: QUICCloseReason) {
        switch reason {
        case .peerApplication(let code, _), .localApplication(let code, _): self.init(rawValue: code)
        default: return nil
        }
    }
}
