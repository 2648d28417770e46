import HTTPTypes
import NIOCore
import Testing

@testable import HTTP3

@Suite("Memory of fields")
struct FieldMemoryTests {
    /// Sections as they come on a connection, one after the other.
    private struct Sections {
        private let encoder: FieldEncoder
        private let decoder: FieldDecoder
        private var stream: UInt64 = 0

        init() throws {
            encoder = try #require(FieldEncoder())
            decoder = try #require(FieldDecoder(capacity: 4096, blockedStreams: 100))
        }

        /// - Parameter host: a field that our side sends of no other authority than the request's.
        mutating func read(
            _ request: HTTPRequest, host: String? = nil, with reader: inout MessageReader
        ) throws -> HTTPRequest {
            var lines = FieldLines()
            _ = try lines.append(request)
            if let host { lines.append(name: "host", value: host) }
            try decode(lines)
            return try reader.request(decoder.section).request
        }

        mutating func readTrailers(_ fields: HTTPFields, _ reader: inout MessageReader) throws -> HTTPFields {
            var lines = FieldLines()
            try lines.append(fields, isTrailer: true)
            try decode(lines)
            return try reader.trailers(decoder.section)
        }

        private mutating func decode(_ lines: FieldLines) throws {
            var (frame, instructions) = (ByteBuffer(), ByteBuffer())
            #expect(encoder.encode(lines, for: stream, usesTable: false, into: &frame, instructions: &instructions))
            _ = (frame.readVarint(), frame.readVarint())
            let limit = 1 << 16
            guard
                case .decoded = try frame.withUnsafeReadableBytes({
                    try decoder.decode($0, stream: stream, limit: limit)
                })
            else { throw CancellationError() }
            stream += 4
        }
    }

    /// Few names with few values each, so that most lines come again, some changed; names that nghttp3 has no number for, too.
    private func request(_ random: inout SystemRandomNumberGenerator) -> HTTPRequest {
        var fields = HTTPFields()
        let names: [HTTPField.Name] = [
            .userAgent, .accept, .acceptLanguage, .authorization, .cookie, .range, .referer, .origin, .priority,
        ]
        for name in names where Bool.random(using: &random) {
            fields.append(HTTPField(name: name, value: "u=\(Int.random(in: 0...3, using: &random))"))
        }
        for name in ["x-trace", "x-other"] where Bool.random(using: &random) {
            guard let name = HTTPField.Name(name) else { continue }
            fields.append(HTTPField(name: name, value: "\(Int.random(in: 0...3, using: &random))"))
        }
        fields.append(
            HTTPField(name: .acceptEncoding, value: String(repeating: "a", count: Int.random(in: 126...130))))
        var hidden = HTTPField(name: .accept, value: "u=1")
        hidden.indexingStrategy = .disallow
        if Bool.random(using: &random) { fields.append(hidden) }
        return HTTPRequest(
            method: [.get, .post, .put, .head, .delete].randomElement(using: &random) ?? .get, scheme: "https",
            authority: ["chat.example", "an-authority-longer-than-a-small-string.example"].randomElement(
                using: &random), path: "/\(Int.random(in: 0...3, using: &random))", headerFields: fields)
    }

    @Test("A reader that remembers reads every message as one that doesn't")
    func same() throws {
        var sections = try Sections()
        var reader = MessageReader()
        var random = SystemRandomNumberGenerator()
        for _ in 0..<500 {
            let sent = request(&random)
            let read = try sections.read(sent, with: &reader)
            #expect(read == sent)
            #expect(read.headerFields.map(\.indexingStrategy) == sent.headerFields.map(\.indexingStrategy))
        }
    }

    @Test("What a trailer section says of the host is forgotten when a request comes")
    func hostInTrailers() throws {
        var sections = try Sections()
        var reader = MessageReader()
        #expect(
            try sections.readTrailers([HTTPField.Name("host") ?? .server: "evil"], &reader)
                .count == 1)
        let request = HTTPRequest(method: .get, scheme: "https", authority: "good", path: "/")
        #expect(throws: Violation.self) { try sections.read(request, host: "evil", with: &reader) }
    }

    private func field(_ value: String, in memory: FieldMemory, token: Int32) -> HTTPField? {
        Array(value.utf8).withUnsafeBufferPointer { memory.field(token, value: $0) }
    }

    @Test("What identifies people, and what is long, isn't remembered; and no more than so many lines")
    func bounds() {
        var memory = FieldMemory()
        func learn(_ name: HTTPField.Name, _ value: String, _ token: Int32) {
            let known = Array(name.canonicalName.utf8).withUnsafeBufferPointer { memory.name(token, $0) }
            #expect(known == name)
            memory.remember(HTTPField(name: name, value: value), token, length: value.utf8.count)
        }
        learn(.userAgent, "agent", 95)
        #expect(field("agent", in: memory, token: 95)?.value == "agent")
        #expect(field("agenT", in: memory, token: 95) == nil)
        learn(.cookie, "secret", 5)
        learn(.authorization, "secret", 84)
        #expect(field("secret", in: memory, token: 5) == nil)
        #expect(field("secret", in: memory, token: 84) == nil)
        let long = String(repeating: "a", count: 129)
        learn(.userAgent, long, 95)
        #expect(field(long, in: memory, token: 95) == nil)
        #expect(field("agent", in: memory, token: 95)?.value == "agent")
        // Numbers that nghttp3 doesn't have, and more of those that it has than there is room for.
        for token in [Int32(-1), 99, 999, 1029, .max] { learn(.server, "value", token) }
        for token in [Int32(-1), 99, 999, 1029, .max] {
            #expect(field("value", in: memory, token: token) == nil)
        }
        for token in Int32(20)..<80 { learn(.server, "value", token) }
        let remembered = (Int32(20)..<80).filter { field("value", in: memory, token: $0) != nil }
        #expect(remembered == Array(20..<49))
    }
}
