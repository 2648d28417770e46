internal import HTTPTypes

/// A rule that the peer broke, and what it ends.
enum Violation: Error {
    /// The whole connection.
    case connection(HTTP3ErrorCode, String)
    /// One request; the connection goes on.
    case stream(HTTP3ErrorCode, String)
}
