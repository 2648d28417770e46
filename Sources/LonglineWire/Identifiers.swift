/// Why a string can't be an identifier.
public enum IdentifierError: Error, Hashable, Sendable {
    /// No bytes.
    case empty
    /// More bytes than the identifier's limit.
    case tooLong(limit: Int)
    /// A byte outside `A-Z a-z 0-9 . _ ~ @ + -`.
    case forbiddenByte(UInt8)
    /// A channel that is none of `user/<id>`, `room/<id>` and `all/<id>`.
    case unknownKind
}

/// The rule that tenant, user, device and room names share: 1 to 64 bytes of `A-Z a-z 0-9 . _ ~ @ + -`.
enum IdentifierRule {
    static let limit = 64

    static func check(_ value: some StringProtocol) throws(IdentifierError) {
        guard !value.isEmpty else { throw .empty }
        guard value.utf8.count <= limit else { throw .tooLong(limit: limit) }
        for byte in value.utf8 {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "~"),
                UInt8(ascii: "@"), UInt8(ascii: "+"), UInt8(ascii: "-"):
                continue
            default: throw .forbiddenByte(byte)
            }
        }
    }
}

/// One app's world: every user, device, room and key lives inside one tenant, and nothing crosses.
public struct TenantID: Hashable, Sendable, CustomStringConvertible {
    /// The name, 1 to 64 bytes of `A-Z a-z 0-9 . _ ~ @ + -`.
    public let description: String

    /// Checks and wraps a name.
    /// - Throws: ``IdentifierError``.
    public init(_ name: some StringProtocol) throws(IdentifierError) {
        try IdentifierRule.check(name)
        description = String(name)
    }
}

/// A user within a tenant.
public struct UserID: Hashable, Sendable, CustomStringConvertible {
    /// The name, 1 to 64 bytes of `A-Z a-z 0-9 . _ ~ @ + -`.
    public let description: String

    /// Checks and wraps a name.
    /// - Throws: ``IdentifierError``.
    public init(_ name: some StringProtocol) throws(IdentifierError) {
        try IdentifierRule.check(name)
        description = String(name)
    }
}

/// A device of a user.
public struct DeviceID: Hashable, Sendable, CustomStringConvertible {
    /// The name, 1 to 64 bytes of `A-Z a-z 0-9 . _ ~ @ + -`.
    public let description: String

    /// Checks and wraps a name.
    /// - Throws: ``IdentifierError``.
    public init(_ name: some StringProtocol) throws(IdentifierError) {
        try IdentifierRule.check(name)
        description = String(name)
    }
}

/// An ordered durable log within a tenant: a user's inbox, written `user/<id>`, a room, written `room/<id>`, or a broadcast
/// to all users of the tenant, written `all/<id>`.
public enum ChannelID: Hashable, Sendable, CustomStringConvertible {
    /// A user's inbox.
    case user(UserID)
    /// A room, shared by its members. The associated name follows the rule of ``UserID``.
    case room(RoomID)
    /// A broadcast, which every user of the tenant receives.
    case all(BroadcastID)

    /// Parses `user/<id>`, `room/<id>` or `all/<id>`.
    /// - Throws: ``IdentifierError``.
    public init(_ text: some StringProtocol) throws(IdentifierError) {
        if text.hasPrefix("user/") {
            self = .user(try UserID(text.dropFirst(5)))
        } else if text.hasPrefix("room/") {
            self = .room(try RoomID(text.dropFirst(5)))
        } else if text.hasPrefix("all/") {
            self = .all(try BroadcastID(text.dropFirst(4)))
        } else {
            throw .unknownKind
        }
    }

    public var description: String {
        switch self {
        case .user(let user): "user/\(user)"
        case .room(let room): "room/\(room)"
        case .all(let broadcast): "all/\(broadcast)"
        }
    }
}

/// A broadcast to all users of a tenant.
public struct BroadcastID: Hashable, Sendable, CustomStringConvertible {
    /// The name, 1 to 64 bytes of `A-Z a-z 0-9 . _ ~ @ + -`.
    public let description: String

    /// Checks and wraps a name.
    /// - Throws: ``IdentifierError``.
    public init(_ name: some StringProtocol) throws(IdentifierError) {
        try IdentifierRule.check(name)
        description = String(name)
    }
}

/// A room within a tenant.
public struct RoomID: Hashable, Sendable, CustomStringConvertible {
    /// The name, 1 to 64 bytes of `A-Z a-z 0-9 . _ ~ @ + -`.
    public let description: String

    /// Checks and wraps a name.
    /// - Throws: ``IdentifierError``.
    public init(_ name: some StringProtocol) throws(IdentifierError) {
        try IdentifierRule.check(name)
        description = String(name)
    }
}

/// Identifies one outbox of one device: 128 random bits drawn when the outbox is created.
public struct ProducerID: Hashable, Sendable, CustomStringConvertible {
    /// The first 64 bits, in wire order.
    public let high: UInt64
    /// The last 64 bits, in wire order.
    public let low: UInt64

    /// Wraps 128 bits.
    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// Draws a new producer.
    public static func random(using generator: inout some RandomNumberGenerator) -> ProducerID {
        ProducerID(high: generator.next(), low: generator.next())
    }

    public var description: String {
        func hex(_ value: UInt64) -> String {
            let digits = String(value, radix: 16)
            return String(repeating: "0", count: 16 - digits.count) + digits
        }
        return hex(high) + hex(low)
    }
}

/// A publish's number within its producer, from 1 upwards. 0 stands for "none".
public typealias PublishID = UInt64

/// 64 random bits that tell one publish from another that wrongly carries the same ID.
public typealias PublishTag = UInt64

/// Marks one life of a channel's log: 64 random bits, redrawn when a store is restored. A room that is deleted and made again goes on
/// in its log, with its epoch.
public typealias Epoch = UInt64

/// An entry's place in its channel within an epoch: grows, starts above 0, is sparse. 0 stands for "before the first".
public typealias Offset = UInt64

/// A place in a channel: offsets compare only within one epoch.
public struct Position: Hashable, Sendable {
    /// The life of the log that ``offset`` belongs to.
    public var epoch: Epoch
    /// The last entry at or below which everything is meant; 0 is before the first entry.
    public var offset: Offset

    /// A position.
    public init(epoch: Epoch, offset: Offset) {
        self.epoch = epoch
        self.offset = offset
    }
}
