import Crypto
import FoundationEssentials
public import LonglineKeys

/// The keys that resume tickets are sealed with: the newest seals, all of them open.
///
/// A key seals for `sealingTime` and opens for `openingTime` more, so that every ticket outlives its rotation. Nodes that
/// share the file accept each other's tickets. Its text forms never include a key.
public struct ResumeTicketKeys: Sendable, CustomStringConvertible {
    struct Key: Sendable {
        /// Names the key in a ticket: random, so that it says nothing about how many there were.
        var id: UInt32
        /// When it was made, in milliseconds since 1970.
        var created: UInt64
        var secret: SymmetricKey
    }

    /// How long a key seals, in milliseconds.
    public let sealingTime: UInt64
    /// How long it opens after that, in milliseconds: at least the longest life of a ticket.
    public let openingTime: UInt64
    /// Newest first; at most ``limit``.
    private(set) var keys: [Key]

    /// More keys than this are not kept, whatever the times say.
    static let limit = 64
    /// A key from further ahead than this, in milliseconds, was made while the clock was wrong.
    static let largestSkew: UInt64 = 3_600_000

    /// A ring with one new key.
    /// - Parameters:
    ///   - now: the wall clock, in milliseconds since 1970.
    ///   - sealingTime: how long a key seals, in milliseconds.
    ///   - openingTime: how long it opens after that, in milliseconds: at least the longest life of a ticket.
    public init(now: UInt64, sealingTime: UInt64 = 86_400_000, openingTime: UInt64 = 7 * 86_400_000) {
        self.sealingTime = sealingTime
        self.openingTime = openingTime
        keys = [Self.makeKey(now: now, besides: [])]
    }

    /// Adds a new key when the newest has sealed long enough, or is from a time that is yet to come, and drops what opens no more.
    /// - Returns: whether anything changed, so that the ring must be saved before it is used.
    public mutating func rotate(now: UInt64) -> Bool {
        var changed = false
        if keys.isEmpty || now >= keys[0].created &+ sealingTime || keys[0].created > now &+ Self.largestSkew {
            keys.insert(Self.makeKey(now: now, besides: keys), at: 0)
            changed = true
        }
        let count = keys.count
        // The newest always stays, and a clock that went back must not empty the ring.
        keys = keys.enumerated().filter { index, key in
            index == 0 || (index < Self.limit && now < key.created &+ sealingTime &+ openingTime)
        }.map(\.element)
        return changed || keys.count != count
    }

    private static func makeKey(now: UInt64, besides others: [Key]) -> Key {
        var id: UInt32
        repeat { id = UInt32.random(in: .min ... .max) } while others.contains { $0.id == id }
        return Key(id: id, created: now, secret: SymmetricKey(size: .bits256))
    }

    func key(_ id: UInt32) -> Key? { keys.first { $0.id == id } }

    public var description: String { "ring of \(keys.count) ticket keys" }
}

extension ResumeTicketKeys: CustomDebugStringConvertible, CustomReflectable {
    public var debugDescription: String { description }
    public var customMirror: Mirror { Mirror(self, children: ["count": keys.count]) }
}

// The file: a line that names the format, then a line for each key: ID, time made, secret in base64.
extension ResumeTicketKeys {
    private static let heading = "longline resume ticket keys 1"

    /// Reads the ring at a path, or makes one and stores it there with mode 0600; rotates it if that is due and the disk has room
    /// for it. Blocks on the disk.
    /// - Throws: ``/LonglineKeys/AuthenticationError/Code/keyUnusable``.
    public static func loadOrCreate(
        at path: String, now: UInt64, sealingTime: UInt64 = 86_400_000, openingTime: UInt64 = 7 * 86_400_000
    ) throws(AuthenticationError) -> ResumeTicketKeys {
        var ring = ResumeTicketKeys(now: now, sealingTime: sealingTime, openingTime: openingTime)
        let fresh = ring.encoded()
        let bytes = try PrivateFile.loadOrCreate(path, limit: 64 * 1024) { fresh }
        ring.keys = try decode(bytes, path: path)
        var next = ring
        guard next.rotate(now: now) else { return ring }
        // A server starts on a full disk as well: the keys before seal until there is room, which is tried again every hour.
        do { try next.save(to: path) } catch { return ring }
        return next
    }

    /// Stores the ring. Blocks on the disk.
    public func save(to path: String) throws(AuthenticationError) {
        try PrivateFile.replace(path, encoded())
    }

    private func encoded() -> [UInt8] {
        var text = Self.heading + "\n"
        for key in keys {
            let secret = key.secret.withUnsafeBytes { Data($0) }.base64EncodedString()
            text += "\(key.id) \(key.created) \(secret)\n"
        }
        return Array(text.utf8)
    }

    private static func decode(_ bytes: [UInt8], path: String) throws(AuthenticationError) -> [Key] {
        let lines = String(decoding: bytes, as: UTF8.self).split(separator: "\n")
        let keys = lines.dropFirst().prefix(limit).compactMap { line -> Key? in
            let fields = line.split(separator: " ")
            guard fields.count == 3, let id = UInt32(fields[0]), let created = UInt64(fields[1]),
                let secret = Data(base64Encoded: String(fields[2])), secret.count == 32
            else { return nil }
            return Key(id: id, created: created, secret: SymmetricKey(data: secret))
        }
        guard lines.first.map({ $0 == heading }) == true, keys.count == min(lines.count - 1, limit), !keys.isEmpty
        else {
            throw AuthenticationError(
                .keyUnusable, "\(path) is not a file of resume ticket keys",
                advice: "move it away; a new one is made, and clients connect with their tokens once")
        }
        return keys
    }
}
