import HTTPTypes
import NIOCore
import QUICEngine
import QUICTransport
import Testing

@testable import HTTP3

/// A client that makes requests only to give them up (CVE-2023-44487).
@Suite("Requests given up", .timeLimit(.minutes(1)))
struct CancellationLimitTests {
    private static let fields = RawPeer.get.map { $0.0 == ":path" ? (":path", "/wait") : $0 }
    private static let wait = RawPeer.headers(fields)
    private static let short = RawPeer.headers(fields + [("content-length", "1")])

    @Test("So many times something may happen at once, and again as time passes")
    func rate() {
        var rate = RateLimit(10)
        let start = NIODeadline.now()
        func admitted(_ seconds: Int64, of count: Int) -> Int {
            (0..<count).filter { _ in rate.admits(start + .seconds(seconds)) }.count
        }
        #expect(admitted(0, of: 11) == 10)
        // What was refused counts, too; then one more is forgotten every three seconds.
        #expect(admitted(3, of: 1) == 0)
        #expect(admitted(9, of: 2) == 1)
        #expect(admitted(100, of: 11) == 10)
        for _ in 0..<3 { rate.forgive() }
        #expect(admitted(100, of: 3) == 2)
        for _ in 0..<100 { rate.forgive() }
        #expect(admitted(100, of: 11) == 10)
    }

    @Test("Who takes as many responses as he gives requests up may give up any number")
    func answered() async throws {
        var limits = HTTP3Limits()
        limits.cancellations = 5
        let (started, over) = (Happening<Void>(), Happening<Void>())
        try await withRawClient(limits: limits) { request, _, responder in
            guard request.path == "/wait" else { return try await responder.respond(HTTPResponse(status: .ok)) }
            started.tell()
            await untilCancelled()
            over.tell()
        } _: { world, peer in
            for _ in 0..<20 {
                let stream = try await peer.send(Self.wait, finish: false)
                try await started.value()
                stream.reset(code: HTTP3ErrorCode.requestCancelled.rawValue)
                try await over.value()
                try await peer.expectAlive()
            }
            #expect(world.server.statistics.cancelled == 20)
        }
    }

    @Test("Who gives up requests that are answered at once gives them up all the same")
    func answeredAtOnce() async throws {
        var limits = HTTP3Limits()
        limits.cancellations = 5
        let code = try await ScriptedServer.run(limits) { server in
            server.session.onRequest = { exchange, _ in
                try? exchange.send(HTTPResponse(status: .ok), body: nil, trailers: nil, finish: true)
            }
            // However slow the test: more than are forgotten meanwhile.
            for _ in 0..<20 where server.streams.closeCode == nil {
                let stream = try server.request().id
                let reason = HTTP3ErrorCode.requestCancelled.rawValue
                server.deliver([.stopSending(stream, code: reason), .streamClosed(stream)])
            }
            return server.streams.closeCode
        }
        #expect(code == HTTP3ErrorCode.excessiveLoad.rawValue)
    }

    /// How a client gives a request up; or it sends more than it said, so that the server does (CVE-2025-8671).
    enum Way: CaseIterable { case resets, stops, isMalformed }

    private static func giveUp(_ way: Way, _ stream: QUICStream) async throws {
        let code = HTTP3ErrorCode.requestCancelled.rawValue
        switch way {
        case .resets: stream.reset(code: code)
        case .stops: stream.stopSending(code: code)
        case .isMalformed: try await stream.write(ByteBuffer(bytes: RawPeer.data("more")))
        }
    }

    /// Waits until one of two things has happened.
    private func waitForEither(
        _ one: @escaping @Sendable () async -> Void, _ other: @escaping @Sendable () async -> Void
    ) async {
        await withTaskGroup { group in
            group.addTask(operation: one)
            group.addTask(operation: other)
            await group.next()
            group.cancelAll()
        }
    }

    @Test(
        "A client may give up as many requests as are allowed, and more end its connection", arguments: Way.allCases)
    func flood(_ way: Way) async throws {
        var limits = HTTP3Limits()
        limits.cancellations = 5
        let (started, over) = (Happening<Void>(), Happening<Void>())
        try await withRawClient(limits: limits) { request, _, responder in
            guard request.path == "/wait" else { return try await responder.respond(HTTPResponse(status: .ok)) }
            started.tell()
            await untilCancelled()
            over.tell()
        } _: { world, peer in
            for _ in 0..<5 {
                let stream = try await peer.send(Self.short, finish: false)
                try await started.value()
                try await Self.giveUp(way, stream)
                try await over.value()
            }
            try await peer.expectAlive()
            let statistics = world.server.statistics
            #expect((way == .isMalformed ? statistics.malformed : statistics.cancelled) == 5)
            // However slow the test: more than are forgotten meanwhile.
            for _ in 0..<20 {
                guard let stream = try? await peer.send(Self.short, finish: false) else { break }
                // What isn't begun, none gives up by breaking a rule.
                if way == .isMalformed {
                    await waitForEither({ try? await started.value() }, { _ = try? await peer.connection.closed() })
                }
                try? await Self.giveUp(way, stream)
            }
            try await peer.expectClose(.excessiveLoad)
            #expect(world.server.statistics.protocolErrors == 1)
        }
    }
}
