/// The limits that the frame grammar itself sets.
public enum FrameLimits {
    /// The largest body of a frame, in bytes, so that nothing blocks a lane for long.
    public static let maximumBody = 16 * 1024
    /// Cursors in one `CONNECT`, and answers in one `CONNECTED`.
    public static let maximumCursors = 96
    /// Versions in one `CONNECT`.
    public static let maximumVersions = 8
    /// A token's bytes.
    public static let maximumToken = 8 * 1024
    /// A resume ticket's bytes.
    public static let maximumTicket = 1024
    /// A close reason's bytes.
    public static let maximumReason = 256
    /// The agent string's bytes.
    public static let maximumAgent = 64
    /// The largest payload of a publish, in bytes: what a delivery's other fields always leave room for.
    public static let maximumPayload = 15 * 1024
    /// Publishes without an answer, per producer and channel: the ledger remembers as many answers.
    public static let maximumUnacknowledged = 1024
}
