public import LonglineWire

/// What a store could not do.
public struct StoreError: Error, Sendable, CustomStringConvertible {
    /// The kinds of failure.
    public enum Code: String, Sendable {
        /// No room on the disk; reading goes on.
        case storageFull
        /// The files can't be opened or are damaged.
        case unavailable
        /// More work is queued than the limit.
        case overloaded
        /// The files were written by a later version.
        case versionTooNew
        /// The store was closed.
        case closed
        /// A room that does not exist.
        case unknownChannel
        /// A device has as many outboxes as ``StoreLimits`` allow.
        case limitExceeded
    }

    /// What kind of failure.
    public let code: Code

    /// Whether the same may succeed later with nothing else changed: there was no room.
    public var isPassing: Bool { code == .storageFull || code == .overloaded }

    /// How a request that met it is refused.
    public var refusal: RefusalCode {
        switch code {
        case .storageFull: .storageFull
        case .limitExceeded: .tooMany
        default: .overloaded
        }
    }
    /// What happened, for logs.
    public let message: String
    /// What a person can do about it.
    public let advice: String

    /// A store error.
    public init(_ code: Code, message: String, advice: String = "") {
        self.code = code
        self.message = message
        self.advice = advice
    }

    public var description: String {
        advice.isEmpty ? "\(code.rawValue): \(message)" : "\(code.rawValue): \(message) (\(advice))"
    }
}
