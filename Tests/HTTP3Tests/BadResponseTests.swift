import HTTPTypes
import NIOCore
import QUICEngine
import QUICTransport
import Testing

@testable import HTTP3

@Suite("Bad input to a client", .timeLimit(.minutes(1)))
struct BadResponseTests {
    private static let ok: [UInt8] = RawPeer.headers([(":status", "200")])

    private static func join(_ parts: [UInt8]...) -> [UInt8] { Array(parts.joined()) }

    static let malformedResponses: [(String, [UInt8])] = [
        ("no status", RawPeer.headers([("a", "b")])),
        ("a status of two digits", RawPeer.headers([(":status", "20")])),
        ("status 101", RawPeer.headers([(":status", "101")])),
        ("two statuses", RawPeer.headers([(":status", "200"), (":status", "200")])),
        ("a method", RawPeer.headers([(":status", "200"), (":method", "GET")])),
        ("an uppercase name", RawPeer.headers([(":status", "200"), ("Server", "x")])),
        ("Connection", RawPeer.headers([(":status", "200"), ("connection", "close")])),
        ("only an interim response", RawPeer.headers([(":status", "103")])),
        ("no response at all", []),
    ]

    @Test("A malformed response fails with H3_MESSAGE_ERROR, and the connection goes on", arguments: malformedResponses)
    func malformed(what: String, bytes: [UInt8]) async throws {
        try await withRawServer { peer in
            try await peer.openControl()
            let first = try await peer.nextRequest()
            try await first.answer(bytes)
            let second = try await peer.nextRequest()
            try await second.answer(Self.ok)
        } _: { connection, client in
            let error = await expectError(.malformedMessage) { _ = try await connection.request(.to("/")) }
            #expect(error?.protocolCode == .messageError)
            let again = try await connection.request(.to("/"))
            #expect(again.status == .ok)
            #expect(client.statistics.malformed == 1)
        }
    }

    @Test("A body of another length than announced fails when its end is read", arguments: ["4", "6"])
    func wrongLength(length: String) async throws {
        try await withRawServer { peer in
            let stream = try await peer.nextRequest()
            try await stream.answer(
                RawPeer.headers([(":status", "200"), ("content-length", length)]) + RawPeer.data("hello"))
        } _: { connection, _ in
            _ = await expectError(.malformedMessage) {
                let response = try await connection.request(.to("/"))
                _ = try await response.body.collect(upTo: 100)
            }
        }
    }

    static let connectionErrors: [(String, HTTP3ErrorCode, [UInt8])] = [
        ("DATA first", .frameUnexpected, RawPeer.data("x")),
        (
            "DATA behind an interim response", .frameUnexpected,
            join(RawPeer.headers([(":status", "103")]), RawPeer.data("x"))
        ),
        ("a push that wasn't allowed", .idError, join(ok, RawPeer.frame(0x5, [0, 0, 0]))),
        ("a frame of the control stream", .frameUnexpected, join(ok, RawPeer.frame(0x7, [0]))),
        ("a frame of HTTP/2", .frameUnexpected, join(ok, RawPeer.frame(0x9))),
        ("the end within a frame", .frameError, join(ok, [0, 5, 1])),
        ("a section that can't be decoded", .qpackDecompressionFailed, RawPeer.frame(0x1, [0, 0, 0x80])),
    ]

    @Test("A response that breaks the connection's rules ends it", arguments: connectionErrors)
    func connection(what: String, code: HTTP3ErrorCode, bytes: [UInt8]) async throws {
        let end = Happening<QUICCloseReason>()
        try await withRawServer { peer in
            let stream = try await peer.nextRequest()
            try? await stream.answer(bytes)
            end.tell(try await peer.connection.closed())
        } _: { connection, _ in
            _ = try? await connection.request(.to("/")).body.collect(upTo: 100)
            guard case .peerApplication(let number, _) = try await end.value() else {
                Issue.record("not closed with a code")
                return
            }
            #expect(HTTP3ErrorCode(rawValue: number) == code)
        }
    }

    static let controlErrors: [(String, HTTP3ErrorCode, UInt64, [UInt8])] = [
        ("a push stream", .idError, 1, [0]),
        ("MAX_PUSH_ID", .frameUnexpected, 0, join(RawPeer.settings, RawPeer.frame(0xd, [0]))),
        ("PRIORITY_UPDATE", .frameUnexpected, 0, join(RawPeer.settings, RawPeer.frame(0xf0700, [0]))),
        ("GOAWAY that names no request", .idError, 0, join(RawPeer.settings, RawPeer.frame(0x7, [2]))),
        (
            "GOAWAY with a larger ID", .idError, 0,
            join(RawPeer.settings, RawPeer.frame(0x7, [4]), RawPeer.frame(0x7, [8]))
        ),
    ]

    @Test("What a server may not say on its own streams ends the connection", arguments: controlErrors)
    func control(what: String, code: HTTP3ErrorCode, type: UInt64, bytes: [UInt8]) async throws {
        try await withRawServer { peer in
            // The client's handshake is complete then.
            _ = try await peer.nextRequest()
            try await peer.open(type, bytes)
        } _: { connection, _ in
            _ = await expectError(.connectionClosed) { _ = try await connection.request(.to("/")) }
            guard case .localApplication(let number, _) = try await connection.closed() else {
                Issue.record("not closed with a code")
                return
            }
            #expect(HTTP3ErrorCode(rawValue: number) == code)
        }
    }

