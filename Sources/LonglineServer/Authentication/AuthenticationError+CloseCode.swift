public import LonglineKeys
public import LonglineWire

extension AuthenticationError {
    /// What the session is closed with.
    public var closeCode: CloseCode {
        switch code {
        case .tooLarge, .malformed, .algorithmForbidden, .keyUnknown, .signatureInvalid, .claimInvalid, .notYetValid,
            .audienceForbidden:
            .credentialInvalid
        case .expired: .credentialExpired
        case .revoked: .credentialRevoked
        case .tenantForbidden, .identityMismatch: .forbidden
        case .ticketRejected: .ticketRejected
        case .overloaded: .overloaded
        case .storeUnavailable, .keyUnusable: .internalError
        }
    }
}
