import Foundation
import LonglineHTTP
import NIOCore
import NIOHTTP1
import NIOPosix
import QUICEngine
import Synchronization
import Testing

/// The client of webhooks and of the authorization hook, against a backend on loopback.
@Suite(.timeLimit(.minutes(1))) struct HTTPClientTests {
    private let group = MultiThreadedEventLoopGroup.singleton

    @Test("a cancelled request over TLS ends before the other side says goodbye")
    func aCancelledRequestEnds() async throws {
        let now = UInt64(Date().timeIntervalSince1970)
        let identity = try DevelopmentCertificate.generate(names: ["localhost"], now: now)
        let asked = AsyncStream<Void>.makeStream()
        let backend = try await Backend(identity: identity.credentials) { _ in
            asked.continuation.yield()
            var response = Backend.Response.json("{}")
            response.hangs = true
            return response
        }
        let client = try HTTPClient(
            HTTPEndpoint(url: "https://localhost:\(backend.port)/"),
            trust: .authorities(pem: identity.certificatePEM), group: group)
        let posting = Task { try await client.post(ByteBuffer(string: "{}")) }
        for await _ in asked.stream { break }
        posting.cancel()
        // And not that of a connection which was given up after a wait.
        await #expect(throws: CancellationError.self) { _ = try await posting.value }
        try await backend.stop()
    }

    @Test("a request whose answer had begun is not sent again")
    func anAnsweredRequestIsNotRepeated() async throws {
        let count = Atomic(0)
        let backend = try await Backend { _ in
            let isFirst = count.add(1, ordering: .relaxed).newValue == 1
            return .json(isFirst ? "{}" : String(repeating: "x", count: HTTPConnection.maximumBody + 1))
        }
        let client = try HTTPClient(
            HTTPEndpoint(url: "http://127.0.0.1:\(backend.port)/"), trust: .systemRoots, group: group)
        _ = try await client.post(ByteBuffer(string: "{}"))
        let error = await #expect(throws: HTTPFailure.self) { _ = try await client.post(ByteBuffer(string: "{}")) }
        #expect(error?.isOverLimit == true)
        #expect(backend.requests.count == 2)
        try await backend.stop()
    }
}
