import QUICTransport

/// What the control layer could not do.
public struct ControlError: Error, Sendable, CustomStringConvertible {
    /// The kinds of failure.
    public enum Code: String, Sendable {
        /// A configured value makes no sense.
        case invalidConfiguration
        /// Another process has the address, or it isn't one of this host.
        case addressUnavailable
        /// The certificate or its key can't be read, or they don't belong together.
        case certificate
        /// The control layer's database can't be opened, read or written.
        case storeUnavailable
        /// The database was written by a later version.
        case versionTooNew
        /// The keys that sign can't be read.
        case signingKey
        /// It ran before, or was stopped.
        case alreadyStarted
    }

    /// What kind of failure.
    public let code: Code
    /// What happened, for people and logs.
    public let message: String
    /// The error underneath, if there was one.
    public let cause: (any Error)?
    /// What a person can do about it.
    public let advice: String

    /// A control error.
    public init(_ code: Code, message: String, cause: (any Error)? = nil, advice: String = "") {
        self.code = code
        self.message = message
        self.cause = cause
        self.advice = advice
    }

    public var description: String {
        var text = message
        if let cause { text += ": \(SystemError.words(cause))" }
        if !advice.isEmpty { text += " (\(advice))" }
        return text
    }
}
