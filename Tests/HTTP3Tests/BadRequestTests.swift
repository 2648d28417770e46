import HTTPTypes
import NIOCore
import QUICEngine
import QUICTransport
import Testing

@testable import HTTP3

/// What a client does wrong, and the code that RFC 9114 or 9204 names for it.
struct BadStreams: CustomTestStringConvertible, Sendable {
    var testDescription: String
    var code: HTTP3ErrorCode
    /// Bytes of a request stream, if it is one.
    var request: [UInt8] = []
    /// Unidirectional streams: types and bytes behind them.
    var unidirectional: [(type: UInt64, bytes: [UInt8], finish: Bool)] = []
    var isFinished = true

    init(
        _ description: String, _ code: HTTP3ErrorCode, request: [UInt8] = [], finish: Bool = true,
        unidirectional: [(type: UInt64, bytes: [UInt8], finish: Bool)] = []
    ) {
        testDescription = description
        self.code = code
        self.request = request
        self.unidirectional = unidirectional
        isFinished = finish
    }

    private static let get = RawPeer.headers(RawPeer.get)
    private static func frame(_ type: UInt64, _ payload: [UInt8] = []) -> [UInt8] { RawPeer.frame(type, payload) }
    private static func control(_ more: [UInt8], finish: Bool = false) -> (UInt64, [UInt8], Bool) {
        (StreamType.control, RawPeer.settings + more, finish)
    }

    /// What ends the connection.
    static let connectionErrors: [BadStreams] = Array([requests, controls, tables].joined())

    private static let requests: [BadStreams] = [
        BadStreams("DATA first", .frameUnexpected, request: RawPeer.data("x")),
        BadStreams(
            "HEADERS behind the trailers", .frameUnexpected,
            request: join(get, fields(("a", "b")), fields(("a", "b")))),
        BadStreams(
            "DATA behind the trailers", .frameUnexpected,
            request: join(get, fields(("a", "b")), RawPeer.data("x"))),
        BadStreams("SETTINGS on a request stream", .frameUnexpected, request: frame(0x4)),
        BadStreams("GOAWAY on a request stream", .frameUnexpected, request: join(get, frame(0x7, [0]))),
        BadStreams("MAX_PUSH_ID on a request stream", .frameUnexpected, request: join(get, frame(0xd, [0]))),
        BadStreams("PUSH_PROMISE by a client", .frameUnexpected, request: join(get, frame(0x5, [0, 0, 0]))),
        BadStreams("PRIORITY_UPDATE on a request stream", .frameUnexpected, request: join(get, frame(0xf0700, [0]))),
        BadStreams("a frame that only HTTP/2 has", .frameUnexpected, request: join(get, frame(0x8, [0, 0, 0, 0]))),
        BadStreams("the end within a frame", .frameError, request: join(get, [0x0, 10, 1, 2])),
        BadStreams("the end within a frame's header", .frameError, request: join(get, [0x0])),
        BadStreams("the end within a header section", .frameError, request: [0x1, 10, 0, 0]),
        BadStreams("an empty section", .qpackDecompressionFailed, request: frame(0x1)),
        BadStreams(
            "an index of no entry", .qpackDecompressionFailed, request: frame(0x1, [0, 0, 0xff, 0xff, 0xff, 0x7f])),
        BadStreams(
            "a string longer than its section", .qpackDecompressionFailed, request: frame(0x1, [0, 0, 0x27, 0x20, 1])),
        BadStreams(
            "a name of 300 bytes", .qpackDecompressionFailed,
            request: join(longName)),
        BadStreams(
            "an insert count that can't be", .qpackDecompressionFailed, request: frame(0x1, [0xff, 0xff, 0x7f, 0])),
    ]

