import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineServer

private let ann = identifier { try UserID("ann") }
private let bob = identifier { try UserID("bob") }

/// A publish that was entered is acknowledged when it comes again, whatever would refuse it now: who is told that it was
/// refused sends it anew, and it is there twice.
@Suite(.timeLimit(.minutes(1))) struct LedgerBeforeRefusalTests {
    /// The device that published, on another link and perhaps another loop, with the same outbox and another scope.
    private func again(
        _ server: TestServer, _ phone: TestDevice, scope: String = "publish receive", loop: Int = 1
    ) async throws -> TestDevice {
        let device = try await server.device("ann", loop: loop)
        device.producer = phone.producer
        device.connectNumber = 2
        let rights = try ScopeClaim(scope)
        let token = try await server.issuer.token("ann", "phone", scopes: rights.scopes, grants: rights.grants)
        _ = try await device.connect(credential: .token(token))
        return device
    }

    private func refusal(_ outcome: PublishOutcome) -> RefusalCode? {
        if case .refused(let refused) = outcome { refused.code } else { nil }
    }

    private func position(_ outcome: PublishOutcome) -> Position? {
        if case .published(let published) = outcome { published.position } else { nil }
    }

    @Test(arguments: [0, 1]) func aScopeThatChanged(loop: Int) async throws {
        try await withServer { server in
            let phone = try await server.connected("ann")
            let entered = try #require(position(try await phone.message("hi", to: bob)))
            let same = try await again(server, phone, scope: "receive", loop: loop)
            #expect(position(try await same.message("hi", to: bob)) == entered)
            #expect(refusal(try await same.message("more", to: bob)) == .forbidden)
            let other = try await server.connected("bob")
            #expect(try await other.text(.user(bob)) == "hi")
            #expect(other.untaken(.user(bob)).isEmpty)
        }
    }

    @Test func aLimitThatChanged() async throws {
        let store = InMemoryStore()
        var producer: ProducerID?
        var entered: Position?
        try await TestServer(store: store).use { server in
            let phone = try await server.connected("ann")
            producer = phone.producer
            entered = position(try await phone.message(String(repeating: "x", count: 200), to: bob))
        }
        var limits = ServerLimits()
        limits.maximumPayload = 100
        try await TestServer(store: store, limits: limits).use { server in
            let phone = try await server.device("ann")
            phone.producer = try #require(producer)
            phone.connectNumber = 2
            _ = try await phone.connect()
            let same = try await phone.message(String(repeating: "x", count: 200), to: bob)
            #expect(entered != nil && position(same) == entered)
            let more = try await phone.message(String(repeating: "x", count: 200), to: bob)
            #expect(refusal(more) == .payloadTooLarge)
        }
    }

    @Test func anAppThatChangedItsMind() async throws {
        let policy = Backend()
        try await TestServer(authorization: AuthorizationSettings(policy)).use { server in
            let phone = try await server.connected("ann")
            let entered = try #require(position(try await phone.message("hi", to: bob)))
            policy.isDenying.withLock { $0 = true }
            let same = try await again(server, phone)
            #expect(position(try await same.message("hi", to: bob)) == entered)
            #expect(refusal(try await same.message("more", to: bob)) == .forbidden)
        }
    }

    private final class Backend: AuthorizationPolicy {
        let isDenying = Mutex(false)
        func decide(_ question: AuthorizationQuestion) async throws -> AuthorizationDecision {
            isDenying.withLock { $0 } ? .deny(for: .zero) : .allow(for: .zero)
        }
    }

    /// The older link's publish is on its way into the store of another loop when the newer one's is refused.
    @Test func whatAnOlderLinkHasUnderWayCounts() async throws {
        let store = FaultyStore()
        let (entering, isEntering) = AsyncStream.makeStream(of: Void.self)
        let (letIn, lets) = AsyncStream.makeStream(of: Void.self)
        store.set {
            $0.beforeAppend = {
                isEntering.yield()
                for await _ in letIn { break }
            }
        }
        try await withServer(store: store) { server in
            let phone = try await server.connected("ann")
            try await phone.send(phone.publishFrames("hi", to: .user(ann), recipient: bob))
            for await _ in entering { break }
            let same = try await again(server, phone, scope: "receive")
            try await same.send(same.publishFrames("hi", to: .user(ann), recipient: bob))
            #expect(try await phone.closed() == .replaced)
            // Whatever was to be done meanwhile is done.
            for _ in 0..<3 { for loop in server.runtime.loops { try await loop.submit { _ in } } }
            lets.yield()
            let isEntered = try await same.next { frame -> Bool? in
                switch frame {
                case .published: true
                case .refused: false
                default: nil
                }
            }
            #expect(isEntered)
            let other = try await server.connected("bob")
            #expect(try await other.text(.user(bob)) == "hi")
        }
    }
}
