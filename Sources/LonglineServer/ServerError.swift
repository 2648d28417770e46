import QUICTransport

/// What the server could not do.
public struct ServerError: Error, Sendable, CustomStringConvertible {
    /// The kinds of failure.
    public enum Code: String, Sendable {
        /// A configured value makes no sense.
        case invalidConfiguration
        /// Another process has the address, or it isn't one of this host.
        case addressUnavailable
        /// The certificate or its key can't be read, or they don't belong together.
        case certificate
        /// The store can't be opened; ``cause`` is the ``/LonglineStore/StoreError``.
        case storeUnavailable
        /// The server runs already, or ran and was stopped.
        case alreadyStarted
        /// The server isn't running.
        case notRunning
        /// The keys that tokens are verified with can't be read.
        case tokenKeys
        /// A running server was asked by its control socket, and could not do it.
        case requestFailed
    }

    /// What kind of failure.
    public let code: Code
    /// What happened, for people and logs.
    public let message: String
    /// The error underneath, if there was one.
    public let cause: (any Error)?
    /// What a person can do about it.
    public let advice: String

    /// A server error.
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
