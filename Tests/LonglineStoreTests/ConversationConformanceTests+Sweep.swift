import LonglineStore
import LonglineWire
import Testing

extension ConversationConformanceTests {
    @Test("what was read in a room goes with the room, and a mute stays", arguments: StoreKind.allCases)
    func whatWasReadGoesWithTheRoom(_ kind: StoreKind) async throws {
        let clock = TestClock()
        try await withStore(kind, clock: clock) { store async throws in
            try await store.enter(request(id: 1))
            var places: [String: Position] = [:]
            for name in ["left", "muted", "kept"] {
                let channel = ChannelID.room(room(name))
                _ = try await store.join(room(name), by: device("alice"), create: true)
                let place = try await store.enter(request(to: channel, id: 1)).position
                #expect(try await read(store, "alice", channel, place) != nil)
                places[name] = place
            }
            let muted = ChannelID.room(room("muted"))
            _ = try await store.set(.mute(until: .max), of: muted, for: user("alice"), in: tenant)
            for name in ["left", "muted"] {
                _ = try await store.leave(room(name), by: device("alice"))
                while try await store.trim(roomKey(name), keep: Retention(entries: 0)).more {}
            }
            clock.advance(StoreLimits().unseen + 1)
            // The user is still there.
            try await store.enter(request(id: 2))
            #expect(try await store.sweep().channels == 2)
            for name in ["left", "muted"] {
                _ = try await store.join(room(name), by: device("alice"), create: true)
            }
            #expect(try await item(store, "alice", .room(room("left"))).read == 0)
            // What is read in the room made anew is judged by that alone.
            let left = ChannelID.room(room("left"))
            let again = try await store.enter(request(to: left, id: 1)).position
            #expect(try await read(store, "alice", left, again) != nil)
            #expect(try await item(store, "alice", left).read == again.offset)
            #expect(try await item(store, "alice", .room(room("kept"))).read == places["kept"]?.offset)
            #expect(try await item(store, "alice", muted).settings.mutedUntil == FrameLimits.maximumNumber)
        }
    }
}
