public import LonglineWire

/// What the client could not do.
public struct ClientError: Error, Sendable, CustomStringConvertible {
    /// The kinds of failure.
    public enum Code: String, Sendable {
        /// The configuration makes no sense; the message says which part.
        case invalidConfiguration
        /// The client isn't connected, and the operation needs a connection now. As why the client waits: the connection was lost, or
        /// the service ended it (``closeCode``).
        case notConnected
        /// ``LonglineClient/LonglineClient/disconnect()`` was called while the operation waited.
        case disconnected
        /// The service told this client not to come back by itself; ``closeCode`` says why.
        case stopped
        /// The outbox holds as many messages or bytes as its limits allow.
        case outboxFull
        /// As many publishes to this channel wait for an answer as the protocol allows (1,024).
        case channelFull
        /// The payload is larger than one publish may carry, or than the whole outbox may hold.
        case payloadTooLarge
        /// The service refused for good; ``refusal`` says why.
        case refused
        /// It isn't known whether the message was entered, and it never will be from now on. Or whether the service took a logout, or erases
        /// the account: ``LonglineClient/LonglineClient/eraseAccount(timeout:)`` says how that comes to be known.
        case outcomeUnknown
        /// The client doesn't know which user it is, and its token can't be read: the inbox that carries direct messages has
        /// no name.
        case unknownUser
        /// The storage holds another user's messages than the one who logs in, by the token or the configuration. Nothing leaves.
        case otherUser
        /// The storage holds the messages of another of the user's devices than the one that logs in. Nothing leaves.
        case otherDevice
        /// The durable state could not be read or written.
        case storage
        /// Another process holds the same storage.
        case storageInUse
        /// The token provider failed.
        case tokenProvider
        /// No link came up in time, or an access point's name could not be resolved.
        case connectFailed
        /// The connection could not be moved to another local address.
        case migrationFailed
        /// ``LonglineClient/LonglineClient/logout()``, or the account's erasure, ended this client for good. Or another client of a shared
        /// outbox did so, and what is sent here would go out with the next login.
        case loggedOut
        /// More requests wait for an answer than the limit.
        case tooManyRequests
        /// No answer came within the time that the caller gave.
        case timedOut
        /// The app took the message back before it left the device.
        case cancelled
        /// Another process of the app owns the shared outbox now.
        case ownershipLost
        /// The storage was written by a later version of the app, whose layout this one does not know.
        case storageTooNew
        /// The control layer was not reached, gave no answer in time or another status than 200, and no earlier answer is kept.
        case controlUnavailable
        /// The control layer's answer is no access configuration, or is over 64 KiB.
        case controlAnswerInvalid
        /// The control layer's answer has a version that this app does not know.
        case controlVersionUnsupported
        /// What came as the control layer's answer is not signed by a key in
        /// ``LonglineClient/LonglineClient/Configuration/controlKeys``, or was signed for another tenant, user or device, or for an
        /// earlier question. ``cause`` says which.
        case controlAnswerUntrusted
    }

    /// What kind of failure.
    public let code: Code
    /// What happened, for logs. Carries no payload and no credential.
    public let message: String
    /// The error behind this one.
    public let cause: (any Error)?
    /// What a person can do about it; empty when there is nothing.
    public let advice: String
    /// Why the service refused, for ``Code/refused``.
    public let refusal: RefusalCode?
    /// Why the service ended the session, for ``Code/stopped``; also for a ``Code/notConnected`` that says why the client waits.
    public let closeCode: CloseCode?
    /// The message that the error is about, where it is about one that stays in the outbox.
    public let send: SendID?
    /// How long the service asked to be left alone with what it refused; nil where it did not say, and where another try is of no use.
    public let retryAfter: Duration?

    /// A client error.
    public init(
        _ code: Code, message: String, cause: (any Error)? = nil, advice: String = "", refusal: RefusalCode? = nil,
        closeCode: CloseCode? = nil, send: SendID? = nil, retryAfter: Duration? = nil
    ) {
        self.code = code
        self.message = message
        self.cause = cause
        self.advice = advice
        self.refusal = refusal
        self.closeCode = closeCode
        self.send = send
        self.retryAfter = retryAfter
    }

    /// What the service says in milliseconds, where 0 says nothing.
    static func retryAfter(_ milliseconds: UInt64) -> Duration? {
        milliseconds > 0 ? .milliseconds(Int64(clamping: milliseconds)) : nil
    }

    /// The advice that goes with it.
    static func againAdvice(_ milliseconds: UInt64) -> String {
        milliseconds > 0 ? "ask again in \(milliseconds) ms" : "ask again later"
    }

    /// The service told this client not to come back by itself.
    init(stoppedBy code: CloseCode, reason: String) {
        let advice =
            switch code.policy {
            case .stop where code == .evicted: "let the user log in on this device again, then connect"
            case .upgrade: "upgrade the app"
            case .newToken: "get another token, then connect again"
            case .backOff, .redirect, .stop: "find out why, then connect again"
            }
        self.init(
            .stopped, message: "\(reason), code \(code.rawValue)", advice: advice, closeCode: code)
    }

    /// The service ended the link, and the client comes back by itself.
    init(closedBy close: Close) {
        let what = close.reason.isEmpty ? "the connection was ended" : close.reason
        let advice = close.code.policy == .newToken ? "check what the token provider gives" : ""
        self.init(
            .notConnected, message: "\(what), code \(close.code.rawValue)", advice: advice, closeCode: close.code,
            retryAfter: Self.retryAfter(close.retryAfter))
    }

    public var description: String {
        var text = "\(code.rawValue): \(message)"
        if let cause { text += " [\(cause)]" }
        if !advice.isEmpty { text += " (\(advice))" }
        return text
    }
}
