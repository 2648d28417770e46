import LonglineStore
import LonglineTestKit
import LonglineWire
import Testing

/// What is kept of presence, on each store.
@Suite struct PresenceConformanceTests {
    private func note(_ name: String, _ seen: UInt64? = nil, _ visibility: PresenceVisibility? = nil) -> PresenceNote {
        PresenceNote(tenant: tenant, user: user(name), lastSeen: seen, visibility: visibility)
    }

    @Test("last seen only grows, and neither news takes the other away", arguments: StoreKind.allCases)
    func notes(_ kind: StoreKind) async throws {
        try await withStore(kind) { store async throws in
            #expect(try await store.presence(of: [user("alice")], in: tenant).isEmpty)
            try await store.note([note("alice", 50), note("bob", 7, .nothing)])
            try await store.note([note("alice", nil, .stateOnly), note("alice", 40)])
            try await store.note([])
            let known = try await store.presence(of: [user("alice"), user("bob"), user("carol")], in: tenant)
            #expect(
                known == [
                    user("alice"): PresenceRecord(lastSeen: 50, visibility: .stateOnly),
                    user("bob"): PresenceRecord(lastSeen: 7, visibility: .nothing),
                ])
            try await store.note([note("alice", 51, .everything)])
            #expect(
                try await store.presence(of: [user("alice")], in: tenant)[user("alice")]
                    == PresenceRecord(lastSeen: 51))
            let elsewhere = must { try TenantID("elsewhere") }
            #expect(try await store.presence(of: [user("alice")], in: elsewhere).isEmpty)
        }
    }

    @Test("an erased account and a user unseen for long leave nothing", arguments: StoreKind.allCases)
    func forgotten(_ kind: StoreKind) async throws {
        let clock = TestClock()
        try await withStore(kind, clock: clock) { store async throws in
            try await store.note([note("alice", clock.now, .nothing), note("bob", clock.now)])
            while try await !store.erase(user: user("alice"), in: tenant).isDone {}
            #expect(try await store.presence(of: [user("alice"), user("bob")], in: tenant).count == 1)
            clock.advance(StoreLimits().unseen + 1)
            try await store.note([note("carol", clock.now)])
            // What somebody wants to hide stays hidden, however long nobody sees them.
            try await store.note([note("dave", 7, .stateOnly), note("eve", 7, .nothing)])
            _ = try await store.sweep()
            let left = try await store.presence(of: ["bob", "carol", "dave", "eve"].map(user), in: tenant)
            #expect(
                left.mapValues(\.visibility) == [
                    user("carol"): .everything, user("dave"): .stateOnly, user("eve"): .nothing,
                ])
        }
    }

    @Test("it is on disk") func durable() async throws {
        let folder = try TemporaryFolder()
        let first = try SQLiteStore(configuration(folder.path))
        try await first.note([note("alice", 1_767_225_600_000, .stateOnly)])
        try await first.close()
        let second = try SQLiteStore(configuration(folder.path))
        #expect(
            try await second.presence(of: [user("alice")], in: tenant)[user("alice")]
                == PresenceRecord(lastSeen: 1_767_225_600_000, visibility: .stateOnly))
        try await second.close()
    }
}
