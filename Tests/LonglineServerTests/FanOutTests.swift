import LonglineLinks
import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineServer

private let hall = identifier { try RoomID("hall") }

/// More sessions than are woken at a time, in one room on one event loop.
@Suite(.timeLimit(.minutes(5))) struct FanOutTests {
    private static let size = 12 * FanOut.sessionsPerTick + 12

    private func fill(_ store: FaultyStore) async throws -> [DeviceKey] {
        var members: [DeviceKey] = []
        for number in 0..<Self.size {
            let member = DeviceKey(
                tenant: TokenIssuer.tenant, user: try UserID("u\(number)"), device: try DeviceID("phone"))
            _ = try await store.change(hall, .join(create: true), by: member)
            members.append(member)
        }
        // Nobody has to be told of the joins.
        while try await store.inner.trim(
            ChannelKey(tenant: TokenIssuer.tenant, channel: .room(hall)), keep: Retention(entries: 1)
        ).more {}
        return members
    }

    @Test("every member of a large room gets every message once and in order, however fast they come")
    func largeRoom() async throws {
        let store = FaultyStore()
        let members = try await fill(store)
        try await withServer(store: store, loops: 1) { server in
            var devices: [TestDevice] = []
            for member in members { devices.append(try await server.connected(member.user.description)) }
            let reads = store.reads.withLock { $0 }
            // All at once, so that wakes come while sessions are still being woken for the first.
            let texts = (0..<8).map { "m\($0)" }
            for text in texts { try await devices[0].send(devices[0].publishFrames(text, to: .room(hall))) }
            for device in devices {
                for text in texts { #expect(try await device.text(.room(hall)) == text) }
            }
            // The log is read once for many sessions, not once for each.
            #expect(store.reads.withLock { $0 } - reads < Self.size / 2)
            try await devices[0].publish("last", to: .room(hall))
            for device in devices { #expect(try await device.text(.room(hall)) == "last") }
        }
    }

    @Test("between those that are woken the loop's sockets have their turn, also where nothing is sent to any")
    func socketsMeanwhile() async throws {
        let store = FaultyStore()
        let members = try await fill(store)
        try await withServer(store: store, loops: 1) { server in
            var devices: [TestDevice] = []
            for member in members {
                let device = try await server.connected(member.user.description)
                try await device.send([(.mode(.background), .control)])
                devices.append(device)
            }
            try await devices[0].publish("one", to: .room(hall))
            // Each comes behind a slice of the pass.
            for _ in 0..<Self.size { try await server.runtime.loops[0].submit { _ in } }
            var polls = 0
            for device in devices {
                try await device.send([(.ping(Ping(nonce: 1, answerAfter: 0)), .control)])
                _ = try await device.next { if case .pong = $0 { true } else { nil } }
                polls += device.polls
            }
            #expect(polls >= Self.size / FanOut.sessionsPerTick)
        }
    }

    @Test(
        "so they have between sessions that have something else to do, also where the last one's link is gone",
        arguments: [false, true])
    func otherWork(isGone: Bool) async throws {
        try await withServer(loops: 1) { server in
            var devices: [TestDevice] = []
            for number in 0..<(ServerLoop.drainsPerTick + 12) {
                devices.append(try await server.connected("u\(number)"))
            }
            let users = devices.map { UserKey(tenant: TokenIssuer.tenant, user: $0.user) }
            let last = ServerLoop.drainsPerTick - 1
            if isGone { devices.remove(at: last) }
            /// How often the loop looked so far.
            func polls() async throws -> Int {
                var polls = 0
                for device in devices {
                    try await device.send([(.ping(Ping(nonce: 1, answerAfter: 0)), .control)])
                    _ = try await device.next { if case .pong = $0 { true } else { nil } }
                    polls += device.polls
                }
                return polls
            }
            let before = try await polls()
            let found = try await server.runtime.loops[0].submit { loop in
                let hosts = users.flatMap { loop.sessions(of: .user($0)) }
                for host in hosts { host.wake() }
                if isGone, let link = hosts[last].link { hosts[last].linkClosed(link, reason: .idleTimeout) }
                loop.drainDirty()
                return hosts.count
            }
            #expect(found == users.count)
            #expect(try await polls() == before + 1)
        }
    }

    @Test("a session that ends while its room is being woken ends alone")
    func endsMeanwhile() async throws {
        let store = FaultyStore()
        let members = try await fill(store)
        try await withServer(store: store, loops: 1) { server in
            var devices: [TestDevice] = []
            for member in members { devices.append(try await server.connected(member.user.description)) }
            try await devices[0].send(devices[0].publishFrames("one", to: .room(hall)))
            for device in devices.suffix(100) { try await device.drop() }
            try await devices[0].publish("two", to: .room(hall))
            for device in devices.dropLast(100) {
                #expect(try await device.text(.room(hall)) == "one")
                #expect(try await device.text(.room(hall)) == "two")
            }
        }
    }

    /// Wakes of one channel come in any order: those of other loops, of joins, and of publishes go different ways.
    @Test("an older wake that comes late holds nothing back")
    func olderWake() async throws {
        let store = FaultyStore()
        let members = try await fill(store)
        try await withServer(store: store, loops: 1) { server in
            var devices: [TestDevice] = []
            for member in members { devices.append(try await server.connected(member.user.description)) }
            let key = ChannelKey(tenant: TokenIssuer.tenant, channel: .room(hall))
            func enter(_ id: PublishID, _ text: String) async throws -> Position {
                let request = AppendRequest(
                    device: members[0], producer: ProducerID(high: 9, low: 9), channel: .room(hall),
                    publish: Publish(
                        id: id, tag: id, after: id - 1, recipient: nil, timeToLive: 0,
                        payload: ByteBuffer(string: text)))
                guard case .entered(let published, _, _, _) = await store.append([request]).first else {
                    throw CancellationError()
                }
                return published.position
            }
            let loop = server.runtime.loops[0]
            let first = try await enter(1, "one")
            loop.execute { $0.wakeListeners(of: key, head: first) }
            for device in devices { #expect(try await device.text(.room(hall)) == "one") }
            let second = try await enter(2, "two")
            loop.execute { loop in
                loop.wakeListeners(of: key, head: second)
                loop.wakeListeners(of: key, head: first)
            }
            for device in devices { #expect(try await device.text(.room(hall)) == "two") }
        }
    }
}
