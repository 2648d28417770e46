import HTTPTypes
import NIOCore
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
}
