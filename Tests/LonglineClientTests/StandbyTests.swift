import GRDB
import LonglineTestKit
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineClient

/// What a client of a shared outbox does when it can't go on, or shall not.
@Suite("Clients of a shared outbox that stop", .timeLimit(.minutes(1)))
struct StandbyTests {
    private func storage(_ directory: TemporaryFolder) throws -> SharedClientStorage {
        try SharedClientStorage(path: directory.file("shared.sqlite"), pollInterval: .milliseconds(10))
    }

    @Test("disconnecting does not wait for a file that another process has locked")
    func lockedFile() async throws {
        let directory = try TemporaryFolder()
        let path = directory.file("shared.sqlite")
        // Nobody gives up waiting for the lock while the test runs.
        let shared = try SharedClientStorage(
            path: path, takeOverAfter: .seconds(60), pollInterval: .milliseconds(10), holdsLock: true, patience: 3600)
        let harness = try ClientHarness(storage: shared) { $0.closeTimeout = .milliseconds(200) }
        try await harness.client.connect()
        try await harness.settle()
        var configuration = Configuration()
        configuration.allowsUnsafeTransactions = true
        let locker = try DatabaseQueue(path: path, configuration: configuration)
        try await locker.writeWithoutTransaction { try $0.execute(sql: "BEGIN IMMEDIATE") }
        await harness.client.disconnect()
        _ = await harness.state { if case .disconnected = $0 { true } else { false } }
        try await locker.writeWithoutTransaction { try $0.execute(sql: "COMMIT") }
        // It goes on by itself, and the next one waits for it.
        try await harness.client.connect()
        await harness.client.disconnect()
        while shared.isOwner { await Task.yield() }
    }

    @Test("start() throws what connect() throws, but for another owner")
    func starts() async throws {
        let directory = try TemporaryFolder()
        let owner = try storage(directory)
        #expect(try await owner.contend())
        let shared = try storage(directory)
        let client = try ClientHarness(storage: shared).client
        try await client.start()
        for await state in client.states { if case .standby = state { break } }
        await client.disconnect()
        try await owner.close()
        try await shared.close()
        let error = await #expect(throws: ClientError.self) { try await client.start() }
        #expect(error?.code == .storage)
    }

    @Test("a storage that fails while the client waits for its turn is told, once")
    func failsInStandby() async throws {
        let directory = try TemporaryFolder()
        let owner = try storage(directory)
        #expect(try await owner.contend())
        let shared = try storage(directory)
        let harness = try ClientHarness(storage: shared)
        let notices = harness.client.notices
        try await harness.client.start()
        for await state in harness.client.states { if case .standby = state { break } }
        try await shared.close()
        for await notice in notices {
            guard case .storageFailed(let error) = notice else { continue }
            #expect(error.code == .storage)
            break
        }
        await harness.client.disconnect()
        try await owner.close()
    }

    @Test("so is a cursor store of the app's own that fails when the client's turn comes")
    func storeFailsAtTurn() async throws {
        let directory = try TemporaryFolder()
        let owner = try storage(directory)
        #expect(try await owner.contend())
        let harness = try ClientHarness(storage: try storage(directory)) { $0.cursorStore = FailingCursors() }
        let notices = harness.client.notices
        try await harness.client.start()
        for await state in harness.client.states { if case .standby = state { break } }
        try await owner.close()
        for await notice in notices {
            guard case .storageFailed(let error) = notice else { continue }
            #expect(error.code == .storage && error.cause is FailingCursors.Failure)
            break
        }
        await harness.client.disconnect()
    }

