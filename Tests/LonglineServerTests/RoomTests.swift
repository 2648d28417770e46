import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import Testing

@testable import LonglineServer

private let ann = identifier { try UserID("ann") }
private let bob = identifier { try UserID("bob") }
private let eve = identifier { try UserID("eve") }
private let hall = identifier { try RoomID("hall") }

extension TestDevice {
    /// Asks for a change of a room and waits for the answer.
    fileprivate func act(_ action: RoomAction, on room: RoomID = hall, number: UInt64) async throws -> RoomAnswer {
        try await send([(.room(RoomCommand(request: number, room: room, action: action)), .control)])
        return try await next { frame in
            if case .roomAnswer(let answer) = frame, answer.request == number { answer } else { nil }
        }
    }

    fileprivate func members(_ room: RoomID = hall, after: UserID? = nil, limit: UInt64 = 100) async throws
        -> MembersPage
    {
        let request = MembersRequest(request: UInt64.random(in: 1...(.max)), room: room, after: after, limit: limit)
        try await send([(.members(request), .control)])
        return try await next { frame in
            if case .membersPage(let page) = frame, page.request == request.request { page } else { nil }
        }
    }

    /// The next frames that answer something about rooms, in their order.
    fileprivate func aboutRooms(_ count: Int) async throws -> [Frame] {
        var frames: [Frame] = []
        while frames.count < count {
            let answer = try await next { frame -> Frame? in
                switch frame {
                case .roomSettings, .roomAnswer, .membersPage: frame
                default: nil
                }
            }
            frames.append(answer)
        }
        return frames
    }

    fileprivate func refusal(_ text: String, to channel: ChannelID) async throws -> RefusalCode? {
        if case .refused(let refused) = try await publish(text, to: channel) { return refused.code }
        return nil
    }
}

