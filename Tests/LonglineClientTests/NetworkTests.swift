import GRDB
import LonglineSession
import LonglineTestKit
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineClient

@Suite("Networks and modes", .timeLimit(.minutes(1)))
struct NetworkTests {
    // MARK: Names

    private let interfaces = [
        NetworkName.Interface(device: "lo", address: "127.0.0.1", netmask: "255.0.0.0"),
        NetworkName.Interface(device: "wlan0", address: "192.168.7.23", netmask: "255.255.255.0"),
        NetworkName.Interface(device: "eth0", address: "10.1.2.3", netmask: "255.255.0.0"),
        NetworkName.Interface(device: "wlan0", address: "2001:db8:5::abcd", netmask: "ffff:ffff:ffff:ffff::"),
        NetworkName.Interface(device: "eth0", address: "2001:db8:6::1", netmask: nil),
    ]
    private let routes4 = """
        Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
        eth0\t00000000\t0100010A\t0003\t0\t0\t100\t00000000\t0\t0\t0
        eth0\t00000000\t0900010A\t0003\t0\t0\t50\t00000000\t0\t0\t0
        wlan0\t00000000\t0107A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
        wlan0\t0007A8C0\t00000000\t0001\t0\t0\t600\t00FFFFFF\t0\t0\t0
        broken line
        """
    private let routes6 = """
        20010db8000500000000000000000000 40 \(zeros) 00 \(zeros) 00000100 00000001 00000000 00000001    wlan0
        \(zeros) 00 \(zeros) 00 fe800000000000000000000000000001 00000400 00000001 00000000 00450003    wlan0
        \(zeros) 00 \(zeros) 00 \(zeros) ffffffff 00000001 00000000 00200200       lo
        """
    private static let zeros = String(repeating: "0", count: 32)

    private func name(_ address: String) -> String {
        NetworkName.name(address: address, interfaces: interfaces, routes4: routes4, routes6: routes6)
    }

