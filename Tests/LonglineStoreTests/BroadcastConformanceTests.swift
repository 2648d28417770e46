import LonglineWire
import NIOCore
import Testing

@testable import LonglineStore

/// What is broadcast to all of a tenant, on each store.
@Suite struct BroadcastConformanceTests {
    private let news = must { ChannelID.all(try BroadcastID("news")) }
    private var newsKey: ChannelKey { ChannelKey(tenant: tenant, channel: news) }

    private func connect(_ store: AnyStore, _ device: DeviceKey, number: UInt64 = 1) async throws -> Entitlement? {
        _ = try await store.admit(device, producer: producer, connectNumber: number)
        return try await store.channels(of: device).first { $0.channel == news }
    }

    @Test(
        "one entry is everybody's, from the moment on in which a device was first seen", arguments: StoreKind.allCases)
    func beginsWithTheDevice(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            #expect(try await connect(store, device("alice")) == nil, "nothing was broadcast yet")
            let first = try await store.enter(request("alice", to: news, id: 1, "one"))
            // Entries of other channels come between: the place is one of the broadcast's own.
            try await store.enter(request("alice", id: 2, after: 0, "note"))
            let bob = try #require(try await connect(store, device("bob")))
            #expect(bob.after == first.position.offset && bob.upTo == nil)
            let second = try await store.enter(request("alice", to: news, id: 3, after: 1, "two"))
            // However often it connects without confirming anything, the device's beginning stays.
            let again = try #require(try await connect(store, device("bob"), number: 2))
            #expect(again.after == first.position.offset && again.head.position == second.position)
            #expect(try await store.all(newsKey, after: again.after).map(\.text) == ["two"])
            #expect(try await connect(store, device("alice"), number: 2)?.after == 0, "it came before all of it")
            #expect(try await connect(store, device("bob", "tablet"))?.after == second.position.offset)
            // A device that the store never heard of gets what comes from now on.
            #expect(try await store.channels(of: device("carol")).last?.after == second.position.offset)
            let cursor = ChannelPosition(channel: news, position: second.position)
            #expect(try await store.advance(device("bob"), to: [cursor]).cursors[news] == second.position)
            #expect(try await store.entitlements(of: user("bob"), in: tenant).map(\.channel) == [.user(user("bob"))])
        }
    }

    @Test("a beginning that retention removed is the first entry left", arguments: StoreKind.allCases)
    func beginsBehindWhatWasTrimmed(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            var places: [Offset] = []
            for id in 1...4 as ClosedRange<PublishID> {
                places.append(try await store.enter(request("alice", to: news, id: id)).position.offset)
                if id == 2 { _ = try await connect(store, device("bob")) }
            }
            _ = try await store.trim(newsKey, keep: Retention(entries: 3))
            #expect(try await connect(store, device("bob"), number: 2)?.after == places[1])
            _ = try await store.trim(newsKey, keep: Retention(entries: 2))
            let bob = try #require(try await connect(store, device("bob"), number: 3))
            #expect(bob.after == places[1] && bob.head.first == places[1])
            _ = try await store.trim(newsKey, keep: Retention(entries: 1))
            // All that was trimmed behind the beginning is told as a gap: the channel begins later than the device.
            let last = try #require(try await connect(store, device("bob"), number: 4))
            #expect(last.after <= places[1] && last.head.first == places[2])
        }
    }

    @Test("a broadcast is made by its first publish, and a tenant has so many", arguments: StoreKind.allCases)
    func limited(_ kind: StoreKind) async throws {
        var limits = StoreLimits()
        limits.broadcastsPerTenant = 2
        try await withStore(kind, limits: limits) { store async throws in
            #expect(try await store.head(of: newsKey) == nil)
            await #expect(throws: StoreError.self) {
                try await store.read(newsKey, after: 0, upTo: nil, maximumBytes: 100, now: 0)
            }
            let more = try [ChannelID("all/a"), ChannelID("all/b")]
            try await store.enter(request("alice", to: news, id: 1))
            try await store.enter(request("bob", to: more[0], id: 1))
            let refused = try await store.append(request("bob", to: more[1], id: 2, after: 0)).refused
            #expect(refused?.code == .limitReached)
            #expect(
                try await store.append(request("bob", to: news, recipient: "alice", id: 2, after: 0)).refused?.code
                    == .unknownRecipient)
            try await store.enter(request("bob", to: news, id: 3, after: 0))
            let other = DeviceKey(tenant: try TenantID("other"), user: user("alice"), device: device("alice").device)
            #expect(
                try await store.channels(of: other).map(\.channel) == [.user(user("alice"))], "nothing crosses tenants")
            _ = try await store.admit(device("carol"), producer: producer, connectNumber: 1)
            #expect(
                try await store.channels(of: device("carol")).map(\.channel.description) == [
                    "user/carol", "all/a", "all/news",
                ])
        }
    }

    @Test("what is refused makes no broadcast", arguments: StoreKind.allCases)
    func refusedMakesNone(_ kind: StoreKind) async throws {
        var limits = StoreLimits()
        limits.producersPerDevice = 1
        try await withStore(kind, limits: limits) { store async throws in
            let place = Position(epoch: 1, offset: 1)
            let kinds: [(PublishKind, RefusalCode)] = [
                (.edit(place), .unknownTarget), (.retract(place), .unknownTarget), (.react(place), .unknownTarget),
                (.reply(place), .unknownTarget), (.request, .unknownRecipient),
            ]
            for (kind, code) in kinds {
                var request = request("alice", to: news, id: 1)
                request.publish.kind = kind
                #expect(try await store.append(request).refused?.code == code)
            }
            var large = request("alice", to: news, id: 1)
            large.publish.payload = ByteBuffer(repeating: 0, count: limits.maximumPayload + 1)
            #expect(try await store.append(large).refused?.code == .payloadTooLarge)
            try await store.enter(request("alice", id: 1))
            let second = request("alice", to: news, id: 1, producer: ProducerID(high: 9, low: 9))
            #expect(try await store.append(second).refused?.code == .overloaded)
            #expect(try await store.head(of: newsKey) == nil)
        }
    }

    @Test("a repeated publish is one entry, and erasing its user keeps it", arguments: StoreKind.allCases)
    func ledgerAndErasure(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            let published = try await store.enter(request("alice", to: news, id: 1, "kept"))
            #expect(try await store.append(request("alice", to: news, id: 1, "kept")) == .duplicate(published))
            #expect(try await store.append(request("alice", to: news, id: 9, after: 8)).refused?.code == .outOfOrder)
            while try await !store.erase(user: user("alice"), in: tenant).isDone {}
            #expect(try await store.all(newsKey).map(\.text) == ["kept"])
        }
    }
}
