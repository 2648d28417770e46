public import LonglineKeys

/// A key that is known to others before it signs: apps that verify access configurations have keys in their build, and updates
/// take their time.
extension ServerDirectory {
    private var nextKeyPath: String { path + "/token-next.key" }

    /// The key that signs after the next rotation; nil: none was prepared. Blocks on the disk.
    /// - Throws: ``/LonglineKeys/AuthenticationError/Code/keyUnusable``.
    public func nextSigningKey() throws(AuthenticationError) -> SigningKey? {
        guard let key = try SigningKey.load(at: nextKeyPath) else { return nil }
        // Of a rotation that was cut off the file may be left.
        return try key.keyID == signingKey().keyID ? nil : key
    }

    /// Makes the key that signs after the next rotation, and trusts it from now on: it is in ``trustedKeys()``, and so in the key set
    /// that everybody gets. Where one was prepared before, it stays, whatever its algorithm.
    /// - Parameters:
    ///   - algorithm: of a new key.
    ///   - trusted: called at the end: has a running server read the keys again.
    /// - Throws: ``/LonglineKeys/AuthenticationError/Code/keyUnusable``, or what `trusted` throws.
    @discardableResult
    public func prepareSigningKey(
        algorithm: TokenAlgorithm = .edDSA, trusted: () async throws -> Void = {}
    ) async throws -> SigningKey {
        let next: SigningKey
        if let prepared = try nextSigningKey() {
            next = prepared
        } else {
            next = SigningKey.generate(algorithm)
            try PrivateFile.replace(nextKeyPath, Array(next.pem.utf8))
        }
        let others = try trustedKeys().filter { $0.keyID != next.keyID }
        try writeTrusted([next.verificationKey] + others.prefix(JSONWebKeySet.maximumKeys - 1))
        try await trusted()
        return next
    }

    /// It signs, or is not wanted any more.
    func forgetNextKey() throws(AuthenticationError) { try PrivateFile.remove(nextKeyPath) }
}