    private static let controls: [BadStreams] = [
        BadStreams("no SETTINGS first", .missingSettings, unidirectional: [(0, frame(0x7, [0]), false)]),
        BadStreams("an unknown frame before SETTINGS", .missingSettings, unidirectional: [(0, frame(0x21), false)]),
        BadStreams("SETTINGS twice", .frameUnexpected, unidirectional: [control(frame(0x4))]),
        BadStreams("HEADERS on the control stream", .frameUnexpected, unidirectional: [control(get)]),
        BadStreams("DATA on the control stream", .frameUnexpected, unidirectional: [control(frame(0x0))]),
        BadStreams("PING of HTTP/2 on the control stream", .frameUnexpected, unidirectional: [control(frame(0x6))]),
        BadStreams("a second control stream", .streamCreationError, unidirectional: [control([]), control([])]),
        BadStreams(
            "a second encoder stream", .streamCreationError,
            unidirectional: [control([]), (2, [], false), (2, [], false)]),
        BadStreams(
            "a second decoder stream", .streamCreationError,
            unidirectional: [control([]), (3, [], false), (3, [], false)]),
        BadStreams("a push stream by a client", .streamCreationError, unidirectional: [(1, [0], false)]),
        BadStreams("the control stream ends", .closedCriticalStream, unidirectional: [control([], finish: true)]),
        BadStreams("the encoder stream ends", .closedCriticalStream, unidirectional: [control([]), (2, [], true)]),
        BadStreams("the decoder stream ends", .closedCriticalStream, unidirectional: [control([]), (3, [], true)]),
        BadStreams("a setting of HTTP/2", .settingsError, unidirectional: [(0, frame(0x4, [0x2, 1]), false)]),
        BadStreams("a setting twice", .settingsError, unidirectional: [(0, frame(0x4, [0x6, 9, 0x6, 9]), false)]),
        BadStreams("half a setting", .frameError, unidirectional: [(0, frame(0x4, [0x6]), false)]),
        BadStreams(
            "a huge SETTINGS", .excessiveLoad, unidirectional: [(0, join([0x4], RawPeer.varint(1 << 30)), false)]),
        BadStreams("GOAWAY without an ID", .frameError, unidirectional: [control(frame(0x7))]),
        BadStreams("GOAWAY with more than an ID", .frameError, unidirectional: [control(frame(0x7, [0, 0]))]),
        BadStreams(
            "GOAWAY with a larger ID", .idError, unidirectional: [control(join(frame(0x7, [4]), frame(0x7, [8])))]),
        BadStreams(
            "MAX_PUSH_ID becomes smaller", .idError, unidirectional: [control(join(frame(0xd, [8]), frame(0xd, [4])))]),
        BadStreams("CANCEL_PUSH for no push", .idError, unidirectional: [control(frame(0x3, [0]))]),
        BadStreams(
            "PRIORITY_UPDATE for a stream that is no request", .idError,
            unidirectional: [control(frame(0xf0700, [1]))]),
        BadStreams("PRIORITY_UPDATE for a push", .idError, unidirectional: [control(frame(0xf0701, [0]))]),
        BadStreams(
            "PRIORITY_UPDATE with no dictionary", .generalProtocolError,
            unidirectional: [control(frame(0xf0700, [0, 0x75, 0x3d]))]),
    ]

    private static let tables: [BadStreams] = [
        BadStreams(
            "a table larger than allowed", .qpackEncoderStreamError,
            unidirectional: [control([]), (2, RawPeer.integer(1 << 20, prefix: 5, flags: 0x20), false)]),
        BadStreams(
            "a duplicate of no entry", .qpackEncoderStreamError, unidirectional: [control([]), (2, [0x00], false)]),
        BadStreams(
            "an entry larger than the table", .qpackEncoderStreamError,
            unidirectional: [control([]), (2, [0x21, 0x41, 0x61, 0x01, 0x62], false)]),
        BadStreams(
            "an acknowledgement of nothing", .qpackDecoderStreamError,
            unidirectional: [control([]), (3, [0x80], false)]),
        BadStreams(
            "an increment of zero", .qpackDecoderStreamError, unidirectional: [control([]), (3, [0x00], false)]),
        BadStreams(
            "an increment beyond what was sent", .qpackDecoderStreamError,
            unidirectional: [(0, frame(0x4, [0x1, 0x50, 0x00, 0x7, 10]), false), (3, [0x3f, 0x20], false)]),
    ]

    /// What ends a request, and no other.
    static let requestErrors: [BadStreams] = Array([malformed(forbidden), pseudo, lengths].joined())

