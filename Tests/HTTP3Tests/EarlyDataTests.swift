import HTTPTypes
import NIOCore
import QUICEngine
import QUICTransport
import Testing

@testable import HTTP3

@Suite("0-RTT", .timeLimit(.minutes(1)))
struct EarlyDataTests {
    /// Connects once, so that the cache has a ticket.
    /// - Returns: what runs tasks on the client's loop. A task that connects there sends before the answer to its first flight
    ///   can be read.
    private func visit(_ world: World, _ cache: InMemorySessionCache) async throws -> QUICLoopExecutor {
        let connection = try await world.connect()
        #expect(try await connection.request(.to("/")).status == .ok)
        let key = SessionCacheKey(serverName: "localhost", port: world.port, applicationProtocol: "h3")
        // It comes with the handshake's end or soon after; each request passes a round trip.
        while cache.session(for: key)?.ticket == nil { _ = try await connection.request(.to("/")) }
        await connection.shutdownGracefully()
        return connection.executor
    }

    @Test("A safe request leaves in 0-RTT and is served; one that changes something waits for the handshake")
    func client() async throws {
        let cache = InMemorySessionCache()
        try await withServer(sessionCache: cache) { request, body, responder in
            let text = "\(request.method) \(responder.isEarly)"
            _ = try await body.collect(upTo: 100)
            try await responder.respond(HTTPResponse(status: .ok), body: ByteBuffer(string: text))
        } _: { world in
            let executor = try await visit(world, cache)
            try await withTaskExecutorPreference(executor) {
                let connection = try await world.connect(returnsEarly: true)
                async let post = connection.request(.to("/", .post), body: ByteBuffer(string: "x"))
                let response = try await connection.request(.to("/"))
                #expect(String(buffer: try await response.body.collect(upTo: 100)) == "GET true")
                #expect(String(buffer: try await post.body.collect(upTo: 100)) == "POST false")
                #expect(await connection.handshake()?.earlyData == .accepted)
            }
            #expect(world.server.statistics.earlyRequests == 1 && world.client.statistics.earlyRequests == 1)
            #expect(world.server.statistics.tooEarly == 0)
        }
    }

    @Test("Who gives up the wait for the handshake ends nobody else's request")
    func cancelledWait() async throws {
        let release = Happening<Void>()
        try await withServer { _, _, responder in
            try await release.value()
            try await responder.respond(HTTPResponse(status: .ok))
        } _: { world in
            let connection = try await world.connect()
            async let other = connection.request(.to("/"))
            let waiting = Task {
                withUnsafeCurrentTask { $0?.cancel() }
                try await connection.ready(early: false)
            }
            await #expect(throws: CancellationError.self) { try await waiting.value }
            release.tell()
            #expect(try await other.status == .ok)
        }
    }

    @Test("An unsafe request in 0-RTT gets 425 Too Early, and no handler sees it")
    func tooEarly() async throws {
        let cache = InMemorySessionCache()
        try await withServer(sessionCache: cache) { request, _, responder in
            #expect(request.method == .get)
            try await responder.respond(HTTPResponse(status: .ok))
        } _: { world in
            let executor = try await visit(world, cache)
            let client = QUICClient(sessionCache: cache)
            try await withTaskExecutorPreference(executor) {
                let connection = try await client.connect(
                    host: "127.0.0.1", port: world.port, configuration: clientConfiguration(), returnsEarly: true,
                    on: world.loop)
                let peer = RawPeer(connection)
                let stream = try await peer.send(RawPeer.headers([(":method", "POST")] + RawPeer.get[1...]))
                #expect(try await status(stream) == "425")
                #expect(try await connection.handshake().earlyData == .accepted)
                let again = try await peer.send(RawPeer.headers(RawPeer.get))
                #expect(try await status(again) == "200")
            }
            #expect(world.server.statistics.tooEarly == 1)
            await client.shutdownGracefully(timeout: .seconds(1))
        }
    }

