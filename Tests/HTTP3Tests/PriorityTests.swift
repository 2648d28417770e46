import HTTPTypes
import NIOCore
import QUICEngine
import QUICTransport
import Testing

@testable import HTTP3

@Suite("Priorities", .timeLimit(.minutes(1)))
struct PriorityTests {
    @Test(
        "Field values are read as RFC 9218 says",
        arguments: [
            ("u=1", HTTP3Priority(urgency: 1)), ("u=5, i", HTTP3Priority(urgency: 5, isIncremental: true)),
            ("i", HTTP3Priority(isIncremental: true)), ("", .standard), ("i=?0, x=9", .standard),
            ("u=7", HTTP3Priority(urgency: 7)),
        ])
    func values(text: String, priority: HTTP3Priority) {
        #expect(HTTP3Priority(fieldValue: text) == priority)
        #expect(HTTP3Priority(fieldValue: priority.fieldValue) == priority)
    }

    @Test(
        "Parameters that are out of range or of another type count as absent, and the others stay",
        arguments: [
            ("u=9, i", HTTP3Priority(isIncremental: true)), ("u=1, i=1", HTTP3Priority(urgency: 1)),
            ("u=2.5", .standard), ("u=\"a\", i", HTTP3Priority(isIncremental: true)), ("u=-1", .standard),
            ("u=(1 2), i=?1;a=2", HTTP3Priority(isIncremental: true)),
        ])
    func lenient(text: String, priority: HTTP3Priority) {
        #expect(HTTP3Priority(fieldValue: text) == priority)
    }

