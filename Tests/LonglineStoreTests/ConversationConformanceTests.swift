import LonglineStore
import LonglineTestKit
import LonglineWire
import Testing

@Suite struct ConversationConformanceTests {
    func list(
        _ store: AnyStore, _ name: String, after: ConversationPlace? = nil, limit: Int = 50, now: UInt64 = 0
    ) async throws -> ConversationList {
        try await store.conversations(of: user(name), in: tenant, after: after, limit: limit, now: now)
    }

    func item(_ store: AnyStore, _ name: String, _ conversation: ChannelID, now: UInt64 = 0) async throws
        -> ConversationItem
    {
        let items = try await list(store, name, now: now).items
        return try #require(items.first { $0.conversation == conversation })
    }

    @discardableResult
    func read(
        _ store: AnyStore, _ name: String, _ conversation: ChannelID, _ position: Position, isPrivate: Bool = false
    ) async throws -> ReadOutcome? {
        let mark = ReadMark(conversation: conversation, position: position, isPrivate: isPrivate)
        return try #require(try await store.markRead([ReadNote(tenant: tenant, user: user(name), mark: mark)]).first)
    }

    func direct(_ name: String) -> ChannelID { .user(user(name)) }
    private let hall = ChannelID.room(room("hall"))

    @Test("the latest conversation comes first, and pages cover the list once", arguments: StoreKind.allCases)
    func theLatestConversationComesFirst(_ kind: StoreKind) async throws {
        let clock = TestClock()
        try await withStore(kind, clock: clock) { store async throws in
            var id: PublishID = 0
            for name in ["bob", "carol", "dave", "bob"] {
                id += 1
                clock.advance(10)
                try await store.enter(request(recipient: name, id: id))
            }
            clock.advance(10)
            _ = try await store.join(room("hall"), by: device("alice"), create: true)
            // At the same time: told apart by name.
            try await store.enter(request(id: 5, "note"))
            let all = try await list(store, "alice").items
            #expect(all.map(\.conversation) == [direct("alice"), hall, direct("bob"), direct("dave"), direct("carol")])
            #expect(all.map(\.time) == [50, 50, 40, 30, 20].map { 1_700_000_000_000 + $0 })
            let head = try #require(try await store.head(of: inbox("alice")))
            #expect(all[0].last == head.position && all[2].last.epoch == head.position.epoch)
            for limit in 1...6 {
                var paged: [ConversationItem] = []
                var after: ConversationPlace?
                repeat {
                    let page = try await list(store, "alice", after: after, limit: limit)
                    #expect(page.items.count <= limit)
                    paged += page.items
                    after = page.next
                } while after != nil
                #expect(paged == all, "pages of \(limit)")
            }
            #expect(try await list(store, "nobody").items.isEmpty)
            _ = try await store.leave(room("hall"), by: device("alice"))
            #expect(!(try await list(store, "alice").items.map(\.conversation)).contains(hall))
        }
    }

    @Test("what others sent is unread until it is read, to the message", arguments: StoreKind.allCases)
    func whatOthersSentIsUnreadUntilItIsRead(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            var received: [Position] = []
            for id in 1...6 as ClosedRange<PublishID> {
                received.append(try #require(try await store.append(request(recipient: "bob", id: id)).copy).position)
                // Others' messages and own ones lie between.
                try await store.enter(request("carol", recipient: "bob", id: id))
                try await store.enter(request("bob", recipient: "alice", id: id))
            }
            #expect(try await item(store, "bob", direct("alice")).unread == 6)
            #expect(try await item(store, "bob", direct("carol")).unread == 6)
            for (index, expected) in [(0, 5), (3, 2), (1, 2), (5, 0)] as [(Int, UInt64)] {
                try await read(store, "bob", direct("alice"), received[index])
                #expect(try await item(store, "bob", direct("alice")).unread == expected, "read \(index + 1)")
            }
            #expect(try await item(store, "bob", direct("alice")).read == received[5].offset)
            #expect(try await item(store, "bob", direct("carol")).unread == 6)
            // The sender has its own side of it.
            #expect(try await item(store, "alice", direct("bob")).unread == 6)
        }
    }

