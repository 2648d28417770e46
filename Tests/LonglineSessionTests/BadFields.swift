import LonglineWire
import NIOCore

/// The fields of a frame as `docs/protocol.md` lists them, each with a good value, the bad ones, and what they get.
struct FrameFields {
    struct Field {
        let name: String
        let good: [UInt8]
        /// A bad value in words, its bytes and the close code.
        let bad: [(what: String, bytes: [UInt8], code: CloseCode)]
    }

    let name: String
    let type: UInt64
    let isFromClient: Bool
    let fields: [Field]

    /// A body with one field replaced.
    func body(replacing index: Int? = nil, with bytes: [UInt8] = []) -> [UInt8] {
        fields.enumerated().flatMap { $0.offset == index ? bytes : $0.element.good }
    }

    func frame(_ body: [UInt8]) -> ByteBuffer {
        ByteBuffer(bytes: Self.varint(type) + Self.varint(UInt64(body.count)) + body)
    }

    /// The rows of the table in the documentation. A field without a bad value is there for the others only.
    var rows: [String] {
        fields.filter { !$0.bad.isEmpty }.map { field in
            let bad = field.bad.map { "\($0.what): \($0.code.rawValue)" }.joined(separator: "; ")
            return "| \(name) | \(field.name) | \(bad) |"
        }
    }

    static func varint(_ value: UInt64) -> [UInt8] {
        switch value {
        case 0..<64: [UInt8(value)]
        case 64..<16_384: [0x40 | UInt8(value >> 8), UInt8(value & 0xff)]
        default: (0..<8).map { UInt8(truncatingIfNeeded: (value | 3 << 62) >> (56 - 8 * UInt64($0))) }
        }
    }

    // MARK: The kinds of fields

    private static let cut = "cut off"

    static func number(_ name: String) -> Field {
        // An eight-byte form of which one byte is there: the fields behind it are too few for the rest, or are eaten.
        Field(name: name, good: [5], bad: [(cut, [], .malformedFrame)])
    }

    private static func word(_ name: String, zeroIsBad: Bool = false) -> Field {
        Field(
            name: name, good: [1],
            bad: [(cut, [], .malformedFrame), ("over 2^32 - 1", varint(1 << 32), .malformedFrame)]
                + (zeroIsBad ? [("0", [0], .malformedFrame)] : []))
    }

    private static func fixed(_ name: String, _ count: Int = 8) -> Field {
        Field(name: name, good: Array(repeating: 7, count: count), bad: [(cut, [], .malformedFrame)])
    }

    private static func string(_ name: String, _ limit: Int) -> Field {
        let tooLong = [UInt8](repeating: 0x61, count: limit + 1)
        return Field(
            name: name, good: [1, 0x61],
            bad: [
                (cut, [], .malformedFrame), ("no UTF-8", [1, 0xff], .malformedFrame),
                ("over \(limit) bytes", varint(UInt64(limit + 1)) + tooLong, .limitExceeded),
            ])
    }

    static func bytes(_ name: String, _ limit: Int) -> Field {
        Field(
            name: name, good: [1, 9],
            bad: [
                (cut, [], .malformedFrame),
                (
                    "over \(limit) bytes", varint(UInt64(limit + 1)) + [UInt8](repeating: 1, count: limit + 1),
                    .limitExceeded
                ),
            ])
    }

    private static func following() -> Field {
        Field(name: "following", good: [5], bad: [(cut, [], .malformedFrame), ("0", [0], .malformedFrame)])
    }

    private static func payload() -> Field {
        Field(
            name: "payload", good: [1, 9],
            bad: [(cut, [], .malformedFrame), ("a length beyond the body", [40, 1], .malformedFrame)])
    }

    private static func identifier(_ name: String) -> Field {
        Field(
            name: name, good: [1, 0x61],
            bad: [
                (cut, [], .malformedFrame), ("empty", [0], .malformedFrame), ("no name", [1, 0x2f], .malformedFrame),
                ("no UTF-8", [1, 0xff], .malformedFrame),
                ("over 64 bytes", varint(65) + [UInt8](repeating: 0x61, count: 65), .limitExceeded),
            ])
    }

    static func channel(_ name: String, prefix: [UInt8] = [], suffix: [UInt8] = []) -> Field {
        func text(_ text: String) -> [UInt8] { prefix + varint(UInt64(text.utf8.count)) + Array(text.utf8) + suffix }
        return Field(
            name: name, good: text("user/alice"),
            bad: [
                (cut, prefix, .malformedFrame), ("another kind", text("news/a"), .malformedFrame),
                ("no name", text("room/a b"), .malformedFrame), ("no UTF-8", prefix + [1, 0xff], .malformedFrame),
                ("over 69 bytes", text("room/" + String(repeating: "a", count: 65)), .limitExceeded),
            ])
    }

