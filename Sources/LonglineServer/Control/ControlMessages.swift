/// What an operator's process asks of a running server: one JSON object in one line.
struct ControlRequest: Codable, Sendable {
    enum Operation: String, Codable, Sendable {
        case revokeUser = "revoke-user"
        case revokeDevice = "revoke-device"
        case revokeToken = "revoke-token"
        case eraseUser = "erase-user"
        case generations
        case reloadKeys = "reload-keys"
    }

    var operation: Operation
    var tenant: String?
    var user: String?
    var device: String?
    /// A token's ID (`jti`), never the token.
    var token: String?
    /// In milliseconds since 1970.
    var until: UInt64?
}

/// What the server answers: one JSON object in one line.
struct ControlAnswer: Codable, Sendable {
    /// Why it was not done; absent when it was.
    var error: String?
    /// What a person can do about the error.
    var advice: String?
    /// Of an erasure: whether nothing is left; false when it goes on, and may be asked for again.
    var isDone: Bool?
    var userGeneration: UInt64?
    var deviceGeneration: UInt64?
}
