package import Crypto
import CryptoExtras

/// The signature algorithms that tokens may use, by their JOSE names. There is no other: no `none`, no shared secrets.
public enum TokenAlgorithm: String, Sendable, CaseIterable {
    /// EdDSA over Ed25519 (RFC 8037).
    case edDSA = "EdDSA"
    /// ECDSA over P-256 with SHA-256 (RFC 7518 section 3.4).
    case es256 = "ES256"
}

/// A private key that signs tokens. Its text forms never include the key.
public struct SigningKey: Sendable, CustomStringConvertible {
    package enum Backing: Sendable {
        case edDSA(Curve25519.Signing.PrivateKey)
        case es256(P256.Signing.PrivateKey)
    }

    package let backing: Backing
    /// The public half.
    public let verificationKey: VerificationKey

    private init(_ backing: Backing) {
        self.backing = backing
        switch backing {
        case .edDSA(let key): verificationKey = VerificationKey(.edDSA(key.publicKey))
        case .es256(let key): verificationKey = VerificationKey(.es256(key.publicKey))
        }
    }

    /// Makes a new key from the system's random source.
    public static func generate(_ algorithm: TokenAlgorithm) -> SigningKey {
        switch algorithm {
        case .edDSA: SigningKey(.edDSA(Curve25519.Signing.PrivateKey()))
        case .es256: SigningKey(.es256(P256.Signing.PrivateKey()))
        }
    }

    /// Reads an Ed25519 or P-256 private key in PEM form (PKCS#8, as `openssl genpkey` writes it).
    /// - Throws: ``AuthenticationError/Code/keyUnusable``.
    public init(pem: String) throws(AuthenticationError) {
        if let key = try? Curve25519.Signing.PrivateKey(pemRepresentation: pem) {
            self.init(.edDSA(key))
        } else if let key = try? P256.Signing.PrivateKey(pemRepresentation: pem) {
            self.init(.es256(key))
        } else {
            throw AuthenticationError(
                .keyUnusable, "no Ed25519 or P-256 private key in PEM form",
                advice: "make one with: openssl genpkey -algorithm ed25519")
        }
    }

    /// What its tokens' header says.
    public var algorithm: TokenAlgorithm { verificationKey.algorithm }
    /// Names the key in its tokens' header.
    public var keyID: String { verificationKey.keyID }

    /// The private key in PEM form: a secret.
    package var pem: String {
        let text =
            switch backing {
            case .edDSA(let key): key.pemRepresentation
            case .es256(let key): key.pemRepresentation
            }
        return text.hasSuffix("\n") ? text : text + "\n"
    }

    public var description: String { "private key \(keyID) (\(algorithm.rawValue))" }
}

extension SigningKey: CustomDebugStringConvertible, CustomReflectable {
    public var debugDescription: String { description }
    // `dump` and failed expectations print the mirror.
    public var customMirror: Mirror { Mirror(self, children: ["verificationKey": verificationKey]) }
}

/// A public key that tokens are checked with.
public struct VerificationKey: Sendable, CustomStringConvertible {
    package enum Backing: Sendable {
        case edDSA(Curve25519.Signing.PublicKey)
        case es256(P256.Signing.PublicKey)
    }

    package let backing: Backing
    /// Names the key in its tokens' header (`kid`): what a key set says, else the first 64 bits of SHA-256 over the public
    /// key's PEM form.
    public let keyID: String

    init(_ backing: Backing, keyID: String) {
        self.backing = backing
        self.keyID = keyID
    }

    init(_ backing: Backing) {
        self.backing = backing
        let digest = SHA256.hash(data: Array(Self.pem(of: backing).utf8))
        keyID = digest.prefix(8).map { byte in (byte < 16 ? "0" : "") + String(byte, radix: 16) }.joined()
    }

    /// Reads an Ed25519 or P-256 public key in PEM form (SubjectPublicKeyInfo).
    /// - Throws: ``AuthenticationError/Code/keyUnusable``.
    public init(pem: String) throws(AuthenticationError) {
        if let key = try? Curve25519.Signing.PublicKey(pemRepresentation: pem) {
            self.init(.edDSA(key))
        } else if let key = try? P256.Signing.PublicKey(pemRepresentation: pem) {
            self.init(.es256(key))
        } else {
            throw AuthenticationError(.keyUnusable, "no Ed25519 or P-256 public key in PEM form")
        }
    }

    /// What tokens signed by its private half say.
    public var algorithm: TokenAlgorithm {
        switch backing {
        case .edDSA: .edDSA
        case .es256: .es256
        }
    }

    /// The public key in PEM form.
    public var pem: String { Self.pem(of: backing) }

    private static func pem(of backing: Backing) -> String {
        switch backing {
        case .edDSA(let key): key.pemRepresentation
        case .es256(let key): key.pemRepresentation
        }
    }

    public var description: String { "public key \(keyID) (\(algorithm.rawValue))" }
}
