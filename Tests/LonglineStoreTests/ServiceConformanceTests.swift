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
