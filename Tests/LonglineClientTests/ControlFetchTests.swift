import Dispatch
import HTTP3
import HTTPTypes
import Logging
import LonglineWire
import NIOCore
import NIOPosix
import QUICEngine
import Synchronization
import Testing

@testable import LonglineClient

/// The question to the control layer over real sockets.
@Suite("Asking over the network", .timeLimit(.minutes(2)))
struct ControlFetchTests {
    private func withStub(
        https: DevelopmentCertificate? = certificates.good, http3: DevelopmentCertificate? = certificates.good,
        answer: StubControl.Answer = .init(), _ body: (StubControl) async throws -> Void
    ) async throws {
        let stub = try await StubControl(https: https, http3: http3, answer: answer)
        do { try await body(stub) } catch {
            try await stub.stop()
            throw error
        }
        try await stub.stop()
    }

    private func fetch(
        _ stub: StubControl, trust: Trust = .pinnedPublicKey([certificates.good.publicKeySHA256]),
        patience: Duration = .seconds(60), connector: ControlConnector? = nil
    ) async throws -> FetchedAccess {
        var configuration = LonglineClient.Configuration(control: [stub.service], trust: trust) { "" }
        configuration.logger.logLevel = .critical
        let fetcher = AccessFetcher(
            controls: try configuration.controlEndpoints(),
            asker: connector
                ?? ControlConnector(configuration: configuration, group: MultiThreadedEventLoopGroup.singleton),
            logger: configuration.logger)
        return try await fetcher.fetch(token: "secret", routes: [], wall: 0, patience: patience)
    }

