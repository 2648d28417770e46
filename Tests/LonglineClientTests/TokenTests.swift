import LonglineWire
import NIOCore
import NIOEmbedded
import Synchronization
import Testing

@testable import LonglineClient

/// Token providers that give no answer.
@Suite("Token providers that hang", .timeLimit(.minutes(1)))
struct TokenTests {
    /// - Parameters:
    ///   - calls: counts the calls of the provider.
    ///   - ended: counts those of them that were cancelled.
    ///   - answers: so many of the first calls are answered.
    private func harness(
        _ calls: Counter, ended: Counter = Counter(), answers: Int = 0, loop: (any EventLoop)? = nil,
        control: FakeControl? = nil, storage: any ClientStorage = InMemoryClientStorage()
    ) throws -> ClientHarness {
        func change(_ configuration: inout LonglineClient.Configuration) {
            configuration.user = nil
            // One attempt is all that a test waits for.
            configuration.backOff = BackOffPolicy(base: .seconds(3600), maximum: .seconds(3600))
            configuration.accessPoints = [AccessPoint(host: "one", port: 1)]
            if control != nil { configuration.control = [ControlService(url: "https://rt.example")] }
            configuration.tokenProvider = {
                if calls.increment() <= answers { return "token" }
                do {
                    try await Task.sleep(for: .seconds(86_400))
                } catch {
                    _ = ended.increment()
                    throw error
                }
                return "never"
            }
        }
        guard let loop else { return try ClientHarness(storage: storage, control: control, change) }
        return try ClientHarness(storage: storage, control: control, loop: loop, change)
    }

