import JWTKit
import LonglineKeys

/// Our keys as the token library has them.
extension JWTKeyCollection {
    func add(_ key: VerificationKey) {
        let kid = JWKIdentifier(string: key.keyID)
        switch key.backing {
        case .edDSA(let key): add(eddsa: EdDSA.PublicKey(backing: key), kid: kid)
        case .es256(let key): add(ecdsa: Self.wrapped { try ES256PublicKey(backing: key) }, kid: kid)
        }
    }

    func add(_ key: SigningKey) {
        let kid = JWKIdentifier(string: key.keyID)
        switch key.backing {
        case .edDSA(let key): add(eddsa: EdDSA.PrivateKey(backing: key), kid: kid)
        case .es256(let key): add(ecdsa: Self.wrapped { try ES256PrivateKey(backing: key) }, kid: kid)
        }
    }

    /// The library reads the bytes of a key that was read before: they are good.
    private static func wrapped<Key>(_ make: () throws -> Key) -> Key {
        do { return try make() } catch { preconditionFailure("a P-256 key is none: \(error)") }
    }
}
