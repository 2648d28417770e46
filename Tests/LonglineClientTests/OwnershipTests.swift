import LonglineSession
import LonglineTestKit
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineClient

/// A client that gives its shared outbox up, and owns it again: to its app it is one client all the same.
@Suite("Ownership that comes and goes", .timeLimit(.minutes(1)))
struct OwnershipTests {
    /// How a test's client loses the outbox.
    enum End: CaseIterable {
        /// The app disconnects and connects again.
        case disconnect
        /// Another process is given it, and leaves at once.
        case yield
    }

    private func endAndConnect(_ harness: ClientHarness, _ end: End) async throws {
        switch end {
        case .disconnect: await harness.client.disconnect()
        case .yield: await harness.client.core.yieldOwnership(.standby)
        }
        try await harness.client.connect()
    }

    private func delivered(_ count: Int, to harness: ClientHarness) async {
        while await harness.client.statistics.delivered < count { await Task.yield() }
    }

    /// Where the next process starts.
    private func confirmed(in channel: ChannelID, _ directory: TemporaryFolder) async throws -> Position? {
        let next = try directory.sharedStorage()
        #expect(try await next.contend())
        let cursors = try await next.load().cursors
        try await next.close()
        return cursors[channel]
    }

    // MARK: Transitions

    @Test("a storage that contends while it gives up is the owner afterwards, or is not, and knows which")
    func contendBesideRelease() async throws {
        let directory = try TemporaryFolder()
        for round in 0..<100 {
            let storage = try directory.sharedStorage(name: "\(round).sqlite")
            #expect(try await storage.contend())
            async let contended = storage.contend()
            async let released: Void = storage.release()
            _ = try await (contended, released)
            let loads = (try? await storage.load()) != nil
            #expect(storage.isOwner == loads)
            // Whichever was last, it can be the owner again.
            #expect(try await storage.contend())
            _ = try await storage.load()
            try await storage.close()
        }
    }

    @Test("a client that is asked for something while it disconnects connects again", arguments: [true, false])
    func usedWhileItDisconnects(sends: Bool) async throws {
        let directory = try TemporaryFolder()
        for round in 0..<15 {
            let harness = try ClientHarness(storage: try directory.sharedStorage(name: "\(round).sqlite"))
            let client = harness.client
            try await client.connect()
            let first = try await client.send("first", to: .user("bob"))
            let user = Task {
                for index in 0..<10 {
                    if sends {
                        try await client.send("\(index)", to: .user("bob"))
                    } else {
                        #expect(try await client.status(of: first.send) != nil)
                    }
                }
            }
            await client.disconnect()
            try await user.value
            try await client.connect()
            _ = try await client.send("last", to: .user("bob")).acknowledged()
            let entered = harness.service.state.withLock { $0.entered.map { String(buffer: $0.publish.payload) } }
            #expect(entered == ["first"] + (sends ? (0..<10).map(String.init) : []) + ["last"])
            await client.disconnect()
        }
    }