    private static func users(noneIsBad: Bool) -> Field {
        Field(
            name: "users", good: [1, 1, 0x61],
            bad: (noneIsBad ? [("none", [0], .malformedFrame)] : []) + [
                ("over 100", varint(101), .limitExceeded), ("fewer than counted", [2, 1, 0x61], .malformedFrame),
                ("one that is no name", [1, 1, 0x2f], .malformedFrame),
            ])
    }

    private static func places(_ name: String) -> Field {
        Field(
            name: name, good: [0],
            bad: [("over 96", varint(97), .limitExceeded), ("fewer than counted", [1], .malformedFrame)])
    }

    static func choice(_ name: String, over highest: UInt8) -> Field {
        Field(
            name: name, good: [0],
            bad: [(cut, [], .malformedFrame), ("over \(highest)", [highest + 1], .malformedFrame)])
    }

    /// Of something that names another entry.
    private static func kind(_ what: String, bad: [UInt8]) -> Field {
        Field(name: "kind", good: [4], bad: [(cut, [], .malformedFrame), (what, bad, .malformedFrame)])
    }

    private static func flags(known: UInt8) -> Field {
        Field(
            name: "flags", good: [known],
            bad: [(cut, [], .malformedFrame), ("an unknown bit", [known + 1], .malformedFrame)])
    }

    static func position(_ name: String) -> Field {
        Field(name: name, good: [UInt8](repeating: 7, count: 8) + [3], bad: [(cut, [], .malformedFrame)])
    }

    private static let request: [Field] = [fixed("request"), identifier("room")]

    /// A place in a list, which is bytes that only their maker reads.
    private static func place(_ name: String) -> Field { bytes(name, 96) }

    // MARK: The frames

    private static let conversations: [FrameFields] = [
        FrameFields(
            name: "CONVERSATIONS", type: 0x33, isFromClient: true,
            fields: [fixed("request"), place("after"), number("limit")]),
        FrameFields(
            name: "CONVERSATIONS_PAGE", type: 0x35, isFromClient: false,
            fields: [
                fixed("request"), word("refusal"), number("retry after"), place("next"),
                Field(
                    name: "items", good: [0],
                    bad: [
                        (cut, [], .malformedFrame), ("over 50", varint(51), .limitExceeded),
                        ("above 0 in a refusal", [1], .malformedFrame),
                    ]),
            ]),
        FrameFields(
            name: "READ", type: 0x39, isFromClient: true,
            fields: [flags(known: 1), channel("conversation"), position("position")]),
        FrameFields(
            name: "CONVERSATION_SET", type: 0x3b, isFromClient: true,
            fields: [
                fixed("request"), channel("conversation"),
                Field(
                    name: "setting", good: [1],
                    bad: [(cut, [], .malformedFrame), ("over 1", [2], .malformedFrame)]),
                Field(
                    name: "value", good: [1],
                    bad: [(cut, [], .malformedFrame), ("over 1 in a block", [2], .malformedFrame)]),
            ]),
        FrameFields(
            name: "RECEIPT", type: 0x3c, isFromClient: false,
            fields: [channel("conversation"), identifier("user"), choice("kind", over: 1), position("position")]),
        FrameFields(
            name: "CONVERSATION", type: 0x3e, isFromClient: false,
            fields: [
                fixed("request"), word("refusal"), channel("conversation"), number("muted until"),
                choice("blocked", over: 1),
            ]),
    ]

    static let all: [FrameFields] = control + lanes + conversations

