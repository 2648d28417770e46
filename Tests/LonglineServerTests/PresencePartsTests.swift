import LonglineStore
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineServer

private func key(_ name: String, _ tenant: TenantID = TokenIssuer.tenant) -> UserKey {
    UserKey(tenant: tenant, user: identifier { try UserID(name) })
}

@Suite("A loop's watchers") struct PresenceWatchersTests {
    private final class Watcher {}

    /// The table by reference, for expectations that change it.
    private final class Table {
        private var table = PresenceWatchers<Watcher>()
        var count: Int { table.count }
        var unreadCount: Int { table.unreadCount }
        func add(_ watcher: Watcher, to user: UserKey) -> PresenceUpdate? {
            table.add(watcher, to: user)
            return table.known(of: user)
        }
        func remove(_ watcher: Watcher, from user: UserKey) -> Bool { table.remove(watcher, from: user) }
        func takeUnread(limit: Int) -> [UserKey] { table.takeUnread(limit: limit) }
        func putBack(_ users: [UserKey]) { table.putBack(users) }
        func ask(_ user: UserKey) -> Bool { table.ask(user) }
        func learn(_ update: PresenceUpdate, of user: UserKey) -> [Watcher] { table.learn(update, of: user) }
    }

    @Test func theFirstWatcherHasTheRecordReadAndTheRestKnowWhatIsKnown() {
        let watchers = Table()
        let (one, two) = (Watcher(), Watcher())
        let update = PresenceUpdate(user: key("ann").user, state: .online, lastSeen: 0)
        #expect(watchers.add(one, to: key("ann")) == nil && watchers.add(two, to: key("ann")) == nil)
        #expect(watchers.add(two, to: key("ann")) == nil && watchers.count == 2)
        #expect(watchers.takeUnread(limit: 10) == [key("ann")] && watchers.takeUnread(limit: 10).isEmpty)
        #expect(watchers.ask(key("ann")) && !watchers.ask(key("ann")))
        #expect(watchers.learn(update, of: key("ann")).count == 2)
        let three = Watcher()
        #expect(watchers.add(three, to: key("ann")) == update && watchers.takeUnread(limit: 10).isEmpty)
        #expect(!watchers.remove(one, from: key("ann")) && !watchers.remove(one, from: key("ann")))
        #expect(!watchers.remove(two, from: key("ann")) && watchers.remove(three, from: key("ann")))
        #expect(watchers.count == 0 && watchers.learn(update, of: key("ann")).isEmpty)
        #expect(watchers.add(one, to: key("ann")) == nil, "what was known is forgotten")
    }

    @Test func whoIsForgottenBeforeTheRecordIsReadIsNotAskedFor() {
        let watchers = Table()
        let one = Watcher()
        _ = watchers.add(one, to: key("ann"))
        #expect(!watchers.remove(one, from: key("ann")), "the home knows nothing of it")
        #expect(watchers.takeUnread(limit: 10).isEmpty)
        _ = watchers.add(one, to: key("bob"))
        #expect(watchers.takeUnread(limit: 10) == [key("bob")])
        _ = watchers.remove(one, from: key("bob"))
        #expect(!watchers.ask(key("bob")))
        _ = watchers.add(one, to: key("eve"))
        let taken = watchers.takeUnread(limit: 10)
        watchers.putBack(taken)
        #expect(watchers.takeUnread(limit: 10) == [key("eve")], "a read that failed is done again")
    }

    @Test func whoComesAndGoesWhileNothingCanBeReadLeavesNothing() {
        let watchers = Table()
        let one = Watcher()
        _ = watchers.add(one, to: key("ann"))
        for round in 0..<200 {
            for name in ["bob", "user\(round)"] {
                _ = watchers.add(one, to: key(name))
                #expect(!watchers.remove(one, from: key(name)))
            }
            #expect(watchers.unreadCount < 30)
        }
        #expect(watchers.count == 1)
        #expect(watchers.takeUnread(limit: 10) == [key("ann")], "who is watched all the time still waits")
        #expect(watchers.unreadCount == 0)
    }

