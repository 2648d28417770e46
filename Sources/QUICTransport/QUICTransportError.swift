internal import Glibc
public import QUICEngine

/// What went wrong between an application and its QUIC connection, in words a person can act on.
public struct QUICTransportError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The kinds of failure.
    public enum Code: String, Sendable, Hashable {
        /// No socket could be bound to a local address.
        case bindFailed
        /// Clients would be sent to a preferred address that no socket of the server is bound to.
        case preferredAddressNotBound
        /// The host's name has no address, or the resolver failed.
        case resolveFailed
        /// Too many names wait for a resolver that doesn't answer.
        case resolverBusy
        /// This machine has no route to the host, or the host's addresses are none that anybody can answer from.
        case unreachable
        /// The connection couldn't be established; ``QUICTransportError/closeReason`` says why.
        case connectFailed
        /// The connection is closed; ``QUICTransportError/closeReason`` says why.
        case connectionClosed
        /// The peer abandoned its sending side; ``QUICTransportError/applicationCode`` is its code.
        case streamReset
        /// The peer wants no more bytes; ``QUICTransportError/applicationCode`` is its code.
        case stopSending
        /// The stream can't be used this way: finished, reset, or of the other direction.
        case streamState
        /// The datagram is larger than the path or the peer takes, or the peer takes none.
        case datagramRefused
        /// A change of path isn't possible, or the new path didn't answer.
        case pathChangeFailed
        /// A newer change of path took this one's place.
        case superseded
        /// A second task waits for the same thing.
        case concurrentUse
        /// The endpoint is shutting down.
        case shutDown
        /// A file or directory can't be used.
        case fileAccess
        /// The engine refused the call.
        case engine
    }

    /// The kind of failure.
    public let code: Code
    /// What happened, in a sentence.
    public let message: String
    /// What the layer below said, if anything.
    public let cause: String?
    /// What to do about it.
    public let advice: String
    /// The peer's application code, with ``Code/streamReset`` and ``Code/stopSending``.
    public let applicationCode: UInt64?
    /// Why the connection ended, with ``Code/connectFailed`` and ``Code/connectionClosed``.
    public let closeReason: QUICCloseReason?

    /// Makes an error.
    public init(
        _ code: Code, _ message: String, cause: String? = nil, advice: String, applicationCode: UInt64? = nil,
        closeReason: QUICCloseReason? = nil
    ) {
        self.code = code
        self.message = message
        self.cause = cause
        self.advice = advice
        self.applicationCode = applicationCode
        self.closeReason = closeReason
    }

    public var description: String {
        let reason = cause.map { " (\($0))" } ?? ""
        return "\(code.rawValue): \(message)\(reason). \(advice)"
    }
}

extension QUICTransportError {
    /// The error that every waiting call of a closed connection gets.
    static func closed(_ reason: QUICCloseReason) -> QUICTransportError {
        QUICTransportError(
            .connectionClosed, "the connection is closed", cause: reason.summary,
            advice: "Connect again if the work isn't done.", closeReason: reason)
    }

    /// The error of a connect that did not succeed.
    static func connectFailed(_ reason: QUICCloseReason) -> QUICTransportError {
        QUICTransportError(
            .connectFailed, "the connection could not be established", cause: reason.summary,
            advice: "Check the server's address, its certificate and that UDP reaches it.", closeReason: reason)
    }

    /// Wraps an engine error.
    init(_ error: QUICError) {
        switch error.code {
        case .streamState, .unknownStream:
            self.init(.streamState, error.message, cause: error.cause, advice: error.advice)
        case .datagramNotSupported, .datagramTooLarge:
            self.init(.datagramRefused, error.message, cause: error.cause, advice: error.advice)
        case .migrationNotPossible:
            self.init(.pathChangeFailed, error.message, cause: error.cause, advice: error.advice)
        default:
            self.init(.engine, error.message, cause: "\(error)", advice: error.advice)
        }
    }
}

extension QUICError {
    /// Wherever the first packet may go, the interface is too small for it.
    static var pathTooSmall: QUICError {
        QUICError(
            .pathTooSmall, "the network takes no packets of 1,200 bytes, which QUIC needs",
            cause: String(cString: strerror(EMSGSIZE)),
            advice: "Raise the interface's MTU to 1,280 or more, or use another network or another transport.")
    }

    /// What keeps a client from sending its first packet.
    init(keepingFromHandshake error: any Error) {
        switch error {
        case let error as QUICError: self = error
        case let error as QUICTransportError:
            self.init(.unreachable, error.message, cause: error.cause, advice: error.advice)
        default:
            self.init(
                .unreachable, "no socket could be opened", cause: SystemError.words(error),
                advice: "Check the local address and the limit of open files.")
        }
    }
}

extension QUICCloseReason {
    /// The reason in a few words, for logs and errors.
    public var summary: String {
        switch self {
        case .idleTimeout: "idle timeout"
        case .handshakeTimeout: "the handshake took too long"
        case .handshakeFailed(let error): "handshake failed: \(error)"
        case .peerApplication(let code, let reason): "closed by the peer with code \(code): \(reason.printable)"
        case .peerTransport(let code, let reason):
            "closed by the peer's transport with code \(code): \(reason.printable)"
        case .localApplication(let code, let reason): "closed here with code \(code): \(reason)"
        case .localTransport(let code, let reason): "closed by our transport with code \(code): \(reason)"
        case .statelessReset: "the peer lost the connection's state"
        case .pathTooSmall: "the path takes no packets of 1,200 bytes any more, which QUIC needs"
        case .versionNegotiation(let offered):
            "no QUIC version in common; the server speaks \(offered.filter { !$0.isReserved }.map { "\($0)" }.joined(separator: ", "))"
        case .abandoned: "given up"
        }
    }
}

extension String {
    /// The text with control characters replaced and cut at 128 characters: what a peer wrote, fit for a log line.
    var printable: String {
        String(
            String.UnicodeScalarView(unicodeScalars.prefix(128).map { $0.value < 0x20 || $0.value == 0x7F ? "?" : $0 }))
    }
}
