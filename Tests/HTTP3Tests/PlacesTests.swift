import HTTPTypes
import NIOCore
import NIOPosix
import QUICEngine
import QUICTransport
import Testing

@testable import HTTP3

@Suite("Places for connections", .timeLimit(.minutes(1)))
struct PlacesTests {
    @Test("Where few are left, who comes takes that of the connection for which nothing has been done for longest")
    func longestIdle() async throws {
        let (started, release) = (Happening<Void>(), Happening<Void>())
        try await withServer(connections: 8) { request, _, responder in
            if request.path == "/slow" {
                started.tell()
                try await release.value()
            }
            try await responder.respond(HTTPResponse(status: .ok))
        } _: { world in
            var held: [HTTP3ClientConnection] = []
            for _ in 0..<7 { held.append(try await world.connect()) }
            let (busy, recent, idle) = (held[0], held[1], held[2])
            async let slow = busy.request(.to("/slow")).status
            try await started.value()
            #expect(try await recent.request(.to("/")).status == .ok)
            let late = try await world.connect()
            let reason = try await idle.closed()
            #expect(HTTP3ErrorCode(reason) == .noError)
            #expect(try await late.request(.to("/")).status == .ok)
            for connection in held where connection !== idle { #expect(await connection.isUsable()) }
            release.tell()
            #expect(try await slow == .ok)
            #expect(world.server.statistics.surplusConnections == 0)
        }
    }

    @Test("A connection whose client takes an answer stays, however long ago that was begun")
    func takesAnswer() async throws {
        let (proceed, wrote, end) = (Happening<Void>(), Happening<Void>(), Happening<Void>())
        try await withServer(connections: 8) { request, _, responder in
            guard request.path == "/long" else { return try await responder.respond(HTTPResponse(status: .ok)) }
            let writer = try await responder.start(HTTPResponse(status: .ok))
            try await writer.write(pattern(1_000))
            try await proceed.value()
            // As if that were more than a second ago.
            responder.exchange.here?.session.advancedAt = .uptimeNanoseconds(0)
            try await writer.write(pattern(1_000))
            wrote.tell()
            try await end.value()
            try await writer.finish()
        } _: { world in
            let reading = try await world.connect()
            let response = try await reading.request(.to("/long"))
            #expect(response.status == .ok)
            var held: [HTTP3ClientConnection] = []
            for _ in 0..<6 { held.append(try await world.connect()) }
            proceed.tell()
            try await wrote.value()
            let late = try await world.connect()
            let reason = try await held[0].closed()
            #expect(HTTP3ErrorCode(reason) == .noError)
            #expect(try await late.request(.to("/")).status == .ok)
            end.tell()
            var taken = 0
            while let bytes = try await response.body.read() { taken += bytes.readableBytes }
            #expect(taken == 2_000)
            #expect(await reading.isUsable())
        }
    }

    @Test("A connection whose client takes nothing of an answer gives way, too")
    func takesNothing() async throws {
        try await withServer(connections: 8) { request, _, responder in
            guard request.path == "/endless" else { return try await responder.respond(HTTPResponse(status: .ok)) }
            let writer = try await responder.start(HTTPResponse(status: .ok))
            while true { try await writer.write(pattern(50_000)) }
        } _: { world in
            let deaf = try await world.connect()
            let response = try await deaf.request(.to("/endless"))
            #expect(response.status == .ok)
            var held: [HTTP3ClientConnection] = []
            for _ in 0..<7 { held.append(try await world.connect()) }
            let reason = try await deaf.closed()
            #expect(HTTP3ErrorCode(reason) == .noError)
            for connection in held { #expect(try await connection.request(.to("/")).status == .ok) }
            response.cancel()
        }
    }

    @Test("Who doesn't complete a handshake takes nobody's place")
    func unfinished() async throws {
        try await withServer(connections: 8) { _, _, responder in
            try await responder.respond(HTTPResponse(status: .ok))
        } _: { world in
            var held: [HTTP3ClientConnection] = []
            for _ in 0..<7 { held.append(try await world.connect()) }
            // A client that doesn't trust the server ends the handshake once it has the server's part.
            let other = try DevelopmentCertificate.generate(names: ["localhost"], now: wallClock())
            let wary = ClientConfiguration(
                serverName: "localhost", applicationProtocols: ["h3"],
                verification: .certificateAuthority(pem: other.certificatePEM))
            await #expect(throws: (any Error).self) { _ = try await world.connect(wary) }
            // A notice to one of them would have come before the answer.
            for connection in held {
                #expect(try await connection.request(.to("/")).status == .ok)
                #expect(await connection.isUsable())
            }
        }
    }

    /// A connection without packets. Confined to its loop.
    private final class Visitor {
        private let streams = ScriptedStreams()
        private let connection: QUICLoopConnection

        /// The client's first flight is there.
        init(_ service: HTTP3Service, _ loop: any EventLoop) throws {
            connection = try QUICLoopConnection.standing(on: streams, isServer: true, eventLoop: loop)
            connection.serve(by: HTTP3ServerSession(connection, service: service) { _, _, _ in })
            connection.deliver([.accepted])
        }

        /// - Returns: what the connection is closed with; nil: it goes on.
        func completeHandshake() -> UInt64? {
            connection.deliver([.handshakeCompleted(HandshakeInfo(applicationProtocol: "h3"))])
            return streams.closeCode
        }

        func end() { connection.deliver([.closed(.idleTimeout)]) }
    }

    @Test("Handshakes that are not complete take no places, and leave none when they end")
    func halfOpen() async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let loop = group.next()
        let surplus = HTTP3ErrorCode.excessiveLoad.rawValue
        let outcome: Result<[UInt64?], any Error>
        do {
            outcome = .success(
                try await loop.submit {
                    var options = HTTP3ServerOptions()
                    options.connections = 2
                    let service = HTTP3Service(options: options)
                    let visitors = try (0..<10).map { _ in try Visitor(service, loop) }
                    defer { for visitor in visitors { visitor.end() } }
                    var closes = visitors[0..<3].map { $0.completeHandshake() }
                    visitors[3].end()
                    closes.append(visitors[4].completeHandshake())
                    visitors[0].end()
                    closes.append(visitors[5].completeHandshake())
                    closes.append(visitors[6].completeHandshake())
                    return closes
                }.get())
        } catch {
            outcome = .failure(error)
        }
        try await group.shutdownGracefully()
        #expect(try outcome.get() == [nil, nil, surplus, surplus, nil, surplus])
    }
}
