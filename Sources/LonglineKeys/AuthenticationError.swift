/// Why a credential was not accepted, or a key could not be used.
///
/// No part of it ever holds a token, a ticket or key material, so it may be logged whole.
public struct AuthenticationError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The kinds of failure.
    public enum Code: String, Sendable, CaseIterable {
        /// The token or ticket is larger than the limit; nothing of it was parsed.
        case tooLarge
        /// Not a JWT in compact form, or its header or claims are no JSON of the expected shape.
        case malformed
        /// Signed with something else than EdDSA (Ed25519) or ES256, with what the named key isn't for, or the header
        /// demands an extension.
        case algorithmForbidden
        /// The header names no key that is trusted.
        case keyUnknown
        /// The signature isn't that key's over this content.
        case signatureInvalid
        /// A claim is absent or outside its limits.
        case claimInvalid
        /// Its time has not come.
        case notYetValid
        /// Its time is over.
        case expired
        /// It is for another tenant.
        case tenantForbidden
        /// It is for another service.
        case audienceForbidden
        /// It, its device or its user was revoked.
        case revoked
        /// For somebody else: a refresh for another user or device than the session's, or from an older login; a signed answer to
        /// another device's question.
        case identityMismatch
        /// The resume ticket is damaged, forged, or sealed with a key that is gone.
        case ticketRejected
        /// Too many verifications at once.
        case overloaded
        /// The store did not answer whether it was revoked.
        case storeUnavailable
        /// A key file can't be read, written, parsed, or is open to others.
        case keyUnusable
    }

    /// What kind of failure.
    public let code: Code
    /// What happened, for logs.
    public let message: String
    /// What a person can do about it.
    public let advice: String
    /// The error underneath, as text, where there is one.
    public let cause: String

    /// An authentication error.
    public init(_ code: Code, _ message: String, cause: String = "", advice: String = "") {
        self.code = code
        self.message = message
        self.cause = cause
        self.advice = advice
    }

    public var description: String {
        var text = "\(code.rawValue): \(message)"
        if !cause.isEmpty { text += ": \(cause)" }
        if !advice.isEmpty { text += " (\(advice))" }
        return text
    }
}