    @Test("connections and disconnections that overtake each other leave a client that connects")
    func beside() async throws {
        let directory = try TemporaryFolder()
        let harness = try ClientHarness(storage: try directory.sharedStorage())
        for _ in 0..<15 {
            try await harness.client.connect()
            await withTaskGroup(of: Void.self) { group in
                for _ in 0..<2 {
                    group.addTask { await harness.client.disconnect() }
                    group.addTask { try? await harness.client.start() }
                }
            }
        }
        try await harness.client.connect()
        _ = try await harness.client.send("a", to: .user("bob")).acknowledged()
        await harness.client.disconnect()
        guard case .disconnected = harness.client.state else { return #expect(Bool(false), "\(harness.client.state)") }
    }

    @Test("who lets go of a client that gives the outbox up lets nobody else have it before the client is done")
    func letGoWhileItGivesUp() async throws {
        let directory = try TemporaryFolder()
        let virtual = VirtualLoop()
        let harness = try ClientHarness(storage: try directory.sharedStorage(), loop: virtual.loop)
        let core = harness.client.core
        _ = try await virtual.running { try await core.handle() }
        // From here on its loop does nothing until it is run.
        let ending = Task { await core.yieldOwnership(.disconnected) }
        while core.turns.withLock({ $0.ending }) == nil { await Task.yield() }
        core.shutDown()
        let isRun = Mutex(false)
        let other = try directory.sharedStorage()
        let next = Task {
            while try await !other.contend() { await Task.yield() }
            return isRun.withLock { $0 }
        }
        for _ in 0..<1_000 { await Task.yield() }
        isRun.withLock { $0 = true }
        try await virtual.running { await ending.value }
        #expect(try await next.value)
        try await other.close()
    }

    enum Turn: CaseIterable { case unshared, owner, standby }

    @Test(
        "who begins to read when start() has returned reads what comes, after a disconnection too",
        arguments: Turn.allCases)
    func readsAfterStart(turn: Turn) async throws {
        let directory = try TemporaryFolder()
        let harness = try ClientHarness(
            storage: turn == .unshared ? InMemoryClientStorage() : try directory.sharedStorage())
        let client = harness.client
        let room = ChannelID.room(try RoomID("r"))
        try await client.connect()
        for round in 0..<20 {
            await client.disconnect()
            let other = turn == .standby ? try directory.sharedStorage() : nil
            if let other { #expect(try await other.contend()) }
            try await client.start()
            let reader = Task {
                var messages = client.messages.makeAsyncIterator()
                return await messages.next()?.text
            }
            // The reader looks before there is a connection.
            await Task.yield()
            try await other?.close()
            _ = await harness.state { $0.isConnected }
            try harness.service.post("\(round)", in: room)
            #expect(await reader.value == "\(round)")
        }
        await client.disconnect()
    }

    @Test("who disconnects in standby ends the wait of connect()")
    func disconnectsInStandby() async throws {
        let directory = try TemporaryFolder()
        let owner = try directory.sharedStorage()
        #expect(try await owner.contend())
        let harness = try ClientHarness(storage: try directory.sharedStorage())
        async let connected: Void = harness.client.connect()
        _ = await harness.state { if case .standby = $0 { true } else { false } }
        await harness.client.disconnect()
        do {
            try await connected
            #expect(Bool(false), "connected")
        } catch let error as ClientError {
            #expect(error.code == .disconnected)
        }
        try await owner.close()
    }

    // MARK: What the app has and wants

    /// A client that is connected and whose app has three messages to read, and to confirm.
    private func threeWaiting(in room: ChannelID, _ directory: TemporaryFolder) async throws -> ClientHarness {
        let harness = try ClientHarness(storage: try directory.sharedStorage()) { $0.confirmation = .explicit }
        try await harness.client.connect()
        for text in ["a", "b", "c"] { try harness.service.post(text, in: room) }
        await delivered(3, to: harness)
        return harness
    }

    @Test("messages that wait for the app come once, whoever owned the outbox meanwhile", arguments: End.allCases)
    func messagesOnce(end: End) async throws {
        let directory = try TemporaryFolder()
        let room = ChannelID.room(try RoomID("r"))
        let harness = try await threeWaiting(in: room, directory)
        let client = harness.client
        try await endAndConnect(harness, end)
        try harness.service.post("d", in: room)
        await delivered(4, to: harness)
        var texts: [String] = []
        for await message in client.messages {
            texts.append(message.text)
            message.confirm()
            if message.text == "d" { break }
        }
        #expect(texts == ["a", "b", "c", "d"])
        #expect(await client.statistics.delivered == 4)
        // The confirmations count, and the next process gets nothing again.
        await client.disconnect()
        #expect(try await confirmed(in: room, directory) == Position(epoch: FakeService.epoch, offset: 4))
    }

    @Test("what the app confirms while nobody owns the outbox is confirmed by the next owner")
    func confirmedMeanwhile() async throws {
        let directory = try TemporaryFolder()
        let room = ChannelID.room(try RoomID("r"))
        let harness = try await threeWaiting(in: room, directory)
        let client = harness.client
        await client.disconnect()
        var messages: [Message] = []
        for await message in client.messages { messages.append(message) }
        #expect(messages.map(\.text) == ["a", "b", "c"])
        #expect(await client.statistics.delivered == 3, "what was done counts while nobody owns it, too")
        messages[1].confirm()
        try await client.connect()
        try await harness.settle()
        #expect(await client.statistics.unconfirmed == 1)
        #expect(harness.service.state.withLock { $0.acknowledged[room] } == 2)
        messages[2].confirm()
        await client.disconnect()
        #expect(try await confirmed(in: room, directory) == Position(epoch: FakeService.epoch, offset: 3))
    }

    @Test("another process confirms what waits here: it is not waited for any more, and nothing comes twice")
    func confirmedElsewhere() async throws {
        let directory = try TemporaryFolder()
        let room = ChannelID.room(try RoomID("r"))
        let harness = try await threeWaiting(in: room, directory)
        let client = harness.client
        await client.disconnect()
        let other = try directory.sharedStorage()
        #expect(try await other.contend())
        try await other.apply([.cursor(room, Position(epoch: FakeService.epoch, offset: 2))])
        try await other.close()
        try await client.connect()
        #expect(await client.statistics.unconfirmed == 1)
        try harness.service.post("d", in: room)
        await delivered(4, to: harness)
        var texts: [String] = []
        for await message in client.messages {
            texts.append(message.text)
            if message.text == "d" { break }
        }
        #expect(texts == ["a", "b", "c", "d"])
        await client.disconnect()
    }

    @Test("what the app does not see is confirmed where another process confirmed what it waited for")
    func hiddenBehindConfirmedElsewhere() async throws {
        let directory = try TemporaryFolder()
        let room = ChannelID.room(try RoomID("r"))
        let harness = try ClientHarness(storage: try directory.sharedStorage()) { $0.confirmation = .explicit }
        let client = harness.client
        try await client.connect()
        try harness.service.post("a", in: room)
        let connect = harness.service.state.withLock { $0.connects.last }
        try harness.service.post("own", in: room, producer: try #require(connect).producer)
        while await client.statistics.unconfirmed < 2 { await Task.yield() }
        await client.disconnect()
        let other = try directory.sharedStorage()
        #expect(try await other.contend())
        try await other.apply([.cursor(room, Position(epoch: FakeService.epoch, offset: 1))])
        try await other.close()
        try await client.connect()
        #expect(await client.statistics.unconfirmed == 0)
        await client.disconnect()
        #expect(try await confirmed(in: room, directory) == Position(epoch: FakeService.epoch, offset: 2))
    }

    @Test("a cursor that went back with its log's end is not forgotten where the file could not be written by then")
    func cursorThatWentBack() async throws {
        let directory = try TemporaryFolder()
        let shared = try directory.sharedStorage()
        let room = ChannelID.room(try RoomID("r"))
        func place(_ offset: Offset) -> Position { Position(epoch: FakeService.epoch, offset: offset) }
        let harness = try ClientHarness(storage: shared) { $0.confirmation = .explicit }
        let client = harness.client
        try await client.connect()
        for text in ["a", "b", "c"] { try harness.service.post(text, in: room) }
        var messages = client.messages.makeAsyncIterator()
        for _ in 0..<3 { try #require(await messages.next()).confirm() }
        for _ in 0..<2 { try await harness.settle() }
        #expect(try await shared.load().cursors[room] == place(3))

        try await shared.fail(true)
        harness.service.state.withLock { state in
            _ = state.log[room]?.removeLast()
            state.channels = [ChannelAnswer(channel: room, head: place(2), recovery: .recovered)]
        }
        let notices = client.notices
        await harness.lose()
        for await notice in notices { if case .gap = notice { break } }
        await client.core.yieldOwnership(.standby)
        // By the time that this process is the owner again the log is as long as it was.
        try harness.service.post("c anew", in: room)
        harness.service.state.withLock {
            $0.channels = [ChannelAnswer(channel: room, head: place(3), recovery: .recovered)]
        }
        try await shared.fail(false)
        let anew = try #require(await messages.next())
        #expect(anew.text == "c anew")
        anew.confirm()
        await client.disconnect()
        #expect(try await confirmed(in: room, directory) == place(3))
    }

    @Test(
        "mode, urgencies, visibility, watched users and read places last for later connections", arguments: End.allCases
    )
    func wishes(end: End) async throws {
        let directory = try TemporaryFolder()
        let harness = try ClientHarness(storage: try directory.sharedStorage())
        let client = harness.client
        try await client.connect()
        let room = ChannelID.room(try RoomID("r"))
        let bob = try UserID("bob")
        try await client.setMode(.background)
        try await client.setUrgency(.bulk, of: room)
        try await client.setVisibility(.nothing)
        try await client.setNetwork("cellar")
        try await client.watch([bob])
        harness.service.state.withLock { $0.frames = [] }
        // Neither was told yet.
        try await client.markRead(Destination(room), upTo: Position(epoch: 5, offset: 6))
        try await endAndConnect(harness, end)
        while client.presence(of: bob)?.isCurrent != true { await Task.yield() }
        #expect(try await client.core.ask { $0.appNetwork } == "app:cellar")
        let frames = harness.service.state.withLock { $0.frames }
        let connect = try #require(frames.lastIndex { if case .connect = $0 { true } else { false } })
        var said: Set<String> = []
        for frame in frames[connect...] {
            switch frame {
            case .mode(let mode): if mode == .background { said.insert("mode") }
            case .urgency(let urgency):
                if urgency == ChannelUrgency(channel: room, urgency: .bulk) { said.insert("urgency") }
            case .visibility(let visibility): if visibility == .nothing { said.insert("visibility") }
            case .subscribe(let request): if request.users == [bob] { said.insert("watched") }
            case .read(let mark): if mark.conversation == room { said.insert("read") }
            default: break
            }
        }
        #expect(said == ["mode", "urgency", "visibility", "watched", "read"])
        await client.disconnect()
    }

    // MARK: What the app follows

    @Test("every receipt of a message in standby is told how it ends")
    func receipts() async throws {
        let directory = try TemporaryFolder()
        let owner = try ClientHarness(storage: try directory.sharedStorage())
        try await owner.client.connect()
        let other = try ClientHarness(storage: try directory.sharedStorage(), seed: 2)
        let first = try await other.client.send("a", to: .user("bob"))
        let second = try #require(try await other.client.receipt(for: first.send))
        let published = try await first.acknowledged()
        #expect(try await second.acknowledged() == published)
        await owner.client.disconnect()
    }

    @Test("trackers of one message that meet follow it together, whichever was known first")
    func trackersMeet() async throws {
        let directory = try TemporaryFolder()
        let outbox = try directory.sharedStorage()
        // It never had the message, and a look into it would say so: what can't be read says nothing.
        try await outbox.close()
        let sharing = SharingState(storage: outbox, sends: Broadcast(replaysLatest: false))
        let send = SendID(high: 1, low: 2)
        let (known, new, ended) = (SendTracker(), SendTracker(), SendTracker())
        sharing.follow([send: known])
        sharing.follow([send: new])
        let tracker = try #require(sharing.handOver(send))
        let published = Published(id: 1, position: Position(epoch: 2, offset: 3), time: 4)
        tracker.change(to: .acknowledged(published))
        for each in [known, new] { #expect(try await each.outcome.value() == published) }
        // One that comes when it is over is told at once.
        tracker.tell(ended)
        #expect(ended.state == .acknowledged(published))
        sharing.stop(ClientError(.disconnected, message: "over"))
    }

    @Test("a tracker that meets one of which nothing is known any more is told so")
    func trackerOfWhatIsForgotten() async throws {
        let (known, new) = (SendTracker(.sent), SendTracker())
        known.end(ClientError(.outcomeUnknown, message: "forgotten"))
        known.tell(new)
        #expect(new.state == .sent)
        try #require(new.outcome.isResolved)
        let error = await #expect(throws: ClientError.self) { try await new.outcome.value() }
        #expect(error?.code == .outcomeUnknown)
    }

    @Test("the states tell of a disconnection once", arguments: [true, false])
    func statesOnce(isShared: Bool) async throws {
        let directory = try TemporaryFolder()
        let shared: any ClientStorage = isShared ? try directory.sharedStorage() : InMemoryClientStorage()
        let harness = try ClientHarness(storage: shared)
        let states = harness.client.states
        try await harness.client.connect()
        await harness.client.disconnect()
        await harness.client.disconnect()
        try await harness.client.connect()
        var seen: [String] = []
        for await state in states {
            switch state {
            case .disconnected: seen.append("disconnected")
            case .connected:
                if seen.last != "connected" { seen.append("connected") }
            default: break
            }
            if seen.count(where: { $0 == "connected" }) == 2 { break }
        }
        #expect(seen == ["disconnected", "connected", "disconnected", "connected"])
        await harness.client.disconnect()
    }
}
