import Foundation
import LonglineHTTP
import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import NIOHTTP1
import NIOPosix
import QUICEngine
import Synchronization
import Testing

@testable import LonglineServer

/// The policy that asks a backend over HTTP, against one on loopback.
@Suite(.timeLimit(.minutes(1))) struct HTTPAuthorizationPolicyTests {
    private func withBackend(
        _ answer: @escaping Backend.Answer, _ body: (Backend, HTTPAuthorizationPolicy) async throws -> Void
    ) async throws {
        let backend = try await Backend(answer)
        let policy = try HTTPAuthorizationPolicy(
            url: "http://127.0.0.1:\(backend.port)/may?v=1", headers: [("authorization", "Bearer s3cret")],
            group: MultiThreadedEventLoopGroup.singleton)
        var failure: (any Error)?
        do { try await body(backend, policy) } catch { failure = error }
        try await backend.stop()
        if let failure { throw failure }
    }

    private func question(_ action: ChannelAction = .publish, _ channel: String = "room/hall") throws
        -> AuthorizationQuestion
    {
        AuthorizationQuestion(
            action,
            by: DeviceKey(tenant: try TenantID("acme"), user: try UserID("ann"), device: try DeviceID("phone")),
            in: try ChannelID(channel))
    }

    @Test func theQuestionArrivesAndTheAnswerIsTaken() async throws {
        try await withBackend { request in
            request.body.contains("publish") ? .json(#"{"allow":true,"ttl":30}"#) : .json(#"{"allow":false,"code":77}"#)
        } _: { backend, policy in
            let allowed = try await policy.decide(question())
            #expect(allowed == .allow(for: .seconds(30)))
            let denied = try await policy.decide(question(.join, "room/vault"))
            #expect(denied == .deny(RefusalCode(rawValue: 77), for: .zero))
            let requests = backend.requests
            #expect(requests.map(\.uri) == ["/may?v=1", "/may?v=1"] && requests.allSatisfy { $0.method == .POST })
            #expect(requests.allSatisfy { $0.headers["authorization"] == ["Bearer s3cret"] })
            #expect(
                requests[1].body
                    == #"{"action":"join","channel":"room/vault","device":"phone","tenant":"acme","user":"ann"}"#)
            #expect(backend.connections == 1, "the connection is kept for the next question")
        }
    }

    @Test func aQuestionThatIsDroppedIsAskedTwiceAtMostHoweverManyConnectionsWereKept() async throws {
        let drops = Atomic(false)
        try await withBackend { _ in
            var response = Backend.Response.json(#"{"allow":true}"#)
            response.drops = drops.load(ordering: .relaxed)
            return response
        } _: { backend, policy in
            let question = try question()
            while backend.connections < 4 {
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for _ in 0..<8 { group.addTask { _ = try await policy.decide(question) } }
                    try await group.waitForAll()
                }
            }
            drops.store(true, ordering: .relaxed)
            let before = backend.requests.count
            await #expect(throws: (any Error).self) { try await policy.decide(question) }
            #expect(backend.requests.count == before + 2)
            // Those that were kept beside went the same way: nobody finds that out with one's own question.
            drops.store(false, ordering: .relaxed)
            let connections = backend.connections
            _ = try await policy.decide(question)
            #expect(backend.connections == connections + 1)
        }
    }

    @Test func aConnectionThatNothingWentOverForLongIsNotUsed() async throws {
        let backend = try await Backend { _ in .json("{}") }
        let clock = Mutex(NIODeadline.now())
        let client = try HTTPClient(
            HTTPEndpoint("http://127.0.0.1:\(backend.port)/"), trust: .systemRoots,
            group: MultiThreadedEventLoopGroup.singleton, now: { clock.withLock { $0 } })
        for (wait, connections) in [(0, 1), (30, 1), (31, 2), (1, 2)] {
            clock.withLock { $0 = $0 + .seconds(Int64(wait)) }
            _ = try await client.get()
            #expect(backend.connections == connections, "after \(wait) s")
        }
        try await backend.stop()
    }

    @Test(arguments: [
        (#"{"allow":false}"#, AuthorizationDecision.deny(for: .zero)),
        (#"{"allow":false,"code":0,"ttl":-4}"#, .deny(for: .zero)),
        (#"{"allow":true,"ttl":1.5,"more":[]}"#, .allow(for: .milliseconds(1_500))),
        (#"{"allow":true,"ttl":1e300}"#, .allow(for: .seconds(86_400))),
    ])
    func answersHaveDefaultsAndBounds(json: String, decision: AuthorizationDecision) async throws {
        try await withBackend { _ in
            .json(json)
        } _: { _, policy in
            let taken = try await policy.decide(question())
            #expect(taken == decision)
        }
    }

    @Test(arguments: [
        Backend.Response(status: .internalServerError, body: #"{"allow":true}"#), .json(""), .json("[]"),
        .json(#"{"allow":"yes"}"#), .json(#"{"allow":true,"code":-1}"#),
        .json(String(repeating: " ", count: 70_000) + #"{"allow":true}"#),
        Backend.Response(status: .noContent, body: ""),
    ])
    fileprivate func anythingElseIsAFailure(response: Backend.Response) async throws {
        try await withBackend { _ in
            response
        } _: { _, policy in
            await #expect(throws: HTTPFailure.self) { try await policy.decide(question()) }
        }
    }

    @Test func aConnectionThatTheBackendClosesIsReplaced() async throws {
        try await withBackend { _ in
            Backend.Response(status: .ok, body: #"{"allow":true}"#, closes: true)
        } _: { backend, policy in
            for _ in 0..<3 {
                let decision = try await policy.decide(question())
                #expect(decision == .allow(for: .zero))
            }
            #expect(backend.connections == 3)
        }
        // Closed without a word, after it was kept.
        try await withBackend { _ in
            .json(#"{"allow":true}"#)
        } _: { backend, policy in
            for _ in 0..<3 {
                let decision = try await policy.decide(question())
                #expect(decision == .allow(for: .zero))
                try await backend.closeAll()
            }
            #expect(backend.connections == 3)
        }
    }

    @Test func aBackendThatIsNotThereIsAFailure() async throws {
        let backend = try await Backend { _ in .json("") }
        let policy = try HTTPAuthorizationPolicy(url: "http://127.0.0.1:\(backend.port)")
        try await backend.stop()
        await #expect(throws: (any Error).self) { try await policy.decide(question()) }
    }

    @Test(arguments: [
        "", "http://", "https://", "ftp://h/", "http://h:0/", "http://h:x/", "http://h:70000/", "http:///path",
        "http://u@h/", "http://h/a b", "http://h/\r\nx: y", "http://h/#x", "http://[]/",
        "http://[::1/", "http://::1]/", "http://::1:80/", "http://h:i:80/", "http://[h]/", "http://[/",
        "http://h/\"", "http://h/<", "http://h/>", "http://h/a\\b", "http://h/^", "http://h/`", "http://h/{user}",
        "http://h/?a|b",
    ])
    func anAddressOfAnotherFormIsRefused(url: String) {
        #expect(throws: ServerError.self) { try HTTPAuthorizationPolicy(url: url) }
    }

    @Test func addressesAreTakenApart() throws {
        let plain = try HTTPEndpoint("http://backend")
        #expect(plain.host == "backend" && plain.port == 80 && plain.path == "/")
        let secure = try HTTPEndpoint("https://backend/x")
        #expect(secure.isSecure && secure.port == 443 && secure.serverName == "backend" && !plain.isSecure)
        #expect(try HTTPEndpoint("https://127.0.0.1:1").serverName == nil)
        let full = try HTTPEndpoint("http://[::1]:8080/a/b?c=d")
        let busy = "/-._~%20!$&'()*+,;=:@/x?a[]=b/?"
        #expect(try HTTPEndpoint("http://h" + busy).path == busy)
        #expect(full.host == "::1" && full.port == 8080 && full.path == "/a/b?c=d" && full.authority == "[::1]:8080")
    }

    @Test func overTLSTheBackendProvesWhoItIs() async throws {
        let now = WallClock.milliseconds() / 1_000
        let identity = try DevelopmentCertificate.generate(names: ["localhost", "127.0.0.1"], now: now)
        let other = try DevelopmentCertificate.generate(names: ["elsewhere.test"], now: now)
        let backend = try await Backend(identity: identity.credentials) { _ in .json(#"{"allow":true}"#) }
        for host in ["localhost", "127.0.0.1"] {
            let url = "https://\(host):\(backend.port)/"
            let policy = try HTTPAuthorizationPolicy(url: url, trust: .authorities(pem: identity.certificatePEM))
            #expect(try await policy.decide(question()) == .allow(for: .zero))
            #expect(try await policy.decide(question()) == .allow(for: .zero))
            // Somebody whom nobody vouches for, and nobody whom another one vouches for.
            for trust in [HTTPTrust.systemRoots, .authorities(pem: other.certificatePEM)] {
                let stranger = try HTTPAuthorizationPolicy(url: url, trust: trust)
                await #expect(throws: (any Error).self) { try await stranger.decide(question()) }
            }
        }
        #expect(backend.requests.count == 4)
        try await backend.stop()
        // A certificate for another name is none for this one.
        let impostor = try await Backend(identity: other.credentials) { _ in .json(#"{"allow":true}"#) }
        let misled = try HTTPAuthorizationPolicy(
            url: "https://localhost:\(impostor.port)/", trust: .authorities(pem: other.certificatePEM))
        await #expect(throws: (any Error).self) { try await misled.decide(question()) }
        #expect(impostor.requests.isEmpty)
        try await impostor.stop()
        #expect(throws: ServerError.self) {
            try HTTPAuthorizationPolicy(url: "https://localhost/", trust: .authorities(pem: "no certificate"))
        }
    }

    @Test func aServerAsksItsBackend() async throws {
        let backend = try await Backend { request in
            .json(request.body.contains("room/vault") ? #"{"allow":false,"ttl":9}"# : #"{"allow":true,"ttl":9}"#)
        }
        let policy = try HTTPAuthorizationPolicy(url: "http://127.0.0.1:\(backend.port)/")
        let server = try await TestServer(authorization: AuthorizationSettings(policy))
        let phone = try await server.connected("ann")
        #expect(try await phone.request(try RoomID("hall"), number: 1).refusal == nil)
        #expect(try await phone.request(try RoomID("vault"), number: 2).refusal == .forbidden)
        for text in ["a", "b"] { try await phone.publish(text, to: .room(try RoomID("hall"))) }
        #expect(backend.requests.count == 3, "two joins, one publish")
        await server.stop()
        try await backend.stop()
    }
}
