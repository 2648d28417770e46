public import LonglineKeys

/// A folder's signing key, those before it, and how one takes the other's place.
extension ServerDirectory {
    private var signingKeyPath: String { path + "/token.key" }
    var keySetPath: String { path + "/token-keys.json" }

    /// The public keys that this folder's tokens are signed with: the present one, one that was prepared, and those before that
    /// are still trusted, newest first. Blocks on the disk.
    /// - Throws: ``/LonglineKeys/AuthenticationError/Code/keyUnusable``.
    public func trustedKeys() throws(AuthenticationError) -> [VerificationKey] {
        let signing = try signingKey().verificationKey
        guard let bytes = try PrivateFile.read(keySetPath, limit: JSONWebKeySet.maximumBytes) else { return [signing] }
        let keys = try JSONWebKeySet(json: bytes).keys
        return keys.contains { $0.keyID == signing.keyID } ? keys : [signing] + keys
    }

    /// Has a new key sign, the one that was prepared (``prepareSigningKey(algorithm:trusted:)``) if there is one, and goes on
    /// trusting those before it, as tokens that they signed are still in use.
    ///
    /// The new key is trusted first and signs afterwards, so that at no moment a token is refused that was just signed. Others may
    /// have a copy of the set without it: prepare it for them, and wait for ``timeUntilKnown(now:)``.
    /// - Parameters:
    ///   - keep: how many of the keys before stay trusted.
    ///   - algorithm: of the key that is made where none was prepared.
    ///   - trusted: called between the two steps: has a running server read the keys again. When it throws, the new key does
    ///     not sign; it stays prepared.
    /// - Throws: ``/LonglineKeys/AuthenticationError/Code/keyUnusable``, or what `trusted` throws.
    @discardableResult
    public func rotateSigningKey(
        keep: Int = 1, algorithm: TokenAlgorithm = .edDSA, trusted: () async throws -> Void = {}
    ) async throws -> SigningKey {
        // On the disk before anybody trusts it: where this is cut off, the next rotation goes on with the same key.
        let next = try nextKey(orMake: algorithm)
        let signing = try signingKey().verificationKey
        let older = try trustedKeys().filter { $0.keyID != next.keyID && $0.keyID != signing.keyID }
        let before = ([signing] + older).prefix(max(0, min(keep, JSONWebKeySet.maximumKeys - 1)))
        // Until the new key signs, the present one has to be trusted, however few are kept.
        let present = before.isEmpty ? [signing] : Array(before)
        try writeTrusted([next.verificationKey] + present)
        try await trusted()
        try PrivateFile.replace(signingKeyPath, Array(next.pem.utf8))
        try forgetNextKey()
        if present.count != before.count { try writeTrusted([next.verificationKey] + before) }
        return next
    }

    /// Stops trusting a key: tokens that it signed, and tickets that came from them, open no session any more.
    /// - Returns: false when no such key is trusted.
    /// - Throws: ``/LonglineKeys/AuthenticationError/Code/keyUnusable``, also for the present signing key: rotate first.
    @discardableResult
    public func removeTrustedKey(_ keyID: String) throws(AuthenticationError) -> Bool {
        let keys = try trustedKeys()
        guard keys.contains(where: { $0.keyID == keyID }) else { return false }
        guard try signingKey().keyID != keyID else {
            throw AuthenticationError(
                .keyUnusable, "key \(keyID) signs this folder's tokens", advice: "rotate first, then remove it")
        }
        if try nextSigningKey()?.keyID == keyID { try forgetNextKey() }
        try writeTrusted(keys.filter { $0.keyID != keyID })
        return true
    }

    /// This folder's keys for a server that runs on it, which so learns of rotations.
    public var tokenKeySource: any TokenKeySource { DirectoryKeys(directory: self) }

    func writeTrusted(_ keys: [VerificationKey]) throws(AuthenticationError) {
        try PrivateFile.replace(keySetPath, JSONWebKeySet(keys: keys).json)
    }
}

/// The keys of the folder that a server runs on.
struct DirectoryKeys: TokenKeySource {
    let directory: ServerDirectory
    var name: String { directory.path }
    func keys() async throws -> [VerificationKey] { try directory.trustedKeys() }
}
