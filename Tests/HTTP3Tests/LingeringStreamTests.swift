import HTTPTypes
import NIOCore
import QUICEngine
import Synchronization
import Testing

@testable import HTTP3
@testable import QUICTransport

/// A client that never ends its side of a request, or never acknowledges the response, and keeps the connection alive.
@Suite("Streams that a client leaves open", .timeLimit(.minutes(1)))
struct LingeringStreamTests {
    /// What the client's packets are made into before they are protected.
    private final class Swallow: Sendable {
        /// Packets of this size and more become a PING; nil: none.
        private let least = Mutex<Int?>(nil)

        func swallow(from size: Int?) { least.withLock { $0 = size } }

        func rewrite(_ plaintext: UnsafeMutableRawBufferPointer, _ header: UnsafeRawBufferPointer) {
            guard let first = header.first, first & 0x80 == 0, let size = least.withLock({ $0 }),
                plaintext.count >= size
            else { return }
            for index in plaintext.indices { plaintext[index] = index == 0 ? 1 : 0 }
        }
    }

    enum Kind: CaseIterable, Sendable {
        /// Of the request's body a part and the end never come, though the client's packets do.
        case gap
        /// Nothing is acknowledged.
        case deaf
    }

    /// A server whose client has had a response on a stream that it leaves open.
    private func withLingering(
        _ kind: Kind, limits: HTTP3Limits, _ body: (World, RawPeer, OnLoop<Exchange>) async throws -> Void
    ) async throws {
        let swallow = Swallow()
        let answer = Happening<Void>()
        let asked = Happening<OnLoop<Exchange>>()
        try await withServer(limits: limits) { _, _, responder in
            asked.tell(responder.exchange)
            try await answer.value()
            try await responder.respond(HTTPResponse(status: .ok), body: ByteBuffer(string: "done"))
        } _: { world in
            let client = QUICClient()
            let executor = try await client.executor(on: world.loop)
            try await world.loop.submit {
                executor.driver.value.object?.engine.rewrite = { swallow.rewrite($0, $1) }
            }.get()
            let peer = try await world.connectRaw(
                client,
                clientConfiguration {
                    $0.keepAliveInterval = .milliseconds(20)
                    $0.discoverPathMTU = false
                })
            let post = RawPeer.get.map { $0.0 == ":method" ? (":method", "POST") : $0 }
            let stream = try await peer.send(RawPeer.headers(post), finish: false)
            let exchange = try await asked.value()
            switch kind {
            case .gap:
                swallow.swallow(from: 800)
                try await stream.write(ByteBuffer(bytes: RawPeer.data(String(repeating: "x", count: 1000))))
                try await stream.finish()
                try await stream.delivered()
                swallow.swallow(from: nil)
                answer.tell()
                #expect(try await stream.read() != nil)
            case .deaf:
                swallow.swallow(from: 0)
                answer.tell()
                #expect(try await stream.read() != nil)
            }
            try await body(world, peer, exchange)
            await client.shutdownGracefully(timeout: .seconds(1))
        }
    }

    @Test("A connection whose only request is over is idle, though its stream is open", arguments: Kind.allCases)
    func idle(kind: Kind) async throws {
        var limits = HTTP3Limits()
        limits.idleTimeout = .hours(1)
        try await withLingering(kind, limits: limits) { world, peer, exchange in
            // As if an hour passed at each look: the request may not be over at the first one.
            try await world.passHours(exchange) { exchange, time in
                if kind == .deaf { exchange.session.checkDeadlines(time) }
                exchange.session.checkIdleness(time)
                return exchange.session.state != .open
            }
            try await peer.expectClose(.noError)
            #expect(world.server.statistics.timeouts == (kind == .deaf ? 1 : 0))
        }
    }

    @Test("A server that shuts down waits for no stream whose request is over")
    func drain() async throws {
        try await withLingering(.gap, limits: HTTP3Limits()) { world, peer, _ in
            await world.server.shutdownGracefully(grace: .minutes(10))
            try await peer.expectClose(.noError)
        }
    }

    @Test("A stream that its client leaves open is forgotten after its time")
    func forgotten() async throws {
        try await withLingering(.gap, limits: HTTP3Limits()) { world, _, exchange in
            try await world.passHours(exchange)
            #expect(world.server.statistics.timeouts == 1)
        }
    }
}
