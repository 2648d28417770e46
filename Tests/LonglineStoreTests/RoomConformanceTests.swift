import LonglineStore
import LonglineWire
import Testing

@Suite struct RoomConformanceTests {
    @Test("joins and leaves are entries, and entitlement is the range between", arguments: StoreKind.allCases)
    func joinsAndLeavesAreEntriesAndEntitlementIsTheRangeBetween(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            #expect(try await store.join(room("r"), by: device("alice"), create: false) == nil)
            let made = try #require(try await store.join(room("r"), by: device("alice"), create: true))
            let before = try await store.enter(request(to: .room(room("r")), id: 1, "before"))
            let joined = try #require(try await store.join(room("r"), by: device("bob"), create: false))
            try await store.enter(request(to: .room(room("r")), id: 2, "during"))
            #expect(try await store.members(of: room("r"), in: tenant) == [user("alice"), user("bob")])
            let left = try #require(try await store.leave(room("r"), by: device("bob")))
            try await store.enter(request(to: .room(room("r")), id: 3, "after"))
            #expect(try await store.members(of: room("r"), in: tenant) == [user("alice")])

            let range = try #require(try await store.entitlements(of: user("bob"), in: tenant).last)
            #expect(range.channel == .room(room("r")))
            #expect(range.after == before.position.offset && range.upTo == left.offset)
            #expect(range.head.position.offset > left.offset && range.head.position.epoch == made.epoch)
            let items = try await store.all(roomKey("r"), after: range.after, upTo: range.upTo)
            #expect(items.map(\.text) == ["joined", "during", "left"])
            #expect(items.first?.end == joined.offset)
            #expect(items.first?.entry?.sender == user("bob"))
            let alice = try await store.entitlements(of: user("alice"), in: tenant)
            #expect(alice.map(\.channel) == [.user(user("alice")), .room(room("r"))])
            #expect(alice.map(\.after) == [0, 0] && alice.map(\.upTo) == [nil, nil])
        }
    }

    @Test("joining twice is one join, and leaving twice one leave", arguments: StoreKind.allCases)
    func joiningTwiceIsOneJoinAndLeavingTwiceOneLeave(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            let first = try await store.join(room("r"), by: device("alice"), create: true)
            #expect(try await store.join(room("r"), by: device("alice", "tablet"), create: true) == first)
            #expect(try await store.leave(room("r"), by: device("bob")) == nil)
            #expect(try await store.leave(room("r"), by: device("alice")) != nil)
            #expect(try await store.leave(room("r"), by: device("alice")) == nil)
            #expect(try await store.leave(room("none"), by: device("alice")) == nil)
            #expect(try await store.all(roomKey("r")).map(\.text) == ["joined", "left"])
        }
    }

    @Test("the last stint counts", arguments: StoreKind.allCases)
    func theLastStintCounts(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            _ = try await store.join(room("r"), by: device("alice"), create: true)
            let left = try #require(try await store.leave(room("r"), by: device("alice")))
            let again = try #require(try await store.join(room("r"), by: device("alice"), create: false))
            let range = try #require(try await store.entitlements(of: user("alice"), in: tenant).last)
            #expect(range.after == left.offset && range.upTo == nil)
            #expect(again.offset > left.offset)
            #expect(try await store.members(of: room("r"), in: tenant) == [user("alice")])
            try await store.enter(request(to: .room(room("r")), id: 1))
        }
    }

    @Test("who left may not publish, but still gets old answers", arguments: StoreKind.allCases)
    func whoLeftMayNotPublishButStillGetsOldAnswers(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            _ = try await store.join(room("r"), by: device("alice"), create: true)
            let published = try await store.enter(request(to: .room(room("r")), id: 1))
            _ = try await store.leave(room("r"), by: device("alice"))
            #expect(try await store.append(request(to: .room(room("r")), id: 2)).refused?.code == .unknownChannel)
            #expect(try await store.append(request(to: .room(room("r")), id: 1)) == .duplicate(published))
        }
    }

    @Test("a room and a user have their limits", arguments: StoreKind.allCases)
    func aRoomAndAUserHaveTheirLimits(_ kind: StoreKind) async throws {
        var limits = StoreLimits()
        limits.roomMembers = 2
        limits.roomsPerUser = 2
        try await withStore(kind, limits: limits) { store async throws in
            for name in ["alice", "bob"] { _ = try await store.join(room("r"), by: device(name), create: true) }
            let full = await #expect(throws: Refusal.self) {
                try await store.join(room("r"), by: device("carol"), create: true)
            }
            #expect(full?.code == .roomFull)
            _ = try await store.leave(room("r"), by: device("bob"))
            #expect(try await store.join(room("r"), by: device("carol"), create: true) != nil)
            // alice is in r; two rooms are the most, and a room she left gives way.
            _ = try await store.join(room("s"), by: device("alice"), create: true)
            let tooMany = await #expect(throws: Refusal.self) {
                try await store.join(room("t"), by: device("alice"), create: true)
            }
            #expect(tooMany?.code == .limitReached)
            #expect(try await store.head(of: roomKey("t")) == nil)
            _ = try await store.leave(room("s"), by: device("alice"))
            #expect(try await store.join(room("t"), by: device("alice"), create: true) != nil)
            let channels = try await store.entitlements(of: user("alice"), in: tenant).map(\.channel)
            #expect(channels == [.user(user("alice")), .room(room("r")), .room(room("t"))])
        }
    }

    @Test("others add a user to some rooms only, and who is blocked to none", arguments: StoreKind.allCases)
    func othersAddAUserToSomeRoomsOnly(_ kind: StoreKind) async throws {
        var limits = StoreLimits()
        limits.roomsPerUser = 5
        limits.roomsWhenAdded = 2
        try await withStore(kind, limits: limits) { store async throws in
            for name in ["a", "b", "c", "d"] {
                _ = try await store.join(room(name), by: device("alice"), create: true)
            }
            func add(_ name: String) async throws -> RoomOutcome {
                try await store.act(room(name), .add(user("bob")), by: device("alice"))
            }
            for name in ["a", "b"] { #expect(try await add(name).receipt?.isNew == true) }
            #expect(try await add("c") == .refused(.limitReached))
            // What is so already stays, and one's own joins have room.
            #expect(try await add("a").receipt?.isNew == false)
            for name in ["c", "d", "e"] {
                #expect(try await store.join(room(name), by: device("bob"), create: true) != nil)
            }
            for name in ["a", "b", "c", "d", "e"] { _ = try await store.leave(room(name), by: device("bob")) }
            #expect(try await add("c").receipt?.isNew == true)
            _ = try await store.leave(room("c"), by: device("bob"))
            let alice = ChannelID.user(user("alice"))
            _ = try await store.entitlements(of: user("bob"), in: tenant)
            _ = try await store.set(.block(true), of: alice, for: user("bob"), in: tenant)
            #expect(try await add("c") == .refused(.limitReached))
            #expect(try await store.members(of: room("c"), in: tenant) == [user("alice")])
            _ = try await store.set(.block(false), of: alice, for: user("bob"), in: tenant)
            #expect(try await add("c").receipt?.isNew == true)
        }
    }

    @Test("nothing crosses from one tenant to another", arguments: StoreKind.allCases)
    func nothingCrossesFromOneTenantToAnother(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            let other = try TenantID("other")
            _ = try await store.join(room("r"), by: device("alice"), create: true)
            try await store.enter(request(recipient: "bob", id: 1))
            #expect(try await store.members(of: room("r"), in: other).isEmpty)
            #expect(try await store.head(of: ChannelKey(tenant: other, channel: .room(room("r")))) == nil)
            let bob = ChannelKey(tenant: other, channel: .user(user("bob")))
            #expect(try await store.all(bob).isEmpty)
            #expect(try await store.entitlements(of: user("alice"), in: other).count == 1)
        }
    }
}
