import Foundation
import LonglineStore
import LonglineTestKit
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineClient

@Suite("Logging out", .timeLimit(.minutes(1)))
struct LogoutTests {
    private func isLoggedOut(_ body: () async throws -> Void) async throws -> Bool {
        do { try await body() } catch let error as ClientError { return error.code == .loggedOut }
        return false
    }

    private func reason(_ result: LogoutResult) -> ClientError.Code? {
        if case .localOnly(let error) = result { error.code } else { nil }
    }

    @Test("the service is told, the storage is wiped, and the client is over")
    func connected() async throws {
        let storage = InMemoryClientStorage()
        let harness = try ClientHarness(storage: storage)
        try await harness.client.connect()
        _ = try await harness.client.send("a", to: .user("bob")).acknowledged()
        try await harness.settle()
        #expect(await storage.load() != StoredClientState())
        #expect(reason(try await harness.client.logout()) == nil)
        #expect(harness.service.state.withLock { $0.logouts } == 1)
        #expect(await storage.load() == StoredClientState())
        #expect(harness.client.state.stopError?.closeCode == .loggedOut)
        let client = harness.client
        #expect(try await isLoggedOut { try await client.connect() })
        #expect(try await isLoggedOut { _ = try await client.send("b", to: .user("bob")) })
        #expect(try await isLoggedOut { try await client.join(RoomID("hall")) })
        // The sequences end, so that their readers do.
        for await _ in client.messages { #expect(Bool(false), "a message after the logout") }
        for await _ in client.states {}
        await client.disconnect()
        // Said twice it is one logout.
        #expect(reason(try await client.logout()) == nil)
        #expect(harness.service.state.withLock { $0.logouts } == 1)
        #expect(await storage.load() == StoredClientState())
    }

    @Test("the account is erased: the storage is wiped, and the client is over as after a logout")
    func erasure() async throws {
        let storage = InMemoryClientStorage()
        let harness = try ClientHarness(storage: storage)
        try await harness.client.connect()
        _ = try await harness.client.send("a", to: .user("bob")).acknowledged()
        try await harness.settle()
        try await harness.client.eraseAccount()
        #expect(await storage.load() == StoredClientState())
        #expect(harness.client.state.stopError?.closeCode == .loggedOut)
        let client = harness.client
        #expect(try await isLoggedOut { try await client.eraseAccount() })
        #expect(reason(try await client.logout()) == nil)
        #expect(harness.service.state.withLock { $0.erasures == 1 && $0.logouts == 0 })
    }

    @Test(
        "an erasure that is refused or not answered for sure leaves all as it is",
        arguments: [
            Frame.erasureRefused(ErasureRefused(code: .forbidden)), .close(Close(code: .internalError)),
            .pong(Pong(nonce: 0, observedAddress: "")),
        ])
    func notErased(answer: Frame) async throws {
        let storage = InMemoryClientStorage()
        let harness = try ClientHarness(storage: storage)
        let client = harness.client
        // Only silence is waited for until it is over.
        let isSilent = if case .pong = answer { true } else { false }
        func code() async -> ClientError? {
            let timeout: Duration = isSilent ? .milliseconds(50) : .seconds(3_600)
            do { try await client.eraseAccount(timeout: timeout) } catch { return error as? ClientError }
            return nil
        }
        #expect(await code()?.code == .notConnected, "before the first connect")
        try await client.connect()
        _ = try await client.send("a", to: .user("bob")).acknowledged()
        harness.service.state.withLock { $0.erasureAnswer = answer }
        let error = try #require(await code())
        if case .erasureRefused = answer {
            #expect(error.code == .refused && error.refusal == .forbidden)
        } else {
            #expect(error.code == .outcomeUnknown)
        }
        #expect(await storage.load() != StoredClientState())
        // It comes back where the link was lost.
        _ = try await client.send("b", to: .user("bob")).acknowledged()
    }

    @Test("what waits in the outbox is given up, and its receipt says so")
    func outbox() async throws {
        let storage = InMemoryClientStorage()
        let harness = try ClientHarness(storage: storage)
        let receipt = try await harness.client.send("never sent", to: .user("bob"))
        #expect(reason(try await harness.client.logout()) == .notConnected)
        #expect(try await isLoggedOut { _ = try await receipt.acknowledged() })
        #expect(await storage.load() == StoredClientState())
        #expect(harness.service.state.withLock { $0.requests.isEmpty })
    }

    @Test("without a use of the client before, the storage is wiped all the same")
    func neverUsed() async throws {
        var left = StoredClientState()
        left.resumeTicket = StoredSecret(bytes: [1], expiry: 0)
        let storage = InMemoryClientStorage(left)
        let harness = try ClientHarness(storage: storage)
        #expect(reason(try await harness.client.logout()) == .notConnected)
        #expect(await storage.load() == StoredClientState())
        for await _ in harness.client.states {}
    }

    @Test(
        "a service that answers with something else, or not at all, was not told for sure",
        arguments: [Close(code: .internalError), nil])
    func noAnswer(answer: Close?) async throws {
        let storage = InMemoryClientStorage()
        let harness = try ClientHarness(storage: storage) { $0.closeTimeout = .milliseconds(50) }
        try await harness.client.connect()
        harness.service.state.withLock { $0.logoutAnswer = answer }
        #expect(reason(try await harness.client.logout()) == .outcomeUnknown)
        #expect(harness.service.state.withLock { $0.logouts } == 1)
        #expect(harness.service.state.withLock { $0.connects.count } == 1, "it doesn't come back")
        #expect(await storage.load() == StoredClientState())
    }

    @Test("a logout whose task is cancelled wipes the storage all the same")
    func cancelledTask() async throws {
        #expect(reason(try await whenCancelled { try await $0.logout() }) == nil)
    }

    /// Ends a connected client for good in a task that was cancelled before it begins; the storage is wiped then.
    private func whenCancelled<Value: Sendable>(
        _ end: @escaping @Sendable (LonglineClient) async throws -> Value
    ) async throws -> Value {
        let directory = try TemporaryFolder()
        let storage = try SQLiteClientStorage(path: directory.file("client.sqlite"))
        let harness = try ClientHarness(storage: storage)
        try await harness.client.connect()
        try await harness.settle()
        let task = Task {
            while !Task.isCancelled { await Task.yield() }
            return try await end(harness.client)
        }
        task.cancel()
        let value = try await task.value
        #expect(try await storage.load() == StoredClientState())
        return value
    }

    @Test("an erasure of the account whose task is cancelled wipes the storage all the same")
    func cancelledErasure() async throws { try await whenCancelled { try await $0.eraseAccount() } }

    @Test("what began before the logout and comes to the client after it is told so")
    func beside() async throws {
        let harness = try ClientHarness()
        let handle = try await harness.client.core.handle()
        try await harness.client.logout()
        let submission = Submission(
            send: SendID(high: 1, low: 2), destination: .room(try RoomID("hall")), timeToLive: 0, queuedAt: 0,
            payload: ByteBuffer(string: "late"))
        #expect(
            try await isLoggedOut {
                try await handle.call(ignoring: ()) { driver, done in
                    driver.connect { done($0.map { .failure($0) } ?? .success(())) }
                }
            })
        #expect(
            try await isLoggedOut {
                _ = try await withCheckedThrowingContinuation { continuation in
                    handle.run { $0.send(submission, tracker: SendTracker()) { continuation.resume(with: $0) } }
                }
            })
        #expect(harness.service.state.withLock { $0.requests.isEmpty })
    }

    @Test("a write that is under way is over before the storage is wiped")
    func writeUnderWay() async throws {
        let storage = GatedStorage()
        let harness = try ClientHarness(storage: storage)
        try await harness.client.connect()
        try await harness.settle()
        await storage.shut(.apply)
        let client = harness.client
        async let sent: Bool = isLoggedOut { _ = try await client.send("a", to: .user("bob")) }
        await storage.waitUntilHeld()
        async let result = client.logout()
        for await state in client.states { if case .stopped = state { break } }
        #expect(await storage.erasures == 0)
        await storage.open()
        #expect(reason(try await result) == nil)
        #expect(try await sent)
        #expect(await storage.erasures == 1)
        #expect(await storage.load() == StoredClientState())
    }

    @Test("however many end the client at once, the storage is wiped once: it may be the next login's by then")
    func wipedOnce() async throws {
        let storage = GatedStorage()
        let harness = try ClientHarness(storage: storage)
        let client = harness.client
        try await client.connect()
        try await harness.settle()
        await storage.shut(.erase)
        let first = Task { try await client.logout() }
        await storage.waitUntilHeld()
        let second = Task { try await client.logout() }
        // As a late answer to an erasure of the account does.
        client.core.accountWasErased()
        await storage.open()
        for logout in [first, second] { #expect(reason(try await logout.value) == nil) }
        #expect(reason(try await client.logout()) == nil)
        #expect(await storage.erasures == 1)
    }

    @Test("a storage that could not be wiped is wiped by the next logout")
    func wipedLater() async throws {
        let storage = GatedStorage()
        let harness = try ClientHarness(storage: storage)
        let client = harness.client
        try await client.connect()
        _ = try await client.send("a", to: .user("bob")).acknowledged()
        try await harness.settle()
        await storage.failErasure()
        let error = await #expect(throws: ClientError.self) { try await client.logout() }
        #expect(error?.code == .storage)
        #expect(await storage.load() != StoredClientState())
        #expect(reason(try await client.logout()) == nil)
        #expect(await storage.erasures == 2)
        #expect(await storage.load() == StoredClientState())
    }

    @Test("the next login opens the same file beside the old client, and what that one still does leaves it alone")
    func nextLogin() async throws {
        let directory = try TemporaryFolder()
        let path = directory.file("client.sqlite")
        let old = try ClientHarness(storage: try SQLiteClientStorage(path: path))
        try await old.client.connect()
        try await old.settle()
        let early = #expect(throws: ClientError.self) { try SQLiteClientStorage(path: path) }
        #expect(early?.code == .storageInUse && early?.message.contains("of this process") == true)
        try await old.client.logout()

        let storage = try SQLiteClientStorage(path: path)
        let new = try ClientHarness(storage: storage)
        try await new.client.connect()
        _ = try await new.client.send("from the next user", to: .user("bob")).acknowledged()
        await new.client.disconnect()
        try await new.settle()
        let kept = try await storage.load()
        try await old.client.logout()
        #expect(try await storage.load() == kept)
        // Nor can the old one be used beside it.
        let late = await #expect(throws: ClientError.self) { try await old.client.core.configuration.storage.load() }
        #expect(late?.code == .storageInUse)
        // Nor does it wipe the file once nobody has it open.
        try storage.close()
        try await old.client.core.configuration.storage.erase()
        let again = try SQLiteClientStorage(path: path)
        #expect(try await again.load() == kept)
        try again.close()
    }

    @Test("nothing of the messages and tickets is left in the file")
    func file() async throws {
        let directory = try TemporaryFolder()
        let path = directory.file("client.sqlite")
        let storage = try SQLiteClientStorage(path: path)
        let secret = "a-text-that-nothing-else-holds"
        let row = StoredPublish(
            id: 1, tag: 2, after: 0, channel: .room(try RoomID("hall")), recipient: nil, timeToLive: 0, queuedAt: 3,
            payload: ByteBuffer(string: secret), send: SendID(high: 1, low: 2), attempted: false)
        let ticket = StoredSecret(bytes: Array(secret.utf8), expiry: 0)
        let network = StoredNetwork(name: secret, lived: 1, died: 2, lastUse: 3)
        let outcome = StoredOutcome(
            send: SendID(high: 3, low: 4), channel: .user(try UserID(secret)), recipient: nil, queuedAt: 5,
            state: .cancelled)
        try await storage.apply([
            .producer(ProducerID(high: 1, low: 2)), .insert(row), .resumeTicket(ticket), .network(network),
            .outcome(outcome),
        ])
        // A row that is gone already leaves its bytes in the file, too.
        try await storage.apply([.remove(1), .cursor(row.channel, Position(epoch: 1, offset: 2))])
        func holds(_ text: String) throws -> Bool {
            try FileManager.default.contentsOfDirectory(atPath: directory.path).contains { name in
                try Data(contentsOf: URL(fileURLWithPath: directory.file(name))).range(of: Data(text.utf8)) != nil
            }
        }
        #expect(try holds(secret))
        try await storage.erase()
        #expect(try !holds(secret))
        #expect(try await storage.load() == StoredClientState())
        // It is good for the next login.
        try await storage.apply([.producer(ProducerID(high: 3, low: 4)), .insert(row)])
        #expect(try await storage.load().outbox == [row])
        try storage.close()
    }

    @Test("the service refuses the device's old credentials from then on")
    func endToEnd() async throws {
        let service = try await LiveService()
        let phone = try service.client("alice")
        let tablet = try service.client("alice", "tablet")
        for client in [phone, tablet] { try await client.connect() }
        #expect(reason(try await phone.logout()) == nil)
        #expect(try await service.generation("alice") == 1)
        #expect(try await service.generation("alice", "tablet") == 0)
        // The backend still signs with the old generation.
        let again = try service.client("alice") { $0.stopsOnRefusedToken = true }
        let error = await #expect(throws: ClientError.self) { try await again.connect() }
        #expect(error?.closeCode == .credentialRevoked)
        _ = try await tablet.send("still here", to: .user("bob")).acknowledged()
        for client in [again, tablet] { await client.disconnect() }
        await service.stop()
    }
}

