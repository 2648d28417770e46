/// What an operator's process asks of a running server: one JSON object in one line.
struct ControlRequest: Codable, Sendable {
    enum Operation: String, Codable, Sendable {
        case revokeUser = "revoke-user"
        case revokeDevice = "revoke-device"
        case revokeToken = "revoke-token"
        case eraseUser = "erase-user"
        case generations
        case reloadKeys = "reload-keys"
        case status
        case sessions
        case disconnect
        case drain
    }

    var operation: Operation
    var tenant: String?
    var user: String?
    var device: String?
    /// A token's ID (`jti`), never the token.
    var token: String?
    /// In milliseconds since 1970.
    var until: UInt64?
    /// The close that sessions are ended with.
    var code: UInt32?
    var reason: String?
    /// Clients a second.
    var rate: Int?
    /// Where clients are sent.
    var accessPoint: String?
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
    var status: ServerStatus?
    /// The oldest ``ControlAnswer/maximumSessions`` of ``count``.
    var sessions: [SessionRecord]?
    /// How many sessions there are, or were ended.
    var count: Int?
    /// Connections that are left to be moved away.
    var remaining: Int?

    /// So many fit into an answer.
    static let maximumSessions = 500
}
