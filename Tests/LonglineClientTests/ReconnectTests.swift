import LonglineSession
import LonglineWire
import NIOCore
import Synchronization
import Testing

@_spi(Testing) @testable import LonglineClient

@Suite("Reconnecting", .timeLimit(.minutes(1)))
struct ReconnectTests {
    @Test("connects with a token first and with the ticket afterwards, in the first flight")
    func ticketAfterToken() async throws {
        let harness = try ClientHarness()
        try await harness.client.connect()
        await harness.lose()
        try await harness.client.connect()
        let state = harness.service.state.withLock { $0 }
        #expect(state.connects.map(\.credential) == [.token("token-1"), .ticket(ByteBuffer(string: "resume"))])
        #expect(state.connects.map(\.connectNumber) == [1, 2])
        #expect(state.requests.map(\.earlyData) == [false, true])
        #expect(state.requests.map(\.sessionTicket) == [nil, Array("tls".utf8)])
        #expect(harness.tokens.count == 1)
        await harness.client.disconnect()
    }

    @Test("a refused ticket costs one round trip: the token is next")
    func refusedTicket() async throws {
        let harness = try ClientHarness()
        try await harness.client.connect()
        harness.service.state.withLock { $0.answers = [.close(Close(code: .ticketRejected))] }
        await harness.lose()
        try await harness.client.connect()
        let credentials = harness.service.state.withLock { $0.connects.map(\.credential) }
        #expect(credentials.last == .token("token-2"))
        await harness.client.disconnect()
    }

    @Test(
        "codes that say stop, stop",
        arguments: [CloseCode.replaced, .forbidden, .loggedOut, .evicted, .malformedFrame])
    func stops(code: CloseCode) async throws {
        let harness = try ClientHarness()
        harness.service.state.withLock { $0.answers = [.close(Close(code: code, reason: "because"))] }
        let error = await #expect(throws: ClientError.self) { try await harness.client.connect() }
        #expect(error?.code == .stopped && error?.closeCode == code)
        guard case .stopped(code, "because") = harness.client.state else {
            Issue.record("the state is \(harness.client.state)")
            return
        }
        // The app acted, and connects again.
        try await harness.client.connect()
        #expect(harness.service.state.withLock { $0.requests.count } == 2)
        await harness.client.disconnect()
    }

    @Test(
        "a service that wants a newer app says so by a state of its own",
        arguments: [CloseCode.versionUnsupported, CloseCode(rawValue: 4_321)])
    func upgrade(code: CloseCode) async throws {
        let harness = try ClientHarness()
        harness.service.state.withLock { $0.answers = [.close(Close(code: code, reason: "too old"))] }
        let error = await #expect(throws: ClientError.self) { try await harness.client.connect() }
        #expect(error?.code == .stopped && error?.closeCode == code && error?.advice == "upgrade the app")
        guard case .upgradeRequired(code, "too old") = harness.client.state else {
            Issue.record("the state is \(harness.client.state)")
            return
        }
        #expect(harness.client.state.stopError?.closeCode == code)
        // What is sent waits for the newer app.
        _ = try await harness.client.send("later", to: .user("bob"))
        #expect(try await harness.client.outbox().count == 1)
        #expect(harness.service.state.withLock { $0.requests.count } == 1, "it stays away")
    }

    @Test("a version that was never offered is none")
    func foreignVersion() async throws {
        let harness = try ClientHarness()
        harness.service.state.withLock { $0.version = 9 }
        let error = await #expect(throws: ClientError.self) { try await harness.client.connect() }
        #expect(error?.closeCode == .versionUnsupported)
        guard case .upgradeRequired(.versionUnsupported, _) = harness.client.state else {
            Issue.record("the state is \(harness.client.state)")
            return
        }
    }

    @Test("a device restored from a backup raises its connect number in growing steps until the service takes it")
    func stale() async throws {
        var state = StoredClientState()
        state.producer = ProducerID(high: 5, low: 6)
        state.connectNumber = 64
        let storage = InMemoryClientStorage(state)
        let harness = try ClientHarness(storage: storage)
        harness.service.state.withLock { $0.newestConnect = 5_000 }
        try await harness.client.connect()
        let numbers = harness.service.state.withLock { $0.connects.map(\.connectNumber) }
        #expect(numbers.prefix(5) == [65, 66, 68, 72, 80])
        #expect(numbers.count <= 15 && (numbers.last ?? 0) >= 5_000)
        #expect(await storage.load().connectNumber >= numbers.last ?? .max, "a number is durable before it is used")
        // What is taken ends the search: the next number is the next one.
        await harness.lose()
        try await harness.client.connect()
        let after = harness.service.state.withLock { $0.connects.map(\.connectNumber) }
        #expect(after.last == numbers.last.map { $0 + 1 })
        #expect(harness.service.state.withLock { Set($0.connects.map(\.producer)).count } == 1)
        await harness.client.disconnect()
    }

