import Crypto
import FoundationEssentials

/// Public keys in the form of RFC 7517 section 5, a JWKS: Ed25519 (RFC 8037) and P-256 (RFC 7518 section 6.2) keys, each
/// with the ID that tokens name it by.
///
/// Keys of other kinds, for other uses or for other algorithms are passed over, so that a set may serve others as well.
public struct JSONWebKeySet: Sendable {
    /// The most keys in a set.
    public static let maximumKeys = 64
    /// The largest set, in bytes.
    public static let maximumBytes = 256 * 1024
    /// The longest key ID, in bytes.
    public static let maximumKeyID = 128

    /// The keys, in the order of the set; no two have one ID.
    public var keys: [VerificationKey]

    /// A set of these keys.
    public init(keys: [VerificationKey]) { self.keys = keys }

    /// Reads a set.
    /// - Throws: ``AuthenticationError/Code/keyUnusable`` when it is no set, is over a limit, holds no key that tokens can be
    ///   verified with, or one that should be such a key and is damaged: half a set is never taken.
    public init(json: [UInt8]) throws(AuthenticationError) {
        guard json.count <= Self.maximumBytes else {
            throw Self.unusable("has more than \(Self.maximumBytes) bytes")
        }
        guard let set = try? JSONDecoder().decode(KeySet.self, from: Data(json)) else {
            throw Self.unusable("is not JSON of the form {\"keys\": [...]}")
        }
        guard set.keys.count <= Self.maximumKeys else { throw Self.unusable("has more than \(Self.maximumKeys) keys") }
        keys = []
        for key in set.keys where key.isForTokens {
            let read = try key.verificationKey()
            guard !keys.contains(where: { $0.keyID == read.keyID }) else {
                throw Self.unusable("has two keys with the kid \(read.keyID)")
            }
            keys.append(read)
        }
        if keys.isEmpty { throw Self.unusable("has no Ed25519 or P-256 key for signatures") }
    }

    /// The set as JSON.
    public var json: [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        do { return Array(try encoder.encode(KeySet(keys: keys.map(Key.init)))) + [UInt8(ascii: "\n")] } catch {
            preconditionFailure("strings can be encoded: \(error)")
        }
    }

    fileprivate static func unusable(_ reason: String) -> AuthenticationError {
        AuthenticationError(.keyUnusable, "the key set \(reason)", advice: "write it as RFC 7517 section 5 says")
    }
}

private struct KeySet: Codable {
    var keys: [Key]
}

/// One key of a set. Members that say nothing to us are passed over.
private struct Key: Codable {
    var kty: String
    var crv: String?
    var kid: String?
    var use: String?
    var alg: String?
    var x: String?
    var y: String?

    /// Whether it is a kind of key that tokens are verified with.
    var isForTokens: Bool {
        guard use == nil || use == "sig" else { return false }
        switch (kty, crv) {
        case ("OKP", "Ed25519"): return alg == nil || alg == "EdDSA" || alg == "Ed25519"
        case ("EC", "P-256"): return alg == nil || alg == "ES256"
        default: return false
        }
    }

    func verificationKey() throws(AuthenticationError) -> VerificationKey {
        guard let kid, (1...JSONWebKeySet.maximumKeyID).contains(kid.utf8.count) else {
            throw JSONWebKeySet.unusable("has a key without a kid of 1 to \(JSONWebKeySet.maximumKeyID) bytes")
        }
        if kty == "OKP" {
            if let x = Self.bytes(x), let key = try? Curve25519.Signing.PublicKey(rawRepresentation: x) {
                return VerificationKey(.edDSA(key), keyID: kid)
            }
        } else if let x = Self.bytes(x), let y = Self.bytes(y),
            let key = try? P256.Signing.PublicKey(rawRepresentation: x + y)
        {
            return VerificationKey(.es256(key), keyID: kid)
        }
        throw JSONWebKeySet.unusable("has a damaged key with the kid \(kid)")
    }

    /// A coordinate: 32 bytes.
    private static func bytes(_ text: String?) -> Data? {
        guard let text, let bytes = Base64URL.decode(text.utf8), bytes.count == 32 else { return nil }
        return bytes
    }

    init(_ key: VerificationKey) {
        kid = key.keyID
        use = "sig"
        alg = key.algorithm.rawValue
        switch key.backing {
        case .edDSA(let key):
            kty = "OKP"
            crv = "Ed25519"
            x = Base64URL.encode(key.rawRepresentation)
        case .es256(let key):
            kty = "EC"
            crv = "P-256"
            x = Base64URL.encode(key.rawRepresentation.prefix(32))
            y = Base64URL.encode(key.rawRepresentation.suffix(32))
        }
    }
}
