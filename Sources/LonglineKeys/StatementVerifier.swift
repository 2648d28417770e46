import Crypto
package import FoundationEssentials

/// Verifies what a ``StatementSigner`` signed, by the public keys that are trusted.
package struct StatementVerifier: Sendable {
    private let keys: [String: VerificationKey]
    private let algorithms: [String: TokenAlgorithm]
    private let type: String

    /// - Parameters:
    ///   - keys: the keys that are trusted; while one takes another's place, both.
    ///   - type: the `typ` that a statement has to have: a token, signed by the same key, is none.
    package init(keys: [VerificationKey], type: String) {
        self.keys = Dictionary(keys.map { ($0.keyID, $0) }) { first, _ in first }
        algorithms = self.keys.mapValues(\.algorithm)
        self.type = type
    }

    /// What was signed. Takes about 0.1 ms; the caller bounds the size.
    /// - Throws: ``AuthenticationError/Code/malformed``, also for another `typ`;
    ///   ``AuthenticationError/Code/algorithmForbidden``, ``AuthenticationError/Code/keyUnknown``,
    ///   ``AuthenticationError/Code/signatureInvalid``.
    package func verify(_ statement: String) throws(AuthenticationError) -> Data {
        let header = try SignedHeader(of: Array(statement.utf8), among: algorithms, called: "the statement")
        guard header.type == type else {
            throw AuthenticationError(.malformed, "the statement is not of the type \(type)")
        }
        guard let key = keys[header.keyID], let payload = Base64URL.decode(header.parts[1]),
            let signature = Base64URL.decode(header.parts[2])
        else { throw AuthenticationError(.malformed, "the statement is no JWS in compact form") }
        let signed = Data(header.parts[0] + [UInt8(ascii: ".")] + header.parts[1])
        guard key.accepts(signature, over: signed) else {
            throw AuthenticationError(.signatureInvalid, "the statement's signature is not valid")
        }
        return payload
    }
}

extension VerificationKey {
    /// Whether this is the key's signature over these bytes (RFC 7518 section 3.4, RFC 8037 section 3.1).
    fileprivate func accepts(_ signature: Data, over bytes: Data) -> Bool {
        switch backing {
        case .edDSA(let key): return key.isValidSignature(signature, for: bytes)
        case .es256(let key):
            guard let signature = try? P256.Signing.ECDSASignature(rawRepresentation: signature) else { return false }
            return key.isValidSignature(signature, for: bytes)
        }
    }
}