    @Test("a refused token is asked for again, or is final when there is no other", arguments: [false, true])
    func refusedToken(isFinal: Bool) async throws {
        let harness = try ClientHarness { $0.stopsOnRefusedToken = isFinal }
        harness.service.state.withLock {
            $0.answers = Array(repeating: .close(Close(code: .credentialInvalid, reason: "forged")), count: 3)
        }
        guard isFinal else {
            try await harness.client.connect()
            #expect(harness.tokens.count == 4)
            return await harness.client.disconnect()
        }
        let error = await #expect(throws: ClientError.self) { try await harness.client.connect() }
        #expect(error?.code == .stopped && error?.closeCode == .credentialInvalid)
        #expect(error?.advice.contains("another token") == true)
        #expect(harness.client.state.stopError?.closeCode == .credentialInvalid)
        #expect(harness.tokens.count == 1)
    }

    @Test("a redirect is followed to the named access point")
    func redirect() async throws {
        let harness = try ClientHarness()
        harness.service.state.withLock {
            $0.answers = [.close(Close(code: .redirect, retryAfter: 2, accessPoint: "three:3"))]
        }
        try await harness.client.connect()
        let hosts = harness.service.state.withLock { $0.requests.map(\.accessPoint.host) }
        #expect(hosts == ["one", "three"])
        await harness.client.disconnect()
    }

    @Test("access points are tried in order, and one that doesn't answer is left in time")
    func accessPoints() async throws {
        let virtual = VirtualLoop()
        let harness = try ClientHarness(loop: virtual.loop) { $0.connectTimeout = .seconds(20) }
        let client = harness.client
        harness.service.state.withLock {
            $0.answers = [.silence, .fail(ClientError(.connectFailed, message: "no such name")), .silence]
        }
        try await virtual.running { try await client.start() }
        while !client.state.isConnected { await virtual.pass(.seconds(1)) }
        let hosts = harness.service.state.withLock { $0.requests.map(\.accessPoint.host) }
        #expect(hosts == ["one", "two", "one", "two"])
        #expect(try await virtual.running { await client.statistics.failedAttempts } == 3)
        try await virtual.running { await client.disconnect() }
    }

    @Test("a TLS ticket that breaks the handshake is not used again")
    func brokenTicket() async throws {
        let harness = try ClientHarness { $0.accessPoints = [AccessPoint(host: "one", port: 1)] }
        try await harness.client.connect()
        harness.service.state.withLock { $0.answers = [.handshakeFailure] }
        await harness.lose()
        try await harness.client.connect()
        let tickets = harness.service.state.withLock { $0.requests.map(\.sessionTicket) }
        #expect(tickets == [nil, Array("tls".utf8), nil])
        await harness.client.disconnect()
    }

    @Test(
        "silence is not held against a TLS ticket, unless two attempts with it meet it in a row",
        arguments: [FakeService.Answer.handshakeTimeout, .nobody])
    func silentTicket(silence: FakeService.Answer) async throws {
        let virtual = VirtualLoop()
        let harness = try ClientHarness(loop: virtual.loop) {
            $0.accessPoints = [AccessPoint(host: "one", port: 1)]
            $0.connectTimeout = .seconds(20)
        }
        let (client, service) = (harness.client, harness.service)
        try await virtual.running { try await client.start() }
        await harness.connected(on: virtual, by: 1)
        // The handshake between them ends the first row.
        for (silences, attempts) in [(1, 3), (2, 6)] {
            service.state.withLock { $0.answers = [FakeService.Answer](repeating: silence, count: silences) }
            service.cut()
            await harness.connected(on: virtual, by: attempts)
        }
        let tls = Array("tls".utf8)
        let tickets = service.state.withLock { $0.requests.map(\.sessionTicket) }
        #expect(tickets == [nil, tls, tls, tls, tls, nil])
        try await virtual.running { await client.disconnect() }
    }

