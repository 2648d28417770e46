/// A self-signed certificate for development and tests. Clients must be told to trust it: as their certificate authority,
/// or by its pin.
public struct DevelopmentCertificate: Sendable {
    /// The kinds of key.
    public enum KeyKind: Sendable {
        /// ECDSA on P-256: accepted by every TLS client.
        case ecdsaP256
        /// Ed25519: signatures of constant length, but not every client accepts it.
        case ed25519
    }

    /// The certificate in PEM; it is its own authority.
    public let certificatePEM: String
    /// The private key in PEM (PKCS #8).
    public let privateKeyPEM: String
    /// SHA-256 of the SubjectPublicKeyInfo, for `TLSClientVerification.pinnedPublicKey`.
    public let publicKeySHA256: [UInt8]

    /// Both as a server wants them.
    public var credentials: TLSServerCredentials {
        TLSServerCredentials(certificateChainPEM: certificatePEM, privateKeyPEM: privateKeyPEM)
    }

    /// Makes a key and a certificate for it. The key comes from the TLS library's own random source.
    /// - Parameters:
    ///   - names: DNS names and numeric addresses it is valid for; the first is also its common name.
    ///   - validDays: how long it is valid; it starts an hour before `now`, for clocks that differ.
    ///   - now: seconds since 1970.
    public static func generate(
        names: [String], validDays: Int = 30, now: UInt64, keyKind: KeyKind = .ecdsaP256
    ) throws(QUICError) -> DevelopmentCertificate {
        throw QUICError(.internalError, "not yet", advice: "")
    }
}
