import LonglineTestKit
import LonglineWire
import Testing

@testable import LonglineStore

/// Owners, settings and deletion, on each store.
@Suite struct RoomRightsConformanceTests {
    private let hall = room("hall")
    private let alice = device("alice")
    private let bob = device("bob")
    private let carol = device("carol")

    private func refusal(_ outcome: RoomOutcome) -> RefusalCode? {
        if case .refused(let code) = outcome { code } else { nil }
    }

    private func owners(_ store: AnyStore) async throws -> [UserID] {
        try await store.roles(of: hall, in: tenant).filter { $0.role == .owner }.map(\.user)
    }

    @Test(
        "who joins a room without members owns it, and an owner adds and removes others", arguments: StoreKind.allCases)
    func anOwnerAddsAndRemoves(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            try await store.join(hall, by: alice, create: true)
            let added = try #require(try await store.act(hall, .add(user("bob")), by: alice).receipt)
            #expect(added.isNew && added.user == user("bob") && added.entitlement?.upTo == nil)
            #expect(added.entitlement?.after == added.position.offset - 1)
            // Nobody of bob's devices was ever seen: the membership is his all the same.
            #expect(try await store.entitlements(of: user("bob"), in: tenant).last?.channel == .room(hall))
            let again = try #require(try await store.act(hall, .add(user("bob")), by: alice).receipt)
            #expect(!again.isNew && again.position == added.position)
            try await store.enter(request("bob", to: .room(hall), id: 1))
            let removed = try #require(try await store.act(hall, .remove(user("bob")), by: alice).receipt)
            #expect(removed.entitlement?.upTo == removed.position.offset)
            #expect(try await store.append(request("bob", to: .room(hall), id: 2)).refused?.code == .unknownChannel)
            #expect(try await store.act(hall, .remove(user("bob")), by: alice).receipt?.isNew == false)
            let entries = try await store.all(roomKey("hall")).compactMap(\.entry)
            #expect(entries.map(\.kind) == [.joined, .joined, .message, .left])
            #expect(entries.map(\.sender) == [alice, alice, bob, alice].map(\.user))
            #expect(entries.map(\.member) == [alice.user, bob.user, nil, bob.user])
            #expect(try await owners(store) == [alice.user])
        }
    }

    @Test("only owners change a room, and only members learn that there is one", arguments: StoreKind.allCases)
    func onlyOwnersChangeARoom(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            try await store.join(hall, by: alice, create: true)
            try await store.join(hall, by: bob, create: true)
            let actions: [RoomAction] = [
                .add(carol.user), .remove(alice.user), .setRole(.owner, of: bob.user), .setJoining(.nobody),
                .setPublishing(.owners), .delete,
            ]
            let before = try await store.head(of: roomKey("hall"))
            for action in actions {
                #expect(refusal(try await store.act(hall, action, by: bob)) == .forbidden)
                #expect(refusal(try await store.act(hall, action, by: carol)) == .unknownChannel)
                #expect(refusal(try await store.act(room("none"), action, by: alice)) == .unknownChannel)
            }
            #expect(
                refusal(try await store.act(hall, .setRole(.owner, of: carol.user), by: alice)) == .unknownRecipient)
            #expect(refusal(try await store.act(hall, .setRole(.member, of: alice.user), by: alice)) == .forbidden)
            #expect(try await store.head(of: roomKey("hall")) == before)
            #expect(try await store.members(of: hall, in: tenant, for: carol.user, after: nil, limit: 9) == nil)
            #expect(try await store.members(of: hall, in: tenant, for: bob.user, after: nil, limit: 9)?.total == 2)
        }
    }

    @Test("the last owner's end makes the oldest member one", arguments: StoreKind.allCases)
    func theOldestMemberInherits(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            // By age zoe is the older, by name bob would be the first.
            for name in ["alice", "zoe", "bob"] { try await store.join(hall, by: device(name), create: true) }
            let left = try #require(try await store.change(hall, .leave, by: alice).receipt)
            #expect(left.head.offset > left.position.offset)
            #expect(try await owners(store) == [user("zoe")])
            let last = try #require(try await store.all(roomKey("hall")).compactMap(\.entry).last)
            #expect(last.change == .setRole(.owner, of: user("zoe")) && last.sender == alice.user)
            // One of two owners who leaves is missed by nobody.
            _ = try await store.act(hall, .setRole(.owner, of: bob.user), by: device("zoe"))
            #expect(try await owners(store) == [bob.user, user("zoe")])
            let second = try #require(try await store.leave(hall, by: device("zoe")))
            #expect(try await store.head(of: roomKey("hall"))?.position == second)
            #expect(try await owners(store) == [bob.user])
            // An owner who comes again is a member.
            try await store.join(hall, by: device("zoe"), create: true)
            #expect(try await owners(store) == [bob.user])
            _ = try await store.erase(user: bob.user, in: tenant)
            #expect(try await owners(store) == [user("zoe")])
        }
    }

    @Test("the settings say who joins and who publishes, until nobody is left", arguments: StoreKind.allCases)
    func settingsCount(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            try await store.join(hall, by: alice, create: true)
            try await store.join(hall, by: bob, create: true)
            try await store.enter(request("bob", to: .room(hall), id: 1))
            #expect(try await store.act(hall, .setPublishing(.owners), by: alice).receipt?.isNew == true)
            #expect(try await store.act(hall, .setPublishing(.owners), by: alice).receipt?.isNew == false)
            #expect(try await store.append(request("bob", to: .room(hall), id: 2)).refused?.code == .forbidden)
            #expect(
                try await store.append(request("bob", to: .room(hall), id: 9, after: 8)).refused?.code == .forbidden)
            // What was entered before gets its acknowledgement again.
            #expect(try await store.append(request("bob", to: .room(hall), id: 1)).published != nil)
            try await store.enter(request("alice", to: .room(hall), id: 1))

            _ = try await store.act(hall, .setJoining(.byOwners), by: alice)
            #expect(refusal(try await store.change(hall, .join(create: true), by: carol)) == .forbidden)
            #expect(try await store.join(hall, by: bob, create: true) != nil, "a member joins again")
            #expect(try await store.act(hall, .add(carol.user), by: alice).receipt?.isNew == true)
            _ = try await store.leave(hall, by: carol)
            _ = try await store.act(hall, .setJoining(.nobody), by: alice)
            #expect(refusal(try await store.act(hall, .add(carol.user), by: alice)) == .forbidden)

            for device in [alice, bob] { _ = try await store.leave(hall, by: device) }
            // Who comes into an empty room finds it as if it were new.
            try await store.join(hall, by: carol, create: true)
            #expect(try await owners(store) == [carol.user])
            try await store.join(hall, by: bob, create: true)
            try await store.enter(request("bob", to: .room(hall), id: 2))
        }
    }

    @Test(
        "a member takes back what it wrote where only owners publish by now, and does nothing else",
        arguments: StoreKind.allCases)
    func membersTakeBackWhereOnlyOwnersPublish(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            for device in [alice, bob] { try await store.join(hall, by: device, create: true) }
            let owners = try await store.enter(request("alice", to: .room(hall), id: 1, "rules")).position
            let members = try await store.enter(request("bob", to: .room(hall), id: 1, "secret")).position
            _ = try await store.act(hall, .setPublishing(.owners), by: alice)
            func publish(_ kind: PublishKind) async throws -> AppendOutcome {
                var made = request("bob", to: .room(hall), id: 2, after: 1, "x")
                made.publish.kind = kind
                return try await store.append(made)
            }
            for kind in [PublishKind.message, .edit(members), .react(owners)] {
                #expect(try await publish(kind).refused?.code == .forbidden)
            }
            #expect(try await publish(.retract(owners)).refused?.code == .invalidTarget)
            #expect(try await publish(.retract(members)).isEntered)
            let texts = try await store.all(ChannelKey(tenant: tenant, channel: .room(hall))).map(\.text)
            #expect(texts.contains("<retracted>") && !texts.contains("secret"))
            // Who is no member any more takes nothing back.
            let other = try await store.enter(request("alice", to: .room(hall), id: 2)).position
            _ = try await store.leave(hall, by: bob)
            #expect(try await publish(.retract(other)).published != nil, "what was entered is acknowledged")
            var late = request("bob", to: .room(hall), id: 3, "x")
            late.publish.kind = .retract(other)
            #expect(try await store.append(late).refused?.code == .unknownChannel)
        }
    }

    @Test(
        "a join and a page of members tell the settings, the own role and the place that they are of",
        arguments: StoreKind.allCases)
    func settingsAreToldWithTheirPlace(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            func join(_ device: DeviceKey) async throws -> RoomReceipt {
                try #require(try await store.change(hall, .join(create: true), by: device).receipt)
            }
            func act(_ action: RoomAction) async throws -> RoomReceipt {
                try #require(try await store.act(hall, action, by: alice).receipt)
            }
            func settings(_ place: Position, _ joining: RoomJoining, _ publishing: RoomPublishing, _ role: RoomRole)
                -> RoomSettings
            {
                RoomSettings(room: hall, position: place, joining: joining, publishing: publishing, role: role)
            }
            let made = try await join(alice)
            #expect(made.settings == settings(made.position, .anyone, .members, .owner))
            #expect(try await act(.setPublishing(.owners)).settings == nil, "about no user")
            let joined = try await join(bob)
            #expect(joined.settings == settings(joined.position, .anyone, .owners, .member))
            #expect(made.settings?.mayPublish == true && joined.settings?.mayPublish == false)
            let limited = try await act(.setJoining(.byOwners))
            let again = try await join(bob)
            #expect(again.position == joined.position)
            #expect(again.settings == settings(limited.position, .byOwners, .owners, .member))

            let promoted = try await act(.setRole(.owner, of: bob.user))
            for reader in [bob.user, nil] {
                let list = try #require(
                    try await store.members(of: hall, in: tenant, for: reader, after: nil, limit: 1))
                #expect(list.joining == .byOwners && list.publishing == .owners && list.head == promoted.position)
                let told = reader == nil ? nil : settings(promoted.position, .byOwners, .owners, .owner)
                #expect(list.settings == told)
            }
            #expect(try await store.change(hall, .leave, by: bob).receipt?.settings == nil)
            let added = try await act(.add(bob.user))
            #expect(added.settings == settings(added.position, .byOwners, .owners, .member))
            let appointed = try #require(try await store.change(hall, .appoint(.owner), by: carol).receipt)
            #expect(appointed.head.offset > appointed.position.offset)
            #expect(appointed.settings == settings(appointed.head, .byOwners, .owners, .owner))
            #expect(try await act(.delete).settings == nil)
            let remade = try await join(bob)
            #expect(remade.settings == settings(remade.position, .anyone, .members, .owner))
        }
    }

    @Test("a deletion ends every stay with one entry, and the room can be made again", arguments: StoreKind.allCases)
    func deletionEndsEveryStay(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            for name in ["alice", "bob", "carol"] { try await store.join(hall, by: device(name), create: true) }
            let deleted = try #require(try await store.act(hall, .delete, by: alice).receipt)
            #expect(deleted.isDeleted && deleted.head == deleted.position)
            #expect(try await store.members(of: hall, in: tenant, for: nil, after: nil, limit: 9)?.total == 0)
            #expect(try await store.roles(of: hall, in: tenant).isEmpty)
            for name in ["alice", "bob", "carol"] {
                let range = try #require(try await store.entitlements(of: user(name), in: tenant).last)
                #expect(range.upTo == deleted.position.offset)
                #expect(try await store.append(request(name, to: .room(hall), id: 1)).refused?.code == .unknownChannel)
                #expect(try await store.leave(hall, by: device(name)) == nil)
            }
            #expect(refusal(try await store.act(hall, .add(bob.user), by: alice)) == .unknownChannel)

            try await store.join(hall, by: bob, create: true)
            #expect(try await owners(store) == [bob.user])
            try await store.enter(request("bob", to: .room(hall), id: 1))
            let old = try #require(try await store.entitlements(of: alice.user, in: tenant).last)
            #expect(old.upTo == deleted.position.offset && old.head.position.offset > deleted.position.offset)
            let new = try #require(try await store.entitlements(of: bob.user, in: tenant).last)
            #expect(new.upTo == nil && new.after == deleted.position.offset)
            // Of those from before the deletion none inherits.
            _ = try await store.leave(hall, by: bob)
            #expect(try await store.roles(of: hall, in: tenant).isEmpty)
        }
    }

    @Test(
        "of what is made behind a deletion those before it get nothing, also when it is deleted again",
        arguments: StoreKind.allCases)
    func aSecondDeletionReopensNothing(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            var ends: [Offset] = []
            // Bob stays in the first life of the room, carol in the second; alice is in all of them.
            for life in [[alice, bob], [alice, carol], [alice], [alice]] {
                for device in life { try await store.join(hall, by: device, create: true) }
                let id = UInt64(ends.count + 1)
                try await store.enter(request("alice", to: .room(hall), id: id))
                let deleted = try #require(try await store.act(hall, .delete, by: alice).receipt)
                ends.append(deleted.position.offset)
                for (device, end) in [(bob, ends[0]), (carol, ends.count > 1 ? ends[1] : nil), (alice, ends.last)] {
                    guard let end else { continue }
                    let range = try #require(try await store.entitlements(of: device.user, in: tenant).last)
                    #expect(range.upTo == end, "\(device.user) in life \(ends.count)")
                }
            }
        }
    }

    @Test("a room of many is paged in the order of its names", arguments: StoreKind.allCases)
    func membersArePaged(_ kind: StoreKind) async throws {
        var limits = StoreLimits()
        limits.roomMembers = 300
        try await withStore(kind, limits: limits) { store async throws in
            let names = (0..<300).map { "\($0 % 2 == 0 ? "m" : "M")\($0)" }
            for name in names { try await store.join(hall, by: device(name), create: true) }
            #expect(refusal(try await store.act(hall, .add(alice.user), by: device(names[0]))) == .roomFull)
            var found: [String] = []
            while let page = try await store.members(
                of: hall, in: tenant, for: user("m0"), after: found.last.map(user), limit: 100)
            {
                #expect(page.total == 300 && page.members.count == 100)
                found += page.members.map(\.user.description)
                if !page.more { break }
            }
            #expect(found == names.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) })
        }
    }

    @Test("a room from before there were owners belongs to its oldest member")
    func oldRoomsGetAnOwner() async throws {
        let folder = try TemporaryFolder()
        try SQLiteFixture.schemaOne(
            folder.path,
            [
                "UPDATE store SET sequence = 9",
                "INSERT INTO channels (id, tenant, name, epoch, head, members) VALUES (1, 'acme', 'room/hall', 5, 9, 2)",
                "INSERT INTO stints VALUES ('acme', 'alice', 1, 3, 4, NULL), ('acme', 'bob', 1, 1, 2, NULL)",
                "INSERT INTO stints VALUES ('acme', 'carol', 1, 0, 1, 3)",
            ])
        let store = try SQLiteStore(configuration(folder.path))
        #expect(try await owners(store) == [bob.user])
        #expect(try await store.roles(of: hall, in: tenant).map(\.user) == [alice.user, bob.user])
        #expect(try await store.act(hall, .setPublishing(.owners), by: bob).receipt != nil)
        try await store.close()
    }

    @Test("members of a room that was deleted before its lives had names are those of the last one")
    func oldLives() async throws {
        let folder = try TemporaryFolder()
        try SQLiteFixture.schema(
            "channels that are gone", folder.path,
            [
                "UPDATE store SET sequence = 9",
                """
                INSERT INTO channels (id, tenant, name, epoch, head, members, owners, deleted) VALUES
                    (1, 'acme', 'room/hall', 5, 9, 2, 1, 5), (2, 'acme', 'room/attic', 5, 8, 1, 1, 0),
                    (3, 'acme', 'room/cellar', 5, 7, 0, 0, 7)
                """,
                "INSERT INTO deletions VALUES (1, 5), (3, 7)",
                """
                INSERT INTO stints (tenant, user, room, after, joined, role) VALUES ('acme', 'alice', 1, 5, 6, 1),
                    ('acme', 'bob', 1, 1, 2, 0), ('acme', 'carol', 1, 6, 9, 0), ('acme', 'dave', 2, 0, 8, 1),
                    ('acme', 'erin', 3, 0, 3, 0)
                """,
            ])
        let store = try SQLiteStore(configuration(folder.path))
        let carol = device("carol")
        #expect(try await store.roles(of: hall, in: tenant).map(\.user) == [alice.user, carol.user])
        #expect(try await store.roles(of: room("attic"), in: tenant).map(\.user) == [user("dave")])
        #expect(try await store.roles(of: room("cellar"), in: tenant).isEmpty)
        try await store.join(hall, by: bob, create: false)
        _ = try #require(try await store.act(hall, .setRole(.owner, of: carol.user), by: alice).receipt)
        #expect(try await store.roles(of: hall, in: tenant).map(\.user) == [alice.user, bob.user, carol.user])
        #expect(try await owners(store) == [alice.user, carol.user])
        try await store.close()
    }
}
