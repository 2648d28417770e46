import LonglineTestKit
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineClient

/// Who may put something into a shared outbox, and take it over: a logout in one process is one for all.
@Suite("Logins of a shared outbox", .timeLimit(.minutes(1)))
struct SharedLoginTests {
    private func submission() throws -> Submission {
        Submission(
            send: SendID(high: 1, low: 1), destination: .user(try UserID("bob")), timeToLive: 0, queuedAt: 5,
            payload: ByteBuffer(string: "a"))
    }

    /// By what a client knows that the file is another login's.
    enum Clue: CaseIterable { case user, device, wipe }

    @Test("what a client in standby sends does not go out in the name of the next login", arguments: Clue.allCases)
    func nextLogin(clue: Clue) async throws {
        let directory = try TemporaryFolder()
        let (bob, phone, tablet) = (try UserID("bob"), try DeviceID("phone"), try DeviceID("tablet"))
        let first = try ClientHarness(storage: try directory.sharedStorage())
        try await first.client.connect()
        func standby() throws -> LonglineClient {
            try ClientHarness(storage: try directory.sharedStorage(), seed: 2) {
                if clue == .device { $0.device = tablet }
            }.client
        }
        let early = try standby()
        _ = try await early.send("before", to: .room("hall")).acknowledged()
        try await first.client.logout()
        let next = try directory.sharedStorage()
        #expect(try await next.contend())
        let (known, expected): ([StorageChange], ClientError.Code) =
            switch clue {
            case .user: ([.user(bob)], .otherUser)
            case .device: ([.device(phone)], .otherDevice)
            // Nobody knows yet who it will be.
            case .wipe: ([], .loggedOut)
            }
        try await next.apply(known)
        // One that did not see the file before the wipe has only what the app names.
        let late = try clue == .wipe ? early : standby()
        let error = await #expect(throws: ClientError.self) { try await late.send("after", to: .room("hall")) }
        #expect(error?.code == expected)
        #expect(try await next.claim().submissions.isEmpty)
        // A client of the next login puts in what it sends.
        let other = try directory.sharedStorage()
        let message = try submission()
        _ = try await other.submit(message, limits: OutboxLimits())
        #expect(try await next.claim().submissions == [message])
        for storage in [next, other] { try await storage.close() }
    }

    @Test(
        "what comes to the file behind its client's logout is not put in; one that was let go of leaves it",
        arguments: [true, false])
    func behindTheEnd(isLogout: Bool) async throws {
        let directory = try TemporaryFolder()
        let storage = try directory.sharedStorage()
        let sharing = SharingState(storage: storage, sends: Broadcast(replaysLatest: false))
        sharing.stop(isLogout ? ConnectionDriver.loggedOut : ConnectionDriver.shutDown)
        let message = try submission()
        if isLogout {
            let error = await #expect(throws: ClientError.self) {
                _ = try await sharing.submit(message, limits: OutboxLimits())
            }
            #expect(error?.code == .loggedOut)
        } else {
            _ = try await sharing.submit(message, limits: OutboxLimits())
        }
        #expect(try await storage.waiting().count == (isLogout ? 0 : 1))
        try await storage.close()
    }

    @Test("an owner that is configured for another user takes nothing in: it waits for one of its user's")
    func otherOwner() async throws {
        let directory = try TemporaryFolder()
        let first = try directory.sharedStorage()
        #expect(try await first.contend())
        try await first.apply([.user(try UserID("alice"))])
        _ = try await first.submit(try submission(), limits: OutboxLimits())
        try await first.close()

        let carol = try UserID("carol")
        let wrong = try ClientHarness(storage: try directory.sharedStorage()) { $0.user = carol }
        let handle = try await wrong.client.core.handle()
        #expect(try await wrong.client.core.takeIn(on: handle) == false)
        #expect(try await wrong.client.core.ask { $0.outbox.count } == 0)
        let error = await #expect(throws: ClientError.self) {
            try await wrong.client.send("carol's", to: .user("bob"))
        }
        #expect(error?.code == .otherUser)
        await wrong.client.disconnect()

        let right = try ClientHarness(storage: try directory.sharedStorage(), seed: 2)
        try await right.client.connect()
        while right.service.state.withLock({ $0.entered.isEmpty }) { await Task.yield() }
        let entered = right.service.state.withLock { $0.entered.map(\.channel.description) }
        #expect(entered == ["user/alice"])
        await right.client.disconnect()
    }

    @Test("who follows a message while a logout comes to the opening of the next turn is told the end")
    func logoutWhileOpening() async throws {
        let directory = try TemporaryFolder()
        let cursors = LaterCursors()
        let client = try ClientHarness(storage: try directory.sharedStorage()) { $0.cursorStore = cursors }.client
        let core = client.core
        let receipt = try await client.send("a", to: .user("bob"))
        await core.yieldOwnership(.disconnected)
        cursors.shut()
        let opening = Task { _ = try await core.handle() }
        while cursors.held.count == 0 { await Task.yield() }
        // As a logout does, whose second half comes when the opening is over.
        core.turns.withLock { $0.close(ConnectionDriver.loggedOut) }
        cursors.open()
        let error = await #expect(throws: ClientError.self) { try await opening.value }
        #expect(error?.code == .loggedOut)
        core.sharing?.stop(ConnectionDriver.loggedOut)
        await #expect(throws: ClientError.self) { try await receipt.acknowledged() }
    }
}

/// Cursors that are there, and later have to be waited for.
private final class LaterCursors: CursorStore {
    let held = Counter()
    private let gate = Mutex<Outcome<Void>?>(nil)

    func shut() { gate.withLock { $0 = Outcome<Void>() } }

    func open() { gate.withLock { $0 }?.resolve(.success(())) }

    func cursors() async throws -> [ChannelID: Position] {
        guard let gate = gate.withLock({ $0 }) else { return [:] }
        _ = held.increment()
        try await gate.value()
        return [:]
    }
}
