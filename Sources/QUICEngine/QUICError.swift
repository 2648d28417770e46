/// What went wrong in the QUIC engine, in words a person can act on.
public struct QUICError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The kinds of failure.
    public enum Code: String, Sendable, Hashable {
        /// A configuration value is missing or out of range.
        case invalidConfiguration
        /// A certificate or key couldn't be read, or the two don't belong together.
        case invalidCertificate
        /// The peer's certificate isn't trusted: unknown issuer, expired, wrong name or wrong public key.
        case certificateRejected
        /// The TLS handshake failed for another reason, no common ALPN protocol among them.
        case handshakeFailed
        /// The handshake wasn't complete within ``TransportSettings/handshakeTimeout``.
        case handshakeTimeout
        /// Client: nothing could be sent: the server's name has no address, or there is no route or no socket.
        case unreachable
        /// Client: the network takes no packets of 1,200 bytes, so that QUIC can't be used there (RFC 9000 section 14).
        case pathTooSmall
        /// The handshake isn't complete yet.
        case notEstablished
        /// The connection is closing or closed.
        case closed
        /// The stream doesn't exist, or not any more.
        case unknownStream
        /// The stream's direction can't be used this way, or was finished or reset before.
        case streamState
        /// The peer doesn't accept datagrams (RFC 9221), or the handshake isn't far enough to know.
        case datagramNotSupported
        /// The datagram is larger than ``QUICEngineConnection/maxDatagramSize``.
        case datagramTooLarge
        /// A migration isn't possible now: the handshake isn't confirmed, or the peer forbids it, or no
        /// connection ID is left for the new path.
        case migrationNotPossible
        /// The endpoint is at its limit of connections, ``EndpointConfiguration/maxConnections``.
        case connectionLimit
        /// A ticket or key file has another format than expected.
        case malformed
        /// The C library reported something unexpected.
        case internalError
    }

    /// The kind of failure.
    public let code: Code
    /// What happened, in a sentence.
    public let message: String
    /// What the layer below said, if anything.
    public let cause: String?
    /// What to do about it.
    public let advice: String

    /// Makes an error.
    public init(_ code: Code, _ message: String, cause: String? = nil, advice: String) {
        self.code = code
        self.message = message
        self.cause = cause
        self.advice = advice
    }

    public var description: String {
        let reason = cause.map { " (\($0))" } ?? ""
        return "\(code.rawValue): \(message)\(reason). \(advice)"
    }
}

extension QUICError.Code {
    /// Client: whether it keeps the first packet from leaving. Then no handshake failed, and no ticket is to blame.
    package var precedesFirstPacket: Bool {
        switch self {
        case .unreachable, .pathTooSmall, .connectionLimit: true
        default: false
        }
    }
}
