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
        do throws(AuthenticationError) { return try SigningKey(pem: String(decoding: bytes, as: UTF8.self)) } catch {
            // What is made anew here is of no use to whoever has tokens of the key before.
            throw AuthenticationError(
                .keyUnusable, "\(path) holds \(error.message)",
                advice: "put a backup of it back, or move it away: a new key is made, and what this one signed is void")
        }
    }
}
