import FoundationEssentials

/// What a JWS in compact form (RFC 7515) says about itself, before anything else of it is believed.
///
/// The algorithm follows from the key, not from what was signed: the header must name a known key, and that key's own algorithm.
/// So there is no `none`, and no public key taken for a shared secret.
package struct SignedHeader {
    /// The key that it names.
    package let keyID: String
    /// Its `typ`.
    package let type: String?
    /// Header, payload and signature, as they stand there.
    package let parts: [ArraySlice<UInt8>]

    private struct Members: Decodable {
        var alg: String
        var kid: String?
        var typ: String?
        /// Present when an extension is demanded (RFC 7515 section 4.1.11); we know none.
        var crit: [String]?
    }

    /// The longest header, in bytes of Base64.
    private static let maximumBytes = 512

    /// - Parameters:
    ///   - bytes: the JWS.
    ///   - algorithms: the keys that are trusted, by their IDs, and what each is for.
    ///   - name: what errors call it: "the token".
    /// - Throws: ``AuthenticationError/Code/malformed``, ``AuthenticationError/Code/algorithmForbidden``,
    ///   ``AuthenticationError/Code/keyUnknown``.
    package init(
        of bytes: [UInt8], among algorithms: [String: TokenAlgorithm], called name: String
    ) throws(AuthenticationError) {
        parts = bytes.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        guard parts.count == 3, parts[0].count <= Self.maximumBytes, parts.allSatisfy(Base64URL.isCanonical),
            let json = Base64URL.decode(parts[0]),
            let members = try? JSONDecoder().decode(Members.self, from: json)
        else { throw AuthenticationError(.malformed, "\(name) is no JWS in compact form") }
        guard let algorithm = TokenAlgorithm(rawValue: members.alg) else {
            throw AuthenticationError(.algorithmForbidden, "\(name) is not signed with EdDSA or ES256")
        }
        guard members.crit == nil else {
            throw AuthenticationError(.algorithmForbidden, "\(name) demands an extension")
        }
        guard let kid = members.kid, let expected = algorithms[kid] else {
            throw AuthenticationError(
                .keyUnknown, "\(name) names no key that is trusted here",
                advice: "have the signer's public key trusted here")
        }
        guard algorithm == expected else {
            throw AuthenticationError(.algorithmForbidden, "the key of \(name) is not for the algorithm it names")
        }
        keyID = kid
        type = members.typ
    }
}