    private static let control: [FrameFields] = [
        FrameFields(
            name: "CONNECT", type: 0x01, isFromClient: true,
            fields: [
                Field(
                    name: "versions", good: [1, 1],
                    bad: [
                        ("none", [0], .malformedFrame),
                        ("over 8", varint(9) + [UInt8](repeating: 1, count: 9), .limitExceeded),
                        ("one over 2^32 - 1", [1] + varint(1 << 32), .malformedFrame),
                    ]),
                choice("credential kind", over: 1),
                string("token", 7_168), fixed("producer", 16), number("connect number"), number("cursor version"),
                places("cursors"), string("agent", 64),
            ]),
        FrameFields(
            name: "CURSORS", type: 0x56, isFromClient: true, fields: [choice("all", over: 1), places("cursors")]),
        FrameFields(name: "AHEAD", type: 0x58, isFromClient: false, fields: [places("records")]),
        FrameFields(
            name: "CONNECTED", type: 0x03, isFromClient: false,
            fields: [
                word("version"), fixed("session"), choice("resumed", over: 1), number("server time"),
                string("observed address", 80), number("credential expiry"), number("maximum payload"),
                number("channel window"), number("maximum unacknowledged"), number("minimum heartbeat"),
                number("idle timeout"), number("cursor version"),
                Field(
                    name: "channels", good: [0],
                    bad: [("over 96", varint(97), .limitExceeded), ("fewer than counted", [1], .malformedFrame)]),
            ]),
        FrameFields(
            name: "CLOSE", type: 0x05, isFromClient: true,
            fields: [word("code"), string("reason", 256), number("retry after"), string("access point", 260)]),
        FrameFields(name: "PING", type: 0x07, isFromClient: true, fields: [fixed("nonce"), number("answer after")]),
        FrameFields(
            name: "PONG", type: 0x09, isFromClient: false, fields: [fixed("nonce"), string("observed address", 80)]),
        FrameFields(
            name: "TICKET", type: 0x0b, isFromClient: false, fields: [bytes("ticket", 1_024), number("expiry")]),
        FrameFields(name: "REFRESH", type: 0x0d, isFromClient: true, fields: [string("token", 7_168)]),
        FrameFields(name: "REFRESHED", type: 0x0f, isFromClient: false, fields: [number("credential expiry")]),
        FrameFields(name: "JOIN", type: 0x21, isFromClient: true, fields: request),
        FrameFields(name: "LEAVE", type: 0x23, isFromClient: true, fields: request),
        FrameFields(
            name: "ROOM_ANSWER", type: 0x25, isFromClient: false,
            fields: [fixed("request"), word("refusal"), position("position")]),
        FrameFields(
            name: "ROOM_SETTINGS", type: 0x5a, isFromClient: false,
            fields: [
                identifier("room"), position("position"), choice("joining", over: 2), choice("publishing", over: 1),
                choice("role", over: 1),
            ]),
        FrameFields(
            name: "ROOM", type: 0x2d, isFromClient: true,
            fields: request + [
                choice("action", over: 5), identifier("user"),
                Field(
                    name: "value", good: [0],
                    bad: [(cut, [], .malformedFrame), ("none of the action's", [9], .malformedFrame)]),
            ]),
        FrameFields(
            name: "MEMBERS", type: 0x2f, isFromClient: true,
            fields: request + [
                Field(
                    name: "after", good: [0],
                    bad: [
                        (cut, [], .malformedFrame), ("no name", [1, 0x2f], .malformedFrame),
                        ("no UTF-8", [1, 0xff], .malformedFrame),
                        ("over 64 bytes", varint(65) + [UInt8](repeating: 0x61, count: 65), .limitExceeded),
                    ]), number("limit"),
            ]),
        FrameFields(
            name: "MEMBERS_PAGE", type: 0x31, isFromClient: false,
            fields: [
                fixed("request"),
                Field(
                    name: "refusal", good: [0],
                    bad: [(cut, [], .malformedFrame), ("over 2^32 - 1", varint(1 << 32), .malformedFrame)]),
                number("total"),
                Field(
                    name: "members", good: [0],
                    bad: [
                        (cut, [], .malformedFrame), ("over 100", varint(101), .limitExceeded),
                        ("fewer than counted", [1], .malformedFrame),
                        ("no name", [1, 1, 0x2f, 1], .malformedFrame),
                        ("a role over 1", [1, 1, 0x61, 2], .malformedFrame),
                    ]), choice("more", over: 1),
            ]),
        FrameFields(name: "MODE", type: 0x27, isFromClient: true, fields: [choice("mode", over: 2)]),
        FrameFields(
            name: "HISTORY", type: 0x29, isFromClient: true,
            fields: [
                fixed("request"), channel("channel"), fixed("epoch"), number("from"), choice("direction", over: 1),
                number("limit"),
            ]),
        FrameFields(
            name: "HISTORY_PAGE", type: 0x2b, isFromClient: false,
            fields: [
                fixed("request"), word("refusal"), number("retry after"), fixed("epoch"), number("start"),
                number("end"), choice("more", over: 1),
                Field(
                    name: "items", good: [0],
                    bad: [
                        (cut, [], .malformedFrame), ("over 256", varint(257), .limitExceeded),
                        ("above 0 in a refusal", [1], .malformedFrame),
                    ]),
            ]),
        FrameFields(name: "LOGOUT", type: 0x37, isFromClient: true, fields: []),
        FrameFields(name: "ERASE_ACCOUNT", type: 0x53, isFromClient: true, fields: []),
        FrameFields(
            name: "ERASURE_REFUSED", type: 0x54, isFromClient: false,
            fields: [word("code", zeroIsBad: true), number("retry after")]),
        FrameFields(name: "STOPPED", type: 0x38, isFromClient: false, fields: [channel("channel")]),
        FrameFields(
            name: "BEHIND", type: 0x52, isFromClient: false,
            fields: [channel("channel"), position("head"), choice("state", over: 1)]),
        FrameFields(
            name: "SIGNAL", type: 0x47, isFromClient: false,
            fields: [
                flags(known: 1), channel("channel"), number("kind"), number("deadline"), identifier("sender"),
                identifier("device"), bytes("payload", 1_000),
            ]),
        FrameFields(
            name: "SUBSCRIBE", type: 0x49, isFromClient: true, fields: [fixed("request"), users(noneIsBad: true)]),
        FrameFields(
            name: "PRESENCE", type: 0x4a, isFromClient: false,
            fields: [identifier("user"), choice("state", over: 2), number("last seen")]),
        FrameFields(name: "UNSUBSCRIBE", type: 0x4b, isFromClient: true, fields: [users(noneIsBad: false)]),
        FrameFields(
            name: "PRESENCE_ANSWER", type: 0x4c, isFromClient: false,
            fields: [fixed("request"), word("refusal"), number("retry after")]),
        FrameFields(name: "VISIBILITY", type: 0x4d, isFromClient: true, fields: [choice("visibility", over: 2)]),
        FrameFields(
            name: "URGENCY", type: 0x3d, isFromClient: true, fields: [channel("channel"), choice("urgency", over: 2)]),
        FrameFields(
            name: "ENCODINGS", type: 0x44, isFromClient: true,
            fields: [
                Field(
                    name: "encodings", good: [1, 1],
                    bad: [
                        (cut, [], .malformedFrame),
                        ("over 8", varint(9) + [UInt8](repeating: 1, count: 9), .limitExceeded),
                        ("one over 2^32 - 1", [1] + varint(1 << 32), .malformedFrame),
                    ]),
                Field(
                    name: "plain", good: [1, 6] + [UInt8]("user/a".utf8),
                    bad: [
                        (cut, [], .malformedFrame), ("over 64", varint(65), .limitExceeded),
                        ("no channel", [1, 1, 0x61], .malformedFrame),
                    ]),
            ]),
    ]

