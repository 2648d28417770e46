import HTTPTypes
import NIOCore
import QUICEngine
import QUICTransport
import Testing

@testable import HTTP3

/// A client that sends its body once it is asked for it (RFC 9110 section 10.1.1).
@Suite("Expect: 100-continue", .timeLimit(.minutes(1)))
struct ExpectContinueTests {
    private static let post = RawPeer.headers(
        RawPeer.get.map { $0.0 == ":method" ? (":method", "POST") : $0 }
            + [("expect", "100-Continue"), ("content-length", "5")])

    /// The statuses of a response's sections, those of interim responses included.
    private func statuses(_ bytes: [UInt8]) throws -> [Int] {
        let decoder = try #require(FieldDecoder(capacity: 0, blockedStreams: 0))
        var reader = MessageReader()
        var buffer = ByteBuffer(bytes: bytes)
        var found: [Int] = []
        while let type = buffer.readVarint(), let length = buffer.readVarint(),
            let payload = buffer.readBytes(length: Int(length))
        {
            guard type == FrameType.headers else { continue }
            _ = try payload.withUnsafeBytes { try decoder.decode($0, stream: 0, limit: 1 << 16) }
            found.append(try reader.response(decoder.section).response.status.code)
        }
        return found
    }

    @Test(
        "A client is asked for its body once, when the handler waits for it or asks itself", arguments: [false, true])
    func asked(byHandler: Bool) async throws {
        try await withRawClient(handler: { _, body, responder in
            if byHandler { try await responder.sendInformational(HTTPResponse(status: .continue)) }
            let all = try await body.collect(upTo: 100)
            try await responder.respond(HTTPResponse(status: all.readableBytes == 5 ? .ok : .badRequest))
        }) { _, peer in
            try await peer.openControl()
            let stream = try await peer.send(Self.post, finish: false)
            let first = try #require(try await stream.read())
            #expect(try statuses(Array(first.readableBytesView)) == [100])
            try await stream.write(ByteBuffer(bytes: RawPeer.data("hello")))
            try await stream.finish()
            let rest = try await stream.collect()
            #expect(try statuses(rest) == [200])
        }
    }

    @Test("A client whose body came unasked, or that has its answer, isn't asked", arguments: [false, true])
    func unasked(isAnswered: Bool) async throws {
        try await withRawClient(handler: { _, body, responder in
            guard isAnswered else {
                _ = try await body.collect(upTo: 100)
                return try await responder.respond(HTTPResponse(status: .ok))
            }
            let writer = try await responder.start(HTTPResponse(status: .ok))
            _ = try await body.collect(upTo: 100)
            try await writer.finish()
        }) { _, peer in
            try await peer.openControl()
            let stream = try await peer.send(Self.post + (isAnswered ? [] : RawPeer.data("hello")), finish: false)
            if isAnswered {
                let first = try #require(try await stream.read())
                #expect(try statuses(Array(first.readableBytesView)) == [200])
                try await stream.write(ByteBuffer(bytes: RawPeer.data("hello")))
            }
            try await stream.finish()
            let rest = try await stream.collect()
            #expect(try statuses(rest) == (isAnswered ? [] : [200]))
        }
    }

    @Test("A client whose body nobody wants gets the answer alone")
    func refused() async throws {
        try await withRawClient(handler: { _, _, responder in
            try await responder.respond(HTTPResponse(status: .forbidden))
        }) { _, peer in
            try await peer.openControl()
            let stream = try await peer.send(Self.post, finish: false)
            let answer = try await stream.collect()
            #expect(try statuses(answer) == [403])
        }
    }
}