/// Owners of rooms, over two event loops.
@Suite(.timeLimit(.minutes(1))) struct RoomTests {
    @Test("who is added hears the room on every device, connected or not; who is removed hears nothing more")
    func addingAndRemoving() async throws {
        try await withServer { server in
            let owner = try await server.connected("ann")
            _ = try await owner.request(hall, number: 1)
            let phone = try await server.connected("bob", "phone")
            let tablet = try await server.connected("bob", "tablet", loop: 1)
            let added = try await owner.act(.add(bob), number: 2)
            #expect(added.refusal == nil)
            try await owner.publish("hello", to: .room(hall))
            for device in [phone, tablet] {
                let joined = try await device.delivered(.room(hall), kind: .joined).entry
                #expect(joined.offset == added.position.offset && joined.sender == ann && joined.member == bob)
                #expect(try await device.text(.room(hall)) == "hello")
            }
            // Again: the entry that there is.
            #expect(try await owner.act(.add(bob), number: 3).position == added.position)
            _ = try await owner.act(.add(eve), number: 4)
            let late = try await server.connected("eve", loop: 1)
            #expect(try await late.delivered(.room(hall), kind: .joined).entry.member == eve)

            let removed = try await owner.act(.remove(bob), number: 5)
            try await owner.publish("secret", to: .room(hall))
            try await owner.message("ping", to: bob)
            for device in [phone, tablet] {
                let left = try await device.delivered(.room(hall), kind: .left).entry
                #expect(left.offset == removed.position.offset && left.sender == ann && left.member == bob)
                #expect(try await device.text(.user(bob)) == "ping")
                #expect(device.untaken(.room(hall)).isEmpty)
            }
            #expect(try await phone.refusal("me?", to: .room(hall)) == .unknownChannel)
            #expect(try await phone.act(.add(bob), number: 6).refusal == .unknownChannel)
            #expect(try await phone.members().refusal == .unknownChannel)
            #expect(try await late.text(.room(hall)) == "secret")
        }
    }

    @Test("settings are kept to, and the last owner's leave makes the oldest member one")
    func settingsAndOwners() async throws {
        try await withServer { server in
            let owner = try await server.connected("ann")
            let member = try await server.connected("bob", loop: 1)
            _ = try await owner.request(hall, number: 1)
            _ = try await member.request(hall, number: 1)
            #expect(try await member.act(.setPublishing(.owners), number: 2).refusal == .forbidden)
            let set = try await owner.act(.setPublishing(.owners), number: 2)
            #expect(try await member.delivered(.room(hall), kind: .changed).entry.offset == set.position.offset)
            #expect(try await member.refusal("no", to: .room(hall)) == .forbidden)
            _ = try await owner.act(.setJoining(.byOwners), number: 3)
            let stranger = try await server.connected("eve")
            #expect(try await stranger.request(hall, number: 1).refusal == .forbidden)
            var page = try await member.members()
            #expect(page.total == 2 && page.members.map(\.role) == [.owner, .member])
            page = try await member.members(limit: 1)
            #expect(page.members.map(\.user) == [ann] && page.more)
            page = try await member.members(after: ann, limit: 1)
            #expect(page.members.map(\.user) == [bob] && !page.more)

            _ = try await owner.request(hall, number: 4, leave: true)
            while try await member.delivered(.room(hall), kind: .changed).entry.change != .setRole(.owner, of: bob) {}
            #expect(try await member.refusal("now I may", to: .room(hall)) == nil)
            #expect(try await member.members().members == [RoomMember(user: bob, role: .owner)])
        }
    }

    @Test("who joins or reads a page of members is told the settings and the own role right before, and nobody else is")
    func settingsAreTold() async throws {
        try await withServer { server in
            let owner = try await server.connected("ann")
            let member = try await server.connected("bob", loop: 1)
            func join(_ device: TestDevice, _ number: UInt64) async throws {
                try await device.send([(.join(RoomRequest(request: number, room: hall)), .control)])
            }
            func settings(_ position: Position, _ publishing: RoomPublishing, _ role: RoomRole) -> Frame {
                .roomSettings(
                    RoomSettings(
                        room: hall, position: position, joining: .anyone, publishing: publishing, role: role))
            }
            func place(_ frame: Frame?) throws -> Position {
                guard case .roomAnswer(let answer)? = frame, answer.refusal == nil else { throw CancellationError() }
                return answer.position
            }
            try await join(owner, 1)
            var told = try await owner.aboutRooms(2)
            let made = try place(told.last)
            #expect(told.first == settings(made, .members, .owner))
            let limited = try await owner.act(.setPublishing(.owners), number: 2)
            try await join(member, 1)
            told = try await member.aboutRooms(2)
            let joined = try place(told.last)
            #expect(told.first == settings(joined, .owners, .member) && joined.offset > limited.position.offset)
            let promoted = try await owner.act(.setRole(.owner, of: bob), number: 3)
            // Joined already: told once more, as it is now.
            try await join(member, 2)
            told = try await member.aboutRooms(2)
            #expect(told.first == settings(promoted.position, .owners, .owner))
            #expect(try place(told.last) == joined)
            let request = MembersRequest(request: 3, room: hall, after: nil, limit: 1)
            try await member.send([(.members(request), .control)])
            told = try await member.aboutRooms(2)
            let page = MembersPage(request: 3, total: 2, members: [RoomMember(user: ann, role: .owner)], more: true)
            #expect(told == [settings(promoted.position, .owners, .owner), .membersPage(page)])

            // Other answers have none, nor have refusals.
            #expect(try await member.request(hall, number: 4, leave: true).refusal == nil)
            let closing = RoomCommand(request: 4, room: hall, action: .setJoining(.nobody))
            try await owner.send([(.room(closing), .control)])
            _ = try place(try await owner.aboutRooms(1).first)
            #expect(try await member.request(hall, number: 5).refusal == .forbidden)
            #expect(try await member.members().refusal == .unknownChannel)
            try await member.send([(.members(MembersRequest(request: 6, room: hall, after: nil, limit: 0)), .control)])
            #expect(try await member.aboutRooms(1) == [.membersPage(MembersPage(request: 6, refusal: .invalidRange))])
        }
    }

    @Test(
        "a deletion reaches every member in its place, and the room made again is none of theirs", arguments: [0, 1],
        [false, true])
    func deletion(loop: Int, byService: Bool) async throws {
        try await withServer { server in
            let owner = try await server.connected("ann")
            let member = try await server.connected("bob", loop: 1)
            for device in [owner, member] { _ = try await device.request(hall, number: 1) }
            let end: Offset
            if byService {
                let service = DeviceKey(tenant: TokenIssuer.tenant, user: eve, device: LonglineServer.serviceDevice)
                let outcome = try await server.runtime.change(hall, .dissolve, by: service)
                end = try #require(outcome.receipt).position.offset
            } else {
                let deleted = try await owner.act(.delete, number: 2)
                #expect(deleted.refusal == nil)
                end = deleted.position.offset
            }
            let next = try await server.connected("eve", loop: loop)
            #expect(try await next.request(hall, number: 1).refusal == nil)
            try await next.publish("a new life", to: .room(hall))
            #expect(try await next.text(.room(hall)) == "a new life")
            try await next.message("ping", to: ann)
            try await next.message("ping", to: bob)
            for (device, user) in [(owner, ann), (member, bob)] {
                #expect(try await device.text(.user(user)) == "ping")
                let last = device.untaken(.room(hall)).last?.entry
                #expect(last?.offset == end && last?.change == .delete)
                #expect(try await device.refusal("still here", to: .room(hall)) == .unknownChannel)
                let history = try await device.history(.room(hall))
                #expect(history.head.end == end)
            }
            #expect(try await next.members().members == [RoomMember(user: eve, role: .owner)])
        }
    }

    @Test("a room that is deleted while a device loads its channels ends for it as well")
    func deletionWhileLoading() async throws {
        let store = FaultyStore()
        try await withServer(store: store) { server in
            let owner = try await server.connected("ann")
            _ = try await owner.request(hall, number: 1)
            _ = try await owner.act(.add(bob), number: 2)
            let late = try await server.device("bob", loop: 1)
            try await late.connect(pausing: store, server) {
                // Everything is over before the device knows its channels.
                _ = try await owner.act(.delete, number: 3)
                _ = try await owner.request(hall, number: 4)
                _ = try await owner.publish("a new life", to: .room(hall))
            }
            let changed = try await late.delivered(.room(hall), kind: .changed).entry
            #expect(changed.change == .delete)
            try await owner.message("ping", to: bob)
            #expect(try await late.text(.user(bob)) == "ping")
            #expect(late.untaken(.room(hall)).isEmpty)
            #expect(try await late.history(.room(hall)).head.end == changed.offset)
        }
    }
}
