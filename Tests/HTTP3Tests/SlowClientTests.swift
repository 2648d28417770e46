import HTTPTypes
import NIOCore
import QUICEngine
import QUICTransport
import Testing

@testable import HTTP3

/// When a client that takes little of its responses is given up, in a time that the test makes.
@Suite("Slow clients", .timeLimit(.minutes(1)))
struct SlowClientTests {
    /// What a response does while its client takes nothing of it.
    enum Waiting: CaseIterable, Sendable {
        /// It is with its stream, and nobody here has anything to do with it any more.
        case whole
        /// It is with its stream, and its request isn't over.
        case early
        /// Its writer waits.
        case streamed
    }

    private static func respond(_ exchange: Exchange, _ count: Int, _ waiting: Waiting) throws {
        let body = ByteBuffer(repeating: 1, count: count)
        guard waiting == .streamed else {
            return try exchange.send(HTTPResponse(status: .ok), body: body, trailers: nil, finish: true)
        }
        try exchange.send(HTTPResponse(status: .ok), body: nil, trailers: nil, finish: false)
        try exchange.sendBody(body, finish: false)
        exchange.clockWriter(waits: true)
    }

    @Test("What a client takes of a streamed response counts before half of the stream's buffer is free")
    func stream() async throws {
        /// The minute in which a client that takes so much in each of the first twenty is given up.
        func end(_ bytes: Int) async throws -> Int? {
            try await ScriptedServer.run { server in
                let start = NIODeadline.now()
                let exchange = try server.request()
                try Self.respond(exchange, 1 << 20, .streamed)
                server.streams.heldBack = [exchange.id]
                for minute in 1...40 {
                    if minute <= 20 { server.streams.acknowledge(bytes, on: exchange.id) }
                    server.session.checkDeadlines(start + .minutes(Int64(minute)))
                    if server.streams.resets[exchange.id] != nil { return minute }
                }
                return nil
            }
        }
        #expect(try await end(2000) == 26)
        #expect(try await end(600) == 26)
        #expect(try await end(100) == 6)
    }

    /// How many of a hundred responses are given up within ten minutes, and when the client has taken nothing for some more.
    private func givenUp(
        _ waiting: Waiting, bytesPerSecond: Int, isHeldBack: Bool = false
    ) async throws -> [Int] {
        try await ScriptedServer.run { server in
            let start = NIODeadline.now()
            server.streams.sendBuffer = 4 << 20
            let first = try server.request()
            try Self.respond(first, 3 << 20, .whole)
            server.streams.sendBuffer = 10_000
            server.streams.ends = waiting != .early
            for _ in 1..<100 {
                let exchange = try server.request()
                try Self.respond(exchange, waiting == .streamed ? 20_000 : 5_000, waiting)
                if isHeldBack { server.streams.heldBack.insert(exchange.id) }
            }
            var counts: [Int] = []
            for step in 1...100 {
                if step <= 60 { server.streams.acknowledge(10 * bytesPerSecond, on: first.id) }
                server.session.checkDeadlines(start + .seconds(10 * Int64(step)))
                if step == 60 { counts.append(server.streams.resets.count) }
            }
            return counts + [server.streams.resets.count]
        }
    }

    @Test(
        "A response that waits behind others waits as long as the client takes enough for all",
        arguments: Waiting.allCases)
    func behindOthers(waiting: Waiting) async throws {
        #expect(try await givenUp(waiting, bytesPerSecond: 3000) == [0, 100])
        #expect(try await givenUp(waiting, bytesPerSecond: 100) == [99, 100])
    }

    @Test(
        "A response that its stream's flow control holds back is given up, whatever the client takes of others",
        arguments: Waiting.allCases)
    func heldBack(waiting: Waiting) async throws {
        #expect(try await givenUp(waiting, bytesPerSecond: 3000, isHeldBack: true) == [99, 100])
    }
}
