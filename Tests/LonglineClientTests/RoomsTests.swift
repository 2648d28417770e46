import LonglineWire
import NIOCore
import Testing

@testable import LonglineClient

/// Owners of rooms, client and server over QUIC on loopback.
@Suite("Rooms, end to end", .serialized, .timeLimit(.minutes(2)))
struct LiveRoomsTests {
    private func refusal(_ body: () async throws -> Void) async -> RefusalCode? {
        do { try await body() } catch { return (error as? ClientError)?.refusal }
        return nil
    }

    @Test("an owner runs a room, and its members learn what became of it and by whom")
    func owner() async throws {
        let (hall, ann, bob) = (try RoomID("hall"), try UserID("ann"), try UserID("bob"))
        let service = try await LiveService()
        let owner = try service.client("ann")
        let member = try service.client("bob")
        for client in [owner, member] { try await client.connect() }
        try await owner.join(hall)
        try await owner.add(bob, to: hall)
        #expect(await refusal { try await member.setPublishing(.owners, in: hall) } == .forbidden)
        try await owner.setPublishing(.owners, in: hall)
        #expect(await refusal { _ = try await member.send("no", to: .room(hall)).acknowledged() } == .forbidden)
        try await owner.setRole(.owner, of: bob, in: hall)
        _ = try await member.send("yes", to: .room(hall)).acknowledged()
        let page = try await owner.members(of: hall, limit: 1)
        #expect(page.total == 2 && page.hasMore && page.members == [RoomMember(user: ann, role: .owner)])
        #expect(try await owner.members(of: hall, after: ann).members == [RoomMember(user: bob, role: .owner)])
        try await owner.remove(bob, from: hall)
        #expect(await refusal { _ = try await member.members(of: hall) } == .unknownChannel)
        try await owner.setJoining(.byOwners, of: hall)
        #expect(await refusal { _ = try await member.join(hall) } == .forbidden)
        try await owner.delete(hall)
        #expect(await refusal { try await owner.add(bob, to: hall) } == .unknownChannel)

        let seen = await member.receive(4)
        #expect(seen.map(\.kind) == [.joined, .changed, .changed, .left])
        #expect(seen.allSatisfy { $0.sender == ann })
        #expect(seen.map(\.member) == [bob, nil, bob, bob])
        #expect(seen.map(\.change) == [nil, .setPublishing(.owners), .setRole(.owner, of: bob), nil])
        for client in [owner, member] { await client.disconnect() }
        await service.stop()
    }

    @Test("a member knows whether it may publish: its join and a page of members tell it, and every change since")
    func settings() async throws {
        let (hall, bob) = (try RoomID("hall"), try UserID("bob"))
        let service = try await LiveService()
        let owner = try service.client("ann")
        let member = try service.client("bob")
        for client in [owner, member] { try await client.connect() }
        let made = try await owner.join(hall)
        let first = RoomSettings(
            room: hall, position: made.position, joining: .anyone, publishing: .members, role: .owner)
        #expect(made.settings == first && first.mayPublish)
        try await owner.setPublishing(.owners, in: hall)
        var settings = try #require(try await member.join(hall).settings)
        #expect(settings.publishing == .owners && settings.role == .member && !settings.mayPublish)
        #expect(await refusal { _ = try await member.send("no", to: .room(hall)).acknowledged() } == .forbidden)
        try await owner.setRole(.owner, of: bob, in: hall)
        try await owner.setJoining(.byOwners, of: hall)
        try await owner.setRole(.member, of: bob, in: hall)
        try await owner.setPublishing(.members, in: hall)
        let seen = await member.receive(5)
        var may: [Bool] = []
        for message in seen {
            settings.apply(message, for: bob)
            may.append(settings.mayPublish)
        }
        #expect(may == [false, true, true, false, true])
        #expect(settings.joining == .byOwners)
        // What the app put together is what the service says, and what is older changes nothing.
        #expect(try await member.members(of: hall, limit: 1).settings == settings)
        let latest = settings
        for message in seen { settings.apply(message, for: bob) }
        #expect(settings == latest)
        _ = try await member.send("yes", to: .room(hall)).acknowledged()
        for client in [owner, member] { await client.disconnect() }
        await service.stop()
    }

    @Test("a page of members is asked for on a connection, and within its limits")
    func limits() async throws {
        let hall = try RoomID("hall")
        let service = try await LiveService()
        let client = try service.client("ann")
        await #expect { try await client.members(of: hall) } throws: { ($0 as? ClientError)?.code == .notConnected }
        try await client.connect()
        for limit in [0, 101] {
            #expect(await refusal { _ = try await client.members(of: hall, limit: limit) } == .invalidRange)
        }
        #expect(await refusal { _ = try await client.members(of: hall) } == .unknownChannel)
        await client.disconnect()
        await service.stop()
    }

    @Test("what is said to all reaches a device that was away, from its first connect on")
    func broadcast() async throws {
        let news = try ChannelID("all/news")
        let service = try await LiveService()
        let speaker = try service.client("ann", scope: "publish:all/news receive")
        let listener = try service.client("bob")
        try await speaker.connect()
        _ = try await speaker.send("old", to: .all("news")).acknowledged()
        try await listener.connect()
        #expect(await refusal { _ = try await listener.send("me", to: .all("news")).acknowledged() } == .forbidden)
        await listener.disconnect()
        for text in ["one", "two"] { _ = try await speaker.send(text, to: .all("news")).acknowledged() }
        try await listener.connect()
        let seen = await listener.receive(2)
        #expect(seen.map(\.text) == ["one", "two"] && seen.allSatisfy { $0.channel == news })
        #expect(try await listener.history(of: news).messages.map(\.text) == ["old", "one", "two"])
        for client in [speaker, listener] { await client.disconnect() }
        await service.stop()
    }
}
