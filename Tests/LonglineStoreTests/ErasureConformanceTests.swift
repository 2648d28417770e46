import LonglineStore
import LonglineWire
import Testing

@Suite struct ErasureConformanceTests {
    /// Erases a user, and counts the steps.
    private func erase(_ store: AnyStore, _ name: String) async throws -> (steps: Int, left: [ChannelPosition]) {
        var steps = 0
        var left: [ChannelPosition] = []
        while true {
            let step = try await store.erase(user: user(name), in: tenant)
            steps += 1
            left += step.left
            if step.isDone { return (steps, left) }
            try #require(steps < 1_000, "it comes to an end")
        }
    }

    /// Alice in two rooms, one of them left, with two devices, messages to and from bob, and cursors.
    private func fill(_ store: AnyStore, messages: UInt64 = 5) async throws {
        _ = try await store.join(room("hall"), by: device("bob"), create: true)
        for name in ["hall", "gone"] { _ = try await store.join(room(name), by: device("alice"), create: true) }
        _ = try await store.leave(room("gone"), by: device("alice"))
        for id in 1...messages {
            try await store.enter(request(recipient: "bob", id: id, "to bob \(id)"))
            try await store.enter(request("bob", recipient: "alice", id: id, "to alice \(id)"))
        }
        try await store.enter(request(to: .room(room("hall")), id: messages + 1, after: 0, "to the hall"))
        try await store.enter(request(id: 1, device: "tablet", "a note"))
        let position = try #require(try await store.head(of: inbox("alice"))).position
        let cursors = [ChannelPosition(channel: .user(user("alice")), position: position)]
        _ = try await store.advance(device("alice"), to: cursors)
        for name in ["phone", "tablet"] {
            _ = try await store.admit(device("alice", name), producer: producer, connectNumber: 3)
        }
    }

