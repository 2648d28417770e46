import LonglineStore
import LonglineWire
import NIOCore
import Testing

/// Blocks.
extension ConversationConformanceTests {
    @Test("an offset does not tell of a block", arguments: StoreKind.allCases)
    func anOffsetDoesNotTellOfABlock(_ kind: StoreKind) async throws {
        func steps(blocked: Bool) async throws -> [Offset] {
            var steps: [Offset] = []
            try await withStore(kind) { store async throws in
                _ = try await store.entitlements(of: user("bob"), in: tenant)
                _ = try await store.set(.block(blocked), of: direct("alice"), for: user("bob"), in: tenant)
                var reaction = request(recipient: "bob", id: 3, "x")
                let outcomes = await store.append([request(recipient: "bob", id: 1), request(recipient: "bob", id: 2)])
                let places = outcomes.compactMap { $0.published?.position }
                reaction.publish.kind = .react(try #require(places.last))
                let last = try #require(try await store.append(reaction).published?.position)
                let note = try await store.enter(request(id: 4)).position
                steps = (places + [last, note]).map(\.offset)
            }
            return steps
        }
        let free = try await steps(blocked: false)
        #expect(free.count == 4)
        #expect(try await steps(blocked: true) == free)
    }

    @Test("who is blocked sees what they sent, and nothing of the other side", arguments: StoreKind.allCases)
    func whoIsBlockedSeesNothingOfTheOtherSide(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            let before = try await store.append(request(recipient: "bob", id: 1, "before"))
            let received = try #require(before.copy).position
            let settings = try await store.set(.block(true), of: direct("alice"), for: user("bob"), in: tenant)
            #expect(settings == ConversationSettings(isBlocked: true))
            #expect(try await store.settings(of: direct("alice"), for: user("bob"), in: tenant).isBlocked)
            // Entered, acknowledged, and without a copy.
            let during = try await store.append(request(recipient: "bob", id: 2, "during"))
            #expect(during.isEntered && during.copy == nil)
            #expect(try await store.all(inbox("alice")).map(\.text) == ["before", "during"])
            #expect(try await store.all(inbox("bob")).map(\.text) == ["before"])
            // What was there stays as it was.
            var edit = request(recipient: "bob", id: 3, "else")
            edit.publish.kind = .edit(try #require(before.published).position)
            #expect(try await store.append(edit).copy == nil)
            #expect(try await store.all(inbox("bob")).map(\.text) == ["before"])
            // No receipts, either way; and what never arrived is never delivered, whatever else arrives.
            try await store.enter(request("carol", recipient: "bob", id: 1))
            let head = try #require(try await store.head(of: inbox("bob"))).position
            _ = try await store.advance(device("bob"), to: [ChannelPosition(channel: direct("bob"), position: head)])
            #expect(try await read(store, "bob", direct("alice"), received)?.audience == .nobody)
            let alices = try await item(store, "alice", direct("bob"))
            #expect(alices.peerDelivered < (try #require(during.published)).position.offset && alices.peerRead == 0)
            let note = DeliveryNote(
                tenant: tenant, recipient: user("bob"), sender: user("alice"),
                origin: try #require(before.published).position)
            #expect(try await store.receipts(for: [note]) == [nil])
            // The two are out of touch, whoever asks; a third is not.
            for (one, other) in [("alice", "bob"), ("bob", "alice")] {
                let others = [user(other), user("carol"), user("nobody")]
                #expect(try await store.outOfTouch(user(one), with: others, in: tenant) == [user(other)])
            }
            // The one who blocks does not write either.
            #expect(try await store.append(request("bob", recipient: "alice", id: 1)).refused?.code == .blocked)
            _ = try await store.set(.block(false), of: direct("alice"), for: user("bob"), in: tenant)
            #expect(try await store.append(request(recipient: "bob", id: 4, "after")).copy != nil)
            #expect(try await store.all(inbox("bob")).map(\.text) == ["before", "hello", "after"])
            #expect(try await store.receipts(for: [note]) == [note])
            #expect(try await store.outOfTouch(user("alice"), with: [user("bob")], in: tenant).isEmpty)
        }
    }

    @Test(
        "who takes an erased user's name hears nothing of where that one's messages got",
        arguments: StoreKind.allCases)
    func whoTakesAnErasedUsersNameHearsNothing(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            func note(_ sent: AppendOutcome) throws -> DeliveryNote {
                DeliveryNote(
                    tenant: tenant, recipient: user("bob"), sender: user("alice"),
                    origin: try #require(sent.published).position)
            }
            let former = try note(try await store.append(request(recipient: "bob", id: 1, "former")))
            #expect(try await store.receipts(for: [former]) == [former])
            while !(try await store.erase(user: user("alice"), in: tenant)).isDone {}
            #expect(try await store.receipts(for: [former]) == [nil], "nobody is there")
            let present = try note(try await store.append(request(recipient: "bob", id: 1, "present")))
            #expect(try await store.receipts(for: [former, present]) == [nil, present])
            // A copy from before a restore names the epoch of then.
            var restored = present
            restored.origin.epoch &+= 1
            #expect(try await store.receipts(for: [restored]) == [present])
        }
    }

    @Test("who is blocked takes back what had arrived, without a word", arguments: StoreKind.allCases)
    func whoIsBlockedTakesBackWhatHadArrived(_ kind: StoreKind) async throws {
        let clock = TestClock()
        try await withStore(kind, clock: clock) { store async throws in
            let arrived = try await store.append(request(recipient: "bob", id: 1, "arrived"))
            clock.advance(10)
            try await store.enter(request("carol", recipient: "bob", id: 1, "other"))
            clock.advance(10)
            _ = try await store.set(.block(true), of: direct("alice"), for: user("bob"), in: tenant)
            let withheld = try await store.enter(request(recipient: "bob", id: 2, "withheld")).position
            func retract(_ position: Position, id: PublishID) async throws -> AppendOutcome {
                var retraction = request(recipient: "bob", id: id, "a reason")
                retraction.publish.kind = .retract(position)
                return try await store.append(retraction)
            }
            #expect(try await retract(withheld, id: 3).copy == nil, "it was never there")
            let sent = try #require(arrived.published).position
            #expect(try await retract(sent, id: 4).copy?.isOutOfTouch == true)
            #expect(arrived.copy?.isOutOfTouch == false)
            let log = try await store.all(inbox("bob"))
            #expect(log.map(\.text) == ["<retracted>", "other", "retracted"])
            let last = log.compactMap(\.entry).last
            #expect(last?.target == arrived.copy?.position.offset && last?.payload.readableBytes == 0)
            let items = try await list(store, "bob").items
            #expect(items.map(\.conversation) == [direct("carol"), direct("alice")])
            #expect(items.map(\.unread) == [1, 0])
        }
    }

    @Test("who blocks takes back what it had sent, without a word", arguments: StoreKind.allCases)
    func whoBlocksTakesBackWhatItHadSent(_ kind: StoreKind) async throws {
        let clock = TestClock()
        try await withStore(kind, clock: clock) { store async throws in
            let sent = try await store.append(request("bob", recipient: "alice", id: 1, "secret"))
            let record = try #require(sent.published).position
            clock.advance(10)
            try await store.enter(request("carol", recipient: "alice", id: 1, "other"))
            clock.advance(10)
            _ = try await store.set(.block(true), of: direct("alice"), for: user("bob"), in: tenant)
            func remark(_ kind: PublishKind) async throws -> AppendOutcome {
                var made = request("bob", recipient: "alice", id: 2, "a reason")
                made.publish.kind = kind
                return try await store.append(made)
            }
            for kind in [PublishKind.message, .edit(record), .react(record)] {
                #expect(try await remark(kind).refused?.code == .blocked)
            }
            #expect(try await remark(.retract(record)).copy?.isOutOfTouch == true)
            #expect(try await store.all(inbox("bob")).map(\.text) == ["<retracted>", "retracted"])
            let log = try await store.all(inbox("alice"))
            #expect(log.map(\.text) == ["<retracted>", "other", "retracted"])
            let last = log.compactMap(\.entry).last
            #expect(last?.target == sent.copy?.position.offset && last?.payload.readableBytes == 0)
            let items = try await list(store, "alice").items
            #expect(items.map(\.conversation) == [direct("carol"), direct("bob")])
            #expect(items.map(\.unread) == [1, 0])
        }
    }
}
