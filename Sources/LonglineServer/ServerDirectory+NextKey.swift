public import LonglineKeys

#if canImport(Musl)
    import Musl
#else
    import Glibc
#endif

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
        let next = try nextKey(orMake: algorithm)
        let keys = try trustedKeys()
        // One that is in the set already keeps its age: ``timeUntilKnown(now:)``.
        if !keys.contains(where: { $0.keyID == next.keyID }) {
            try writeTrusted([next.verificationKey] + keys.prefix(JSONWebKeySet.maximumKeys - 1))
        }
        try await trusted()
        return next
    }

    /// The key that was prepared; where none was, one of this algorithm.
    func nextKey(orMake algorithm: TokenAlgorithm) throws(AuthenticationError) -> SigningKey {
        if let prepared = try nextSigningKey() { return prepared }
        let made = SigningKey.generate(algorithm)
        try PrivateFile.replace(nextKeyPath, Array(made.pem.utf8))
        return made
    }

    /// How long whoever gets the key set from the control layer may keep it (`max-age`).
    public static let keySetLifetime = Duration.seconds(60)
    /// How long it may take until a new key is in the set that the control layer answers with, where nobody could tell it.
    private static let publicationDelay = Duration.seconds(5)

    /// How long the prepared key has to wait until nobody has a copy of the key set any more that lacks it; all of the time where
    /// none was prepared. Blocks on the disk.
    /// - Parameter now: the wall clock, in milliseconds since 1970.
    public func timeUntilKnown(now: UInt64) -> Duration {
        let whole = Self.keySetLifetime + Self.publicationDelay
        guard let made = Self.changed(nextKeyPath), let published = Self.changed(keySetPath) else { return whole }
        // A clock that went back counts for nothing.
        let since = max(made, published)
        guard now >= since else { return whole }
        return max(whole - .milliseconds(Int64(clamping: now - since)), .zero)
    }

    /// When a file was written last, in milliseconds since 1970; nil: there is none.
    private static func changed(_ path: String) -> UInt64? {
        var status = stat()
        guard stat(path, &status) == 0 else { return nil }
        return UInt64(clamping: status.st_mtim.tv_sec) * 1_000 + UInt64(clamping: status.st_mtim.tv_nsec) / 1_000_000
    }

    /// It signs, or is not wanted any more.
    func forgetNextKey() throws(AuthenticationError) { try PrivateFile.remove(nextKeyPath) }
}