    @Test("an address token is used for one attempt only, whatever comes of it, also over a restart")
    func addressToken() async throws {
        let storage = InMemoryClientStorage()
        await storage.apply([.addressToken("one:1", [7]), .addressToken("two:2", [8])])
        let harness = try ClientHarness(storage: storage) { $0.accessPoints = [AccessPoint(host: "one", port: 1)] }
        harness.service.state.withLock {
            $0.answers = [.fail(ClientError(.connectFailed, message: "no network"))]
        }
        try await harness.client.connect()
        #expect(harness.service.state.withLock { $0.requests.map(\.addressToken) } == [[7], nil])
        try await harness.settle()
        #expect(await storage.load().addressTokens == ["two:2": [8]])
        await harness.client.disconnect()
    }

    @Test("a failing token provider is asked again, with back-off")
    func tokenProvider() async throws {
        struct Down: Error {}
        let calls = Counter()
        let harness = try ClientHarness {
            $0.tokenProvider = {
                if calls.increment() < 3 { throw Down() }
                return "token"
            }
        }
        try await harness.client.connect()
        #expect(calls.count == 3)
        await harness.client.disconnect()
    }

    @Test("a token is renewed within the session before its time is over")
    func refresh() async throws {
        let harness = try ClientHarness()
        harness.service.state.withLock { $0.credentialExpiry = 1 }
        try await harness.client.connect()
        while harness.service.state.withLock({ $0.refreshed }).isEmpty { await Task.yield() }
        #expect(harness.service.state.withLock { $0.refreshed.first } == "token-2")
        await harness.client.disconnect()
    }

    @Test("disconnecting tells the service what was confirmed, then says goodbye")
    func farewell() async throws {
        let harness = try ClientHarness { $0.confirmation = .explicit }
        try await harness.client.connect()
        let channel = ChannelID.room(try RoomID("a"))
        try harness.service.post("hello", in: channel)
        var messages = harness.client.messages.makeAsyncIterator()
        let message = try #require(await messages.next())
        message.confirm()
        await harness.client.disconnect()
        let closes = harness.service.state.withLock { $0.closes }
        #expect(closes.map(\.code) == [.normal])
        #expect(harness.service.state.withLock { $0.acknowledged[channel] } == 1)
        #expect(await messages.next() == nil, "the sequence ends with the connection")
        try await harness.client.connect()
        #expect(harness.service.state.withLock { $0.acknowledged[channel] } == 1)
        await harness.client.disconnect()
    }

    @Test("disconnecting waits until what was confirmed is on disk, also when that is being written already")
    func waitsForDisk() async throws {
        let storage = FaultyDisk()
        let harness = try ClientHarness(storage: storage) {
            $0.confirmation = .explicit
            // It is the disk that ends the wait, however long a busy machine takes to get there.
            $0.closeTimeout = .seconds(3_600)
        }
        try await harness.client.connect()
        try await harness.settle()
        let channel = ChannelID.room(try RoomID("a"))
        try harness.service.post("hello", in: channel)
        var messages = harness.client.messages.makeAsyncIterator()
        let message = try #require(await messages.next())
        storage.close()
        message.confirm()
        while storage.waiting == 0 { await Task.yield() }
        let atTheEnd = Task {
            await harness.client.disconnect()
            return await storage.inner.load().cursors
        }
        while harness.service.state.withLock({ $0.closes }).isEmpty { await Task.yield() }
        // The link has ended, and who waited only for that goes on.
        for _ in 0..<100 {
            _ = await harness.client.statistics
            await Task.yield()
        }
        storage.open()
        #expect(await atTheEnd.value[channel] == Position(epoch: FakeService.epoch, offset: 1))
    }

    @Test("disconnecting does not wait for a disk that hangs")
    func hungDisk() async throws {
        let storage = FaultyDisk()
        let harness = try ClientHarness(storage: storage) { $0.closeTimeout = .milliseconds(10) }
        try await harness.client.connect()
        try await harness.settle()
        storage.close()
        let sending = Task { try await harness.client.send("x", to: .room("a")) }
        while storage.waiting == 0 { await Task.yield() }
        await harness.client.disconnect()
        storage.open()
        _ = try await sending.value
    }

    @Test("a client that is let go of closes its connection")
    func released() async throws {
        let service: FakeService
        do {
            let harness = try ClientHarness()
            service = harness.service
            try await harness.client.connect()
        }
        while service.state.withLock({ $0.closes }).isEmpty { await Task.yield() }
    }

