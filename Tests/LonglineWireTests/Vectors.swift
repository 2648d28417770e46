import Foundation
import LonglineWire
import NIOCore
import Testing

/// A value of a vector file.
enum JSON: Decodable, Sendable {
    case string(String)
    case number(Int)
    case bool(Bool)
    case array([JSON])
    case object([String: JSON])

    init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if let value = try? container.decode(Bool.self) {
            self = .bool(value)
        } else if let value = try? container.decode(Int.self) {
            self = .number(value)
        } else if let value = try? container.decode(String.self) {
            self = .string(value)
        } else if let value = try? container.decode([JSON].self) {
            self = .array(value)
        } else {
            self = .object(try container.decode([String: JSON].self))
        }
    }
}

/// A vector file of `Tests/Vectors`.
struct VectorFile<Vector: Decodable>: Decodable {
    var vectors: [Vector]

    static func load(_ name: String) throws -> [Vector] {
        let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        let data = try Data(contentsOf: folder.appendingPathComponent("Vectors").appendingPathComponent(name))
        return try JSONDecoder().decode(Self.self, from: data).vectors
    }
}

extension ByteBuffer {
    /// The bytes that hex digits stand for.
    init(hex: String) throws {
        self.init(bytes: try #require(Self.bytes(hex)))
    }

    private static func bytes(_ hex: String) -> [UInt8]? {
        let digits = Array(hex.utf8)
        guard digits.count.isMultiple(of: 2) else { return nil }
        var bytes: [UInt8] = []
        for index in stride(from: 0, to: digits.count, by: 2) {
            guard let byte = UInt8(String(decoding: digits[index...index + 1], as: UTF8.self), radix: 16) else {
                return nil
            }
            bytes.append(byte)
        }
        return bytes
    }

    /// The readable bytes as hex digits.
    var hex: String {
        readableBytesView.map { byte in
            let digits = String(byte, radix: 16)
            return digits.count == 1 ? "0" + digits : digits
        }.joined()
    }
}

/// The fields of a frame as a vector names them.
struct Fields {
    private let values: [String: JSON]

    init(_ values: [String: JSON]) { self.values = values }

    private func value(_ name: String) throws -> JSON { try #require(values[name], "\(name) is missing") }

    func has(_ name: String) -> Bool { values[name] != nil }

    func string(_ name: String) throws -> String {
        guard case .string(let text) = try value(name) else { throw VectorError(field: name) }
        return text
    }

    /// A 64-bit number, written as a decimal string.
    func number(_ name: String) throws -> UInt64 { try #require(UInt64(try string(name)), "\(name)") }

    /// An opaque 64-bit value, written as 16 hex digits.
    func opaque(_ name: String) throws -> UInt64 { try #require(UInt64(try string(name), radix: 16), "\(name)") }

    func small(_ name: String) throws -> UInt32 {
        guard case .number(let number) = try value(name) else { throw VectorError(field: name) }
        return try #require(UInt32(exactly: number))
    }

    func bool(_ name: String) throws -> Bool {
        guard case .bool(let bool) = try value(name) else { throw VectorError(field: name) }
        return bool
    }

    func bytes(_ name: String) throws -> ByteBuffer { try ByteBuffer(hex: try string(name)) }

    func list(_ name: String) throws -> [JSON] {
        guard case .array(let items) = try value(name) else { throw VectorError(field: name) }
        return items
    }

    func objects(_ name: String) throws -> [Fields] {
        try list(name).map { item in
            guard case .object(let fields) = item else { throw VectorError(field: name) }
            return Fields(fields)
        }
    }

    func object(_ name: String) throws -> Fields {
        guard case .object(let fields) = try value(name) else { throw VectorError(field: name) }
        return Fields(fields)
    }

    func producer() throws -> ProducerID {
        let digits = try string("producer")
        return ProducerID(
            high: try #require(UInt64(digits.prefix(16), radix: 16)),
            low: try #require(UInt64(digits.dropFirst(16), radix: 16)))
    }

    func position() throws -> Position { Position(epoch: try opaque("epoch"), offset: try number("offset")) }

    func places(_ name: String) throws -> [ChannelPosition] {
        try objects(name).map { ChannelPosition(channel: try $0.channel(), position: try $0.position()) }
    }

    func channel() throws -> ChannelID { try ChannelID(try string("channel")) }

    func choice<Choice>(_ name: String, _ choices: [String: Choice]) throws -> Choice {
        try #require(choices[try string(name)], "\(name)")
    }
}

struct VectorError: Error {
    var field: String
}
