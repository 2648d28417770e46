import GRDB
import LonglineTestKit
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineClient

/// A disconnection counts for all that the app asked for before it, whatever that waits for.
@Suite("Disconnections beside what waits", .timeLimit(.minutes(1)))
struct DisconnectTests {
    @Test(
        "who disconnects while the storage is opened is not connected by the call before it",
        arguments: [true, false], [true, false])
    func whileOpening(isShared: Bool, waits: Bool) async throws {
        let directory = try TemporaryFolder()
        for round in 0..<30 {
            let gate = GatedCursors()
            let shared: any ClientStorage =
                isShared ? try directory.sharedStorage(name: "\(round).sqlite") : InMemoryClientStorage()
            let harness = try ClientHarness(storage: shared) { $0.cursorStore = gate }
            let client = harness.client
            // Readers of before are told of the end.
            let reading = Task {
                for await _ in client.messages {}
                for await _ in client.requests {}
            }
            let connecting = Task { if waits { try await client.connect() } else { try await client.start() } }
            while gate.asked.count == 0 { await Task.yield() }
            let disconnecting = Task { await client.disconnect() }
            // It is under way, and waits for the storage as the call before it does.
            while client.core.turns.withLock({ $0.disconnections }) == 0 { await Task.yield() }
            gate.open()
            let error = await #expect(throws: ClientError.self) { try await connecting.value }
            #expect(error?.code == .disconnected)
            await disconnecting.value
            guard case .disconnected = client.state else { return #expect(Bool(false), "\(client.state)") }
            #expect(harness.service.state.withLock { $0.requests.isEmpty }, "no link was opened")
            await reading.value
            // The next call is another wish.
            try await client.connect()
            await client.disconnect()
        }
    }

    @Test(
        "who connects behind a disconnection that nobody waits for is connected in the end", arguments: [true, false])
    func connectsBehind(isShared: Bool) async throws {
        let directory = try TemporaryFolder()
        let harness = try ClientHarness(storage: isShared ? try directory.sharedStorage() : InMemoryClientStorage())
        let client = harness.client
        try await client.connect()
        for round in UInt64(1)...20 {
            let disconnecting = Task { await client.disconnect() }
            while client.core.turns.withLock({ $0.disconnections }) < round { await Task.yield() }
            try await client.connect()
            await disconnecting.value
            guard case .connected = client.state else { return #expect(Bool(false), "\(client.state)") }
        }
        _ = try await client.send("a", to: .user("bob")).acknowledged()
        await client.disconnect()
        guard case .disconnected = client.state else { return #expect(Bool(false), "\(client.state)") }
    }

    @Test("a disconnection that comes to the loop behind the connect that was called after it is done before that")
    func overtaken() async throws {
        let harness = try ClientHarness()
        let client = harness.client
        try await client.connect()
        let handle = try await client.core.handle()
        let number = client.core.turns.withLock { turns in
            turns.disconnect()
            return turns.disconnections
        }
        try await client.connect()
        #expect(harness.service.state.withLock { $0.connects.count } == 2, "the connection before it has ended")
        await withCheckedContinuation { continuation in
            handle.run { $0.disconnect(number) { continuation.resume() } }
        }
        guard case .connected = client.state else { return #expect(Bool(false), "\(client.state)") }
        _ = try await client.send("a", to: .user("bob")).acknowledged()
        #expect(harness.service.state.withLock { $0.connects.count } == 2)
        await client.disconnect()
    }

    @Test("who is busy with a message while the app disconnects and comes back has read its last one")
    func busyReader() async throws {
        let client = try await withBusyReader { harness in
            await harness.client.disconnect()
            try await harness.client.connect()
        }
        await client.disconnect()
    }

    @Test("so has who is busy while the service stops the client and the app connects again")
    func busyReaderOfStopped() async throws {
        let client = try await withBusyReader { harness in
            harness.service.send(.close(Close(code: .replaced)))
            _ = await harness.state { if case .stopped = $0 { true } else { false } }
            try await harness.client.connect()
        }
        await client.disconnect()
    }

    /// One reads a message, and goes on once that has happened; another one gets what comes then.
    private func withBusyReader(_ happens: (ClientHarness) async throws -> Void) async throws -> LonglineClient {
        let harness = try ClientHarness()
        let client = harness.client
        try await client.connect()
        let (isBusy, goesOn) = (Outcome<Void>(), Outcome<Void>())
        let busy = Task {
            var texts: [String] = []
            for await message in client.messages {
                texts.append(message.text)
                isBusy.resolve(.success(()))
                try await goesOn.value()
            }
            return texts
        }
        let room = ChannelID.room(try RoomID("r"))
        try harness.service.post("first", in: room)
        try await isBusy.value()
        try await happens(harness)
        let next = Task {
            for await message in client.messages where message.text == "second" { return true }
            return false
        }
        goesOn.resolve(.success(()))
        #expect(try await busy.value == ["first"])
        try harness.service.post("second", in: room)
        #expect(await next.value)
        return client
    }

    /// Why a client has nothing that could tell its readers.
    enum Absence: CaseIterable { case neverConnected, storageFails, storeIsSilent }

    @Test(
        "who disconnects before the client could begin ends what reads, and waits for no store",
        arguments: Absence.allCases)
    func readersBefore(absence: Absence) async throws {
        let (virtual, gate, directory) = (VirtualLoop(), GatedCursors(), try TemporaryFolder())
        let storage = try SQLiteClientStorage(path: directory.file("client.sqlite"))
        if absence == .storageFails { try storage.close() }
        let client = try ClientHarness(storage: storage, loop: virtual.loop) {
            if absence == .storeIsSilent { $0.cursorStore = gate }
        }.client
        let readers = [Task { for await _ in client.messages {} }, Task { for await _ in client.requests {} }]
        let outlets = client.core.outlets
        while outlets.messages.readers == 0 || outlets.requests.readers == 0 { await Task.yield() }
        switch absence {
        case .neverConnected: break
        case .storageFails: await #expect(throws: ClientError.self) { try await client.start() }
        case .storeIsSilent:
            let starting = Task { try await client.start() }
            while gate.asked.count == 0 { await Task.yield() }
            let isOver = Outcome<Void>()
            let leaving = Task {
                await client.disconnect()
                isOver.resolve(.success(()))
            }
            while !isOver.isResolved { await virtual.pass(.seconds(1)) }
            await leaving.value
            gate.open()
            let error = await #expect(throws: ClientError.self) {
                try await virtual.running { try await starting.value }
            }
            #expect(error?.code == .disconnected)
        }
        if absence != .storeIsSilent { try await virtual.running { await client.disconnect() } }
        for reader in readers { await reader.value }
        guard absence != .storageFails else { return }
        // The next wish to connect has them go on.
        try await virtual.running { try await client.connect() }
        let next = Task { for await _ in client.messages {} }
        while outlets.messages.readers == 0 { await Task.yield() }
        try await virtual.running { await client.disconnect() }
        await next.value
    }

    @Test(
        "a logout wipes the storage and ends the client also where the app's own store gives no answer",
        arguments: [true, false])
    func logoutWhileOpening(isShared: Bool) async throws {
        let (virtual, gate, directory) = (VirtualLoop(), GatedCursors(), try TemporaryFolder())
        let shared = isShared ? try directory.sharedStorage() : nil
        let storage: any ClientStorage = if let shared { shared } else { InMemoryClientStorage() }
        /// What is stored, as the owner of a shared file sees it.
        func stored() async throws -> StoredClientState {
            if let shared { #expect(try await shared.contend()) }
            let state = try await storage.load()
            try await shared?.release()
            return state
        }
        if let shared { #expect(try await shared.contend()) }
        try await storage.apply([.lastID(7)])
        try await shared?.release()
        let harness = try ClientHarness(storage: storage, loop: virtual.loop) { $0.cursorStore = gate }
        let client = harness.client
        let connecting = Task { try await client.connect() }
        while gate.asked.count == 0 { await Task.yield() }
        let erased = await #expect(throws: ClientError.self) { try await client.eraseAccount() }
        #expect(erased?.code == .notConnected)
        let result = try await client.logout()
        guard case .localOnly(let reason) = result, reason.code == .notConnected else {
            return #expect(Bool(false), "\(result)")
        }
        #expect(try await stored() == StoredClientState())
        for await _ in client.messages {}
        // What the store says at last is nobody's.
        gate.open()
        let error = await #expect(throws: ClientError.self) {
            try await virtual.running { try await connecting.value }
        }
        #expect(error?.code == .loggedOut)
        #expect(harness.service.state.withLock { $0.requests.isEmpty })
        #expect(shared?.isOwner != true, "the next login's process may have it")
        #expect(try await stored() == StoredClientState())
    }

    @Test(
        "who stops to wait while the storage is opened is kept waiting no longer, and the client connects all the same",
        arguments: [true, false])
    func cancelledWhileOpening(isShared: Bool) async throws {
        let (gate, directory) = (GatedCursors(), try TemporaryFolder())
        let shared: any ClientStorage = isShared ? try directory.sharedStorage() : InMemoryClientStorage()
        let harness = try ClientHarness(storage: shared) { $0.cursorStore = gate }
        let (client, service) = (harness.client, harness.service)
        service.state.withLock { $0.answers = [.silence] }
        let room = try RoomID("hall")
        let connecting = Task { try await client.connect() }
        while gate.asked.count == 0 { await Task.yield() }
        let others: [Task<Void, any Error>] = [
            Task { _ = try await client.join(room) }, Task { _ = try await client.history(of: .room(room)) },
            Task { _ = try await client.members(of: room) }, Task { try await client.watch([UserID("bob")]) },
            Task { _ = try await client.conversations() },
            Task { _ = try await client.request(to: UserID("bob"), text: "?", deadline: .seconds(3_600)) },
        ]
        // It needs nothing of what is opened.
        #expect(await client.statistics.connects == 0)
        for task in [connecting] + others {
            task.cancel()
            await #expect(throws: CancellationError.self) { try await task.value }
        }
        #expect(service.state.withLock { $0.requests.isEmpty })
        gate.open()
        while service.state.withLock({ $0.requests.count }) == 0 { await Task.yield() }
        // Nobody waits any more, though nothing has come of the attempt.
        while try await !client.core.ask({ $0.connectWaiters.isEmpty }) { await Task.yield() }
        #expect(!client.state.isConnected)
        service.cut()
        for await state in client.states where state.isConnected { break }
        #expect(await client.statistics.connects == 1)
        await client.disconnect()
    }

    @Test("a task that is cancelled already begins nothing", arguments: [true, false], [true, false])
    func cancelledBefore(isShared: Bool, isBounded: Bool) async throws {
        let directory = try TemporaryFolder()
        let harness = try ClientHarness(storage: isShared ? try directory.sharedStorage() : InMemoryClientStorage())
        let client = harness.client
        let connecting = Task {
            while !Task.isCancelled { await Task.yield() }
            if isBounded { try await client.connect(within: .seconds(3_600)) } else { try await client.connect() }
        }
        connecting.cancel()
        await #expect(throws: CancellationError.self) { try await connecting.value }
        for _ in 0..<3 { try await harness.settle() }
        #expect(harness.service.state.withLock { $0.requests.isEmpty })
        guard case .disconnected = client.state else { return #expect(Bool(false), "\(client.state)") }
        await client.disconnect()
    }

    @Test("who waits for so long is not connected behind a disconnection that came between", arguments: [true, false])
    func betweenStartAndWait(isShared: Bool) async throws {
        let directory = try TemporaryFolder()
        let shared: any ClientStorage = isShared ? try directory.sharedStorage() : InMemoryClientStorage()
        let harness = try ClientHarness(storage: shared)
        harness.service.state.withLock { $0.answers = Array(repeating: .silence, count: 100) }
        let (client, core) = (harness.client, harness.client.core)
        // As connect(within:) does.
        let asked = core.turns.withLock { $0.disconnections }
        try await core.start(since: asked)
        await client.disconnect()
        for connect in [core.start(since:), core.connect(since:)] {
            let error = await #expect(throws: ClientError.self) { try await connect(asked) }
            #expect(error?.code == .disconnected)
        }
        guard case .disconnected = client.state else { return #expect(Bool(false), "\(client.state)") }
    }

    @Test("who reads what a client tells is told of the client's end also where its storage never opened")
    func letGoWhileOpening() async throws {
        let gate = GatedCursors()
        let harness = try ClientHarness { $0.cursorStore = gate }
        let core = harness.client.core
        let (states, messages) = (core.outlets.states.stream(), core.outlets.messages)
        let opening = Task { try await core.start() }
        while gate.asked.count == 0 { await Task.yield() }
        core.shutDown()
        for await _ in states {}
        #expect(await messages.next(since: messages.ends) == nil)
        gate.open()
        _ = try? await opening.value
        #expect(!harness.client.state.isConnected)
    }

    @Test(
        "an opening of which nothing comes leaves the outbox to others once the client has ended",
        arguments: [true, false])
    func failsToOpen(before: Bool) async throws {
        let (gate, directory) = (GatedCursors(), try TemporaryFolder())
        let shared = try directory.sharedStorage()
        let harness = try ClientHarness(storage: shared) { $0.cursorStore = gate }
        let core = harness.client.core
        let opening = Task { try await core.start() }
        while gate.asked.count == 0 { await Task.yield() }
        #expect(shared.isOwner)
        if before {
            gate.fail()
            await #expect(throws: ClientError.self) { try await opening.value }
            #expect(shared.isOwner, "the app may try again")
        }
        core.shutDown()
        gate.fail()
        await #expect(throws: ClientError.self) { try await opening.value }
        while shared.isOwner { await Task.yield() }
        let other = try directory.sharedStorage()
        #expect(try await other.contend())
        try await other.close()
    }

    @Test("an opening that takes the outbox behind a logout leaves it to the next login")
    func opensBehindLogout() async throws {
        let directory = try TemporaryFolder()
        let shared = try directory.sharedStorage()
        let harness = try ClientHarness(storage: shared)
        let core = harness.client.core
        try await harness.client.logout()
        // As one that had seen before that that there is no logout.
        _ = try await core.takeOwnership()
        #expect(shared.isOwner)
        await core.giveUpOwnership()
        #expect(!shared.isOwner)
        // That one has it now.
        #expect(try await shared.contend())
        await core.giveUpOwnership()
        #expect(shared.isOwner)
        try await shared.close()
    }

    @Test("a logout in standby wipes nothing, as another process goes on with what is there")
    func logoutInStandby() async throws {
        let directory = try TemporaryFolder()
        let owner = try directory.sharedStorage()
        #expect(try await owner.contend())
        try await owner.apply([.lastID(7)])
        let client = try ClientHarness(storage: try directory.sharedStorage()).client
        try await client.start()
        let error = await #expect(throws: ClientError.self) { try await client.logout() }
        #expect(error?.code == .storageInUse)
        #expect(try await owner.load().lastID == 7)
        // Nor has the client ended: its turn may come.
        try await owner.release()
        try await client.connect()
        try await client.logout()
        #expect(try await owner.contend())
        #expect(try await owner.load() == StoredClientState())
        try await owner.close()
    }

    enum Standby: CaseIterable {
        /// Another process had the outbox from the beginning.
        case atFirst
        /// Another process took over while this one was connected.
        case takenOver
    }

    @Test("who disconnects in standby ends what reads messages and requests", arguments: Standby.allCases)
    func readersInStandby(standby: Standby) async throws {
        let directory = try TemporaryFolder()
        let owner = standby == .atFirst ? try directory.sharedStorage() : nil
        if let owner { #expect(try await owner.contend()) }
        let client = try ClientHarness(storage: try directory.sharedStorage()).client
        try await client.start()
        if standby == .takenOver {
            try await client.connect()
            // By one that answers nothing.
            var patient = Configuration()
            patient.busyMode = .timeout(60)
            try await DatabaseQueue(path: directory.file("shared.sqlite"), configuration: patient).write {
                try $0.execute(sql: "UPDATE owner SET generation = generation + 1, token = randomblob(16), locked = 0")
            }
        }
        let (messages, requests) = (client.messages, client.requests)
        let readers = [Task { for await _ in messages {} }, Task { for await _ in requests {} }]
        for await state in client.states { if case .standby = state { break } }
        await client.disconnect()
        for reader in readers { await reader.value }
        // They go on with the next wish to connect, which still waits for its turn.
        try await client.start()
        let next = Task { for await _ in client.messages {} }
        while client.core.outlets.messages.readers == 0 { await Task.yield() }
        await client.disconnect()
        await next.value
        try await owner?.close()
    }
}

/// Cursors that can be read once a test says so.
private final class GatedCursors: CursorStore {
    let asked = Counter()
    private let gate = Outcome<Void>()

    func open() { gate.resolve(.success(())) }

    func fail() { gate.resolve(.failure(ClientError(.storage, message: "no cursors"))) }

    func cursors() async throws -> [ChannelID: Position] {
        _ = asked.increment()
        try await gate.value()
        return [:]
    }
}