    @Test("the wait for a connection ends with its task, the client goes on")
    func cancelledWait() async throws {
        let harness = try ClientHarness { $0.connectTimeout = .seconds(60) }
        harness.service.state.withLock { $0.answers = [.silence] }
        let task = Task { try await harness.client.connect() }
        _ = await harness.state { if case .connecting = $0 { true } else { false } }
        task.cancel()
        await #expect(throws: (any Error).self) { try await task.value }
        if case .disconnected = harness.client.state { Issue.record("cancelling a wait must not disconnect") }
        await harness.client.disconnect()
    }
}

@Suite("Moving between paths", .timeLimit(.minutes(1)))
struct MigrationTests {
    @Test("a move on demand keeps the session and shows the new address")
    func onDemand() async throws {
        let harness = try ClientHarness()
        try await harness.client.connect()
        try await harness.client.migrate(to: SocketAddress(ipAddress: "192.0.2.78", port: 5))
        guard case .connected(let info) = harness.client.state else {
            Issue.record("the state is \(harness.client.state)")
            return
        }
        #expect(info.localAddress == "192.0.2.78:5")
        let statistics = await harness.client.statistics
        #expect(statistics.migrations == 1 && statistics.connects == 1)
        await harness.client.disconnect()
    }

    @Test("a move that ends after its client is gone is told, and harms nothing")
    func afterTheClient() async throws {
        var harness: ClientHarness? = try ClientHarness()
        harness?.service.state.withLock { $0.migrationOutlivesLink = true }
        try await harness?.client.connect()
        let (ends, end) = AsyncStream.makeStream(of: ClientError?.self)
        try await harness?.client.run { driver in
            // Without the app, as when a path stops to answer: nothing holds the client.
            driver.migrate(to: nil, cause: .noAnswer) { end.yield($0) }
        }
        harness = nil
        var iterator = ends.makeAsyncIterator()
        #expect(await iterator.next()??.code == .disconnected)
    }

    @Test("a move that a newer one takes the place of leaves the connection to that one")
    func superseded() async throws {
        let harness = try ClientHarness()
        try await harness.client.connect()
        harness.service.state.withLock { $0.migrationOutlivesLink = true }
        try await harness.client.run { driver in if let link = driver.current { driver.probePath(of: link) } }
        while harness.service.state.withLock({ $0.migrations }) == 0 { await Task.yield() }
        harness.service.state.withLock { $0.migrationOutlivesLink = false }
        try await harness.client.migrate(to: SocketAddress(ipAddress: "192.0.2.78", port: 5))
        let receipt = try await harness.client.send("still there", to: .room("a"))
        _ = try await receipt.acknowledged()
        guard case .connected(let info) = harness.client.state else {
            return #expect(Bool(false), "the state is \(harness.client.state)")
        }
        #expect(info.localAddress == "192.0.2.78:5")
        #expect(harness.service.state.withLock { $0.requests.count } == 1)
        #expect(await harness.client.statistics.connects == 1)
        await harness.client.disconnect()
    }

    @Test("a move that fails is told, and the old path goes on")
    func failed() async throws {
        let harness = try ClientHarness()
        harness.service.state.withLock { $0.migrationFails = true }
        try await harness.client.connect()
        let error = await #expect(throws: ClientError.self) { try await harness.client.rebind() }
        #expect(error?.code == .migrationFailed)
        #expect(harness.client.state.isConnected)
        let receipt = try await harness.client.send("still there", to: .room("a"))
        _ = try await receipt.acknowledged()
        await harness.client.disconnect()
    }

    @Test("without a connection there is nothing to move")
    func notConnected() async throws {
        let harness = try ClientHarness()
        let error = await #expect(throws: ClientError.self) { try await harness.client.rebind() }
        #expect(error?.code == .notConnected)
    }

    @Test(
        "when the local address is gone the connection moves; another address doesn't matter", .timeLimit(.minutes(1)))
    func addressGone() async throws {
        let harness = try ClientHarness()
        try await harness.client.connect()
        let other = try #require(AddressChange(from: ["10.0.0.9", "192.0.2.77"], to: ["192.0.2.77"]))
        let own = try #require(AddressChange(from: ["192.0.2.77"], to: ["192.0.2.99"]))
        try await harness.client.run { $0.addressesChanged(other) }
        try await harness.settle()
        #expect(harness.service.state.withLock { $0.migrations } == 0)
        try await harness.client.run { $0.addressesChanged(own) }
        while harness.service.state.withLock({ $0.migrations == 0 }) { await Task.yield() }
        #expect(harness.service.state.withLock { $0.requests.count } == 1)
        await harness.client.disconnect()
    }