    private static let forbidden: [(String, [(String, String)])] = [
        ("an uppercase name", [("Name", "x")]), ("an empty name", [("", "x")]),
        ("a name with a space", [("a b", "x")]),
        ("a value with a line feed", [("a", "x\ny")]), ("a value with a NUL", [("a", "x\0y")]),
        ("Connection", [("connection", "close")]), ("Keep-Alive", [("keep-alive", "1")]),
        ("Proxy-Connection", [("proxy-connection", "x")]),
        ("Transfer-Encoding", [("transfer-encoding", "chunked")]),
        ("Upgrade", [("upgrade", "h2c")]), ("TE that isn't trailers", [("te", "gzip")]),
        ("a pseudo-header field behind others", [("a", "b"), (":path", "/")]),
        ("an unknown pseudo-header field", [(":what", "x")]), ("a status", [(":status", "200")]),
        ("the path twice", [(":path", "/")]), ("an invalid content length", [("content-length", "-1")]),
        ("two content lengths", [("content-length", "1"), ("content-length", "2")]),
        ("another host", [("host", "elsewhere")]), ("a protocol without CONNECT", [(":protocol", "websocket")]),
    ]

    private static let pseudo: [BadStreams] = [
        BadStreams("no method", .messageError, request: RawPeer.headers(Array(RawPeer.get[1...]))),
        BadStreams(
            "no scheme", .messageError, request: fields(RawPeer.get[0], RawPeer.get[2], RawPeer.get[3])),
        BadStreams("no path", .messageError, request: fields(RawPeer.get[0], RawPeer.get[1], RawPeer.get[2])),
        BadStreams("no authority", .messageError, request: fields(RawPeer.get[0], RawPeer.get[1], RawPeer.get[3])),
        BadStreams(
            "an empty path", .messageError,
            request: fields(RawPeer.get[0], RawPeer.get[1], RawPeer.get[2], (":path", ""))),
        BadStreams(
            "a path without a slash", .messageError,
            request: fields(RawPeer.get[0], RawPeer.get[1], RawPeer.get[2], (":path", "x"))),
        BadStreams(
            "an invalid method", .messageError,
            request: fields((":method", "G T"), RawPeer.get[1], RawPeer.get[2], RawPeer.get[3])),
        BadStreams(
            "user information", .messageError,
            request: fields(RawPeer.get[0], RawPeer.get[1], (":authority", "a@b"), RawPeer.get[3])),
        BadStreams(
            "an authority with a path", .messageError,
            request: fields(RawPeer.get[0], RawPeer.get[1], (":authority", "localhost/a"), RawPeer.get[3])),
        BadStreams(
            "Host with a query", .messageError,
            request: fields(RawPeer.get[0], RawPeer.get[1], RawPeer.get[3], ("host", "localhost?a"))),
        BadStreams(
            "a scheme with a slash", .messageError,
            request: fields(RawPeer.get[0], (":scheme", "x/y"), RawPeer.get[2], RawPeer.get[3])),
        BadStreams(
            "user information in Host", .messageError,
            request: fields(RawPeer.get[0], RawPeer.get[1], RawPeer.get[3], ("host", "a@b"))),
        BadStreams(
            "a space in Host", .messageError,
            request: fields(RawPeer.get[0], RawPeer.get[1], RawPeer.get[3], ("host", "a b"))),
        BadStreams(
            "pseudo-header fields in the trailers", .messageError, request: join(get, fields((":path", "/")))),
    ]

    private static let lengths: [BadStreams] = [
        BadStreams("less than the content length", .messageError, request: join(announcing("5"), RawPeer.data("four"))),
        BadStreams("more than the content length", .messageError, request: join(announcing("3"), RawPeer.data("four"))),
        BadStreams("no request at all", .requestIncomplete, request: []),
        BadStreams("only a frame of an unknown type", .requestIncomplete, request: frame(0x21, [1, 2, 3])),
        BadStreams("empty DATA without end", .excessiveLoad, request: join(get, idle(5000, RawPeer.data("")))),
        BadStreams("unknown frames without end", .excessiveLoad, request: idle(5000, frame(0x21))),
    ]

    private static let longName = RawPeer.headers(RawPeer.get + [(String(repeating: "n", count: 300), "")])
    /// Frames that say nothing: with 5,000 more are there than a test's minute lets be forgotten.
    static func idle(_ count: Int, _ frame: [UInt8]) -> [UInt8] { Array(repeatElement(frame, count: count).joined()) }
    private static func join(_ parts: [UInt8]...) -> [UInt8] { Array(parts.joined()) }
    private static func fields(_ fields: (String, String)...) -> [UInt8] { RawPeer.headers(fields) }
    private static func announcing(_ length: String) -> [UInt8] {
        RawPeer.headers(RawPeer.get + [("content-length", length)])
    }

