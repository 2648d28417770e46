import Crypto
package import FoundationEssentials

/// Signs other statements of this service than tokens, as JWS in compact form (RFC 7515).
package struct StatementSigner: Sendable {
    /// Names the key.
    package let keyID: String
    private let backing: SigningKey.Backing
    private let header: String

    private struct Header: Encodable {
        var alg: String
        var kid: String
        var typ: String
    }

    /// - Parameters:
    ///   - key: the key, which signs tokens as well.
    ///   - type: the header's `typ`, which keeps what is signed here from being taken for a token.
    /// - Throws: ``AuthenticationError/Code/keyUnusable``.
    package init(key: SigningKey, type: String) throws(AuthenticationError) {
        keyID = key.keyID
        backing = key.backing
        do {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys]
            let header = Header(alg: key.algorithm.rawValue, kid: key.keyID, typ: type)
            self.header = Base64URL.encode(try encoder.encode(header))
        } catch {
            throw AuthenticationError(.keyUnusable, "\(key) can't sign", cause: "\(error)")
        }
    }

    /// Signs these bytes as they are.
    /// - Throws: ``AuthenticationError/Code/keyUnusable``.
    package func sign(_ payload: Data) throws(AuthenticationError) -> String {
        let input = "\(header).\(Base64URL.encode(payload))"
        do {
            let signature: Data
            switch backing {
            case .edDSA(let key): signature = try key.signature(for: Data(input.utf8))
            case .es256(let key): signature = try key.signature(for: Data(input.utf8)).rawRepresentation
            }
            return "\(input).\(Base64URL.encode(signature))"
        } catch {
            throw AuthenticationError(.keyUnusable, "the key can't sign", cause: "\(error)")
        }
    }
}
