import LonglineTestKit
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineClient

/// An erasure of the account whose answer comes when nobody waits for it any more, or never.
@Suite("Erasing the account, when the answer is late", .timeLimit(.minutes(1)))
struct LateErasureTests {
    private static let silence = Frame.pong(Pong(nonce: 0, observedAddress: ""))

    /// A client that has something to lose, whose service does not answer the erasure.
    private func connected(_ storage: InMemoryClientStorage, answer: Frame = Self.silence) async throws -> ClientHarness
    {
        let harness = try ClientHarness(storage: storage)
        harness.service.state.withLock { $0.erasureAnswer = answer }
        try await harness.client.connect()
        _ = try await harness.client.send("a", to: .user("bob")).acknowledged()
        try await harness.settle()
        return harness
    }

    private func outcome(of harness: ClientHarness, timeout: Duration = .milliseconds(1)) async -> ClientError.Code? {
        let error = await #expect(throws: ClientError.self) {
            try await harness.client.eraseAccount(timeout: timeout)
        }
        return error?.code
    }

    private func hasEnded(_ harness: ClientHarness, _ storage: InMemoryClientStorage) async throws {
        for await state in harness.client.states { if case .stopped(.loggedOut, _) = state { break } }
        while await storage.load() != StoredClientState() { await Task.yield() }
        let error = await #expect(throws: ClientError.self) { try await harness.client.connect() }
        #expect(error?.code == .loggedOut)
        for await _ in harness.client.messages {}
        guard case .acknowledged = try await harness.client.logout() else {
            return #expect(Bool(false), "the service has answered")
        }
    }

    @Test("the client ends and wipes its storage when the service says later that it is done")
    func later() async throws {
        let storage = InMemoryClientStorage()
        let harness = try await connected(storage)
        #expect(await outcome(of: harness) == .outcomeUnknown)
        harness.service.send(.close(Close(code: .loggedOut)))
        try await hasEnded(harness, storage)
    }

    @Test(
        "so it does when it connects again and is refused as one whose account is gone",
        arguments: [CloseCode.loggedOut, .credentialRevoked])
    func atTheNextConnect(code: CloseCode) async throws {
        let storage = InMemoryClientStorage()
        let harness = try await connected(storage, answer: .close(Close(code: .internalError)))
        harness.service.state.withLock { $0.answers = [.close(Close(code: code))] }
        #expect(await outcome(of: harness, timeout: .seconds(3_600)) == .outcomeUnknown)
        try await hasEnded(harness, storage)
    }

    @Test("who disconnects while it waits is told so at once, and the next connect tells the rest")
    func disconnected() async throws {
        let storage = InMemoryClientStorage()
        let harness = try await connected(storage)
        let client = harness.client
        let erasing = Task { try await client.eraseAccount(timeout: .seconds(3_600)) }
        while harness.service.state.withLock({ $0.erasures }) == 0 { await Task.yield() }
        await client.disconnect()
        let error = await #expect(throws: ClientError.self) { try await erasing.value }
        #expect(error?.code == .outcomeUnknown)
        harness.service.state.withLock { $0.answers = [.close(Close(code: .credentialRevoked))] }
        let gone = await #expect(throws: ClientError.self) { try await client.connect() }
        #expect(gone?.code == .loggedOut)
        try await hasEnded(harness, storage)
    }

    @Test("so it does when it gave a shared outbox up after it had asked, and owns it again")
    func nextOwner() async throws {
        let directory = try TemporaryFolder()
        func open() throws -> SharedClientStorage {
            try SharedClientStorage(
                path: directory.file("shared.sqlite"), takeOverAfter: .seconds(60), pollInterval: .milliseconds(10))
        }
        let storage = try open()
        let harness = try ClientHarness(storage: storage)
        let client = harness.client
        harness.service.state.withLock { $0.erasureAnswer = Self.silence }
        try await client.connect()
        _ = try await client.send("a", to: .user("bob")).acknowledged()
        #expect(await outcome(of: harness) == .outcomeUnknown)
        await client.disconnect()
        while storage.isOwner { await Task.yield() }
        harness.service.state.withLock { $0.answers = [.close(Close(code: .credentialRevoked))] }
        let gone = await #expect(throws: ClientError.self) { try await client.connect() }
        try #require(gone?.code == .loggedOut)
        // It gives the file up when that is wiped.
        while storage.isOwner { await Task.yield() }
        let next = try open()
        while try await !next.contend() { await Task.yield() }
        #expect(try await next.load() == StoredClientState())
        try await next.close()
    }

    @Test(
        "a session that goes on for a minute shows that the account was not erased: a later logout by an operator wipes nothing",
        arguments: [(58, true), (61, false)])
    func neverDone(seconds: Int, isOpen: Bool) async throws {
        let virtual = VirtualLoop()
        let storage = InMemoryClientStorage()
        let harness = try ClientHarness(storage: storage, loop: virtual.loop)
        let (client, service) = (harness.client, harness.service)
        service.state.withLock { $0.erasureAnswer = .close(Close(code: .internalError)) }
        let error = try await virtual.running {
            try await client.connect()
            _ = try await client.send("a", to: .user("bob")).acknowledged()
            return await #expect(throws: ClientError.self) {
                try await client.eraseAccount(timeout: .seconds(3_600))
            }
        }
        #expect(error?.code == .outcomeUnknown)
        // It is connected again within this second.
        try await virtual.pass(.seconds(1)) {
            service.state.withLock { $0.connects.count } == 2 && client.state.isConnected
        }
        for _ in 0..<seconds { await virtual.pass(.seconds(1)) }
        service.send(.close(Close(code: .loggedOut)))
        try await virtual.running {
            for await state in client.states { if case .stopped(.loggedOut, _) = state { break } }
        }
        if isOpen {
            let ended = try await virtual.running {
                await #expect(throws: ClientError.self) { try await client.connect() }
            }
            #expect(ended?.code == .loggedOut)
            try await virtual.running { while await storage.load() != StoredClientState() { await Task.yield() } }
        } else {
            // The app may log in again, and goes on with what is stored.
            try await virtual.running { try await client.connect() }
            #expect(await storage.load() != StoredClientState())
            try await virtual.running { await client.disconnect() }
        }
    }

    @Test("of two who ask, each waits for as long as it wants to, whoever was first", arguments: [true, false])
    func twoCallers(isFirstPatient: Bool) async throws {
        let loop = VirtualLoop()
        let storage = InMemoryClientStorage()
        let harness = try ClientHarness(storage: storage, loop: loop.loop)
        harness.service.state.withLock { $0.erasureAnswer = Self.silence }
        let client = harness.client
        try await loop.running { try await client.connect() }
        let isPatientAnswered = Counter()
        let times: [Duration] = isFirstPatient ? [.seconds(90), .seconds(5)] : [.seconds(5), .seconds(90)]
        var callers: [(time: Duration, task: Task<ClientError.Code?, Never>)] = []
        for time in times {
            let task = Task { () -> ClientError.Code? in
                defer { if time == .seconds(90) { _ = isPatientAnswered.increment() } }
                do { try await client.eraseAccount(timeout: time) } catch { return (error as? ClientError)?.code }
                return nil
            }
            callers.append((time, task))
            // Both wait before any time passes.
            let count = callers.count
            try await loop.running {
                while try await client.core.ask({ $0.erasure?.inOrder.count ?? 0 }) < count { await Task.yield() }
            }
        }
        #expect(harness.service.state.withLock { $0.erasures } == 1, "it is asked once")
        await loop.pass(.seconds(5))
        for caller in callers where caller.time == .seconds(5) {
            #expect(try await loop.running { await caller.task.value } == .outcomeUnknown)
        }
        #expect(isPatientAnswered.count == 0)
        harness.service.send(.close(Close(code: .loggedOut)))
        for caller in callers where caller.time == .seconds(90) {
            #expect(try await loop.running { await caller.task.value } == nil, "the account is erased")
        }
        #expect(await storage.load() == StoredClientState())
    }

    @Test("an erasure that the service refused is none: a later logout by an operator leaves the storage as it is")
    func refused() async throws {
        let storage = InMemoryClientStorage()
        let harness = try await connected(storage, answer: .erasureRefused(ErasureRefused(code: .forbidden)))
        #expect(await outcome(of: harness, timeout: .seconds(3_600)) == .refused)
        harness.service.send(.close(Close(code: .loggedOut)))
        for await state in harness.client.states { if case .stopped(.loggedOut, _) = state { break } }
        try await harness.settle()
        #expect(await storage.load() != StoredClientState())
        // What the app does then, as it does on the user's other devices.
        try await harness.client.logout()
        #expect(await storage.load() == StoredClientState())
    }
}