    @Test("what is read in one go is counted to the end, over several marks", arguments: StoreKind.allCases)
    func whatIsReadInOneGoIsCountedToTheEnd(_ kind: StoreKind) async throws {
        var limits = StoreLimits()
        limits.unreadEntries = 3
        try await withStore(kind, limits: limits) { store async throws in
            var received: [Position] = []
            for id in 1...10 as ClosedRange<PublishID> {
                received.append(try #require(try await store.append(request(recipient: "bob", id: id)).copy).position)
            }
            for (place, unread) in [(2, 7), (5, 4), (7, 2)] as [(Int, UInt64)] {
                let outcome = try await read(store, "bob", direct("alice"), received[7])
                #expect(outcome?.position == received[place])
                let item = try await item(store, "bob", direct("alice"))
                #expect(item.read == received[place].offset && item.unread == unread)
            }
            #expect(try await read(store, "bob", direct("alice"), received[7]) == nil)
            // The last message reads them all.
            try await read(store, "bob", direct("alice"), received[9])
            #expect(try await item(store, "bob", direct("alice")).unread == 0)
        }
    }

    @Test("what was retracted or trimmed is not unread, nor are remarks", arguments: StoreKind.allCases)
    func whatWasRetractedOrTrimmedIsNotUnread(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            var sent: [Position] = []
            for id in 1...5 as ClosedRange<PublishID> {
                sent.append(try await store.enter(request(recipient: "bob", id: id)).position)
            }
            func unread() async throws -> UInt64 { try await item(store, "bob", direct("alice")).unread }
            for (id, said) in [(6, .edit(sent[4])), (7, .react(sent[4])), (8, .retract(sent[3]))]
                as [(PublishID, PublishKind)]
            {
                var remark = request(recipient: "bob", id: id, "x")
                remark.publish.kind = said
                try await store.enter(remark)
            }
            #expect(try await unread() == 4)
            // The first two entries of the inbox are messages.
            let entries = try await store.all(inbox("bob")).count
            _ = try await store.trim(inbox("bob"), keep: Retention(entries: entries - 2))
            #expect(try await unread() == 2)
            _ = try await store.trim(inbox("bob"), keep: Retention(entries: 0))
            #expect(try await unread() == 0)
        }
    }