    @Test func whoIsForgottenAndWatchedAgainHasOnePlaceTheLast() {
        let watchers = Table()
        let one = Watcher()
        _ = watchers.add(one, to: key("bob"))
        _ = watchers.remove(one, from: key("bob"))
        for name in ["eve", "bob"] { _ = watchers.add(one, to: key(name)) }
        let taken = watchers.takeUnread(limit: 10)
        #expect(taken == [key("eve"), key("bob")])
        // Of a read that failed nothing is done again for who is watched no more.
        _ = watchers.remove(one, from: key("eve"))
        watchers.putBack(taken)
        #expect(watchers.unreadCount == 1 && watchers.takeUnread(limit: 10) == [key("bob")])
    }

    @Test func recordsAreReadTenantByTenant() throws {
        let watchers = Table()
        let one = Watcher()
        let other = try TenantID("other")
        for user in [key("a"), key("b"), key("a", other), key("c")] { _ = watchers.add(one, to: user) }
        #expect(watchers.takeUnread(limit: 10) == [key("a"), key("b")])
        #expect(watchers.takeUnread(limit: 10) == [key("a", other)])
        #expect(watchers.takeUnread(limit: 10) == [key("c")])
    }
}

@Suite("The presence writer", .timeLimit(.minutes(1))) struct PresenceWriterTests {
    private func note(
        _ name: String, _ seen: UInt64? = nil, _ visibility: PresenceVisibility? = nil
    ) -> PresenceNote {
        PresenceNote(
            tenant: TokenIssuer.tenant, user: key(name).user, lastSeen: seen, visibility: visibility)
    }

    @Test func whatComesWithinADelayIsOneRowAUserAndOneTransaction() async throws {
        let store = FaultyStore()
        let writer = PresenceWriter(records: store, delay: .milliseconds(1)) { _ in }
        for time in UInt64(1)...50 { writer.put(note("ann", time)) }
        writer.put(note("ann", nil, .stateOnly))
        writer.put(note("bob", 9, .nothing))
        writer.put(note("ann", 3))
        #expect(
            writer.newest(PresenceRecord(lastSeen: 2), of: key("ann"))
                == PresenceRecord(lastSeen: 50, visibility: .stateOnly))
        #expect(await writer.flush())
        let notes = try #require(store.notes.withLock { $0 }.first)
        #expect(
            store.notes.withLock { $0.count } == 1
                && Set(notes) == [note("ann", 50, .stateOnly), note("bob", 9, .nothing)])
        #expect(await writer.flush() && store.notes.withLock { $0.count } == 1, "nothing is written twice")
    }

    @Test func whatTheStoreHasNoRoomForWaitsAndNewsGoBefore() async throws {
        let store = FaultyStore()
        let failures = Mutex(0)
        let writer = PresenceWriter(records: store, delay: .milliseconds(1)) { _ in failures.withLock { $0 += 1 } }
        store.set { $0.isFull = true }
        writer.put(note("ann", 5, .nothing))
        #expect(await !writer.flush())
        #expect(failures.withLock { $0 } == 1)
        writer.put(note("ann", 7))
        writer.put(note("ann", nil, .everything))
        store.set { $0.isFull = false }
        #expect(await writer.flush())
        let known = try await store.presence(of: [key("ann").user], in: TokenIssuer.tenant)
        #expect(known[key("ann").user] == PresenceRecord(lastSeen: 7))
    }

    @Test func stoppedItWritesTheRestAndReturns() async throws {
        let store = FaultyStore()
        let writer = PresenceWriter(records: store, delay: .hours(1)) { _ in }
        let task = Task { await writer.run() }
        writer.put(note("ann", 5))
        writer.stop()
        task.cancel()
        await task.value
        #expect(try await store.presence(of: [key("ann").user], in: TokenIssuer.tenant).count == 1)
    }

    @Test func whoIsForgottenIsNotWritten() async throws {
        let store = FaultyStore()
        let writer = PresenceWriter(records: store, delay: .milliseconds(1)) { _ in }
        writer.put(note("ann", 5))
        writer.put(note("bob", 6))
        await writer.forget(key("ann"))
        await writer.flush()
        let names = [key("ann").user, key("bob").user]
        #expect(try await store.presence(of: names, in: TokenIssuer.tenant).keys.map(\.description) == ["bob"])
    }
}
