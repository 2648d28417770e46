import CQUICShim

/// Makes the stateless reset tokens of an endpoint's connection IDs: the same ones after a restart with the same static
/// key and server ID (RFC 9000 section 10.3.2), and others than another server's. Confined to the endpoint's owner.
final class ResetTokens {
    private let key: OpaquePointer

    /// Throws `internalError` where the TLS library has no memory.
    init(staticKey: [UInt8], serverID: [UInt8]) throws(QUICError) {
        guard let key = llq_reset_key_new(staticKey, staticKey.count, serverID, serverID.count) else {
            throw QUICError(
                .internalError, "The key of the stateless resets can't be made", advice: "Free some memory.")
        }
        self.key = key
    }

    deinit { llq_reset_key_free(key) }

    /// Fills 16 bytes.
    func fill(_ token: UnsafeMutablePointer<UInt8>, for id: ConnectionID) {
        var cid = id.shim
        let result = llq_reset_token(key, token, &cid)
        precondition(result == 0, "an HMAC over 20 bytes succeeds")
    }

    func token(for id: ConnectionID) -> [UInt8] {
        let length = Int(LLQ_RESET_TOKEN_LENGTH)
        return [UInt8](unsafeUninitializedCapacity: length) { buffer, initialized in
            if let base = buffer.baseAddress { fill(base, for: id) }
            initialized = length
        }
    }
}