    enum DeadPath: CaseIterable { case addressGone, noAnswer }

    @Test(
        "a connection whose handshake is not confirmed can't move: it is left at once for a new one",
        .timeLimit(.minutes(1)), arguments: DeadPath.allCases)
    func unconfirmed(_ path: DeadPath) async throws {
        let harness = try ClientHarness()
        harness.service.state.withLock { $0.confirmsHandshake = false }
        try await harness.client.connect()
        let change = try #require(AddressChange(from: ["192.0.2.77"], to: ["192.0.2.99"]))
        try await harness.client.run { driver in
            switch path {
            case .addressGone: driver.addressesChanged(change)
            case .noAnswer: if let link = driver.current { driver.probePath(of: link) }
            }
        }
        while harness.service.state.withLock({ $0.migrations == 0 && $0.requests.count < 2 }) { await Task.yield() }
        #expect(harness.service.state.withLock { $0.migrations } == 0)
        await harness.client.disconnect()
    }

    @Test("an attempt whose address is gone starts again at once")
    func whileConnecting() async throws {
        let harness = try ClientHarness { $0.connectTimeout = .seconds(60) }
        harness.service.state.withLock { $0.answers = [.silence] }
        try await harness.client.start()
        _ = await harness.state { if case .connecting = $0 { true } else { false } }
        while harness.service.state.withLock({ $0.connects }).isEmpty { await Task.yield() }
        let change = try #require(AddressChange(from: ["192.0.2.77"], to: ["192.0.2.99"]))
        try await harness.client.run { $0.addressesChanged(change) }
        try await harness.client.connect()
        #expect(harness.service.state.withLock { $0.requests.count } == 2)
        await harness.client.disconnect()
    }

    @Test(
        "an address that comes ends the wait for the next attempt, and so does one that goes",
        arguments: [["192.0.2.77", "192.0.2.99"], ["192.0.2.77"], []] as [Set<String>])
    func whileWaiting(before: Set<String>) async throws {
        let harness = try ClientHarness {
            $0.backOff = BackOffPolicy(base: .seconds(3600), maximum: .seconds(3600))
            $0.accessPoints = [AccessPoint(host: "one", port: 1)]
        }
        harness.service.state.withLock { $0.answers = [.fail(ClientError(.connectFailed, message: "no network"))] }
        try await harness.client.start()
        _ = await harness.state { if case .waiting = $0 { true } else { false } }
        let change = try #require(AddressChange(from: before, to: ["192.0.2.99"]))
        try await harness.client.run { $0.addressesChanged(change) }
        // Nothing else ends the wait: the app's own `connect()` would.
        _ = await harness.state { $0.isConnected }
        #expect(harness.service.state.withLock { $0.requests.count } == 2)
        await harness.client.disconnect()
    }

    @Test("a path that stops to answer is changed, then left")
    func silentPath() async throws {
        let harness = try ClientHarness {
            $0.heartbeat = HeartbeatPolicy(interval: .milliseconds(20), answerTimeout: .milliseconds(20))
        }
        try await harness.client.connect()
        try await harness.client.simulateOutage()
        let receipt = try await harness.client.send("through the tunnel", to: .room("a"))
        // The path is changed, the link is left, and the next attempt hears nothing either.
        while harness.service.state.withLock({ $0.requests.count }) < 2 { await Task.yield() }
        #expect(harness.service.state.withLock { $0.entered.isEmpty })
        try await harness.client.endOutage()
        _ = try await receipt.acknowledged()
        let state = harness.service.state.withLock { $0 }
        #expect(state.migrations >= 1 && state.requests.count >= 2)
        await harness.client.disconnect()
    }

    @Test("the difference between two views of the addresses")
    func difference() {
        #expect(AddressChange(from: ["a", "b"], to: ["b", "a"]) == nil)
        let change = AddressChange(from: ["a", "b"], to: ["b", "c"])
        #expect(change?.gone == ["a"] && change?.new == ["c"])
    }

    @Test("the route to this machine itself starts at the loopback address")
    func route() throws {
        #expect(RouteProbe.localAddress(towards: "127.0.0.1:9")?.ipAddress == "127.0.0.1")
        #expect(RouteProbe.localAddress(towards: "no address") == nil)
    }
}