    @Test("a client that logged out neither starts nor waits for another turn; said twice it wipes twice")
    func loggedOut() async throws {
        let directory = try TemporaryFolder()
        let client = try ClientHarness(storage: try storage(directory)).client
        try await client.connect()
        _ = try await client.send("a", to: .user("bob")).acknowledged()
        for _ in 0..<2 {
            guard case .acknowledged = try await client.logout() else { return #expect(Bool(false), "not told") }
        }
        for start in [client.start, client.connect] {
            let error = await #expect(throws: ClientError.self) { try await start() }
            #expect(error?.code == .loggedOut)
        }
        #expect(client.core.sharing?.wantsConnection == false)
        for await _ in client.messages {}
        let next = try storage(directory)
        #expect(try await next.contend())
        #expect(try await next.load() == StoredClientState())
        try await next.close()
    }

    @Test("a service that said stop has said so for later turns as the owner, too")
    func stopped() async throws {
        let directory = try TemporaryFolder()
        let harness = try ClientHarness(storage: try storage(directory))
        harness.service.state.withLock { $0.answers = [.close(Close(code: .forbidden, reason: "no"))] }
        let error = await #expect(throws: ClientError.self) { try await harness.client.connect() }
        #expect(error?.closeCode == .forbidden)
        let sharing = try #require(harness.client.core.sharing)
        #expect(!sharing.wantsConnection)
        await harness.client.core.yieldOwnership(.standby)
        #expect(harness.client.state.stopError?.closeCode == .forbidden, "it is what the app has to know")
        // A driver of another turn.
        _ = try await harness.client.status(of: SendID(high: 1, low: 1))
        #expect(try await harness.client.core.ask { if case .idle = $0.phase { true } else { false } })
        #expect(harness.service.state.withLock { $0.requests.count } == 1)
        // The app acts.
        try await harness.client.connect()
        await harness.client.disconnect()
    }

    @Test("what needs the connection is refused in standby by name, and takes effect in the own turn")
    func needsTheConnection() async throws {
        let directory = try TemporaryFolder()
        let owner = try storage(directory)
        #expect(try await owner.contend())
        let harness = try ClientHarness(storage: try storage(directory))
        let client = harness.client
        try await client.start()
        for await state in client.states { if case .standby = state { break } }
        let room = try RoomID("hall")
        let calls: [@Sendable () async throws -> Void] = [
            { try await client.setMode(.background) }, { try await client.setUrgency(.bulk, of: .room(room)) },
            { _ = try await client.join(room) },
        ]
        for call in calls {
            let error = await #expect(throws: ClientError.self) { try await call() }
            #expect(error?.code == .storageInUse)
        }
        try await owner.close()
        for await state in client.states { if case .connected = state { break } }
        #expect(harness.service.state.withLock { $0.modes.isEmpty && $0.rooms.isEmpty })
        for call in calls { try await call() }
        while harness.service.state.withLock({ $0.modes }) != [.background] { await Task.yield() }
        #expect(harness.service.state.withLock { $0.rooms.map(\.room) } == [room])
        await client.disconnect()
    }

    @Test("a call that comes to a driver whose turn has ended says that another process has the outbox")
    func turnEnded() async throws {
        let directory = try TemporaryFolder()
        let client = try ClientHarness(storage: try storage(directory)).client
        try await client.connect()
        let handle = try await client.core.handle()
        // The call has its driver, and another process is faster.
        await client.core.yieldOwnership(.standby)
        let room = try RoomID("hall")
        let none = JoinReceipt(position: Position(epoch: 0, offset: 0), settings: nil)
        let error = await #expect(throws: ClientError.self) {
            try await handle.call(ignoring: none) { driver, done in
                driver.requestRoom(room, .join, done: done)
            }
        }
        #expect(error?.code == .ownershipLost)
        await client.disconnect()
    }

    @Test("a task that was cancelled is told so in standby", arguments: [true, false])
    func cancelled(waitsForRoom: Bool) async throws {
        let directory = try TemporaryFolder()
        let owner = try storage(directory)
        #expect(try await owner.contend())
        let client = try ClientHarness(storage: try storage(directory)).client
        let sending = Task {
            while !Task.isCancelled { await Task.yield() }
            let payload = ByteBuffer(string: "a")
            if waitsForRoom { return try await client.sendWhenRoom(payload, to: .user("bob")) }
            return try await client.send(payload, to: .user("bob"))
        }
        sending.cancel()
        await #expect(throws: CancellationError.self) { try await sending.value }
        #expect(try await client.outbox().isEmpty)
        try await owner.close()
    }

    @Test("a file in which nothing happens is looked at less and less often, down to an eighth")
    func looks() {
        var looks = LookInterval(.milliseconds(250))
        #expect(looks.next(isNews: true) == .milliseconds(250))
        var pauses: [Duration] = []
        for _ in 0..<200 { pauses.append(looks.next(isNews: false)) }
        #expect(pauses.first == .milliseconds(250) && pauses.last == .seconds(2))
        #expect(pauses == pauses.sorted())
        #expect(looks.next(isNews: true) == .milliseconds(250))
    }

    @Test("an owner that is connected looks often while its user is there, and seldom otherwise")
    func looksOfOwner() {
        for (mode, longest) in [
            (SessionMode.foreground, Duration.milliseconds(250)), (.background, .seconds(2)), (.lowPower, .seconds(5)),
        ] {
            var looks = LookInterval(.milliseconds(250))
            var pauses: [Duration] = []
            for _ in 0..<400 { pauses.append(looks.next(isNews: false, longest: mode.longestLook)) }
            #expect(pauses.first == .milliseconds(250) && pauses.last == longest && pauses == pauses.sorted())
            #expect(looks.next(isNews: false, longest: 1) == .milliseconds(250), "the user is back")
        }
    }

    @Test("an owner looks at once when its user comes")
    func looksForUser() async throws {
        let directory = try TemporaryFolder()
        // So seldom that a look in its time would end the test by its time limit.
        func open() throws -> SharedClientStorage {
            try SharedClientStorage(
                path: directory.file("shared.sqlite"), takeOverAfter: .seconds(7_200), pollInterval: .seconds(3_600))
        }
        let harness = try ClientHarness(storage: try open())
        try await harness.client.connect()
        try await harness.client.setMode(.background)
        let other = try open()
        let submission = Submission(
            send: SendID(high: 1, low: 1), destination: .user(try UserID("bob")), timeToLive: 0, queuedAt: 5,
            payload: ByteBuffer(string: "a"))
        _ = try await other.submit(submission, limits: OutboxLimits())
        try await harness.client.setMode(.foreground)
        while harness.service.state.withLock({ $0.entered.isEmpty }) { await Task.yield() }
        await harness.client.disconnect()
        try await other.close()
    }
}

/// A record of the app's own that can't be read.
private struct FailingCursors: CursorStore {
    struct Failure: Error {}

    func cursors() async throws -> [ChannelID: Position] { throw Failure() }
}
