import HTTPTypes
import NIOCore
import QUICEngine
import QUICTransport
import Synchronization
import Testing

@testable import HTTP3

/// What is urgent comes first, over a connection whose receiver lets little through at a time.
@Suite("Order by priority", .timeLimit(.minutes(1)))
struct PriorityOrderTests {
    /// Less than a stream's send buffer takes, and many times the window.
    private static let body = ByteBuffer(repeating: 1, count: 200_000)
    private static let window: UInt64 = 16 << 10

    private func narrow() -> ClientConfiguration { clientConfiguration { $0.connectionWindow = Self.window } }

    /// The paths of bodies in the order of their ends.
    private final class Order: Sendable {
        private let paths = Mutex<[String]>([])
        var ended: [String] { paths.withLock { $0 } }
        func end(_ path: String) { paths.withLock { $0.append(path) } }
    }

    /// Two responses, of which the second's begins when nothing more of the first may leave. `update`: what the client says of the
    /// first when both are with the server's transport.
    private func order(
        _ first: HTTP3Priority?, _ second: HTTP3Priority?, update: HTTP3Priority? = nil
    ) async throws -> [String] {
        let order = Order()
        let written = Happening<Void>()
        try await withServer { _, _, responder in
            try await responder.respond(HTTPResponse(status: .ok), body: Self.body)
            written.tell()
        } _: { world in
            let connection = try await world.connect(narrow())
            let response = try await connection.request(.to("/first"), priority: first)
            try await written.value()
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask {
                    let response = try await connection.request(.to("/second"), priority: second)
                    #expect(try await response.body.collect(upTo: 1 << 20) == Self.body)
                    order.end("/second")
                }
                try await written.value()
                if let update {
                    response.setPriority(update)
                    // The control stream's bytes have been acknowledged: the server has acted on them.
                    while let statistics = await connection.transportStatistics(), statistics.sendBufferBytes > 0 {
                        await Task.yield()
                    }
                }
                #expect(try await response.body.collect(upTo: 1 << 20) == Self.body)
                order.end("/first")
                try await group.waitForAll()
            }
        }
        return order.ended
    }

    @Test("Of two responses of one urgency the first ends first, and a more urgent one before it")
    func responses() async throws {
        #expect(try await order(nil, nil) == ["/first", "/second"])
        #expect(try await order(HTTP3Priority(urgency: 5), HTTP3Priority(urgency: 1)) == ["/second", "/first"])
    }

    @Test("A response that PRIORITY_UPDATE makes less urgent lets the other pass")
    func update() async throws {
        #expect(try await order(nil, nil, update: HTTP3Priority(urgency: 7)) == ["/second", "/first"])
    }

    @Test("A response whose priority came before its request passes another")
    func earlyUpdate() async throws {
        let order = Order()
        let written = Happening<Void>()
        try await withServer { _, _, responder in
            try await responder.respond(HTTPResponse(status: .ok), body: Self.body)
            written.tell()
        } _: { world in
            let client = QUICClient()
            let peer = try await world.connectRaw(client, narrow())
            try await peer.openControl(
                RawPeer.frame(FrameType.priorityUpdateRequest, RawPeer.varint(8) + Array("u=0".utf8)))
            // Until this is answered, what was sent before it has come.
            async let answer = peer.send(RawPeer.headers(RawPeer.get)).collect()
            try await written.value()
            #expect(try await answer.count > 200_000)
            let first = try await peer.send(RawPeer.headers(RawPeer.get))
            try await written.value()
            let second = try await peer.send(RawPeer.headers(RawPeer.get))
            try await written.value()
            #expect(second.id.rawValue == 8)
            try await withThrowingTaskGroup(of: Void.self) { group in
                for (stream, path) in [(first, "/first"), (second, "/second")] {
                    group.addTask {
                        _ = try await stream.collect()
                        order.end(path)
                    }
                }
                try await group.waitForAll()
            }
            await client.shutdownGracefully(timeout: .seconds(1))
        }
        #expect(order.ended == ["/second", "/first"])
    }

    @Test("Of two uploads the urgent one arrives first") func uploads() async throws {
        let order = Order()
        let go = Happening<Void>()
        let configuration = try serverConfiguration { $0.connectionWindow = Self.window }
        try await withServer(configuration: configuration) { request, body, responder in
            if request.path == "/first" { try await go.value() }
            #expect(try await body.collect(upTo: 1 << 20) == Self.body)
            order.end(request.path ?? "")
            try await responder.respond(HTTPResponse(status: .ok))
        } _: { world in
            let connection = try await world.connect()
            try await withThrowingTaskGroup(of: Void.self) { group in
                for (number, (path, urgency)) in [("/first", 5), ("/second", 1)].enumerated() {
                    group.addTask {
                        let response = try await connection.request(
                            .to(path, .post), body: Self.body, priority: HTTP3Priority(urgency: UInt8(urgency)))
                        #expect(response.status == .ok)
                    }
                    // All but what the window lets through is with the transport.
                    let least = (number + 1) * Self.body.readableBytes - 2 * Int(Self.window)
                    while let statistics = await connection.transportStatistics(), statistics.sendBufferBytes < least {
                        await Task.yield()
                    }
                }
                go.tell()
                try await group.waitForAll()
            }
        }
        #expect(order.ended == ["/second", "/first"])
    }
}