    @Test("what expired is unread no more, as far as the inbox is looked at", arguments: StoreKind.allCases)
    func whatExpiredIsNotUnread(_ kind: StoreKind) async throws {
        let clock = TestClock()
        var limits = StoreLimits()
        limits.unreadEntries = 8
        try await withStore(kind, limits: limits, clock: clock) { store async throws in
            var received: [Position] = []
            for (id, life) in [(1, 0), (2, 10), (3, 0), (4, 20)] as [(PublishID, UInt64)] {
                let outcome = try await store.append(request(recipient: "bob", id: id, timeToLive: life))
                received.append(try #require(outcome.copy).position)
                try await store.enter(request("carol", recipient: "bob", id: id))
            }
            func unread(after milliseconds: UInt64) async throws -> UInt64 {
                try await item(store, "bob", direct("alice"), now: clock.now + milliseconds).unread
            }
            for (time, expected) in [(9, 4), (10, 3), (20, 2)] as [(UInt64, UInt64)] {
                #expect(try await unread(after: time) == expected, "\(time) ms later")
            }
            #expect(try await item(store, "bob", direct("carol"), now: clock.now + 20).unread == 4)
            // What was there and can't be seen any more leaves no badge when all that can be is read.
            try await read(store, "bob", direct("alice"), received[2])
            #expect(try await unread(after: 19) == 1)
            #expect(try await unread(after: 20) == 0)
            // Behind more of others' messages than are looked at it counts as before.
            for id in 5...12 as ClosedRange<PublishID> {
                try await store.enter(request("carol", recipient: "bob", id: id))
            }
            try await store.enter(request(recipient: "bob", id: 5))
            #expect(try await unread(after: 20) == 2)
        }
    }

    @Test("a room's unread messages are counted from the join on, up to a limit", arguments: StoreKind.allCases)
    func aRoomsUnreadMessagesAreCounted(_ kind: StoreKind) async throws {
        let clock = TestClock()
        try await withStore(kind, clock: clock) { store async throws in
            _ = try await store.join(room("hall"), by: device("alice"), create: true)
            try await store.enter(request(to: hall, id: 1, "before"))
            _ = try await store.join(room("hall"), by: device("bob"), create: false)
            #expect(try await item(store, "bob", hall).unread == 0)
            let second = try await store.enter(request(to: hall, id: 2)).position
            try await store.enter(request("bob", to: hall, id: 1))
            try await store.enter(request(to: hall, id: 3, timeToLive: 10))
            #expect(try await item(store, "bob", hall, now: clock.now).unread == 2)
            #expect(try await item(store, "bob", hall, now: clock.now + 10).unread == 1)
            #expect(try await read(store, "bob", hall, second)?.audience == .members)
            #expect(try await item(store, "bob", hall, now: clock.now + 10).unread == 0)
            #expect(await store.append((4...1_200).map { request(to: hall, id: $0) }).allSatisfy(\.isEntered))
            #expect(try await item(store, "bob", hall, now: clock.now + 10).unread == 1_000)
        }
    }

    @Test("a page of long rooms is counted within a bound, and short counts are right", arguments: StoreKind.allCases)
    func aPageIsCountedWithinABound(_ kind: StoreKind) async throws {
        var limits = StoreLimits()
        limits.unreadEntries = 300
        try await withStore(kind, limits: limits) { store async throws in
            for number in 0..<7 {
                let name = "r\(number)"
                _ = try await store.join(room(name), by: device("alice"), create: true)
                _ = try await store.join(room(name), by: device("bob"), create: false)
                let messages = number == 6 ? 3 : 400
                let requests = (1...PublishID(messages)).map { request(to: .room(room(name)), id: $0) }
                #expect(await store.append(requests).allSatisfy(\.isEntered))
            }
            // The latest comes first.
            let list = try await store.conversations(of: user("bob"), in: tenant, after: nil, limit: 50, now: 0)
            #expect(list.items.map(\.unread) == [3, 300, 300, 300, 297, 256, 256])
        }
    }

    @Test("many marks at once look at a bounded number of entries, and each moves", arguments: StoreKind.allCases)
    func manyMarksLookAtABoundedNumberOfEntries(_ kind: StoreKind) async throws {
        var limits = StoreLimits()
        limits.unreadEntries = 30
        try await withStore(kind, limits: limits) { store async throws in
            // Bob's inbox has 70 entries in turns of seven senders, each of whom has one behind the mark.
            let names = (0..<7).map { "u\($0)" }
            var last: Position?
            for id in 1...10 as ClosedRange<PublishID> {
                for name in names {
                    let outcome = try await store.append(request(name, recipient: "bob", id: id))
                    if id == 9 { last = outcome.copy?.position }
                }
            }
            let mark = try #require(last)
            let notes = names.map { name in
                ReadNote(
                    tenant: tenant, user: user("bob"),
                    mark: ReadMark(conversation: direct(name), position: mark, isPrivate: false))
            }
            let offsets = try await store.all(inbox("bob")).compactMap(\.entry?.offset)
            let moved = try await store.markRead(notes).map { outcome in
                outcome.map { place in offsets.count { $0 <= place.position.offset } }
            }
            // 120 entries together, and 16 of each in any case.
            #expect(moved == [30, 30, 30, 30, 16, 16, 16])
            // Of 70 they moved over 5, 5, 4, 4 and three times 2; the others are there for the next mark.
            let unread = try await list(store, "bob").items.map(\.unread)
            #expect(unread.reduce(0, +) == 46)
            let rest = try await store.markRead(Array(notes.suffix(3)))
            #expect(rest.map { $0?.position.offset }.allSatisfy { $0 == offsets[45] })
        }
    }

    @Test("both sides learn how far the other came", arguments: StoreKind.allCases)
    func bothSidesLearnHowFarTheOtherCame(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            let first = try await store.append(request(recipient: "bob", id: 1))
            try await store.enter(request("carol", recipient: "bob", id: 1))
            let second = try await store.append(request(recipient: "bob", id: 2))
            let sent = [first, second].compactMap(\.published?.position)
            let received = [first, second].compactMap(\.copy?.position)
            func bobs() async throws -> ConversationItem { try await item(store, "alice", direct("bob")) }
            #expect(try await bobs().peerDelivered == 0)
            _ = try await store.advance(
                device("bob"), to: [ChannelPosition(channel: direct("bob"), position: received[0])])
            #expect(try await bobs().peerDelivered == sent[0].offset)
            // The second device is behind the first.
            _ = try await store.advance(
                device("bob", "tablet"), to: [ChannelPosition(channel: direct("bob"), position: received[1])])
            #expect(try await bobs().peerDelivered == sent[1].offset)
            #expect(try await bobs().peerRead == 0)
            let outcome = try #require(try await read(store, "bob", direct("alice"), received[1]))
            #expect(outcome.audience == .peer(user("alice"), sent[1]) && outcome.position == received[1])
            #expect(try await bobs().peerRead == sent[1].offset)
            // Again, or further back: nothing moves, nobody is told.
            #expect(try await read(store, "bob", direct("alice"), received[1]) == nil)
            #expect(try await read(store, "bob", direct("alice"), received[0]) == nil)
        }
    }

