import LonglineWire
import Synchronization
import Testing

@testable import LonglineClient

/// What a client makes of what a service says of a room's settings, and of what it doesn't say.
@Suite("Settings of rooms", .timeLimit(.minutes(1)))
struct RoomSettingsTests {
    private func settings(of room: RoomID, at offset: Offset) -> RoomSettings {
        RoomSettings(
            room: room, position: Position(epoch: FakeService.epoch, offset: offset), joining: .anyone,
            publishing: .members, role: .member)
    }

    /// The number of the latest request for members, once so many came.
    private func pageAsked(_ count: Int, _ service: FakeService) async -> UInt64 {
        while true {
            let requests = service.state.withLock { state in
                state.frames.compactMap { if case .members(let request) = $0 { request.request } else { nil } }
            }
            if requests.count == count, let last = requests.last { return last }
            await Task.yield()
        }
    }

    private func page(_ request: UInt64) -> Frame {
        .membersPage(MembersPage(request: request, total: 1, members: [], more: false))
    }

    @Test("a page's settings are the room's that was asked about, and none where the service tells none")
    func ofTheRoom() async throws {
        let (hall, den) = (try RoomID("hall"), try RoomID("den"))
        let harness = try ClientHarness()
        let client = harness.client
        try await client.connect()
        let cases: [RoomSettings?] = [settings(of: hall, at: 3), nil, settings(of: den, at: 3)]
        for (index, told) in cases.enumerated() {
            let asking = Task { try await client.members(of: hall) }
            let request = await pageAsked(index + 1, harness.service)
            if let told { harness.service.send(.roomSettings(told)) }
            harness.service.send(page(request))
            #expect(try await asking.value.settings == (told?.room == hall ? told : nil))
        }
        await client.disconnect()
    }

    @Test("what is said of the room's present log behind the settings changes them, and of roles only the own")
    func applied() throws {
        let (hall, ann, bob) = (try RoomID("hall"), try UserID("ann"), try UserID("bob"))
        let before = settings(of: hall, at: 3)
        func after(_ change: RoomAction, _ offset: Offset, epoch: Epoch = FakeService.epoch) -> RoomSettings {
            var settings = before
            settings.apply(change, at: Position(epoch: epoch, offset: offset), for: ann)
            return settings
        }
        #expect(after(.setPublishing(.owners), 3) == before)
        #expect(after(.setPublishing(.owners), 4, epoch: FakeService.epoch &+ 1) == before)
        #expect(!after(.setPublishing(.owners), 4).mayPublish && before.mayPublish)
        #expect(after(.setRole(.owner, of: bob), 4).role == .member)
        #expect(after(.setRole(.owner, of: ann), 4).role == .owner)
    }

    @Test("a change that overtakes the answer whose settings are older is in them", arguments: [true, false], 0...2)
    func overtaken(isJoin: Bool, head: Int) async throws {
        let hall = try RoomID("hall")
        let harness = try ClientHarness()
        let (client, service) = (harness.client, harness.service)
        service.state.withLock { $0.leavesRoomRequests = true }
        try await client.connect()
        let asking = Task { () async throws -> RoomSettings? in
            if isJoin { return try await client.join(hall).settings }
            return try await client.members(of: hall).settings
        }
        let answer: Frame
        if isJoin {
            while service.state.withLock({ $0.rooms.isEmpty }) { await Task.yield() }
            let request = try #require(service.state.withLock { $0.rooms.last })
            let position = Position(epoch: FakeService.epoch, offset: 1)
            answer = .roomAnswer(RoomAnswer(request: request.request, refusal: nil, position: position))
        } else {
            answer = page(await pageAsked(1, service))
        }
        // Only owners may publish, and only they add members. What the settings are of or beyond is not applied to them.
        for text in ["\u{4}\u{1}", "\u{3}\u{1}"] { try service.post(text, in: .room(hall), kind: .changed) }
        service.send(.roomSettings(settings(of: hall, at: Offset(head))))
        service.send(answer)
        var expected = settings(of: hall, at: 2)
        if head < 1 { expected.publishing = .owners }
        if head < 2 { expected.joining = .byOwners }
        #expect(try await asking.value == expected)
        await client.disconnect()
    }
}
