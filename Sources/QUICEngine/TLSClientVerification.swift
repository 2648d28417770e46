/// How a client checks the server's certificate.
public enum TLSClientVerification: Sendable, Hashable {
    /// The chain must lead to a root of the system, and the certificate must be for the server's name.
    case systemRoots
    /// The chain must lead to one of the certificates in this PEM text, and the certificate must be for the server's
    /// name.
    case certificateAuthority(pem: String)
    /// The certificate's public key must be one of these: SHA-256 of the SubjectPublicKeyInfo in DER, 32 bytes each
    /// (RFC 7469 section 2.4). Issuer and name are not looked at.
    case pinnedPublicKey(sha256: [[UInt8]])
    /// Nothing is checked: anyone on the path can read and change everything. For tests on one's own machine only.
    case insecureNoVerification
}

/// A server's certificate chain and private key.
public struct TLSServerCredentials: Sendable {
    /// The chain in PEM, the server's own certificate first.
    public var certificateChainPEM: String
    /// The private key in PEM.
    public var privateKeyPEM: String

    /// A chain and its key.
    public init(certificateChainPEM: String, privateKeyPEM: String) {
        self.certificateChainPEM = certificateChainPEM
        self.privateKeyPEM = privateKeyPEM
    }
}