    @Test("what went to a former user of the name does not count as arrived", arguments: StoreKind.allCases)
    func whatWentToAFormerUserDoesNotArrive(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            func bobs() async throws -> ConversationItem { try await item(store, "alice", direct("bob")) }
            func arrive(_ outcome: AppendOutcome) async throws {
                let place = try #require(outcome.copy).position
                let cursor = ChannelPosition(channel: direct("bob"), position: place)
                _ = try await store.advance(device("bob"), to: [cursor])
                _ = try await read(store, "bob", direct("alice"), place)
            }
            try await store.enter(request(recipient: "bob", id: 1))
            while !(try await store.erase(user: user("bob"), in: tenant)).isDone {}
            try await arrive(store.append(request("carol", recipient: "bob", id: 1)))
            #expect(try await bobs().peerDelivered == 0)
            #expect(try await bobs().peerRead == 0)
            // Nor where the new user writes and reads, and nobody answers but with a reaction.
            let word = try await store.append(request("bob", recipient: "alice", id: 1))
            var reaction = request(recipient: "bob", id: 2, "+1")
            reaction.publish.kind = .react(try #require(word.copy).position)
            try await arrive(store.append(reaction))
            #expect(try await bobs().peerDelivered == 0)
            #expect(try await bobs().peerRead == 0)
            let second = try await store.append(request(recipient: "bob", id: 3))
            try await arrive(second)
            #expect(try await bobs().peerDelivered == second.published?.position.offset)
            #expect(try await bobs().peerRead == second.published?.position.offset)
        }
    }

