import LonglineSession
import LonglineTestKit
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineClient

/// How long a message has waited, where the wall clock is set while the app runs.
@Suite("Ages of messages", .timeLimit(.minutes(1)))
struct OutboxAgeTests {
    private static let hour: UInt64 = 3_600_000

    /// What is left of the times to live of what waits.
    private func lives(_ client: LonglineClient) async throws -> [UInt64] {
        try await client.core.ask { driver in driver.outbox.inOrder.map { driver.outboxRow($0).publish.timeToLive } }
    }

    @Test("a wall clock that is set while the storage opens changes nothing about a time to live")
    func whileOpening() async throws {
        let wall = Mutex<UInt64>(1_700_000_000_000)
        let clock = DriverClock(now: DriverClock.system.now, wall: { wall.withLock { $0 } })
        let storage = GatedStorage()
        await storage.shut(.load)
        let client = try ClientHarness(storage: storage, clock: clock).client
        let sending = Task { try await client.send("a", to: .user("bob"), timeToLive: .seconds(3_600)) }
        await storage.waitUntilHeld()
        wall.withLock { $0 += 2 * Self.hour }
        await storage.open()
        _ = try await sending.value
        #expect(try await lives(client) == [Self.hour])
        await client.disconnect()
    }

    /// What is sent to a user.
    enum Kind: CaseIterable { case message, request }

    @Test("nor does one that is set while a token is waited for that tells the user", arguments: Kind.allCases)
    func whileUserIsUnknown(kind: Kind) async throws {
        let wall = Mutex<UInt64>(1_700_000_000_000)
        let clock = DriverClock(now: DriverClock.system.now, wall: { wall.withLock { $0 } })
        let (asked, token) = (Counter(), Outcome<String>())
        let client = try ClientHarness(clock: clock) {
            $0.user = nil
            $0.tokenProvider = {
                _ = asked.increment()
                return try await token.value()
            }
        }.client
        let sending = Task {
            switch kind {
            case .message: _ = try await client.send("a", to: .user("bob"), timeToLive: .seconds(3_600))
            case .request: _ = try await client.request(to: UserID("bob"), text: "?", deadline: .seconds(3_600))
            }
        }
        while asked.count == 0 { await Task.yield() }
        wall.withLock { $0 += 2 * Self.hour }
        token.resolve(.success(AccessTests.token("alice")))
        while try await lives(client).isEmpty { await Task.yield() }
        #expect(try await lives(client) == [Self.hour])
        sending.cancel()
        _ = await sending.result
        await client.disconnect()
    }

    @Test("nor does one that is set before the next turn as the owner of a shared outbox")
    func nextTurn() async throws {
        let wall = Mutex<UInt64>(1_700_000_000_000)
        let clock = DriverClock(now: DriverClock.system.now, wall: { wall.withLock { $0 } })
        let directory = try TemporaryFolder()
        let storage = try SharedClientStorage(path: directory.file("shared.sqlite"), pollInterval: .milliseconds(10))
        let client = try ClientHarness(storage: storage, clock: clock).client
        _ = try await client.send("a", to: .user("bob"), timeToLive: .seconds(3_600))
        wall.withLock { $0 += 2 * Self.hour }
        await client.core.yieldOwnership(.disconnected)
        #expect(try await lives(client) == [Self.hour])
        await client.disconnect()
    }
}
