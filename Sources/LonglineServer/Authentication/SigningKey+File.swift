public import LonglineKeys

extension SigningKey {
    /// Reads the key at a path, or makes one and stores it there with mode 0600.
    ///
    /// Several processes may do this at once: all end up with the same key. Blocks on the disk.
    /// - Throws: ``/LonglineKeys/AuthenticationError/Code/keyUnusable``; among other reasons when the file is open to other users.
    public static func loadOrCreate(
        at path: String, algorithm: TokenAlgorithm = .edDSA
    ) throws(AuthenticationError) -> SigningKey {
        if let key = try load(at: path) { return key }
        let key = generate(algorithm)
        if try PrivateFile.create(path, Array(key.pem.utf8)) { return key }
        // Another process was first.
        guard let others = try load(at: path) else {
            throw AuthenticationError(.keyUnusable, "\(path) came and went")
        }
        return others
    }

    /// Reads the key at a path; nil: there is no file.
    static func load(at path: String) throws(AuthenticationError) -> SigningKey? {
        guard let bytes = try PrivateFile.read(path, limit: 16 * 1024) else { return nil }
        return try SigningKey(pem: String(decoding: bytes, as: UTF8.self))
    }
}