    @Test("a network is named by the address's network and its device's best gateway")
    func names() {
        #expect(name("192.168.7.23") == "192.168.7.0/24 via 192.168.7.1")
        #expect(name("10.1.2.3") == "10.1.0.0/16 via 10.1.0.9")
        #expect(
            name("2001:db8:5::abcd") == "20010db8000500000000000000000000/64 via fe800000000000000000000000000001")
        #expect(name("2001:db8:6::1") == "20010db8000600000000000000000000/64 via none")
        #expect(name("127.0.0.1") == "127.0.0.0/8 via none")
        #expect(name("198.51.100.7") == "198.51.100.7 via none", "an address of no interface stands for itself")
        #expect(
            NetworkName.name(address: "not an address", interfaces: [], routes4: "\u{0}", routes6: "x\n\n")
                == "not an address via none")
    }

    @Test("this machine's own tables can be read")
    func ownTables() throws {
        let name = try #require(NetworkName.of(SocketAddress(ipAddress: "127.0.0.1", port: 1)))
        #expect(name.hasPrefix("127.0.0"))
        #expect(NetworkName.of(nil) == nil)
    }

    // MARK: Memory

    @Test("twenty networks are remembered, and the one not used for longest goes first")
    func twenty() async throws {
        var memory = NetworkMemory([])
        let directory = try TemporaryFolder()
        let storage = try SQLiteClientStorage(path: directory.file("client.sqlite"))
        let model = InMemoryClientStorage()
        for number in UInt64(0)..<30 {
            let knowledge = HeartbeatKnowledge(lived: .seconds(Int64(number) + 1), died: .seconds(Int64(number) + 3))
            // The first one is in use now and then.
            for (name, knowledge) in [
                ("network \(number)", knowledge), ("network 0", HeartbeatKnowledge(lived: .seconds(7))),
            ] {
                let stored = memory.note(knowledge, of: name, at: 100 + number)
                let change = StorageChange.network(try #require(stored))
                try await storage.apply([change])
                await model.apply([change])
            }
        }
        let kept = Set(["network 0"] + (11..<30).map { "network \($0)" })
        #expect(Set(try await storage.load().networks.map(\.name)) == kept)
        #expect(Set(await model.load().networks.map(\.name)) == kept)
        #expect(memory.knowledge(of: "network 10") == nil)
        let again = NetworkMemory(try await storage.load().networks)
        for name in kept {
            #expect(again.knowledge(of: name) == memory.knowledge(of: name) && again.knowledge(of: name) != nil)
        }
        #expect(again.knowledge(of: "network 0") == HeartbeatKnowledge(lived: .seconds(7)))
    }

    @Test("rows that can't be true are dropped, and the others stay")
    func damage() async throws {
        let directory = try TemporaryFolder()
        let path = directory.file("client.sqlite")
        let good = StoredNetwork(name: "home", lived: 60_000, died: 70_000, lastUse: 1)
        let bad = [
            StoredNetwork(name: "", lived: 1, died: nil, lastUse: 1),
            StoredNetwork(name: "no silence", lived: 0, died: nil, lastUse: 1),
            StoredNetwork(name: "reversed", lived: 9, died: 8, lastUse: 1),
            StoredNetwork(name: "too long", lived: .max, died: nil, lastUse: 1),
            StoredNetwork(name: "never", lived: nil, died: .max, lastUse: 1),
            StoredNetwork(name: String(repeating: "n", count: 257), lived: 1, died: nil, lastUse: 1),
        ]
        do {
            let storage = try SQLiteClientStorage(path: path)
            try await storage.apply((bad + [good]).map { .network($0) })
            #expect(try await storage.load().networks == [good])
            try storage.close()
        }
        var memory = NetworkMemory(bad + [good])
        #expect(memory.knowledge(of: "home") != nil && memory.knowledge(of: "reversed") == nil)
        let refused = memory.note(HeartbeatKnowledge(lived: .hours(25)), of: "home", at: 2)
        #expect(refused == nil)
    }

    @Test("a file of the version before gets its table, and keeps what it has")
    func migration() async throws {
        let directory = try TemporaryFolder()
        let path = directory.file("client.sqlite")
        let storage = try SQLiteClientStorage(path: path)
        try await storage.apply([.connectNumber(5)])
        try storage.close()
        let queue = try DatabaseQueue(path: path)
        try await queue.write { database in
            try database.execute(
                sql: "DROP TABLE network; DELETE FROM grdb_migrations WHERE identifier = 'heartbeat-networks'")
        }
        try queue.close()
        let reopened = try SQLiteClientStorage(path: path)
        let network = StoredNetwork(name: "home", lived: 60_000, died: nil, lastUse: 1)
        try await reopened.apply([.network(network)])
        let state = try await reopened.load()
        #expect(state.connectNumber == 5 && state.networks == [network])
    }

    // MARK: The client

    /// What the client does on a quiet connection, in seconds.
    private func interval(_ client: LonglineClient) async -> Duration? { await client.statistics.learnedHeartbeat }

    @Test("what was learned belongs to the network, and is there again after a restart")
    func remembers() async throws {
        let storage = InMemoryClientStorage()
        do {
            let harness = try ClientHarness(storage: storage)
            try await harness.client.connect()
            #expect(await interval(harness.client) == .seconds(10))
            try await harness.client.run {
                $0.perform(learned: HeartbeatKnowledge(lived: .seconds(15), died: .seconds(16)))
            }
            try await harness.client.setNetwork("cafe")
            #expect(await interval(harness.client) == .seconds(10), "nobody knows it")
            try await harness.client.run { $0.perform(learned: HeartbeatKnowledge(lived: .seconds(12))) }
            try await harness.settle()
            await harness.client.disconnect()
        }
        let stored = await storage.load().networks
        #expect(Set(stored.map(\.name)) == ["192.0.2.77 via none", "app:cafe"])
        let harness = try ClientHarness(storage: storage)
        try await harness.client.connect()
        #expect(await interval(harness.client) == .milliseconds(13_500), "the network of the local address")
        try await harness.client.setNetwork("cafe")
        #expect(await interval(harness.client) == .milliseconds(10_800))
        try await harness.client.setNetwork(nil)
        #expect(await interval(harness.client) == .milliseconds(13_500))
        await harness.client.disconnect()
        // The name is nobody's business.
        for frame in harness.service.state.withLock({ $0.frames }) {
            var bytes = ByteBuffer()
            try FrameEncoder.encode(frame, into: &bytes)
            #expect(!String(decoding: bytes.readableBytesView, as: UTF8.self).contains("cafe"))
        }
    }

    @Test("a real connection knows its network, with a full handshake and with early data")
    func realConnection() async throws {
        let service = try await LiveService()
        let client = try service.client("ann") { $0.storage = InMemoryClientStorage() }
        func network() async throws -> String? {
            try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<String?, any Error>) in
                Task { try await client.run { driver in continuation.resume(returning: driver.network) } }
            }
        }
        try await client.connect()
        #expect(try await network() == "127.0.0.0/8 via none")
        await client.disconnect()
        try await client.run { $0.network = nil }
        try await client.connect()
        #expect(try await network() == "127.0.0.0/8 via none")
        await client.disconnect()
        await service.stop()
    }

    @Test("a name of the configuration comes first; one of a wrong length is refused")
    func configuredName() async throws {
        let storage = InMemoryClientStorage()
        await storage.apply([.network(StoredNetwork(name: "app:home", lived: 15_000, died: 16_000, lastUse: 1))])
        let harness = try ClientHarness(storage: storage) { $0.network = "home" }
        try await harness.client.connect()
        #expect(await interval(harness.client) == .milliseconds(13_500))
        for name in ["", String(repeating: "n", count: 251)] {
            let error = await #expect(throws: ClientError.self) { try await harness.client.setNetwork(name) }
            #expect(error?.code == .invalidConfiguration)
            #expect(throws: ClientError.self) { try ClientHarness { $0.network = name } }
        }
        await harness.client.disconnect()
        let fixed = try ClientHarness { $0.heartbeat = HeartbeatPolicy() }
        try await fixed.client.connect()
        try await fixed.client.setNetwork("home")
        #expect(await interval(fixed.client) == nil)
        await fixed.client.disconnect()
    }

    @Test("the service hears of the mode, and on each new connection again")
    func modes() async throws {
        let harness = try ClientHarness()
        try await harness.client.setMode(.background)
        try await harness.client.connect()
        try await harness.client.setMode(.background)
        try await harness.client.setMode(.lowPower)
        // A join's answer comes behind everything that was said before it.
        try await harness.client.join(RoomID("room"))
        await harness.lose()
        try await harness.client.connect()
        try await harness.client.setMode(.foreground)
        try await harness.client.join(RoomID("room"))
        await harness.lose()
        try await harness.client.connect()
        try await harness.client.join(RoomID("room"))
        #expect(harness.service.state.withLock { $0.modes } == [.background, .lowPower, .lowPower, .foreground])
        await harness.client.disconnect()
    }
}

extension ConnectionDriver {
    /// As if the session had learned something.
    fileprivate func perform(learned knowledge: HeartbeatKnowledge) { keep(knowledge) }
}
