import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineClient

/// A user who logs in on a storage that another one has left without logging out.
@Suite("Another user's login", .timeLimit(.minutes(1)))
struct OtherUserTests {
    /// What tells whose login it is.
    enum Teller: CaseIterable, Sendable { case token, configuration, controlLayer }

    private func harness(
        _ user: String, _ teller: Teller, _ storage: any ClientStorage, seed: UInt64
    ) throws -> ClientHarness {
        let name = try UserID(user)
        let token = AccessTests.token(user)
        let control = FakeControl { _, _ in FakeControl.points(["best"]) }
        return try ClientHarness(storage: storage, seed: seed, control: teller == .controlLayer ? control : nil) {
            $0.user = teller == .configuration ? name : nil
            if teller != .configuration { $0.tokenProvider = { token } }
            if teller == .controlLayer { $0.control = [ControlService(url: "https://rt.example")] }
        }
    }

    @Test("what one user left does not leave in another's name, and a logout makes way", arguments: Teller.allCases)
    func stops(teller: Teller) async throws {
        let storage = InMemoryClientStorage()
        let alice = try harness("alice", teller, storage, seed: 1)
        _ = try await alice.client.send("alice's", to: .room("hall"))
        _ = try await alice.client.send("alice's, too", to: .user("carol"))
        try await alice.settle()
        #expect(await storage.load().user == (try UserID("alice")))
        await alice.client.disconnect()

        let bob = try harness("bob", teller, storage, seed: 2)
        let error = await #expect(throws: ClientError.self) { try await bob.client.connect() }
        #expect(error?.code == .otherUser && error?.message.contains("alice") == true)
        #expect(error?.advice.contains("log out") == true)
        #expect(bob.client.state.stopError?.closeCode == .credentialInvalid)
        #expect(bob.service.state.withLock { $0.requests.isEmpty })
        #expect(await bob.client.statistics.failedAttempts == 1)
        #expect(await storage.load().outbox.count == 2)

        // It is alice's still.
        let again = try harness("alice", teller, storage, seed: 3)
        try await again.client.connect()
        while again.service.state.withLock({ $0.entered.count }) < 2 { await Task.yield() }
        try await again.settle()
        await again.client.disconnect()

        if teller == .configuration {
            // Nor does alice's ticket let him in.
            let later = try harness("bob", teller, storage, seed: 5)
            let refused = await #expect(throws: ClientError.self) { try await later.client.connect() }
            #expect(refused?.code == .otherUser && later.client.lastFailure?.code == .otherUser)
            let unsent = await #expect(throws: ClientError.self) {
                try await later.client.send("bob's", to: .room("hall"))
            }
            #expect(unsent?.code == .otherUser)
            #expect(later.service.state.withLock { $0.requests.isEmpty })
            await later.client.disconnect()
        }
        try await bob.client.logout()
        let next = try harness("bob", teller, storage, seed: 4)
        try await next.client.connect()
        #expect(try await next.client.send("bob's", to: .user("carol")).channel.description == "user/bob")
        await next.client.disconnect()
    }

    @Test(
        "what one of the user's devices left does not leave in another's name, whether its ticket is good or not",
        arguments: [true, false])
    func otherDevice(hasTicket: Bool) async throws {
        let storage = InMemoryClientStorage()
        func harness(_ device: String, seed: UInt64) throws -> ClientHarness {
            let (token, name) = (AccessSigner.token(device: device), try DeviceID(device))
            return try ClientHarness(storage: storage, seed: seed) {
                $0.user = nil
                $0.device = hasTicket ? name : nil
                $0.tokenProvider = { token }
            }
        }
        let phone = try harness("phone", seed: 1)
        try await phone.client.connect()
        try await phone.settle()
        await phone.client.disconnect()
        #expect(await storage.load().device == (try DeviceID("phone")))
        #expect(await storage.load().resumeTicket != nil)
        if !hasTicket { await storage.apply([.resumeTicket(nil)]) }

        let tablet = try harness("tablet", seed: 2)
        let error = await #expect(throws: ClientError.self) { try await tablet.client.connect() }
        #expect(error?.code == .otherDevice && error?.message.contains("phone") == true)
        #expect(tablet.client.state.stopError?.closeCode == .credentialInvalid)
        #expect(tablet.service.state.withLock { $0.requests.isEmpty })
        await tablet.client.disconnect()

        // It is the phone's still.
        let again = try harness("phone", seed: 3)
        try await again.client.connect()
        await again.client.disconnect()
    }

    @Test("a ticket that may be another device's is not used where the app names the device", arguments: [true, false])
    func unknownDevice(isNamed: Bool) async throws {
        let (storage, calls, token) = (InMemoryClientStorage(), Counter(), AccessSigner.token())
        let phone = try DeviceID("phone")
        // As a version wrote it that took no note of the device.
        await storage.apply([
            .user(try UserID("ann")), .resumeTicket(StoredSecret(bytes: [1], expiry: .max)),
        ])
        let harness = try ClientHarness(storage: storage) {
            $0.user = nil
            $0.device = isNamed ? phone : nil
            $0.tokenProvider = {
                _ = calls.increment()
                return token
            }
        }
        try await harness.client.connect()
        #expect(calls.count == (isNamed ? 1 : 0))
        await harness.client.disconnect()
    }

    @Test("a login that is not for what an older version stored takes none of it")
    func wrongLoginBehindAnUpdate() async throws {
        let (storage, ann, bob) = (InMemoryClientStorage(), try UserID("ann"), try UserID("bob"))
        let (phone, tablet) = (try DeviceID("phone"), try DeviceID("tablet"))
        // As a version wrote it that took no note of the device.
        await storage.apply([.user(ann), .resumeTicket(StoredSecret(bytes: [1], expiry: .max))])
        let wrong = try ClientHarness(storage: storage, seed: 1) { ($0.user, $0.device) = (bob, tablet) }
        let error = await #expect(throws: ClientError.self) { try await wrong.client.connect() }
        #expect(error?.code == .otherUser)
        await wrong.client.disconnect()
        let left = await storage.load()
        #expect(left.device == nil && left.resumeTicket != nil)

        let token = AccessSigner.token()
        let right = try ClientHarness(storage: storage, seed: 2) {
            ($0.user, $0.device) = (ann, phone)
            $0.tokenProvider = { token }
        }
        try await right.client.connect()
        try await right.settle()
        await right.client.disconnect()
        #expect(await storage.load().device == phone)
    }

    @Test("a fresh token of another user takes no session over that came by the stored user's ticket")
    func refresh() async throws {
        let storage = InMemoryClientStorage()
        let first = try harness("alice", .token, storage, seed: 1)
        try await first.client.connect()
        try await first.settle()
        await first.client.disconnect()
        #expect(await storage.load().resumeTicket != nil)

        let (virtual, calls, token) = (VirtualLoop(), Counter(), AccessTests.token("bob"))
        let later = try ClientHarness(storage: storage, seed: 2, loop: virtual.loop) {
            $0.user = nil
            $0.tokenProvider = {
                _ = calls.increment()
                return token
            }
        }
        let (client, service) = (later.client, later.service)
        service.state.withLock {
            $0.credentialExpiry = 10_000
            $0.refusedPrefix = "not yet"
            $0.refusedCode = .overloaded
        }
        try await virtual.running {
            try await client.connect()
            _ = try await client.send("not yet", to: .room("hall"))
        }
        #expect(calls.count == 0, "the ticket is enough")
        try await virtual.pass(.seconds(8)) {
            if case .stopped(.credentialInvalid, _) = client.state { return true }
            return service.state.withLock { !$0.refreshed.isEmpty }
        }
        #expect(calls.count == 1)
        #expect(client.lastFailure?.code == .otherUser)
        #expect(service.state.withLock { $0.refreshed.isEmpty && $0.requests.count == 1 })
        // Nothing else is written then: the next process would go on with the ticket.
        try await virtual.pass(.zero) { await storage.load().resumeTicket == nil }
        let (left, alice) = (await storage.load(), try UserID("alice"))
        #expect(left.user == alice && left.outbox.count == 1)
        try await virtual.running { await client.disconnect() }
    }
}