    @Test("A request stream opened by a server ends the connection with H3_STREAM_CREATION_ERROR")
    func serverStream() async throws {
        try await withRawServer { peer in
            // The client's handshake is complete then.
            _ = try await peer.nextRequest()
            _ = try await peer.send(RawPeer.headers(RawPeer.get))
            try await peer.expectClose(.streamCreationError)
        } _: { connection, _ in
            _ = await expectError(.connectionClosed) { _ = try await connection.request(.to("/")) }
            let reason = try await connection.closed()
            #expect(HTTP3ErrorCode(reason) == .streamCreationError)
        }
    }

    @Test("Host, which means nothing in a response, is a field like any other there")
    func host() async throws {
        try await withRawServer { peer in
            let stream = try await peer.nextRequest()
            try await stream.answer(RawPeer.headers([(":status", "200"), ("host", "a b"), ("host", "c")]))
        } _: { connection, _ in
            let response = try await connection.request(.to("/"))
            let hosts = response.head.headerFields.filter { $0.name.canonicalName == "host" }
            #expect(hosts.map(\.value) == ["a b", "c"])
        }
    }

    @Test("Interim responses without end are cut off")
    func interimFlood() async throws {
        try await withRawServer { peer in
            let stream = try await peer.nextRequest()
            while true { try await stream.answer(RawPeer.headers([(":status", "103")]), finish: false) }
        } _: { connection, _ in
            let error = await expectError(.malformedMessage) { _ = try await connection.request(.to("/")) }
            #expect(error?.protocolCode == .excessiveLoad)
        }
    }

    @Test("That a request was not processed is known also to who asks when the connection is closed")
    func unprocessedAndClosed() async throws {
        try await withRawServer { peer in
            let control = try await peer.openControl()
            let request = try await peer.nextRequest()
            try await control.write(ByteBuffer(bytes: RawPeer.frame(0x7, [0])))
            _ = try await peer.connection.closed()
            _ = request
        } _: { connection, _ in
            let exchange = try await connection.start(.to("/"))
            try await exchange.writer.finish()
            _ = try await connection.closed()
            let error = await expectError(.goingAway) { _ = try await exchange.response() }
            #expect(error?.wasNotProcessed == true)
        }
    }

    @Test("A server that rejects a request which it has begun to answer has processed it")
    func rejectedLate() async throws {
        let answered = Happening<Void>()
        try await withRawServer { peer in
            try await peer.openControl()
            let stream = try await peer.nextRequest()
            try await stream.answer(Self.ok + RawPeer.data("half"), finish: false)
            try await answered.value()
            stream.reset(code: HTTP3ErrorCode.requestRejected.rawValue)
            _ = try await peer.connection.closed()
        } _: { connection, _ in
            let response = try await connection.request(.to("/"))
            answered.tell()
            let error = await expectError(.streamReset) { _ = try await response.body.collect(upTo: 100) }
            #expect(error?.wasNotProcessed == false && error?.protocolCode == .requestRejected)
        }
    }

    @Test("A GOAWAY takes back no response that has begun")
    func goawayLate() async throws {
        let (answered, told) = (Happening<Void>(), Happening<Void>())
        try await withRawServer { peer in
            let control = try await peer.openControl()
            let stream = try await peer.nextRequest()
            try await stream.answer(Self.ok + RawPeer.data("half"), finish: false)
            try await answered.value()
            try await control.write(ByteBuffer(bytes: RawPeer.frame(0x7, [0])))
            try await told.value()
            try await stream.answer(RawPeer.data("half"))
            _ = try await peer.connection.closed()
        } _: { connection, client in
            let response = try await connection.request(.to("/"))
            answered.tell()
            while await connection.isUsable() { await Task.yield() }
            told.tell()
            #expect(try await response.body.collect(upTo: 100) == ByteBuffer(string: "halfhalf"))
            #expect(client.statistics.rejected == 0)
        }
    }

    @Test("A request that the server rejected, or will not process, is known to be unprocessed")
    func unprocessed() async throws {
        try await withRawServer { peer in
            let control = try await peer.openControl()
            let first = try await peer.nextRequest()
            first.reset(code: HTTP3ErrorCode.requestRejected.rawValue)
            let second = try await peer.nextRequest()
            // The second request's stream is 4, and so not below the limit.
            try await control.write(ByteBuffer(bytes: RawPeer.frame(0x7, [4])))
            _ = try await peer.connection.closed()
            _ = second
        } _: { connection, _ in
            let rejected = await expectError(.requestRejected) { _ = try await connection.request(.to("/")) }
            #expect(rejected?.wasNotProcessed == true)
            let going = await expectError(.goingAway) { _ = try await connection.request(.to("/")) }
            #expect(going?.wasNotProcessed == true)
            // Whether the connection is closed by then or not: what never left was not processed.
            let late = await #expect(throws: HTTP3Error.self) { _ = try await connection.request(.to("/")) }
            #expect(late?.wasNotProcessed == true)
            _ = try await connection.closed()
            let after = await expectError(.connectionClosed) { _ = try await connection.request(.to("/")) }
            #expect(after?.wasNotProcessed == true)
        }
    }
}
