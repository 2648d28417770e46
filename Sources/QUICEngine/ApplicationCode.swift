/// What an application tells its peer with a reset, a stop or a close (RFC 9000 section 20.2).
enum ApplicationCode {
    /// The largest number that a packet can carry (RFC 9000 section 16).
    static let largest: UInt64 = (1 << 62) - 1

    /// The code that goes out: one that is too large is sent as the largest, since ngtcp2 would abort on it.
    static func carried(_ code: UInt64) -> UInt64 { min(code, largest) }
}