    @Test("a provider that hangs is a failed attempt after a minute, and the app is told")
    func attempt() async throws {
        let (virtual, calls) = (VirtualLoop(), Counter())
        let harness = try harness(calls, loop: virtual.loop)
        try await virtual.running { try await harness.client.start() }
        try await virtual.pass(.zero) { calls.count == 1 }
        await virtual.pass(.seconds(59))
        guard case .connecting = harness.client.state else { return #expect(Bool(false), "\(harness.client.state)") }
        try await virtual.pass(.seconds(1)) { if case .waiting = harness.client.state { true } else { false } }
        if case .waiting(_, let cause) = harness.client.state {
            #expect(cause.code == .tokenProvider && "\(cause)".contains("gave no answer in"))
        }
        try await virtual.running { await harness.client.disconnect() }
    }

    @Test("a new address asks anew, as the provider's own question may have gone with the old one")
    func newAddress() async throws {
        let calls = Counter()
        let harness = try harness(calls)
        try await harness.client.start()
        while calls.count < 1 { await Task.yield() }
        let change = try #require(AddressChange(from: [], to: ["192.0.2.99"]))
        try await harness.client.run { $0.addressesChanged(change) }
        while calls.count < 2 { await Task.yield() }
        guard case .connecting(let attempt, _) = harness.client.state else {
            return #expect(Bool(false), "\(harness.client.state)")
        }
        #expect(attempt == 1, "it is the same attempt to the app")
        await harness.client.disconnect()
    }

    @Test("who asks while a call is waited for shares it, and who asks behind its end has another")
    func shared() async throws {
        let (calls, answer) = (Counter(), Outcome<String>())
        let tokens = TokenCalls {
            _ = calls.increment()
            return try await answer.value()
        }
        let questions = (1...3).map { _ in Task { try await tokens.token() } }
        while tokens.waiting < 3 || calls.count == 0 { await Task.yield() }
        // Who gives up leaves the call to the others.
        questions[0].cancel()
        await #expect(throws: CancellationError.self) { try await questions[0].value }
        #expect(tokens.waiting == 2)
        answer.resolve(.success("token"))
        for question in questions.dropFirst() { #expect(try await question.value == "token") }
        #expect(calls.count == 1)
        #expect(try await tokens.token() == "token")
        #expect(calls.count == 2)
    }

    @Test("of a provider that goes on when it is cancelled few calls are under way, and a late token is used")
    func deaf() async throws {
        let (virtual, calls) = (VirtualLoop(), Counter())
        let hung = Mutex<[CheckedContinuation<String, Never>]>([])
        let harness = try ClientHarness(loop: virtual.loop) {
            $0.accessPoints = [AccessPoint(host: "one", port: 1)]
            $0.backOff = BackOffPolicy(base: .seconds(1), maximum: .seconds(1))
            $0.tokenProvider = {
                _ = calls.increment()
                return await withCheckedContinuation { continuation in hung.withLock { $0.append(continuation) } }
            }
        }
        let client = harness.client
        try await virtual.running { try await client.start() }
        let attempts = TokenCalls.limit + 3
        while try await virtual.running({ await client.statistics.failedAttempts }) < attempts {
            await virtual.pass(.seconds(5))
        }
        #expect(calls.count == TokenCalls.limit)
        while client.core.tokens.waiting == 0 { await virtual.pass(.seconds(1)) }
        hung.withLock { $0.removeLast() }.resume(returning: "late")
        while !client.state.isConnected { await virtual.pass(.milliseconds(10)) }
        #expect(calls.count == TokenCalls.limit)
        #expect(harness.service.state.withLock { $0.connects.map(\.credential) } == [.token("late")])
        for continuation in hung.withLock({ $0 }) { continuation.resume(returning: "never") }
        try await virtual.running { await client.disconnect() }
    }

    @Test("how a call ends that was old when somebody came to wait for it is no answer for that one")
    func old() async throws {
        let hung = Mutex<[CheckedContinuation<String, any Error>]>([])
        // It doesn't mind being cancelled.
        let tokens = TokenCalls {
            try await withCheckedThrowingContinuation { continuation in hung.withLock { $0.append(continuation) } }
        }
        let limit = TokenCalls.limit
        var questions: [Task<String, any Error>] = []
        for count in 1...limit {
            questions.append(Task { try await tokens.token() })
            while hung.withLock({ $0.count }) < count { await Task.yield() }
            tokens.beginAnew()
        }
        questions.append(Task { try await tokens.token() })
        while tokens.waiting <= limit { await Task.yield() }
        #expect(hung.withLock { $0.count } == limit, "it waits for the last one")
        hung.withLock { $0[limit - 1] }.resume(throwing: CancellationError())
        await #expect(throws: CancellationError.self) { try await questions[limit - 1].value }
        while hung.withLock({ $0.count }) == limit { await Task.yield() }
        hung.withLock { $0[limit] }.resume(returning: "new")
        #expect(try await questions[limit].value == "new")
        for continuation in hung.withLock({ Array($0.prefix(limit - 1)) }) { continuation.resume(returning: "late") }
        for question in questions.prefix(limit - 1) { #expect(try await question.value == "late") }
    }

    @Test("a direct message that waits to know its user ends with a disconnection", arguments: [true, false])
    func unknownUser(disconnects: Bool) async throws {
        let (virtual, calls, ended) = (VirtualLoop(), Counter(), Counter())
        let client = try harness(calls, ended: ended, loop: virtual.loop).client
        let sending = Task { try await client.send("a", to: .user("bob")) }
        try await virtual.pass(.zero) { calls.count == 1 }
        if disconnects {
            try await virtual.running { await client.disconnect() }
        } else {
            await virtual.pass(.seconds(60))
        }
        let error = try await virtual.running { await #expect(throws: ClientError.self) { try await sending.value } }
        #expect(error?.code == (disconnects ? .disconnected : .tokenProvider))
        // Nobody waits for the token, so nobody goes on to get one.
        while ended.count == 0 { await Task.yield() }
        // The next one asks again.
        let next = Task { try await client.send("b", to: .user("bob")) }
        try await virtual.pass(.zero) { calls.count == 2 }
        try await virtual.running { await client.disconnect() }
        _ = try await virtual.running { await #expect(throws: ClientError.self) { try await next.value } }
    }

    /// How the connection ends that was to have a fresh token.
    enum End: CaseIterable { case disconnected, lost, loggedOut }

    @Test("the question for a fresh token ends with the connection that it was for", arguments: End.allCases)
    func refresh(end: End) async throws {
        let (virtual, calls, ended) = (VirtualLoop(), Counter(), Counter())
        let harness = try harness(calls, ended: ended, answers: 1, loop: virtual.loop)
        let client = harness.client
        harness.service.state.withLock { $0.credentialExpiry = 10_000 }
        try await virtual.running { try await client.connect() }
        try await virtual.pass(.seconds(8)) { calls.count == 2 }
        #expect(ended.count == 0)
        try await virtual.running {
            switch end {
            case .disconnected: await client.disconnect()
            case .lost: await harness.lose()
            case .loggedOut: _ = try await client.logout()
            }
        }
        while ended.count == 0 { await Task.yield() }
        try await virtual.running { await client.disconnect() }
    }

    @Test("with a ticket the token that only the control layer would have is waited for three seconds, now and then")
    func ticket() async throws {
        let (virtual, calls) = (VirtualLoop(), Counter())
        var state = StoredClientState()
        state.resumeTicket = StoredSecret(bytes: [1], expiry: 0)
        let control = FakeControl { _, _ in FakeControl.points(["best"]) }
        let harness = try harness(
            calls, loop: virtual.loop, control: control, storage: InMemoryClientStorage(state))
        let client = harness.client
        try await virtual.running { try await client.start() }
        try await virtual.pass(.zero) { calls.count == 1 }
        await virtual.pass(.milliseconds(2_999))
        guard case .locating = client.state else { return #expect(Bool(false), "\(client.state)") }
        try await virtual.pass(.milliseconds(1)) { client.state.isConnected }
        // The next attempts don't begin with it.
        try await virtual.running {
            await harness.lose()
            try await client.connect()
        }
        #expect(calls.count == 1)
        await virtual.pass(.seconds(31))
        try await virtual.running {
            await harness.lose()
            try await client.start()
        }
        try await virtual.pass(.zero) { calls.count == 2 }
        try await virtual.pass(.seconds(3)) { client.state.isConnected }
        #expect(control.asked == 0)
        #expect(harness.service.state.withLock { $0.requests.map(\.accessPoint.host) } == ["one", "one", "one"])
        try await virtual.running { await client.disconnect() }
    }

    @Test(
        "a token that takes longer than that is waited for where the ticket has led nowhere, unless the user comes meanwhile",
        arguments: [false, true])
    func slow(isAwaited: Bool) async throws {
        let (virtual, calls, token) = (VirtualLoop(), Counter(), Outcome<String>())
        var state = StoredClientState()
        state.resumeTicket = StoredSecret(bytes: [1], expiry: 0)
        let control = FakeControl { _, _ in FakeControl.points(["best"]) }
        let harness = try ClientHarness(storage: InMemoryClientStorage(state), control: control, loop: virtual.loop) {
            // The second attempt comes when the question in vain is old.
            $0.backOff = BackOffPolicy(base: .seconds(1000), maximum: .seconds(1000))
            $0.accessPoints = [AccessPoint(host: "dead", port: 1)]
            $0.control = [ControlService(url: "https://rt.example")]
            $0.tokenProvider = {
                _ = calls.increment()
                return try await token.value()
            }
        }
        let client = harness.client
        harness.service.state.withLock { $0.answers = [.fail(ClientError(.connectFailed, message: "dead"))] }
        try await virtual.running { try await client.start() }
        try await virtual.pass(.zero) { calls.count == 1 }
        try await virtual.pass(.seconds(3)) { if case .waiting = client.state { true } else { false } }
        // In steps that no question ends within.
        for _ in 0..<200 where calls.count == 1 { await virtual.pass(.seconds(5)) }
        await virtual.pass(.seconds(5))
        #expect(control.asked == 0)
        if isAwaited {
            try await virtual.running { try await client.setMode(.foreground) }
            try await virtual.pass(.zero) { client.state.isConnected }
        }
        token.resolve(.success("late"))
        try await virtual.pass(.zero) { client.state.isConnected }
        #expect(calls.count == 2)
        let tokens: Set<String> = isAwaited ? [] : ["late"]
        #expect(control.state.withLock { Set($0.tokens) } == tokens)
        let hosts = harness.service.state.withLock { $0.requests.map(\.accessPoint.host) }
        #expect(hosts == ["dead", isAwaited ? "dead" : "best"])
        try await virtual.running { await client.disconnect() }
    }
}
