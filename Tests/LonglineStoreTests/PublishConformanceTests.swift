import LonglineStore
import LonglineTestKit
import LonglineWire
import NIOCore
import Testing

@Suite struct PublishConformanceTests {
    @Test("a publish is entered once, and sent again gets the same answer", arguments: StoreKind.allCases)
    func aPublishIsEnteredOnceAndSentAgainGetsTheSameAnswer(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            let first = try await store.enter(request(id: 1, "one"))
            let second = try await store.enter(request(id: 2, "two"))
            #expect(second.position.offset > first.position.offset)
            #expect(try await store.append(request(id: 1, "one")) == .duplicate(first))
            #expect(try await store.append(request(id: 2, "two")) == .duplicate(second))
            #expect(try await store.all(inbox("alice")).map(\.text) == ["one", "two"])
        }
    }

    @Test("out of order, reused and invalid IDs store nothing", arguments: StoreKind.allCases)
    func outOfOrderReusedAndInvalidIDsStoreNothing(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            try await store.enter(request(id: 1))
            #expect(
                try await store.append(request(id: 3, after: 2))
                    == .refused(Refused(id: 3, code: .outOfOrder, lastID: 1)))
            #expect(try await store.append(request(id: 1, tag: 9)).refused?.code == .idReused)
            #expect(try await store.append(request(id: 0)).refused?.code == .invalidID)
            #expect(try await store.append(request(id: 5, after: 5)).refused?.code == .invalidID)
            #expect(try await store.append(request(id: .max, after: 1)).refused?.code == .invalidID)
            #expect(try await store.all(inbox("alice")).count == 1)
            // What was out of order is taken once what lies before it came; an ID that was given up may be left out.
            try await store.enter(request(id: 2))
            try await store.enter(request(id: 3))
            try await store.enter(request(id: 9, after: 3))
        }
    }

    @Test("what is not to be entered is asked of the ledger alone", arguments: StoreKind.allCases)
    func whatIsNotToBeEnteredIsAskedOfTheLedgerAlone(_ kind: StoreKind) async throws {
        func without(_ request: AppendRequest) -> AppendRequest {
            var request = request
            request.refusal = .forbidden
            request.publish.payload = ByteBuffer()
            return request
        }
        try await withStore(kind) { store async throws in
            // Nobody is known yet, and nothing is made.
            #expect(try await store.append(without(request(id: 1))).refused?.code == .forbidden)
            let news = must { try ChannelID("all/news") }
            for channel in [news, .room(room("r"))] {
                #expect(try await store.append(without(request(to: channel, id: 1))).refused?.code == .forbidden)
            }
            #expect(try await store.head(of: ChannelKey(tenant: tenant, channel: news)) == nil)
            let first = try await store.enter(request(recipient: "bob", id: 1))
            #expect(try await store.append(without(request(recipient: "bob", id: 1))) == .duplicate(first))
            for next in [request(id: 2), request(id: 9, after: 8)] {
                #expect(
                    try await store.append(without(next)) == .refused(Refused(id: next.publish.id, code: .forbidden)))
            }
            #expect(try await store.append(without(request(id: 1, tag: 9))).refused?.code == .idReused)
            // Also of who left a room since.
            _ = try await store.join(room("r"), by: device("alice"), create: true)
            let said = try await store.enter(request(to: .room(room("r")), id: 1))
            _ = try await store.change(room("r"), .leave, by: device("alice"))
            #expect(try await store.append(without(request(to: .room(room("r")), id: 1))) == .duplicate(said))
            #expect(
                try await store.append(without(request(to: .room(room("r")), id: 2))).refused?.code == .forbidden)
            #expect(try await store.all(inbox("alice")).count == 1)
            try await store.enter(request(id: 2))
        }
    }

    @Test("requests of one batch see each other", arguments: StoreKind.allCases)
    func requestsOfOneBatchSeeEachOther(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            let outcomes = await store.append([
                request(id: 1, "one"), request(id: 2, "two"), request(id: 1, "one"), request(id: 5, after: 4),
                request(id: 2, tag: 1),
            ])
            #expect(outcomes.map(\.isEntered) == [true, true, false, false, false])
            #expect(outcomes[2].published == outcomes[0].published)
            #expect(outcomes[3].refused?.code == .outOfOrder)
            #expect(outcomes[3].refused?.lastID == 2)
            #expect(outcomes[4].refused?.code == .idReused)
            #expect(try await store.all(inbox("alice")).map(\.text) == ["one", "two"])
        }
    }

    @Test("a ledger belongs to one producer, device and channel", arguments: StoreKind.allCases)
    func aLedgerBelongsToOneProducerDeviceAndChannel(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            let other = ProducerID(high: 1, low: 1)
            _ = try await store.join(room("r"), by: device("alice"), create: true)
            try await store.enter(request(id: 1))
            try await store.enter(request(id: 1, producer: other))
            try await store.enter(request(id: 1, device: "tablet"))
            try await store.enter(request(to: .room(room("r")), id: 1))
            // An ID of another channel is no ID of this one.
            let outcome = try await store.append(request(to: .room(room("r")), id: 8, after: 7))
            #expect(outcome.refused == Refused(id: 8, code: .outOfOrder, lastID: 1))
        }
    }

    @Test("the last 1,024 answers are remembered, and older ones are unknown", arguments: StoreKind.allCases)
    func theLast1024AnswersAreRememberedAndOlderOnesAreUnknown(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            let count = PublishLedger.remembered + 6
            let outcomes = await store.append((1...PublishID(count)).map { request(id: $0 * 3, after: ($0 - 1) * 3) })
            let isEntered = outcomes.map(\.isEntered)
            #expect(!isEntered.contains(false))
            for index in [0, 5] {
                let again = request(id: PublishID(index + 1) * 3, after: 0)
                #expect(try await store.append(again).refused?.code == .outcomeUnknown)
            }
            // Between those that are remembered nothing was forgotten: whoever sends such an ID had it from elsewhere.
            #expect(try await store.append(request(id: 22, after: 0)).refused?.code == .idReused)
            #expect(try await store.append(request(id: 20, after: 0)).refused?.code == .outcomeUnknown)
            for index in [6, 7, count - 1] {
                let again = request(id: PublishID(index + 1) * 3, after: 0)
                #expect(try await store.append(again).published == outcomes[index].published)
            }
            #expect(try await store.all(inbox("alice")).count == count)
        }
    }

    @Test("an ID that was passed over is another outbox's, while nothing was forgotten", arguments: StoreKind.allCases)
    func anIDThatWasPassedOver(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            try await store.enter(request(id: 5, after: 0))
            #expect(try await store.append(request(id: 3, after: 0)).refused?.code == .idReused)
            #expect(try await store.append(request(id: 5, after: 0)).published != nil)
            #expect(try await store.all(inbox("alice")).count == 1)
        }
    }

    @Test("a direct message stands in both inboxes, and the copy names the record", arguments: StoreKind.allCases)
    func aDirectMessageStandsInBothInboxesAndTheCopyNamesTheRecord(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            let outcome = try await store.append(request(recipient: "bob", id: 1, "hi bob"))
            let published = try #require(outcome.published)
            let copy = try #require(outcome.copy)
            #expect(copy.channel == .user(user("bob")))
            let record = try #require(try await store.all(inbox("alice")).first?.entry)
            let received = try #require(try await store.all(inbox("bob")).first?.entry)
            #expect(record.recipient == user("bob") && record.origin == nil && record.producer == producer)
            #expect(received.recipient == nil && received.origin == published.position)
            #expect(received.offset == copy.position.offset && received.sender == user("alice"))
            #expect(received.publishID == 1 && received.payload == record.payload)
            // Sent again: no second copy.
            #expect(try await store.append(request(recipient: "bob", id: 1, "hi bob")) == .duplicate(published))
            #expect(try await store.all(inbox("bob")).count == 1)
        }
    }

    @Test("a note to self is one entry", arguments: StoreKind.allCases)
    func aNoteToSelfIsOneEntry(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            #expect(try await store.append(request(id: 1)).copy == nil)
            #expect(try await store.append(request(recipient: "alice", id: 2)).copy == nil)
            #expect(try await store.all(inbox("alice")).count == 2)
        }
    }

    @Test("what may not be entered is refused by name", arguments: StoreKind.allCases)
    func whatMayNotBeEnteredIsRefusedByName(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            func code(_ request: AppendRequest) async throws -> RefusalCode? {
                try await store.append(request).refused?.code
            }
            #expect(try await code(request(to: .user(user("bob")), id: 1)) == .unknownChannel)
            #expect(try await code(request(to: .room(room("none")), id: 1)) == .unknownChannel)
            _ = try await store.join(room("r"), by: device("bob"), create: true)
            // A room that exists and one that doesn't look the same to who isn't in it, whatever the IDs.
            #expect(try await code(request(to: .room(room("r")), id: 1)) == .unknownChannel)
            #expect(try await code(request(to: .room(room("r")), id: 9, after: 8)) == .unknownChannel)
            #expect(try await code(request(to: .room(room("none")), id: 9, after: 8)) == .unknownChannel)
            let large = String(repeating: "x", count: FrameLimits.maximumWholePayload + 1)
            #expect(try await code(request(id: 1, large)) == .payloadTooLarge)
            #expect(
                try await code(request("bob", to: .room(room("r")), recipient: "alice", id: 1)) == .unknownRecipient)
            // None of it took the ID.
            try await store.enter(request(id: 1))
        }
    }

    @Test("who left a room hears it of a whole backlog at once", arguments: StoreKind.allCases)
    func whoLeftARoomHearsItOfAWholeBacklogAtOnce(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            _ = try await store.join(room("r"), by: device("alice"), create: true)
            let first = try await store.enter(request(to: .room(room("r")), id: 1, "before"))
            _ = try await store.leave(room("r"), by: device("alice"))
            let rest = await store.append([
                request(to: .room(room("r")), id: 2, after: 1), request(to: .room(room("r")), id: 3, after: 2),
                request(to: .room(room("r")), id: 4, after: 3),
            ])
            #expect(rest.map { $0.refused?.code } == [.unknownChannel, .unknownChannel, .unknownChannel])
            // What was entered before the leave is acknowledged all the same.
            #expect(try await store.append(request(to: .room(room("r")), id: 1, "before")) == .duplicate(first))
        }
    }

    @Test("a device has a bounded number of outboxes", arguments: StoreKind.allCases)
    func aDeviceHasABoundedNumberOfOutboxes(_ kind: StoreKind) async throws {
        var limits = StoreLimits()
        limits.producersPerDevice = 2
        try await withStore(kind, limits: limits) { store async throws in
            try await store.enter(request(id: 1, producer: ProducerID(high: 1, low: 1)))
            let second = ProducerID(high: 1, low: 2)
            #expect(try await store.admit(device("alice"), producer: second, connectNumber: 1) == .returning)
            let third = ProducerID(high: 1, low: 3)
            let refused = try await store.append(request(id: 1, producer: third)).refused
            #expect(refused?.code == .overloaded)
            #expect(refused?.retryAfter ?? 0 > 0)
            await #expect(throws: StoreError.self) {
                try await store.admit(device("alice"), producer: third, connectNumber: 1)
            }
            try await store.enter(request(id: 1, producer: third, device: "tablet"))
        }
    }

    @Test("time never goes back along a channel", arguments: StoreKind.allCases)
    func timeNeverGoesBackAlongAChannel(_ kind: StoreKind) async throws {
        let clock = TestClock()
        try await withStore(kind, clock: clock) { store async throws in
            let start = clock.now
            #expect(try await store.enter(request(id: 1)).time == start)
            clock.set(start - 5_000)
            #expect(try await store.enter(request(id: 2)).time == start)
            clock.set(start + 7)
            #expect(try await store.enter(request(id: 3)).time == start + 7)
        }
    }

    @Test(
        "whatever is sent again in whatever batches, each message is there once and in order",
        arguments: StoreKind.allCases, [1, 2, 3] as [UInt64])
    func whateverIsSentAgainInWhateverBatchesEachMessageIsThereOnceAndInOrder(
        _ kind: StoreKind, seed: UInt64
    ) async throws {
        try await withStore(kind) { store async throws in
            var random = SeededRandom(seed: seed)
            let senders = ["alice", "bob", "carol"]
            for sender in senders { _ = try await store.join(room("r"), by: device(sender), create: true) }
            // Each sender walks on when it was acknowledged, and now and then goes back a few and sends again.
            var next: [String: PublishID] = [:]
            for _ in 0..<200 {
                var batch: [AppendRequest] = []
                for _ in 0..<Int(random.next() % 6) {
                    let sender = senders[Int(random.next() % 3)]
                    let acknowledged = next[sender, default: 0]
                    let back = min(random.next() % 4, acknowledged)
                    let id = acknowledged + 1 - back
                    batch.append(request(sender, to: .room(room("r")), id: id, "\(sender) \(id)"))
                }
                let outcomes = await store.append(batch)
                for (request, outcome) in zip(batch, outcomes) where outcome.published != nil {
                    let sender = request.device.user.description
                    next[sender] = max(next[sender, default: 0], request.publish.id)
                }
            }
            let texts = try await store.all(roomKey("r"), pageBytes: 64).map(\.text)
            for sender in senders {
                let expected = (1...next[sender, default: 0]).map { "\(sender) \($0)" }
                #expect(texts.filter { $0.hasPrefix(sender) } == expected, "seed \(seed)")
            }
        }
    }
}
