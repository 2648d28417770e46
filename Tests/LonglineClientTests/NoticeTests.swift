import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineClient

/// What belongs to no call.
@Suite("Notices", .timeLimit(.minutes(1)))
struct NoticeTests {
    private let room = ChannelID.room(RoomID.lobby)

    /// The first notice that is looked for.
    private func first<Value>(
        _ notices: AsyncStream<ClientNotice>, _ read: (ClientNotice) -> Value?
    ) async -> Value? {
        for await notice in notices { if let value = read(notice) { return value } }
        return nil
    }

    @Test("the app is told that it is behind, and that a token stopped a channel")
    func channels() async throws {
        let harness = try ClientHarness()
        let notices = harness.client.notices
        try await harness.client.connect()
        for isBehind in [true, false] {
            let lag = ChannelLag(
                channel: room, head: Position(epoch: FakeService.epoch, offset: 9), isBehind: isBehind)
            harness.service.send(.behind(lag))
            #expect(await first(notices) { if case .behind(let lag) = $0 { lag } else { nil } } == lag)
        }
        harness.service.send(.stopped(ChannelStopped(channel: room)))
        #expect(await first(notices) { if case .stopped(let channel) = $0 { channel } else { nil } } == room)
        await harness.client.disconnect()
    }

    @Test("the app is told of a range that is absent on purpose, and confirms nothing for it")
    func skipped() async throws {
        let storage = InMemoryClientStorage()
        let harness = try ClientHarness(storage: storage)
        let notices = harness.client.notices
        try await harness.client.connect()
        let skip = Skip(previous: 0, to: 3, reason: .retracted)
        harness.service.send(.skip(skip), in: room)
        let told = await first(notices) { notice -> Skip? in
            if case .skipped(room, let skip) = notice { skip } else { nil }
        }
        #expect(told == skip)
        let place = Position(epoch: FakeService.epoch, offset: 3)
        while await storage.load().cursors[room] != place { await Task.yield() }
        await harness.client.disconnect()
    }

    @Test("the app is told when the service sees it at another address")
    func observedAddress() async throws {
        let harness = try ClientHarness()
        let notices = harness.client.notices
        try await harness.client.connect()
        #expect(harness.client.observedAddress == "198.51.100.1:1")
        harness.service.send(.pong(Pong(nonce: 0, observedAddress: "198.51.100.9:9")))
        let told = await first(notices) { if case .observedAddress(let address) = $0 { address } else { nil } }
        #expect(told == "198.51.100.9:9")
        while harness.client.observedAddress != "198.51.100.9:9" { await Task.yield() }
        await harness.client.disconnect()
    }

    @Test("the answers to what an earlier process sent are told, where nobody follows it", arguments: [true, false])
    func answered(isFollowed: Bool) async throws {
        let storage = InMemoryClientStorage()
        var names: [SendID] = []
        do {
            let first = try ClientHarness(storage: storage)
            for text in ["yes", "no"] { names.append(try await first.client.send(text, to: .room("lobby")).send) }
        }
        let harness = try ClientHarness(storage: storage, seed: 2)
        harness.service.state.withLock { $0.refusedPrefix = "no" }
        let notices = harness.client.notices
        let followed: SendReceipt? = isFollowed ? try await harness.client.receipt(for: names[0]) : nil
        try await harness.client.connect()
        var published: [Published] = []
        let refused = await first(notices) { notice -> ClientError? in
            if case .published(room, let answer) = notice { published.append(answer) }
            if case .refused(room, let error) = notice { return error }
            return nil
        }
        #expect(refused?.code == .refused && refused?.refusal == .forbidden)
        #expect(published.map(\.id) == (isFollowed ? [] : [1]))
        if let followed { #expect(try await followed.acknowledged().id == 1) }
        await harness.client.disconnect()
    }

    // MARK: What is not told

    @Test("who follows all messages is told their states, and keeps none of their payloads")
    func withoutPayloads() async throws {
        let harness = try ClientHarness()
        let changes = harness.client.sends
        let receipt = try await harness.client.send("a large one", to: .room("lobby"))
        #expect(try await harness.client.outbox().map(\.payload) == [ByteBuffer(string: "a large one")])
        #expect(try await harness.client.status(of: receipt.send)?.payload == ByteBuffer(string: "a large one"))
        try await harness.client.connect()
        _ = try await receipt.acknowledged()
        var states: [SendState] = []
        for await status in changes {
            #expect(status.payload == nil)
            states.append(status.state)
            if status.state.isFinal { break }
        }
        #expect(states == [.queued, .sent, receipt.state])
        await harness.client.disconnect()
    }

    @Test("a broadcast has no read place: that is said at once, and none is kept")
    func readBroadcast() async throws {
        let client = try ClientHarness().client
        let place = Position(epoch: 1, offset: 2)
        let error = await #expect(throws: ClientError.self) { try await client.markRead(.all("news"), upTo: place) }
        #expect(error?.code == .refused && error?.refusal == .unknownChannel)
        #expect(try await client.core.ask { $0.reads.places.isEmpty })
        try await client.markRead(.room("lobby"), upTo: place)
        #expect(try await client.core.ask { $0.reads.places.count } == 1)
    }
}

extension RoomID {
    fileprivate static var lobby: RoomID {
        guard let room = try? RoomID("lobby") else { preconditionFailure("a name that is none") }
        return room
    }
}
