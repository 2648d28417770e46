/// How a client checks the server's certificate.
public enum TLSClientVerification: Sendable, Hashable {
    /// The chain must lead to a root of the system, and the certificate must be for the server's name, and may not be for
    /// other purposes only than TLS servers (RFC 5280 section 4.2.1.12).
    case systemRoots
    /// The same, but the chain must lead to one of the certificates in this PEM text.
    case certificateAuthority(pem: String)
    /// The certificate's public key must be one of these: SHA-256 of the SubjectPublicKeyInfo in DER, 32 bytes each
    /// (RFC 7469 section 2.4). Issuer and name are not looked at.
    case pinnedPublicKey(sha256: [[UInt8]])
    /// Nothing is checked: anyone on the path can read and change everything. For tests on one's own machine only.
    case insecureNoVerification
}

/// Whether a server asks its clients for certificates (RFC 8446 section 4.3.2). A client that offers one that can't be
/// verified is refused in either case.
public enum TLSClientAuthentication: Sendable, Hashable {
    /// It doesn't.
    case none
    /// Clients may show one, issued by one of the authorities in this PEM text.
    case requested(authorityPEM: String)
    /// Clients must.
    case required(authorityPEM: String)
}

/// A client's certificate chain and private key, for servers that ask for one.
public typealias TLSClientIdentity = TLSServerCredentials

/// A certificate chain and private key.
public struct TLSServerCredentials: Sendable, Hashable {
    /// The chain in PEM, its owner's certificate first.
    public var certificateChainPEM: String
    /// The private key in PEM.
    public var privateKeyPEM: String

    /// A chain and its key.
    public init(certificateChainPEM: String, privateKeyPEM: String) {
        self.certificateChainPEM = certificateChainPEM
        self.privateKeyPEM = privateKeyPEM
    }
}