@Suite("Erasing the account of a real service", .timeLimit(.minutes(1)))
struct AccountErasureTests {
    @Test("all devices are logged out, and what others have stays")
    func erased() async throws {
        let service = try await LiveService()
        let phone = try service.client("alice", scope: "publish receive erase")
        let tablet = try service.client("alice", "tablet")
        let other = try service.client("bob")
        for client in [phone, tablet, other] { try await client.connect() }
        _ = try await phone.send("hi bob", to: .user("bob")).acknowledged()
        let refused = await #expect(throws: ClientError.self) { try await tablet.eraseAccount() }
        #expect(refused?.refusal == .forbidden)
        try await phone.eraseAccount()
        for await state in tablet.states { if case .stopped(.loggedOut, _) = state { break } }
        for await message in other.messages {
            #expect(message.text == "hi bob")
            break
        }
        for client in [phone, tablet, other] { await client.disconnect() }
        await service.stop()
    }

    @Test("what the end of a server's process cut short goes on with the next one")
    func restart() async throws {
        let service = try await LiveService()
        let client = try service.client("alice")
        try await client.connect()
        _ = try await client.send("a note", to: .user("alice")).acknowledged()
        await client.disconnect()
        await service.stop()
        let alice = try UserID("alice")
        let tenant = try TenantID("default")
        try await service.withStore { try await $0.requestErasure(of: alice, in: tenant) }
        try await service.start()
        // The request revoked the user once, the next process does so again when it goes on.
        while try await service.userGeneration("alice") < 2 { await Task.yield() }
        try await service.erase("alice")
        await service.stop()
        try await service.withStore { store in
            #expect(try await store.pendingErasures(limit: 10).isEmpty)
            let head = try await store.head(of: ChannelKey(tenant: tenant, channel: .user(alice)))
            #expect(head?.position.offset ?? 0 == 0)
        }
    }
}
