import LonglineStore
import LonglineWire
import Testing

@Suite struct DeviceConformanceTests {
    private func cursor(_ channel: ChannelID, _ epoch: Epoch, _ offset: Offset) -> ChannelPosition {
        ChannelPosition(channel: channel, position: Position(epoch: epoch, offset: offset))
    }

    @Test("a cursor only grows, within the current epoch", arguments: StoreKind.allCases)
    func aCursorOnlyGrowsWithinTheCurrentEpoch(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            let channel = ChannelID.user(user("alice"))
            var places: [Position] = []
            for id in 1...3 as ClosedRange<PublishID> { places.append(try await store.enter(request(id: id)).position) }
            let epoch = places[0].epoch
            let empty = try await store.advance(device("alice"), to: [])
            #expect(empty == CursorRecord(version: 0, cursors: [:]))
            let second = try await store.advance(device("alice"), to: [cursor(channel, epoch, places[1].offset)])
            #expect(second == CursorRecord(version: 1, cursors: [channel: places[1]]))
            // Back, another epoch, beyond the log, nothing: no change and no new version.
            for wrong in [
                cursor(channel, epoch, places[0].offset), cursor(channel, epoch, places[1].offset),
                cursor(channel, epoch &+ 1, places[2].offset), cursor(channel, epoch, places[2].offset + 1),
                cursor(channel, epoch, 0), cursor(.room(room("none")), epoch, 1),
            ] {
                #expect(try await store.advance(device("alice"), to: [wrong]) == second)
            }
            let third = try await store.advance(device("alice"), to: [cursor(channel, epoch, places[2].offset)])
            #expect(third == CursorRecord(version: 2, cursors: [channel: places[2]]))
            #expect(try await store.advance(device("alice"), to: []) == third)
            #expect(try await store.advance(device("alice", "tablet"), to: []).version == 0)
        }
    }

    @Test("a record that is only read is that of one that is written", arguments: StoreKind.allCases)
    func readRecord(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            let inbox = ChannelID.user(user("alice"))
            let place = try await store.enter(request(id: 1)).position
            let nothing = CursorRecord(version: 0, cursors: [:])
            #expect(try await store.cursors(of: device("alice")) == nothing)
            let moved = cursor(inbox, place.epoch, place.offset)
            try await store.move(device("alice"), to: [moved])
            let record = try await store.cursors(of: device("alice"))
            #expect(record == CursorRecord(version: 1, cursors: [inbox: place]))
            #expect(try await store.advance(device("alice"), to: []) == record)
            #expect(try await store.cursors(of: device("alice", "tablet")) == nothing)
            #expect(record.covers(moved) && record.covers(cursor(inbox, place.epoch, place.offset - 1)))
            for news in [
                cursor(inbox, place.epoch, place.offset + 1), cursor(inbox, place.epoch &+ 1, place.offset),
                cursor(.room(room("none")), place.epoch, place.offset),
            ] {
                #expect(!record.covers(news))
            }
        }
    }

    @Test("what any of a user's devices confirmed is known by its user", arguments: StoreKind.allCases)
    func confirmedByUser(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            let key = inbox("alice")
            #expect(try await store.confirmed(by: user("alice"), in: key) == nil)
            var places: [Position] = []
            for id in 1...3 as ClosedRange<PublishID> { places.append(try await store.enter(request(id: id)).position) }
            #expect(try await store.confirmed(by: user("alice"), in: key) == nil)
            for (name, place) in [("tablet", places[1]), ("phone", places[0])] {
                try await store.move(
                    device("alice", name), to: [cursor(key.channel, place.epoch, place.offset)])
            }
            #expect(try await store.confirmed(by: user("alice"), in: key) == places[1])
            #expect(try await store.confirmed(by: user("bob"), in: key) == nil)
        }
    }

    @Test("a device has cursors only where its user has a part", arguments: StoreKind.allCases)
    func aDeviceHasCursorsOnlyWhereItsUserHasAPart(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            let joined = try #require(try await store.join(room("r"), by: device("bob"), create: true))
            let note = try await store.enter(request("bob", id: 1)).position
            let record = try await store.advance(
                device("alice"),
                to: [
                    ChannelPosition(channel: .room(room("r")), position: joined),
                    ChannelPosition(channel: .user(user("bob")), position: note),
                ])
            #expect(record.cursors.isEmpty && record.version == 0)
            let bob = try await store.advance(
                device("bob"),
                to: [
                    ChannelPosition(channel: .room(room("r")), position: joined),
                    ChannelPosition(channel: .user(user("bob")), position: note),
                ])
            #expect(bob == CursorRecord(version: 1, cursors: [.room(room("r")): joined, .user(user("bob")): note]))
        }
    }

    @Test("moving cursors is advancing them, without the record", arguments: StoreKind.allCases)
    func movingCursorsIsAdvancingThem(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            let channel = ChannelID.user(user("alice"))
            let place = try await store.enter(request(id: 1)).position
            try await store.move(device("alice", "nobody"), to: [])
            for _ in 0..<2 {
                try await store.move(device("alice"), to: [ChannelPosition(channel: channel, position: place)])
                let record = try await store.advance(device("alice"), to: [])
                #expect(record == CursorRecord(version: 1, cursors: [channel: place]))
            }
        }
    }

    @Test("a cursor goes with the user's part in its room", arguments: StoreKind.allCases)
    func aCursorGoesWithTheUsersPartInItsRoom(_ kind: StoreKind) async throws {
        var limits = StoreLimits()
        limits.roomsPerUser = 2
        try await withStore(kind, limits: limits) { store async throws in
            for number in 0..<6 {
                let channel = ChannelID.room(room("r\(number)"))
                for name in ["alice", "bob\(number)"] {
                    _ = try await store.join(room("r\(number)"), by: device(name), create: true)
                }
                let left = try #require(try await store.leave(room("r\(number)"), by: device("alice")))
                for name in ["phone", "tablet"] {
                    try await store.move(device("alice", name), to: [ChannelPosition(channel: channel, position: left)])
                }
            }
            for name in ["phone", "tablet"] {
                let cursors = try await store.advance(device("alice", name), to: []).cursors
                #expect(Set(cursors.keys) == [.room(room("r4")), .room(room("r5"))])
            }
            // Of a room that was forgotten nothing can be confirmed.
            let head = try #require(try await store.head(of: roomKey("r0"))).position
            let late = ChannelPosition(channel: .room(room("r0")), position: head)
            #expect(try await store.advance(device("alice"), to: [late]).cursors.count == 2)
        }
    }

    @Test("a connect number lower than one seen is stale", arguments: StoreKind.allCases)
    func aConnectNumberLowerThanOneSeenIsStale(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            let other = ProducerID(high: 2, low: 2)
            let tablet = device("alice", "tablet")
            #expect(try await store.admit(device("alice"), producer: producer, connectNumber: 5) == .firstOfDevice)
            #expect(try await store.admit(device("alice"), producer: producer, connectNumber: 5) == .repeated)
            #expect(try await store.admit(device("alice"), producer: producer, connectNumber: 4) == .stale)
            #expect(try await store.admit(device("alice"), producer: other, connectNumber: 1) == .returning)
            #expect(try await store.admit(tablet, producer: producer, connectNumber: 1) == .firstOfDevice)
            #expect(try await store.admit(device("alice"), producer: producer, connectNumber: 1 << 61) == .returning)
            #expect(try await store.admit(device("alice"), producer: producer, connectNumber: 6) == .stale)
        }
    }

    @Test("revocations count, and tokens are shut out by ID", arguments: StoreKind.allCases)
    func revocationsCountAndTokensAreShutOutByID(_ kind: StoreKind) async throws {
        let clock = TestClock()
        try await withStore(kind, clock: clock) { store async throws in
            let phone = device("alice")
            #expect(try await store.generations(of: phone) == RevocationGenerations(user: 0, device: 0))
            try await store.revoke(user: user("alice"), in: tenant)
            try await store.revoke(device: phone)
            try await store.revoke(device: phone)
            #expect(try await store.generations(of: phone) == RevocationGenerations(user: 1, device: 2))
            let tablet = try await store.generations(of: device("alice", "tablet"))
            #expect(tablet == RevocationGenerations(user: 1, device: 0))
            #expect(try await store.generations(of: device("bob")) == RevocationGenerations(user: 0, device: 0))

            try await store.revoke(token: "t1", in: tenant, until: clock.now + 100)
            try await store.revoke(token: "t1", in: tenant, until: clock.now + 50)
            #expect(try await store.isRevoked(token: "t1", in: tenant))
            #expect(try await store.isRevoked(token: "t2", in: tenant) == false)
            #expect(try await store.isRevoked(token: "t1", in: try TenantID("other")) == false)
            // Who verifies it may have a clock that is an hour behind.
            clock.advance(100 + 3_599_999)
            #expect(try await store.sweep().tokens == 0)
            #expect(try await store.isRevoked(token: "t1", in: tenant))
            clock.advance(1)
            #expect(try await store.sweep().tokens == 1)
            #expect(try await store.isRevoked(token: "t1", in: tenant) == false)
            #expect(try await store.generations(of: phone) == RevocationGenerations(user: 1, device: 2))
        }
    }

    @Test("channels that nothing is left of are forgotten, and begin anew", arguments: StoreKind.allCases)
    func channelsThatNothingIsLeftOfAreForgotten(_ kind: StoreKind) async throws {
        let clock = TestClock()
        var limits = StoreLimits()
        limits.trimEntries = 2
        try await withStore(kind, limits: limits, clock: clock) { store async throws in
            func isThere(_ name: String) async throws -> Bool {
                let list = try await store.channels(after: 0, limit: 100).channels
                return list.contains { $0.key.channel.description == name }
            }
            for name in ["empty", "lively", "kept"] {
                _ = try await store.join(room(name), by: device("alice"), create: true)
                try await store.enter(request(to: .room(room(name)), id: 1))
            }
            let before = try #require(try await store.head(of: roomKey("empty"))).position
            for name in ["empty", "kept"] { _ = try await store.leave(room(name), by: device("alice")) }
            for name in ["nobody", "blocker", "member"] {
                try await store.enter(
                    request("carol", recipient: name, id: name == "nobody" ? 1 : name == "blocker" ? 2 : 3))
            }
            _ = try await store.set(.block(true), of: .user(user("carol")), for: user("blocker"), in: tenant)
            _ = try await store.act(room("lively"), .add(user("member")), by: device("alice"))
            clock.advance(limits.unseen + 1)
            // Whose devices are seen stays, and what holds an entry.
            try await store.enter(request(id: 1))
            for key in [
                roomKey("empty"), roomKey("lively"), inbox("nobody"), inbox("blocker"), inbox("member"), inbox("carol"),
            ] {
                while try await store.trim(key, keep: Retention(entries: 0)).more {}
            }
            var report = SweepReport()
            repeat {
                let step = try await store.sweep(from: report.next)
                #expect(step.channels <= limits.trimEntries)
                report.add(step)
            } while report.next != nil
            #expect(report.channels == 3)
            for name in ["room/empty", "user/nobody", "user/carol"] { #expect(try await !isThere(name), "\(name)") }
            for name in ["room/lively", "room/kept", "user/blocker", "user/member", "user/alice"] {
                #expect(try await isThere(name), "\(name)")
            }
            // Made again it is another life, at other offsets, with ledgers and stays of its own.
            let joined = try #require(try await store.join(room("empty"), by: device("alice"), create: true))
            #expect(joined.epoch != before.epoch && joined.offset > before.offset)
            try await store.enter(request(to: .room(room("empty")), id: 1))
            let entitlement = try await store.entitlements(of: user("alice"), in: tenant).first {
                $0.channel == .room(room("empty"))
            }
            #expect(entitlement?.upTo == nil && entitlement?.after == 0)
        }
    }

    @Test("a device that only receives is seen by what it confirms", arguments: StoreKind.allCases)
    func aDeviceThatOnlyReceivesIsSeen(_ kind: StoreKind) async throws {
        let day: UInt64 = 24 * 3_600 * 1_000
        let clock = TestClock()
        try await withStore(kind, clock: clock) { store async throws in
            _ = try await store.admit(device("bob"), producer: producer, connectNumber: 1)
            _ = try await store.admit(device("bob", "idle"), producer: producer, connectNumber: 1)
            clock.advance(100 * day)
            let copy = try #require(try await store.append(request(recipient: "bob", id: 1)).copy)
            let place = ChannelPosition(channel: copy.channel, position: copy.position)
            try await store.move(device("bob"), to: [place])
            clock.advance(100 * day)
            #expect(try await store.sweep().devices == 1)
            let record = try await store.advance(device("bob"), to: [])
            #expect(record == CursorRecord(version: 1, cursors: [copy.channel: copy.position]))
        }
    }

    @Test("devices and outboxes unseen for 180 days are forgotten, and no others", arguments: StoreKind.allCases)
    func devicesAndOutboxesUnseenFor180DaysAreForgottenAndNoOthers(_ kind: StoreKind) async throws {
        let day: UInt64 = 24 * 3_600 * 1_000
        let clock = TestClock()
        try await withStore(kind, clock: clock) { store async throws in
            let other = ProducerID(high: 2, low: 2)
            let place = try await store.enter(request(id: 1)).position
            _ = try await store.advance(
                device("alice"), to: [ChannelPosition(channel: .user(user("alice")), position: place)])
            try await store.enter(request("bob", id: 1))
            try await store.enter(request("bob", id: 1, producer: other))
            clock.advance(100 * day)
            // Publishing is being seen.
            try await store.enter(request("bob", id: 2, producer: other))
            clock.advance(80 * day)
            #expect(try await store.sweep() == SweepReport())
            clock.advance(1)
            #expect(try await store.sweep() == SweepReport(devices: 1, producers: 1))
            #expect(try await store.advance(device("alice"), to: []).version == 0)
            // The forgotten ledgers start anew, the other one goes on; the log is untouched.
            #expect(try await store.append(request(id: 5, after: 4)).refused?.lastID == 0)
            #expect(try await store.append(request("bob", id: 5, after: 4)).refused?.lastID == 0)
            #expect(try await store.append(request("bob", id: 5, after: 4, producer: other)).refused?.lastID == 2)
            #expect(try await store.all(inbox("alice")).count == 1)
        }
    }
}