    @Test("An update whose parameters make no sense is one to the defaults")
    func senselessUpdate() async throws {
        #expect(
            try await priority(updates: RawPeer.frame(FrameType.priorityUpdateRequest, [4] + Array("u=9, i".utf8)))
                == HTTP3Priority(isIncremental: true))
    }

    @Test("A value longer than anybody needs is not looked into, whatever it is", arguments: ["u=1", "u=9", "u=1,,"])
    func long(begin: String) {
        let fits = "u=1, " + String(repeating: "b", count: HTTP3Priority.longest - 5)
        #expect(HTTP3Priority(fieldValue: fits) == HTTP3Priority(urgency: 1))
        let keys = (0..<4_000).map { "k\($0)" }.joined(separator: ",")
        #expect(HTTP3Priority(fieldValue: "\(begin), \(keys)") == .standard)
    }

    @Test("Lines that are too long together count as none was sent")
    func manyLines() async throws {
        try await withServer { _, _, responder in
            #expect(await responder.priority() == .standard)
            try await responder.respond(HTTPResponse(status: .ok))
        } _: { world in
            let connection = try await world.connect()
            var request = HTTPRequest.to("/")
            for _ in 0..<8 {
                request.headerFields.append(
                    HTTPField(name: .priority, value: "u=1, " + String(repeating: "a", count: 200)))
            }
            #expect(try await connection.request(request).status == .ok)
        }
    }

    @Test("What is no dictionary is no priority", arguments: ["u=", "=", "u=1,,", "\u{7f}"])
    func malformed(text: String) {
        #expect(HTTP3Priority(fieldValue: text) == nil)
    }

    @Test("A request's field gives its response's priority, and PRIORITY_UPDATE changes it")
    func update() async throws {
        let go = Happening<Void>()
        try await withServer { request, _, responder in
            #expect(await responder.priority() == HTTP3Priority(urgency: 1, isIncremental: true))
            #expect(request.headerFields[.priority] == "u=1, i")
            let writer = try await responder.start(HTTPResponse(status: .ok))
            try await go.value()
            // The update came before the request that told this one to go on.
            #expect(await responder.priority() == HTTP3Priority(urgency: 6))
            responder.setPriority(HTTP3Priority(urgency: 2))
            #expect(await responder.priority() == HTTP3Priority(urgency: 2))
            try await writer.finish()
        } _: { world in
            let connection = try await world.connect()
            let response = try await connection.request(
                .to("/"), priority: HTTP3Priority(urgency: 1, isIncremental: true))
            response.setPriority(HTTP3Priority(urgency: 6))
            try await untilSent(connection)
            go.tell()
            _ = try await response.body.collect(upTo: 0)
        }
    }

    @Test("What the handler has decided stays, whatever the client asks for afterwards")
    func decided() async throws {
        let (decided, go) = (Happening<Void>(), Happening<Void>())
        let seen = Happening<HTTP3Priority>()
        try await withRawClient { request, _, responder in
            guard request.path == "/decided" else { return try await responder.respond(HTTPResponse(status: .ok)) }
            responder.setPriority(HTTP3Priority(urgency: 2))
            decided.tell()
            try await go.value()
            seen.tell(await responder.priority())
            try await responder.respond(HTTPResponse(status: .ok))
        } _: { _, peer in
            let control = try await peer.openControl()
            let fields = RawPeer.get.map { $0.0 == ":path" ? (":path", "/decided") : $0 }
            let stream = try await peer.send(RawPeer.headers(fields))
            try await decided.value()
            let update = RawPeer.varint(stream.id.rawValue) + Array("u=0".utf8)
            try await control.write(ByteBuffer(bytes: RawPeer.frame(FrameType.priorityUpdateRequest, update)))
            // What was sent before a request that is answered has come, too.
            try await peer.expectAlive()
            go.tell()
            #expect(try await seen.value() == HTTP3Priority(urgency: 2))
            #expect(try await status(stream) == "200")
        }
    }

    /// The control stream's bytes have been acknowledged: the server has acted on them.
    private func untilSent(_ connection: HTTP3ClientConnection) async throws {
        while let statistics = await connection.transportStatistics(), statistics.sendBufferBytes > 0 {
            await Task.yield()
        }
    }

    @Test("An update that comes before its request holds against the request's field")
    func beforeRequest() async throws {
        #expect(
            try await priority(updates: RawPeer.frame(FrameType.priorityUpdateRequest, [4] + Array("u=0".utf8)))
                == HTTP3Priority(urgency: 0))
    }

    @Test("An update that comes before its request holds where a later request came first, too")
    func beforeOvertakenRequest() async throws {
        let seen = Happening<HTTP3Priority>()
        try await withRawClient { request, _, responder in
            if request.path == "/first" { seen.tell(await responder.priority()) }
            try await responder.respond(HTTPResponse(status: .ok))
        } _: { _, peer in
            let control = try await peer.openControl()
            let first = try await peer.connection.openStream()
            peer.hold(first)
            try await peer.expectAlive()
            let update = RawPeer.varint(first.id.rawValue) + Array("u=0".utf8)
            try await control.write(ByteBuffer(bytes: RawPeer.frame(FrameType.priorityUpdateRequest, update)))
            // What was sent before a request that is answered has come, too.
            try await peer.expectAlive()
            var fields = RawPeer.get.map { $0.0 == ":path" ? (":path", "/first") : $0 }
            fields.append(("priority", "u=7"))
            try await first.write(ByteBuffer(bytes: RawPeer.headers(fields)))
            try await first.finish()
            #expect(try await seen.value() == HTTP3Priority(urgency: 0))
            #expect(try await status(first) == "200")
        }
    }

    @Test("Updates for requests that never come are forgotten, the oldest first")
    func flood() async throws {
        var updates: [UInt8] = []
        for number in UInt64(1)...200 {
            updates += RawPeer.frame(FrameType.priorityUpdateRequest, RawPeer.varint(number * 4) + Array("u=0".utf8))
        }
        let configuration = try serverConfiguration { $0.maxBidirectionalStreams = 300 }
        #expect(
            try await priority(updates: updates, configuration: configuration) == HTTP3Priority(urgency: 7))
    }

    @Test(
        "Updates that come late, for requests that are over, take no place of one that comes before its request",
        arguments: [1, 64])
    func late(early: UInt64) async throws {
        func update(_ number: UInt64, _ value: String) -> [UInt8] {
            RawPeer.frame(FrameType.priorityUpdateRequest, RawPeer.varint(number * 4) + Array(value.utf8))
        }
        let seen = Happening<HTTP3Priority>()
        let configuration = try serverConfiguration { $0.maxBidirectionalStreams = 300 }
        try await withRawClient(configuration: configuration) { request, _, responder in
            if request.path == "/next" { seen.tell(await responder.priority()) }
            try await responder.respond(HTTPResponse(status: .ok))
        } _: { _, peer in
            let control = try await peer.openControl()
            // To the server they are as good as over.
            for _ in 0..<70 { peer.hold(try await peer.connection.openStream()) }
            try await peer.expectAlive()
            let updates = (72..<72 + early).flatMap { update($0, "u=0") } + (0..<70).flatMap { update($0, "u=1") }
            try await control.write(ByteBuffer(bytes: updates))
            // What was sent before a request that is answered has come, too.
            try await peer.expectAlive()
            let fields = RawPeer.get.map { $0.0 == ":path" ? (":path", "/next") : $0 } + [("priority", "u=7")]
            let next = try await peer.send(RawPeer.headers(fields))
            #expect(next.id.rawValue == 4 * 72)
            #expect(try await seen.value() == HTTP3Priority(urgency: 0))
        }
    }

    @Test("An update for a stream that the client may not open yet ends the connection with H3_ID_ERROR")
    func beyondTheLimit() async throws {
        func update(_ stream: UInt64) -> [UInt8] {
            RawPeer.frame(FrameType.priorityUpdateRequest, RawPeer.varint(stream) + Array("u=0".utf8))
        }
        var limits = HTTP3Limits()
        limits.openRequests = 20
        let configuration = try serverConfiguration { $0.maxBidirectionalStreams = 10 }
        try await withRawClient(limits: limits, configuration: configuration) { _, peer in
            try await peer.expectAlive()
            let control = try await peer.openControl(update(4 * 19))
            try await peer.expectAlive()
            // Two requests are over at most.
            try await control.write(ByteBuffer(bytes: update(4 * 22)))
            try await peer.expectClose(.idError)
        }
    }

    /// The priority of the second request, which asks for urgency 7, after these frames on the control stream.
    private func priority(
        updates: [UInt8], configuration: QUICServerConfiguration? = nil
    ) async throws -> HTTP3Priority {
        let seen = Happening<HTTP3Priority>()
        var found = HTTP3Priority.standard
        try await withRawClient(configuration: configuration) { _, _, responder in
            seen.tell(await responder.priority())
            try await responder.respond(HTTPResponse(status: .ok))
        } _: { world, peer in
            try await peer.openControl(updates)
            // What was sent before a request that is answered has come, too.
            try await peer.expectAlive()
            #expect(try await seen.value() == .standard)
            let stream = try await peer.send(RawPeer.headers(RawPeer.get + [("priority", "u=7")]))
            _ = try await stream.collect()
            found = try await seen.value()
        }
        return found
    }
}
