import Synchronization

/// The masters that session tickets are sealed with. The newest seals; older ones still open until they are as old
/// as the oldest ticket may be. Shared by all loops of a server, and by servers that shall accept each other's tickets:
/// to resume, not for 0-RTT, which only those accept that share a ``ReplayStore`` with the one that sealed the ticket.
public final class TicketKeyRing: Sendable {
    /// One master and the time it was drawn.
    struct Master: Sendable, Hashable {
        var key: [UInt8]
        var createdAt: UInt64
    }

    /// How long a ticket is valid, and so how long an old master is kept, in seconds: seven days (RFC 8446 section
    /// 4.6.1's limit, and GnuTLS's).
    public static let ticketLifetime: UInt64 = 7 * 24 * 3600
    /// The length of a master in bytes, as GnuTLS wants it.
    static let masterLength = 64
    /// Masters kept at most; `rotate` drops the oldest beyond.
    static let limit = 64
    /// A master from further ahead than this, in seconds, was drawn while the clock was wrong.
    static let largestSkew: UInt64 = 3600
    private static let magic: [UInt8] = Array("LLTK1".utf8)

    private let masters: Mutex<[Master]>

    /// A ring with one new master.
    /// - Parameters:
    ///   - random: cryptographically secure.
    ///   - now: seconds since 1970 on the wall clock.
    public init(random: inout some RandomNumberGenerator, now: UInt64) {
        masters = Mutex([Master(key: Self.draw(&random), createdAt: now)])
    }

    /// Reads what `serialized` returned earlier. Throws `malformed` for anything else.
    public init(serialized bytes: [UInt8]) throws(QUICError) {
        var reader = ByteReader(bytes)
        var loaded: [Master] = []
        if reader.take(Self.magic.count) == Self.magic {
            while let createdAt = reader.uint64(), let key = reader.take(Self.masterLength), loaded.count < Self.limit {
                loaded.append(Master(key: key, createdAt: createdAt))
            }
        }
        guard !loaded.isEmpty, reader.isAtEnd else {
            throw QUICError(
                .malformed, "The ticket key file can't be read",
                advice: "Restore it from another server of the group, or delete it: a new one is made, and clients "
                    + "make one full handshake each.")
        }
        masters = Mutex(loaded)
    }

    /// The masters, newest first, for a file that only the server's user may read.
    public func serialized() -> [UInt8] {
        var writer = ByteWriter()
        writer.append(contentsOf: Self.magic)
        for master in masters.withLock({ $0 }) {
            writer.append(master.createdAt)
            writer.append(contentsOf: master.key)
        }
        return writer.bytes
    }

    /// Takes the masters of a newer file, for instance after another server of the group rotated.
    public func replace(with other: TicketKeyRing) {
        let newer = other.masters.withLock { $0 }
        masters.withLock { $0 = newer }
    }

    /// Draws a new master if the newest is at least `interval` seconds old, or from a time that is yet to come, and drops those no
    /// ticket can need.
    /// - Returns: whether anything changed; the file should then be saved.
    @discardableResult
    public func rotate(
        now: UInt64, ifOlderThan interval: UInt64 = 24 * 3600, random: inout some RandomNumberGenerator
    ) -> Bool {
        let fresh = Self.draw(&random)
        return masters.withLock { masters in
            let before = masters
            if let newest = masters.first, Self.isDue(newest.createdAt, now: now, interval) {
                masters.insert(Master(key: fresh, createdAt: now), at: 0)
            }
            // A master stops sealing when its successor is drawn; the last ticket it sealed lives that much longer. One whose time
            // is yet to come stays until then: it can't be told whether that time is wrong or the present one.
            let all = masters
            masters = all.enumerated().filter { index, master in
                guard index > 0 else { return true }
                let retiredAt = max(all[index - 1].createdAt, master.createdAt)
                return now < retiredAt || now - retiredAt <= Self.ticketLifetime
            }.map(\.element)
            if masters.count > Self.limit { masters.removeLast(masters.count - Self.limit) }
            assert(!masters.isEmpty)
            return masters != before
        }
    }

    private static func isDue(_ createdAt: UInt64, now: UInt64, _ interval: UInt64) -> Bool {
        now >= createdAt ? now - createdAt >= interval : createdAt - now > largestSkew
    }

    /// The masters, newest first.
    var current: [Master] { masters.withLock { $0 } }

    private static func draw(_ random: inout some RandomNumberGenerator) -> [UInt8] {
        (0..<masterLength / 8).flatMap { _ in
            withUnsafeBytes(of: random.next()) { Array($0) }
        }
    }
}