    @Test("what is read in private is nobody else's to know", arguments: StoreKind.allCases)
    func whatIsReadInPrivateIsNobodyElsesToKnow(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            let outcome = try await store.append(request(recipient: "bob", id: 1))
            let received = try #require(outcome.copy).position
            let told = try await read(store, "bob", direct("alice"), received, isPrivate: true)
            #expect(told == ReadOutcome(position: received, audience: .nobody))
            #expect(try await item(store, "bob", direct("alice")).unread == 0)
            #expect(try await item(store, "alice", direct("bob")).peerRead == 0)
            // Said openly later, it is told.
            let sent = try #require(outcome.published).position
            #expect(try await read(store, "bob", direct("alice"), received)?.audience == .peer(user("alice"), sent))
        }
    }

    @Test("a place that means nothing is ignored, and leaves nothing", arguments: StoreKind.allCases)
    func aPlaceThatMeansNothingIsIgnored(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            let sent = try await store.enter(request(recipient: "bob", id: 1)).position
            for position in [
                Position(epoch: sent.epoch &+ 1, offset: sent.offset), Position(epoch: sent.epoch, offset: 1_000),
                Position(epoch: sent.epoch, offset: 0),
            ] {
                #expect(try await read(store, "alice", direct("bob"), position) == nil, "\(position)")
            }
            #expect(try await read(store, "alice", direct("stranger"), sent) == nil)
            #expect(try await read(store, "alice", hall, sent) == nil)
            #expect(try await read(store, "nobody", direct("bob"), sent) == nil)
            #expect(try await list(store, "alice").items.count == 1)
            #expect(try await store.head(of: roomKey("hall")) == nil)
        }
    }

    @Test("members of a large room are not told what others read", arguments: StoreKind.allCases)
    func membersOfALargeRoomAreNotTold(_ kind: StoreKind) async throws {
        var limits = StoreLimits()
        limits.receiptMembers = 2
        try await withStore(kind, limits: limits) { store async throws in
            for name in ["alice", "bob", "carol"] {
                _ = try await store.join(room("hall"), by: device(name), create: true)
            }
            _ = try await store.entitlements(of: user("bob"), in: tenant)
            let sent = try await store.enter(request(to: hall, id: 1)).position
            #expect(try await read(store, "bob", hall, sent)?.audience == .nobody)
            #expect(try await item(store, "bob", hall).read == sent.offset)
        }
    }

    @Test("a room that was deleted is no conversation of those who were in it", arguments: StoreKind.allCases)
    func aRoomThatWasDeletedIsNoConversation(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            let hall = ChannelID.room(room("hall"))
            for name in ["alice", "bob"] { _ = try await store.join(room("hall"), by: device(name), create: true) }
            _ = try await store.act(room("hall"), .delete, by: device("alice"))
            let end = try #require(try await store.head(of: roomKey("hall"))).position
            _ = try await store.join(room("hall"), by: device("carol"), create: true)
            let news = try await store.enter(request("carol", to: hall, id: 1)).position
            _ = try await store.entitlements(of: user("bob"), in: tenant)
            for name in ["alice", "bob"] {
                let list = try await store.conversations(
                    of: user(name), in: tenant, after: nil, limit: 10, now: 0)
                #expect(list.items.isEmpty)
                #expect(try await store.set(.mute(until: 5), of: hall, for: user(name), in: tenant) == nil)
                // What one was entitled to may be read still, and nobody is told; nothing behind it.
                #expect(try await read(store, name, hall, news) == nil)
                let last = try await read(store, name, hall, end)
                #expect(last?.audience ?? .nobody == .nobody)
            }
            let list = try await store.conversations(of: user("carol"), in: tenant, after: nil, limit: 10, now: 0)
            #expect(list.items.map(\.conversation) == [hall])
        }
    }

    @Test("what was never set can be taken back, and leaves no conversation", arguments: StoreKind.allCases)
    func whatWasNeverSetLeavesNoConversation(_ kind: StoreKind) async throws {
        var limits = StoreLimits()
        limits.settingsPerUser = 2
        try await withStore(kind, limits: limits) { store async throws in
            func set(_ setting: ConversationSetting, _ conversation: ChannelID) async throws {
                _ = try await store.set(setting, of: conversation, for: user("alice"), in: tenant)
            }
            for number in 0..<5 {
                try await set(.mute(until: 0), direct("stranger\(number)"))
                try await set(.block(false), direct("stranger\(number)"))
            }
            #expect(try await list(store, "alice").items.isEmpty)
            // What was there for its settings goes with them; what was said stays.
            try await set(.mute(until: 7), direct("bob"))
            try await set(.block(true), direct("carol"))
            #expect(try await list(store, "alice").items.count == 2)
            try await set(.mute(until: 0), direct("bob"))
            try await set(.block(false), direct("carol"))
            #expect(try await list(store, "alice").items.isEmpty)
            try await store.enter(request(recipient: "bob", id: 1))
            try await set(.mute(until: 7), direct("bob"))
            try await set(.mute(until: 0), direct("bob"))
            #expect(try await list(store, "alice").items.map(\.conversation) == [direct("bob")])
        }
    }

    @Test(
        "a mute that is over, or of a room that was left, stands in no other setting's way",
        arguments: StoreKind.allCases)
    func voidMutesGiveWay(_ kind: StoreKind) async throws {
        var limits = StoreLimits()
        limits.settingsPerUser = 2
        let clock = TestClock()
        try await withStore(kind, limits: limits, clock: clock) { store async throws in
            func set(_ setting: ConversationSetting, _ conversation: ChannelID) async throws -> ConversationSettings? {
                try await store.set(setting, of: conversation, for: user("alice"), in: tenant)
            }
            func expectFull(_ conversation: ChannelID) async {
                await #expect { try await set(.mute(until: .max), conversation) } throws: {
                    ($0 as? StoreError)?.code == .limitExceeded
                }
            }
            _ = try await store.join(room("hall"), by: device("alice"), create: true)
            _ = try await set(.mute(until: clock.now + 10), hall)
            _ = try await set(.mute(until: clock.now + 10), direct("bob"))
            await expectFull(direct("carol"))
            clock.advance(10)
            #expect(try await set(.block(true), direct("carol"))?.isBlocked == true)
            #expect(Set(try await list(store, "alice").items.map(\.conversation)) == [direct("carol"), hall])
            #expect(try await set(.mute(until: .max), hall)?.mutedUntil == FrameLimits.maximumNumber)
            await expectFull(direct("dave"))
            _ = try await store.leave(room("hall"), by: device("alice"))
            #expect(try await set(.mute(until: .max), direct("dave")) != nil)
            #expect(try await store.settings(of: hall, for: user("alice"), in: tenant) == ConversationSettings())
            // A mute can be ended from outside of the room, and nothing else be changed there.
            _ = try await set(.mute(until: 0), direct("dave"))
            _ = try await store.join(room("hall"), by: device("alice"), create: true)
            _ = try await set(.mute(until: .max), hall)
            _ = try await store.leave(room("hall"), by: device("alice"))
            #expect(try await set(.mute(until: .max), hall) == nil)
            #expect(try await set(.mute(until: 0), hall) == ConversationSettings())
            #expect(try await set(.mute(until: 0), hall) == nil)
        }
    }

    @Test("settings are a user's, bounded, and gone with the account", arguments: StoreKind.allCases)
    func settingsAreAUsersBoundedAndGoneWithTheAccount(_ kind: StoreKind) async throws {
        var limits = StoreLimits()
        limits.settingsPerUser = 2
        try await withStore(kind, limits: limits) { store async throws in
            func set(_ setting: ConversationSetting, _ conversation: ChannelID) async throws -> ConversationSettings? {
                try await store.set(setting, of: conversation, for: user("alice"), in: tenant)
            }
            #expect(try await set(.mute(until: 5), hall) == nil, "no such room")
            #expect(try await set(.mute(until: 5), direct("alice")) == nil, "oneself")
            _ = try await store.join(room("hall"), by: device("alice"), create: true)
            #expect(try await set(.block(true), hall) == nil)
            #expect(try await set(.mute(until: .max), hall)?.mutedUntil == FrameLimits.maximumNumber)
            #expect(try await set(.block(true), direct("bob")) == ConversationSettings(isBlocked: true))
            #expect(
                try await set(.mute(until: 7), direct("bob")) == ConversationSettings(mutedUntil: 7, isBlocked: true))
            await #expect { try await set(.mute(until: 7), direct("carol")) } throws: {
                ($0 as? StoreError)?.code == .limitExceeded
            }
            #expect(try await set(.mute(until: 0), hall) == ConversationSettings())
            #expect(try await set(.mute(until: 7), direct("carol"))?.mutedUntil == 7)
            let items = try await list(store, "alice").items
            #expect(Set(items.map(\.conversation)) == [hall, direct("bob"), direct("carol")])
            #expect(items.first { $0.conversation == direct("bob") }?.settings.isBlocked == true)
            #expect(
                try await store.settings(of: direct("bob"), for: user("carol"), in: tenant) == ConversationSettings())
            while !(try await store.erase(user: user("alice"), in: tenant)).isDone {}
            #expect(try await list(store, "alice").items.isEmpty)
            #expect(
                try await store.settings(of: direct("bob"), for: user("alice"), in: tenant) == ConversationSettings())
        }
    }
}

@Suite struct ConversationStorageTests {
    @Test("conversations survive the process, and a failed transaction leaves them as they were")
    func conversationsSurviveTheProcess() async throws {
        let folder = try TemporaryFolder()
        let store = try SQLiteStore(configuration(folder.path))
        for id in 1...3 as ClosedRange<PublishID> { try await store.enter(request(recipient: "bob", id: id)) }
        _ = try await store.set(.mute(until: 9), of: .user(user("alice")), for: user("bob"), in: tenant)
        let before = try await store.conversations(of: user("bob"), in: tenant, after: nil, limit: 9, now: 0)
        #expect(before.items.map(\.unread) == [3] && before.items.first?.settings.mutedUntil == 9)
        try await store.close()
        let again = try SQLiteStore(configuration(folder.path))
        #expect(try await again.conversations(of: user("bob"), in: tenant, after: nil, limit: 9, now: 0) == before)
        try await again.enter(request(recipient: "bob", id: 4))
        let after = try await again.conversations(of: user("bob"), in: tenant, after: nil, limit: 9, now: 0)
        #expect(after.items.map(\.unread) == [4])
        try await again.close()
    }
}