    private static func malformed(_ fields: [(String, [(String, String)])]) -> [BadStreams] {
        fields.map { BadStreams($0.0, .messageError, request: RawPeer.headers(RawPeer.get + $0.1)) }
    }
}

@Suite("Bad input to a server", .timeLimit(.minutes(1)))
struct BadRequestTests {
    @Test(
        "What breaks the connection's rules ends it with the code that the RFC names",
        arguments: BadStreams.connectionErrors)
    func connection(bad: BadStreams) async throws {
        try await withRawClient(handler: { _, body, responder in
            // Reads, so that what is wrong with a body is come across.
            while try await body.read() != nil {}
            try await responder.respond(HTTPResponse(status: .ok))
        }) { world, peer in
            if !bad.request.isEmpty { _ = try await peer.send(bad.request, finish: bad.isFinished) }
            for stream in bad.unidirectional {
                _ = try? await peer.open(stream.type, stream.bytes, finish: stream.finish)
            }
            try await peer.expectClose(bad.code)
            #expect(world.server.statistics.protocolErrors == 1)
        }
    }

    @Test(
        "What is wrong with one request ends it with its code, and no other request",
        arguments: BadStreams.requestErrors)
    func request(bad: BadStreams) async throws {
        try await withRawClient(handler: { _, body, responder in
            while try await body.read() != nil {}
            try await responder.respond(HTTPResponse(status: .ok))
        }) { world, peer in
            try await peer.openControl()
            let stream = try await peer.send(bad.request)
            try await stream.expectReset(bad.code)
            try await peer.expectAlive()
            #expect(world.server.statistics.malformed == 1 && world.server.statistics.protocolErrors == 0)
        }
    }

    @Test("A decoder stream that ends before the settings come ends the connection")
    func heldDecoderStream() async throws {
        try await withRawClient { world, peer in
            try await peer.open(StreamType.qpackDecoder, [0x44], finish: true)
            try await peer.expectClose(.closedCriticalStream)
            #expect(world.server.statistics.protocolErrors == 1)
        }
    }