    private static let lanes: [FrameFields] = [
        FrameFields(name: "LANE", type: 0x11, isFromClient: true, fields: [channel("channel"), fixed("epoch")]),
        FrameFields(
            name: "PUBLISH", type: 0x13, isFromClient: true,
            fields: [
                flags(known: 7), number("id"), fixed("tag"), number("after"), identifier("recipient"),
                kind("not one of 4 to 8", bad: [0]), position("target"), number("time to live"), following(),
                payload(),
            ]),
        FrameFields(
            name: "PUBLISHED", type: 0x15, isFromClient: false,
            fields: [number("id"), position("position"), number("time")]),
        FrameFields(
            name: "REFUSED", type: 0x17, isFromClient: false,
            fields: [number("id"), word("code", zeroIsBad: true), number("last id"), number("retry after")]),
        FrameFields(
            name: "DELIVER", type: 0x19, isFromClient: false,
            fields: [
                flags(known: 31), kind("over 8", bad: [9]), number("offset"), number("previous"),
                identifier("sender"), identifier("device"), fixed("producer", 16), number("publish id"),
                identifier("recipient"), position("origin"), number("target"), number("time"), number("expiry"),
                following(), payload(),
            ]),
        FrameFields(
            name: "SKIP", type: 0x1b, isFromClient: false,
            fields: [number("previous"), number("to"), choice("reason", over: 3)]),
        FrameFields(name: "GAP", type: 0x1d, isFromClient: false, fields: [position("from"), number("first")]),
        FrameFields(name: "ACK", type: 0x1f, isFromClient: true, fields: [number("offset")]),
        FrameFields(
            name: "BATCH", type: 0x43, isFromClient: false,
            fields: [
                Field(
                    name: "groups", good: [1],
                    bad: [(cut, [], .malformedFrame), ("over 256", varint(257), .limitExceeded)]),
                word("encoding"),
                Field(
                    name: "frames", good: [1],
                    bad: [(cut, [], .malformedFrame), ("all over 4096", varint(4_097), .limitExceeded)]),
                Field(
                    name: "length", good: [1],
                    bad: [(cut, [], .malformedFrame), ("all over 65536", varint(65_537), .limitExceeded)]),
                Field(
                    name: "bytes", good: [1, 9],
                    bad: [
                        (cut, [], .malformedFrame),
                        ("over 16000 bytes", varint(16_001) + [UInt8](repeating: 1, count: 16_001), .limitExceeded),
                        ("over *length*", [2, 9, 9], .malformedFrame),
                    ]),
            ]),
        FrameFields(
            name: "PART", type: 0x41, isFromClient: true,
            fields: [
                number("offset"),
                Field(
                    name: "bytes", good: [1, 9],
                    bad: [
                        (cut, [], .malformedFrame), ("a length beyond the body", [40, 1], .malformedFrame),
                        (
                            "over 15360 bytes", varint(15_361) + [UInt8](repeating: 1, count: 15_361), .limitExceeded
                        ),
                    ]),
            ]),
    ]
}
