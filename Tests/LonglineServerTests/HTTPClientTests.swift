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

    @Test("a host whose name server is gone holds up no other host")
    func aNameThatHangs() async throws {
        let backend = try await Backend { _ in .json("{}") }
        let release = DispatchSemaphore(value: 0)
        let asked = AsyncStream<Void>.makeStream()
        let resolver = HostResolver { host in
            if host == "dead.test" {
                asked.continuation.yield()
                release.wait()
            }
            return [try SocketAddress(ipAddress: "127.0.0.1", port: 0)]
        }
        // All of them on one event loop.
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        func client(_ host: String) throws -> HTTPClient {
            try HTTPClient(
                HTTPEndpoint(url: "http://\(host):\(backend.port)/"), trust: .systemRoots, group: loop,
                resolver: resolver)
        }
        let dead = try client("dead.test")
        let waiting = (1...8).map { _ in Task { try await dead.get() } }
        for await _ in asked.stream { break }
        #expect(try await client("alive.test").get().status == 200)
        for each in waiting { each.cancel() }
        for _ in waiting { release.signal() }
        for each in waiting { _ = await each.result }
        try await backend.stop()
    }

    @Test("a numeric host is not looked up")
    func aNumericHost() async throws {
        let backend = try await Backend { _ in .json("{}") }
        let client = try HTTPClient(
            HTTPEndpoint(url: "http://127.0.0.1:\(backend.port)/"), trust: .systemRoots, group: group,
            resolver: HostResolver { host in throw HTTPFailure(reason: "\(host) was looked up") })
        #expect(try await client.get().status == 200)
        try await backend.stop()
    }

    @Test("what a lookup failed with is what the request fails with")
    func anUnknownName() async throws {
        let client = try HTTPClient(
            HTTPEndpoint(url: "http://unknown.test/"), trust: .systemRoots, group: group,
            resolver: HostResolver { _ in [] })
        let error = await #expect(throws: NIOConnectionError.self) { _ = try await client.get() }
        #expect(error.map { "\($0)" }?.contains("the name has no address") == true)
    }
}