    @Test("HTTP/3 answers, and HTTPS isn't needed")
    func overHTTP3() async throws {
        try await withStub(https: nil) { stub in
            let fetched = try await fetch(stub)
            #expect(fetched.way.transport == .http3)
            #expect(fetched.answer.points.map(\.accessPoint) == [AccessPoint(host: "one", port: 1)])
            let authority = String(stub.service.url.dropFirst("https://".count))
            #expect(
                stub.requests == [
                    .init(
                        transport: .http3, path: "/v1/access", authority: authority, authorization: "Bearer secret")
                ])
        }
    }

    @Test("where UDP is lost HTTPS answers, and says where HTTP/3 is")
    func overHTTPS() async throws {
        try await withStub(http3: nil, answer: .init(headers: [("alt-svc", #"h3=":4433"; ma=86400"#)])) { stub in
            let fetched = try await fetch(stub)
            #expect(fetched.way.transport == .https && fetched.http3Port == 4433)
            #expect(stub.requests.map(\.transport) == [.https])
            #expect(stub.requests.map(\.authorization) == ["Bearer secret"])
        }
    }

    @Test("where neither answers the question ends by name")
    func neither() async throws {
        try await withStub(https: nil, http3: nil) { stub in
            let failure = await #expect(throws: AccessFailure.self) {
                try await fetch(stub, patience: .milliseconds(600))
            }
            #expect(failure?.error.code == .controlUnavailable)
        }
    }

    @Test(
        "trust holds over both: pins, authorities and none",
        arguments: [ControlTransport.http3, .https],
        [
            (Trust.pinnedPublicKey([certificates.other.publicKeySHA256, certificates.good.publicKeySHA256]), true),
            (.pinnedPublicKey([certificates.other.publicKeySHA256]), false), (.pinnedPublicKey([]), false),
            (.certificateAuthority(pem: certificates.good.certificatePEM), true),
            (.certificateAuthority(pem: certificates.other.certificatePEM), false), (.systemRoots, false),
            (.insecureNoVerification, true),
        ])
    func trust(transport: ControlTransport, trust: (kind: Trust, isGood: Bool)) async throws {
        let certificate = certificates.good
        try await withStub(
            https: transport == .https ? certificate : nil, http3: transport == .http3 ? certificate : nil
        ) { stub in
            if trust.isGood {
                let fetched = try await fetch(stub, trust: trust.kind)
                #expect(fetched.way.transport == transport)
            } else {
                let failure = await #expect(throws: AccessFailure.self) {
                    try await fetch(stub, trust: trust.kind, patience: .seconds(2))
                }
                #expect(failure?.error.code == .controlUnavailable)
                #expect(stub.requests.isEmpty, "the token is shown to nobody who isn't trusted")
            }
        }
    }

    @Test("an impostor at one of the two doesn't keep the other from answering", arguments: [true, false])
    func impostor(isHTTP3: Bool) async throws {
        try await withStub(
            https: isHTTP3 ? certificates.good : certificates.other,
            http3: isHTTP3 ? certificates.other : certificates.good
        ) { stub in
            let fetched = try await fetch(stub)
            #expect(fetched.way.transport == (isHTTP3 ? .https : .http3))
            #expect(stub.requests.count == 1)
        }
    }

    @Test(
        "a name that the certificate doesn't carry is refused, unless the key is pinned",
        arguments: [ControlTransport.http3, .https])
    func name(transport: ControlTransport) async throws {
        let certificate = try DevelopmentCertificate.generate(
            names: ["elsewhere.example"], now: DriverClock.system.wall() / 1_000)
        try await withStub(
            https: transport == .https ? certificate : nil, http3: transport == .http3 ? certificate : nil
        ) { stub in
            await #expect(throws: AccessFailure.self) {
                try await fetch(
                    stub, trust: .certificateAuthority(pem: certificate.certificatePEM), patience: .seconds(2))
            }
            let fetched = try await fetch(stub, trust: .pinnedPublicKey([certificate.publicKeySHA256]))
            #expect(fetched.way.transport == transport)
        }
    }

    @Test(
        "what is no good answer, by each way", arguments: [ControlTransport.http3, .https],
        [
            (StubControl.Answer(status: 401), ClientError.Code.controlUnavailable, true),
            (.init(status: 503, headers: [("retry-after", "9")]), .controlUnavailable, false),
            (.init(status: 307, headers: [("location", "https://127.0.0.1:1/")]), .controlUnavailable, false),
            (.init(body: Array(repeating: UInt8(ascii: " "), count: 70_000)), .controlAnswerInvalid, false),
            (.init(body: Array("<html>".utf8)), .controlAnswerInvalid, false),
            (.init(body: []), .controlAnswerInvalid, false),
        ])
    func bad(
        transport: ControlTransport, answer: (what: StubControl.Answer, code: ClientError.Code, isRefusal: Bool)
    ) async throws {
        // The other way fails too, so that the question ends when both have, and not with anybody's patience.
        let (good, impostor) = (certificates.good, certificates.other)
        try await withStub(
            https: transport == .https ? good : impostor, http3: transport == .http3 ? good : impostor,
            answer: answer.what
        ) { stub in
            let failure = await #expect(throws: AccessFailure.self) { try await fetch(stub) }
            #expect(failure?.error.code == answer.code && failure?.isTokenRefused == answer.isRefusal)
            #expect(failure?.retryAfter == (answer.what.status == 503 ? .seconds(9) : .zero))
            #expect(!(failure?.error.description.contains("secret") ?? true))
        }
    }

    @Test("the second question over HTTP/3 leaves with the first flight, however busy the process is")
    func early() async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let early = Mutex<[Bool]>([])
        let (held, holders) = (DispatchSemaphore(value: 0), 2 * System.coreCount)
        let server = try await StubControl.serve(certificates.good, group) { _, responder in
            let questions = early.withLock { early in
                early.append(responder.isEarly)
                return early.count
            }
            if questions == 2 { for _ in 0..<holders { held.signal() } }
            try await responder.respond(.init(status: .ok), body: ByteBuffer(bytes: AccessAnswerTests.json()))
        }
        let service = ControlService(
            url: "https://127.0.0.1:1", http3Port: server.localAddresses.first?.port, serverName: "localhost")
        let configuration = LonglineClient.Configuration(
            control: [service], trust: .certificateAuthority(pem: certificates.good.certificatePEM)
        ) { "" }
        let connector = ControlConnector(configuration: configuration, group: group)
        let control = try ControlEndpoint(service)
        let way = ControlWay(control: control, transport: .http3, port: service.http3Port ?? 0)
        #expect(try await connector.ask(way, token: "t", nonce: nil).status == 200)
        // No thread of the tasks' pool is free before the question is there, or the handshake long complete without it.
        @Sendable func hold() { _ = held.wait(timeout: .now() + .seconds(5)) }
        for _ in 0..<holders { Task.detached { hold() } }
        #expect(try await connector.ask(way, token: "t", nonce: nil).status == 200)
        #expect(early.withLock { $0 } == [false, true])
        await server.shutdownGracefully(grace: .zero, timeout: .seconds(1))
        try await group.shutdownGracefully()
    }
}