    @Test("nothing of the user is left, and what others have stays", arguments: StoreKind.allCases)
    func nothingOfTheUserIsLeft(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            try await fill(store)
            let before = try #require(try await store.head(of: inbox("alice"))).position
            let bobs = try await store.all(inbox("bob"))
            let (_, left) = try await erase(store, "alice")
            // The inbox is another one: no entry, another epoch.
            let head = try #require(try await store.head(of: inbox("alice")))
            #expect(head.position.offset == 0 && head.position.epoch != before.epoch)
            #expect(try await store.all(inbox("alice")).isEmpty)
            #expect(
                try await store.entitlements(of: user("alice"), in: tenant).map(\.channel) == [.user(user("alice"))])
            #expect(try await store.members(of: room("hall"), in: tenant) == [user("bob")])
            // The room's members are told by an entry, made by no device.
            #expect(left.map(\.channel) == [.room(room("hall"))])
            let last = try #require(try await store.all(roomKey("hall")).last?.entry)
            #expect(last.kind == .left && last.sender == user("alice") && last.device.description == "-")
            #expect(last.offset == left.first?.position.offset)
            #expect(try await store.all(roomKey("hall")).contains { $0.text == "to the hall" })
            #expect(try await store.all(inbox("bob")) == bobs)
            // The devices are unknown: their numbers and ledgers begin anew, and no cursor is left.
            for name in ["phone", "tablet"] {
                #expect(
                    try await store.admit(device("alice", name), producer: producer, connectNumber: 1) == .firstOfDevice
                )
                #expect(try await store.advance(device("alice", name), to: []).cursors.isEmpty)
            }
            let again = try await store.append(request(id: 1, "new"))
            #expect(again.isEntered)
            #expect(try await store.all(inbox("alice")).map(\.text) == ["new"])
        }
    }

    @Test("until the last step no device of the user is admitted", arguments: StoreKind.allCases)
    func nobodyIsAdmittedMeanwhile(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            try await fill(store)
            try await store.requestErasure(of: user("alice"), in: tenant)
            func admission(_ name: String) async throws -> ConnectAdmission {
                try await store.admit(device(name), producer: producer, connectNumber: 9)
            }
            #expect(try await admission("alice") == .erasing)
            #expect(try await admission("bob") != .erasing)
            _ = try await erase(store, "alice")
            #expect(try await admission("alice") == .firstOfDevice)
        }
    }

    @Test(
        "of revocations the user's stays, raised where it stands for its devices', so that old credentials stay void",
        arguments: StoreKind.allCases)
    func revocationsStay(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            try await fill(store)
            try await store.revoke(user: user("alice"), in: tenant)
            for name in ["phone", "tablet"] { try await store.revoke(device: device("alice", name)) }
            try await store.revoke(device: device("bob"))
            try await store.revoke(token: "t", in: tenant, until: .max)
            _ = try await erase(store, "alice")
            for name in ["phone", "tablet"] {
                // What was good for no device with (1, 0) is void by (2, 0).
                let generations = try await store.generations(of: device("alice", name))
                #expect(generations == RevocationGenerations(user: 2, device: 0))
            }
            #expect(try await store.generations(of: device("bob")) == RevocationGenerations(user: 0, device: 1))
            #expect(try await store.isRevoked(token: "t", in: tenant))
            // Nothing is left to forget.
            _ = try await erase(store, "alice")
            #expect(try await store.generations(of: device("alice")).user == 2)
        }
    }

    @Test("each step removes a bounded number of rows, and the store goes on between", arguments: StoreKind.allCases)
    func stepsAreBounded(_ kind: StoreKind) async throws {
        var limits = StoreLimits()
        limits.trimEntries = 4
        try await withStore(kind, limits: limits) { store async throws in
            try await fill(store, messages: 20)
            // 41 entries of the inbox, 22 answers, and what they hang on, four at a time.
            var steps = 0
            var sizes: [Int] = []
            var isDone = false
            while !isDone {
                let before = try await store.all(inbox("alice")).count
                isDone = try await store.erase(user: user("alice"), in: tenant).isDone
                steps += 1
                sizes.append(before - (try await store.all(inbox("alice")).count))
                try await store.enter(request("bob", id: UInt64(100 + steps), after: 20, "a note in between"))
            }
            #expect(sizes.allSatisfy { (0...4).contains($0) })
            #expect(steps >= 41 / 4 + 22 / 4)
            #expect(try await erase(store, "alice").steps == 1, "nothing was left")
        }
    }

    @Test("a step ends when it removed enough bytes", arguments: StoreKind.allCases)
    func stepsAreBoundedInBytes(_ kind: StoreKind) async throws {
        var limits = StoreLimits()
        limits.trimBytes = 1_000
        try await withStore(kind, limits: limits) { store async throws in
            let text = String(repeating: "x", count: 400)
            for id in 1...20 as ClosedRange<PublishID> { try await store.enter(request(id: id, text)) }
            #expect(
                try await store.trim(inbox("alice"), keep: Retention(entries: 15))
                    == TrimReport(entries: 3, bytes: 1_200, more: true))
            #expect(
                try await store.trim(inbox("alice"), keep: Retention(entries: 15))
                    == TrimReport(entries: 2, bytes: 800, more: false))
            for left in [12, 9, 6, 3, 0] {
                #expect(try await store.erase(user: user("alice"), in: tenant).isDone == (left == 0))
                #expect(try await store.all(inbox("alice")).count == left)
            }
        }
    }

    @Test("a user in many rooms leaves them in several steps", arguments: StoreKind.allCases)
    func manyRooms(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            for number in 0..<300 { _ = try await store.join(room("r\(number)"), by: device("alice"), create: true) }
            let (steps, left) = try await erase(store, "alice")
            #expect(steps == 2 && left.count == 300)
            #expect(try await store.members(of: room("r299"), in: tenant).isEmpty)
        }
    }

    @Test("a user of whom nothing is kept is done at once", arguments: StoreKind.allCases)
    func nobody(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            let step = try await store.erase(user: user("nobody"), in: tenant)
            #expect(step == ErasureStep(isDone: true, left: []))
        }
    }

    @Test("a user of another tenant with the same name keeps everything", arguments: StoreKind.allCases)
    func otherTenant(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            try await fill(store)
            _ = try await store.erase(user: user("alice"), in: try TenantID("other"))
            #expect(try await store.all(inbox("alice")).count == 11)
            #expect(try await store.members(of: room("hall"), in: tenant).count == 2)
        }
    }

    @Test(
        "what was resolved is pending until its last step, and voids the user's credentials",
        arguments: StoreKind.allCases)
    func whatWasResolvedIsPendingUntilItsLastStep(_ kind: StoreKind) async throws {
        var limits = StoreLimits()
        limits.trimEntries = 4
        try await withStore(kind, limits: limits) { store async throws in
            try await fill(store)
            #expect(try await store.pendingErasures(limit: 10).isEmpty)
            #expect(try await !store.isErasurePending(of: user("alice"), in: tenant))
            try await store.requestErasure(of: user("alice"), in: tenant)
            try await store.requestErasure(of: user("alice"), in: tenant)
            let pending = PendingErasure(tenant: tenant, user: user("alice"))
            #expect(try await store.pendingErasures(limit: 10) == [pending])
            #expect(try await store.isErasurePending(of: user("alice"), in: tenant))
            #expect(try await !store.isErasurePending(of: user("bob"), in: tenant))
            #expect(try await store.generations(of: device("alice")).user == 2)
            #expect(try await store.erase(user: user("alice"), in: tenant).isDone == false)
            #expect(try await store.pendingErasures(limit: 10) == [pending])
            _ = try await erase(store, "alice")
            #expect(try await store.pendingErasures(limit: 10).isEmpty)
            #expect(try await !store.isErasurePending(of: user("alice"), in: tenant))
            // Of an account that somebody made anew, too.
            try await store.requestErasure(of: user("alice"), in: tenant)
            #expect(try await store.isErasurePending(of: user("alice"), in: tenant))
            #expect(try await !store.isErasurePending(of: user("bob"), in: tenant))
        }
    }
}