    @Test("A request that left in 0-RTT and is refused with 425 is sent once more after the handshake, and not again")
    func secondTry() async throws {
        let cache = InMemorySessionCache()
        try await withServer(sessionCache: cache) { request, _, responder in
            let isRefused = responder.isEarly || request.path == "/never"
            try await responder.respond(HTTPResponse(status: isRefused ? .tooEarly : .ok))
        } _: { world in
            let executor = try await visit(world, cache)
            let before = world.server.statistics.requests
            try await withTaskExecutorPreference(executor) {
                let connection = try await world.connect(returnsEarly: true)
                async let never = connection.request(.to("/never"))
                #expect(try await connection.request(.to("/")).status == .ok)
                #expect(try await never.status == .tooEarly)
                #expect(await connection.handshake()?.earlyData == .accepted)
                // One that isn't early is answered with what the server says.
                #expect(try await connection.request(.to("/never")).status == .tooEarly)
            }
            #expect(world.server.statistics.earlyRequests == 2)
            #expect(world.server.statistics.requests == before + 5)
        }
    }

    @Test(
        "A server that shares its TLS context takes 0-RTT data with another's ticket if both have the same settings",
        arguments: [true, false])
    func otherSettings(areSame: Bool) async throws {
        let cache = InMemorySessionCache()
        let shared = try serverConfiguration()
        var limits = HTTP3Limits()
        if !areSame { limits.tableCapacity = 0 }
        // The second is there before the ticket is given: one from before its start would be refused as a possible replay.
        try await withServer(limits: limits, configuration: shared, sessionCache: cache) { _, _, responder in
            try await responder.respond(HTTPResponse(status: .ok))
        } _: { second in
            try await withServer(configuration: shared, sessionCache: cache) { _, _, responder in
                try await responder.respond(HTTPResponse(status: .ok))
            } _: { first in
                let executor = try await visit(first, cache)
                let before = SessionCacheKey(serverName: "localhost", port: first.port, applicationProtocol: "h3")
                let there = SessionCacheKey(serverName: "localhost", port: second.port, applicationProtocol: "h3")
                cache.store(ticket: try #require(cache.session(for: before)?.ticket), for: there)
                try await withTaskExecutorPreference(executor) {
                    let connection = try await first.client.connect(
                        host: "127.0.0.1", port: second.port, configuration: clientConfiguration(),
                        returnsEarly: true, on: first.loop)
                    #expect(try await connection.request(.to("/")).status == .ok)
                    let isTaken = await connection.handshake()?.earlyData == .accepted
                    #expect(isTaken == areSame)
                }
            }
        }
    }

    @Test(
        "What a server with other ticket keys does not take in 0-RTT is sent again after the handshake, and served once"
    )
    func refused() async throws {
        let cache = InMemorySessionCache()
        func key(_ world: World) -> SessionCacheKey {
            SessionCacheKey(serverName: "localhost", port: world.port, applicationProtocol: "h3")
        }
        try await withServer(sessionCache: cache) { _, _, responder in
            try await responder.respond(HTTPResponse(status: .ok))
        } _: { first in
            let executor = try await visit(first, cache)
            let ticket = try #require(cache.session(for: key(first))?.ticket)
            // The other one has a key ring of its own.
            try await withServer(sessionCache: cache) { _, _, responder in
                try await responder.respond(
                    HTTPResponse(status: .ok), body: ByteBuffer(string: "\(responder.isEarly)"))
            } _: { second in
                cache.store(ticket: ticket, for: key(second))
                try await withTaskExecutorPreference(executor) {
                    let connection = try await first.client.connect(
                        host: "127.0.0.1", port: second.port, configuration: clientConfiguration(),
                        returnsEarly: true, on: first.loop)
                    let response = try await connection.request(.to("/"))
                    #expect(String(buffer: try await response.body.collect(upTo: 100)) == "false")
                    let handshake = await connection.handshake()
                    #expect(handshake?.earlyData == .rejected && handshake?.resumed == false)
                }
                #expect(first.client.statistics.earlyRequests == 1)
                #expect(second.server.statistics.requests == 1 && second.server.statistics.earlyRequests == 0)
            }
        }
    }
}
