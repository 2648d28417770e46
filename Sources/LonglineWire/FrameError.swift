/// Why bytes are no frame, or why a frame can't be written as bytes.
public struct FrameError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The kinds of failure.
    public enum Code: String, Hashable, Sendable {
        /// The bytes don't follow the grammar.
        case malformed
        /// The header announces a body over ``FrameLimits/maximumBody``.
        case tooLarge
        /// An odd type that this version does not know.
        case unknownType
        /// A field takes more than its limit in ``FrameLimits``.
        case limitExceeded
        /// Writing only: a number that a varint can't carry, or a value that the grammar has no form for.
        case unrepresentable
    }

    /// What kind of failure.
    public let code: Code
    /// What happened, with the names of frame and field, for the peer and for logs. Holds nothing of what the peer sent but the
    /// number of an unknown type, and lengths and counts.
    public let message: String
    /// The identifier rule that was broken, where that was it. It may hold a byte of what the peer sent, and so is no part of
    /// ``message`` and ``description``.
    public let cause: IdentifierError?

    /// A frame error.
    public init(_ code: Code, message: String, cause: IdentifierError? = nil) {
        self.code = code
        self.message = message
        self.cause = cause
    }

    /// What a person can do about it.
    public var advice: String {
        switch code {
        case .malformed: "The peer breaks the protocol or its bytes were damaged: compare it with docs/protocol.md."
        case .tooLarge: "The peer sends frames over the limit: it has to send smaller payloads."
        case .unknownType: "The peer speaks a later version than it negotiated: upgrade this side."
        case .limitExceeded: "Keep the field within the limit that docs/protocol.md names."
        case .unrepresentable: "The calling code made a value that the protocol can't carry: correct it there."
        }
    }

    /// The code to close the session with when the peer sent such bytes.
    public var closeCode: CloseCode {
        switch code {
        case .malformed: .malformedFrame
        case .tooLarge: .frameTooLarge
        case .unknownType: .unknownFrame
        case .limitExceeded: .limitExceeded
        case .unrepresentable: .internalError
        }
    }

    /// The close frame for a peer that sent such bytes: ``closeCode``, with the message as its reason.
    public var close: Close { Close(code: closeCode, reason: message) }

    public var description: String { "\(code.rawValue): \(message)" }
}
