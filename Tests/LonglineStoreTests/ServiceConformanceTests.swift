import LonglineStore
import LonglineWire
import Testing

/// What the app's own server does, whatever rooms' settings say.
@Suite struct ServiceConformanceTests {
    private func published(_ id: PublishID, _ text: String, to channel: ChannelID) -> AppendRequest {
        var publish = request("app", to: channel, id: id, text)
        publish.isService = true
        return publish
    }

    @Test(
        "publishes into rooms that it is no member of, but not into those that don't exist",
        arguments: StoreKind.allCases)
    func publishes(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            let none = try await store.append(published(1, "x", to: .room(room("r"))))
            #expect(none == .refused(Refused(id: 1, code: .unknownChannel)))
            _ = try await store.join(room("r"), by: device("alice"), create: true)
            _ = try await store.act(room("r"), .setPublishing(.owners), by: device("alice"))
            try await store.enter(published(1, "hello", to: .room(room("r"))))
            // Anybody else is held to the rules, and a repetition makes no second entry.
            let refused = try await store.append(request("bob", to: .room(room("r")), id: 1, "no"))
            #expect(refused == .refused(Refused(id: 1, code: .unknownChannel)))
            guard case .duplicate = try await store.append(published(1, "hello", to: .room(room("r")))) else {
                Issue.record("a second entry")
                return
            }
            let texts = try await store.all(roomKey("r")).map(\.text)
            #expect(texts.filter { $0 == "hello" }.count == 1)
        }
    }

    private func retraction(
        of target: Position, by sender: String = "app", to channel: ChannelID? = nil, recipient: String? = nil,
        id: PublishID
    ) -> AppendRequest {
        var made = request(sender, to: channel, recipient: recipient, id: id, after: 0, "rules")
        made.publish.kind = .retract(target)
        made.isService = true
        return made
    }

    @Test("retracts what others wrote into a room that it is no member of, once", arguments: StoreKind.allCases)
    func retracts(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            let hall = ChannelID.room(room("r"))
            for name in ["alice", "bob"] { try await store.join(room("r"), by: device(name), create: true) }
            let said = try await store.enter(request("alice", to: hall, id: 1, "rude")).position
            // Who is no owner may not, nor may a stranger.
            for (name, code) in [("bob", RefusalCode.invalidTarget), ("carol", .unknownChannel)] {
                var other = retraction(of: said, by: name, to: hall, id: 1)
                other.isService = false
                #expect(try await store.append(other) == .refused(Refused(id: 1, code: code)))
            }
            try await store.enter(retraction(of: said, to: hall, id: 1))
            let again = try await store.append(retraction(of: said, to: hall, id: 2))
            #expect(again == .refused(Refused(id: 2, code: .unknownTarget)))
            let log = try await store.all(roomKey("r"))
            #expect(!log.contains { $0.text == "rude" })
            let last = log.compactMap(\.entry).last
            #expect(last?.kind == .retracted && last?.target == said.offset && last?.sender == user("app"))
            // An edit stays its author's affair.
            var edit = retraction(of: said, to: hall, id: 3)
            let kept = try await store.enter(request("alice", to: hall, id: 2, "kind")).position
            edit.publish.kind = .edit(kept)
            #expect(try await store.append(edit).refused?.code == .unknownTarget)
        }
    }

    @Test(
        "retracts a direct message from both inboxes, whoever blocked the other meanwhile",
        arguments: StoreKind.allCases, [("alice", "bob"), ("bob", "alice")])
    func retractsBetweenBlocked(_ kind: StoreKind, _ block: (by: String, of: String)) async throws {
        try await withStore(kind) { store async throws in
            let record = try await store.append(request("alice", recipient: "bob", id: 1, "rude"))
            let (sent, copy) = (try #require(record.published).position, try #require(record.copy).position)
            _ = try await store.set(.block(true), of: .user(user(block.of)), for: user(block.by), in: tenant)
            try await store.enter(retraction(of: sent, by: "alice", recipient: "bob", id: 2))
            for (name, place) in [("alice", sent), ("bob", copy)] {
                let log = try await store.all(inbox(name))
                #expect(log.map(\.text) == ["<retracted>", "retracted"], "\(name)")
                #expect(log.compactMap(\.entry).last?.target == place.offset, "\(name)")
            }
        }
    }

    @Test("appoints members and owners where nobody may join", arguments: StoreKind.allCases)
    func appoints(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            func appoint(_ name: String, _ role: RoomRole?) async throws -> RoomOutcome {
                try await store.change(room("r"), .appoint(role), by: device(name))
            }
            let made = try #require(try await appoint("alice", nil).receipt)
            #expect(made.isNew && made.user == user("alice") && made.entitlement?.upTo == nil)
            _ = try await store.act(room("r"), .setJoining(.nobody), by: device("alice"))
            #expect(try await store.change(room("r"), .join(create: true), by: device("bob")) == .refused(.forbidden))
            #expect(try await appoint("bob", .member).receipt?.isNew == true)
            #expect(try await appoint("bob", .member).receipt?.isNew == false)
            let carol = try #require(try await appoint("carol", .owner).receipt)
            #expect(carol.head.offset > carol.position.offset && carol.user == user("carol"))
            #expect(try await appoint("bob", .owner).receipt?.isNew == true)
            #expect(
                try await store.roles(of: room("r"), in: tenant)
                    == ["alice", "bob", "carol"].map { RoomMember(user: user($0), role: .owner) })
            for name in ["alice", "bob"] { #expect(try await appoint(name, .member).receipt?.isNew == true) }
            #expect(try await appoint("carol", .member) == .refused(.forbidden))
        }
    }

    @Test("who is not appointed, as the room is full, keeps what is left of other rooms", arguments: StoreKind.allCases)
    func appointsNobodyInAFullRoom(_ kind: StoreKind) async throws {
        var limits = StoreLimits()
        limits.roomMembers = 1
        limits.roomsPerUser = 1
        try await withStore(kind, limits: limits) { store async throws in
            try await store.join(room("full"), by: device("alice"), create: true)
            try await store.join(room("left"), by: device("bob"), create: true)
            try await store.leave(room("left"), by: device("bob"))
            let before = try await store.entitlements(of: user("bob"), in: tenant)
            #expect(before.map(\.channel) == [.user(user("bob")), .room(room("left"))])
            let bob = device("bob")
            #expect(try await store.change(room("full"), .appoint(.owner), by: bob) == .refused(.roomFull))
            #expect(try await store.entitlements(of: user("bob"), in: tenant) == before)
            // Where there is room, the one left longest ago gives way.
            #expect(try await store.change(room("new"), .appoint(nil), by: bob).receipt?.isNew == true)
            let after = try await store.entitlements(of: user("bob"), in: tenant).map(\.channel)
            #expect(after == [.user(user("bob")), .room(room("new"))])
        }
    }

    @Test("dissolves a room that it is no member of, once", arguments: StoreKind.allCases)
    func dissolves(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            let app = device("app")
            #expect(try await store.change(room("r"), .dissolve, by: app) == .refused(.unknownChannel))
            for name in ["alice", "bob"] { try await store.join(room("r"), by: device(name), create: true) }
            _ = try await store.act(room("r"), .setPublishing(.owners), by: device("alice"))
            let page = try await store.members(of: room("r"), in: tenant, for: nil, after: nil, limit: 9)
            #expect(page?.joining == .anyone && page?.publishing == .owners)
            let gone = try #require(try await store.change(room("r"), .dissolve, by: app).receipt)
            #expect(gone.isNew && gone.isDeleted && gone.head == gone.position)
            #expect(try await store.roles(of: room("r"), in: tenant).isEmpty)
            let last = try await store.all(roomKey("r")).compactMap(\.entry).last
            #expect(last?.change == .delete && last?.sender == app.user)
            let again = try #require(try await store.change(room("r"), .dissolve, by: app).receipt)
            #expect(!again.isNew && !again.isDeleted && again.head == gone.head)
        }
    }
}
