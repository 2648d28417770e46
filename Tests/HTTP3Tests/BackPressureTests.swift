import HTTPTypes
import NIOCore
import QUICEngine
import Synchronization
import Testing

@testable import HTTP3

/// Bytes written so far, counted in one task and looked at in another.
private final class Total: Sendable {
    private let bytes = Atomic<Int>(0)
    var value: Int { bytes.load(ordering: .relaxed) }
    func add(_ count: Int) { bytes.add(count, ordering: .relaxed) }
}

@Suite("Back-pressure", .timeLimit(.minutes(1)))
struct BackPressureTests {
    @Test(
        "A client's writes wait for a server that doesn't read, and no more is taken than windows and send buffer hold")
    func upload() async throws {
        let go = Happening<Void>()
        let total = 4 << 20
        try await withServer { _, body, responder in
            try await go.value()
            let all = try await body.collect(upTo: total)
            try await responder.respond(HTTPResponse(status: .ok), body: ByteBuffer(string: "\(all.readableBytes)"))
        } _: { world in
            let connection = try await world.connect()
            let exchange = try await connection.start(.to("/", .post))
            let written = Total()
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask {
                    for _ in 0..<total / 16384 {
                        try await exchange.writer.write(pattern(16384))
                        written.add(16384)
                    }
                    try await exchange.writer.finish()
                }
                // The writer's task has begun, and then has time for more than it may write.
                while written.value == 0 { #expect(await settled(connection)) }
                for _ in 0..<50 {
                    #expect(await settled(connection))
                }
                let settings = TransportSettings()
                #expect(written.value > 0)
                #expect(written.value <= Int(settings.streamWindow) + settings.streamSendBuffer + 16384)
                go.tell()
                try await group.waitForAll()
            }
            let response = try await exchange.response()
            #expect(String(buffer: try await response.body.collect(upTo: 100)) == "\(total)")
        }
    }

    /// Passes one round trip.
    private func settled(_ connection: HTTP3ClientConnection) async -> Bool {
        await connection.transportStatistics() != nil
    }

    @Test("A server's writes wait for a client that doesn't read")
    func download() async throws {
        let written = Total()
        let total = 4 << 20
        try await withServer { request, _, responder in
            guard request.path == "/large" else { return try await responder.respond(HTTPResponse(status: .ok)) }
            let writer = try await responder.start(HTTPResponse(status: .ok))
            for _ in 0..<total / 16384 {
                try await writer.write(pattern(16384))
                written.add(16384)
            }
            try await writer.finish()
        } _: { world in
            let connection = try await world.connect()
            let response = try await connection.request(.to("/large"))
            for _ in 0..<20 { #expect(try await connection.request(.to("/")).status == .ok) }
            let settings = TransportSettings()
            #expect(written.value > 0)
            #expect(written.value <= Int(settings.streamWindow) + settings.streamSendBuffer + 16384)
            #expect(try await response.body.collect(upTo: total).readableBytes == total)
        }
    }
}