    @Test("Frames and streams of unknown types, and unknown settings, are passed over")
    func unknown() async throws {
        try await withRawClient { world, peer in
            try await peer.open(
                0, RawPeer.frame(0x4, [0x21, 5]) + RawPeer.frame(0x40, [1, 2, 3]) + RawPeer.frame(0x21))
            let ignored = try await peer.open(0x21, [1, 2, 3])
            let parts: [[UInt8]] = [
                RawPeer.frame(0x21, Array(repeating: 7, count: 5000)), RawPeer.headers(RawPeer.get),
                RawPeer.frame(0x40),
                RawPeer.data(""), RawPeer.headers([("a", "b")]), RawPeer.frame(0x5f, [1]),
            ]
            let request = Array(parts.joined())
            let stream = try await peer.send(request)
            #expect(try await stream.collect().first == 1)
            // The server asks to stop what it doesn't know (RFC 9114 section 9).
            let error = await #expect(throws: QUICTransportError.self) {
                while true { try await ignored.write(ByteBuffer(repeating: 0, count: 1000)) }
            }
            #expect(error?.applicationCode == HTTP3ErrorCode.streamCreationError.rawValue)
        }
    }

    @Test("Frames that say nothing are passed over, however many, where others are between them")
    func idleFrames() async throws {
        try await withRawClient(handler: { _, body, responder in
            let all = try await body.collect(upTo: 10)
            try await responder.respond(HTTPResponse(status: all.readableBytes == 1 ? .ok : .badRequest))
        }) { _, peer in
            let idle = BadStreams.idle(500, RawPeer.frame(0x21)) + BadStreams.idle(500, RawPeer.data(""))
            let unknown = BadStreams.idle(1000, RawPeer.frame(0x21))
            let parts = [unknown, RawPeer.headers(RawPeer.get), idle, RawPeer.data("x"), idle]
            let stream = try await peer.send(Array(parts.joined()))
            #expect(try await status(stream) == "200")
        }
    }

    @Test("Frames that say nothing may come now and then for ever, and not many at once")
    func slowIdleFrames() async throws {
        let atOnce = try await ScriptedServer.run { server in
            let exchange = try server.request()
            let start = NIODeadline.now()
            for number in 0..<2000 { try exchange.countIdleFrame(start + .seconds(15 * Int64(number))) }
            var count = 0
            while count < 2000, (try? exchange.countIdleFrame(start + .hours(24))) != nil { count += 1 }
            return count
        }
        #expect(atOnce == 1000)
    }

    @Test("A request that comes byte by byte is a request")
    func slowly() async throws {
        try await withRawClient { _, peer in
            let stream = try await peer.connection.openStream()
            for byte in RawPeer.frame(0x21, [1, 2, 3]) + RawPeer.headers(RawPeer.get) {
                try await stream.write(ByteBuffer(bytes: [byte]))
            }
            try await stream.finish()
            #expect(try await stream.collect().first == 1)
        }
    }

    @Test("A content length that is there twice is handed on once, and sent once")
    func contentLengthTwice() async throws {
        try await withRawClient(handler: { request, body, responder in
            let isWhole = try await body.collect(upTo: 10).readableBytes == 4
            let lengths = request.headerFields[values: .contentLength]
            try await responder.respond(HTTPResponse(status: isWhole && lengths == ["4"] ? .ok : .badRequest))
        }) { _, peer in
            let twice = [("content-length", "4"), ("content-length", "4")]
            let stream = try await peer.send(RawPeer.headers(RawPeer.get + twice) + RawPeer.data("four"))
            #expect(try await status(stream) == "200")
        }
        var fields = HTTPFields()
        for _ in 0..<2 { fields.append(HTTPField(name: .contentLength, value: "4")) }
        var lines = FieldLines()
        let length = try lines.append(fields, isTrailer: false)
        #expect(length == 4)
        // Name, value, and what counts for each line (RFC 9114 section 4.2.2).
        #expect(lines.size == "content-length4".utf8.count + 32)
    }

    @Test("CONNECT and extended CONNECT are answered with 501, and the connection goes on")
    func connect() async throws {
        try await withRawClient(handler: { _, _, responder in
            Issue.record("a handler saw CONNECT")
            try await responder.respond(HTTPResponse(status: .ok))
        }) { world, peer in
            let plain = RawPeer.headers([(":method", "CONNECT"), (":authority", "localhost:22")])
            let extended = RawPeer.headers(
                [(":method", "CONNECT"), (":protocol", "websocket")] + Array(RawPeer.get[1...]))
            for bytes in [plain, extended] {
                // Clients don't end the stream of a CONNECT.
                let stream = try await peer.send(bytes, finish: false)
                #expect(try await status(stream) == "501")
            }
            #expect(world.server.statistics.protocolErrors == 0 && world.server.statistics.malformed == 0)
            let bad = try await peer.send(
                RawPeer.headers([(":method", "CONNECT"), (":path", "/"), (":authority", "a")]))
            try await bad.expectReset(.messageError)
        }
    }

    @Test("Refusing one of the server's own streams ends the connection")
    func stopsControl() async throws {
        try await withRawClient { _, peer in
            for try await stream in peer.connection.inboundStreams {
                _ = try await stream.read()
                stream.stopSending(code: 0)
                break
            }
            try await peer.expectClose(.closedCriticalStream)
        }
    }

    @Test("Resetting a stream that the connection needs ends it")
    func resetsControl() async throws {
        try await withRawClient { _, peer in
            let control = try await peer.openControl()
            try await peer.expectAlive()
            control.reset(code: 0)
            try await peer.expectClose(.closedCriticalStream)
        }
    }
}

/// The status of a response that is otherwise ignored.
func status(_ stream: QUICStream) async throws -> String? {
    let bytes = try await stream.collect()
    let decoder = try #require(FieldDecoder(capacity: 0, blockedStreams: 0))
    var buffer = ByteBuffer(bytes: bytes)
    guard buffer.readVarint() == FrameType.headers, let length = buffer.readVarint(),
        let section = buffer.readBytes(length: Int(length))
    else { return nil }
    _ = try section.withUnsafeBytes { try decoder.decode($0, stream: 0, limit: 1 << 16) }
    var reader = MessageReader()
    return "\(try reader.response(decoder.section).response.status.code)"
}
