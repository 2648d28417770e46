import LonglineServer
import LonglineTestKit
import LonglineWire
import NIOCore
import NIOPosix
import QUICEngine
import QUICTransport
import Testing

@_spi(Testing) @testable import LonglineClient

/// Client and server over QUIC on loopback.
@Suite("End to end", .serialized, .timeLimit(.minutes(2)))
struct EndToEndTests {
    @Test("a message is acknowledged by the service and reaches the other user and the sender's other device")
    func sendAndReceive() async throws {
        let service = try await LiveService()
        let phone = try service.client("alice")
        let tablet = try service.client("alice", "tablet")
        let bob = try service.client("bob")
        for client in [phone, tablet, bob] { try await client.connect() }
        let published = try await phone.send("hello", to: .user("bob")).acknowledged()
        #expect(published.position.offset > 0)
        let received = try #require(await bob.receive(1).first)
        #expect(received.text == "hello" && received.sender.description == "alice")
        #expect(received.origin == published.position)
        let record = try #require(await tablet.receive(1).first)
        #expect(record.text == "hello" && record.recipient?.description == "bob")
        for client in [phone, tablet, bob] { await client.disconnect() }
        await service.stop()
    }

    @Test("a client connects to the address that answers, and comes back to it at once")
    func severalAddresses() async throws {
        let service = try await LiveService()
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let dead = try await DeafSocket.open("::1", port: service.port, on: loop)
        let resolver = NameResolver { _ in
            ["::1", "127.0.0.1"].compactMap { QUICSocketAddress(numericHost: $0, port: 0) }
        }
        let point = AccessPoint(host: "service.test", port: service.port)
        let alice = try service.client("alice", resolver: resolver) {
            $0.accessPoints = [point]
            $0.serverName = "localhost"
        }
        try await alice.connect()
        _ = try await alice.send("hello", to: .user("bob")).acknowledged()
        let heard = dead.heard
        #expect(heard > 0)
        await alice.disconnect()
        try await alice.connect()
        let statistics = await alice.statistics
        #expect(statistics.failedAttempts == 0)
        #expect(statistics.link?.remoteAddress == "127.0.0.1:\(service.port)")
        await alice.disconnect()
        try await dead.close()
        await service.stop()
    }

    @Test("a room hears a message, its sender too if it wants to")
    func room() async throws {
        let service = try await LiveService()
        let names = ["alice", "bob", "carol"]
        let clients = try names.map { try service.client($0) { $0.ownMessages = .delivered } }
        for client in clients {
            try await client.connect()
            try await client.join(RoomID("tea"))
        }
        _ = try await clients[0].send("kettle", to: .room("tea")).acknowledged()
        for client in clients {
            for await message in client.messages where message.kind == .message {
                #expect(message.text == "kettle")
                break
            }
            await client.disconnect()
        }
        await service.stop()
    }

    @Test("what was sent while a device was away is there when it comes, in order")
    func offline() async throws {
        let service = try await LiveService()
        let alice = try service.client("alice")
        try await alice.connect()
        var receipts: [SendReceipt] = []
        for index in 0..<50 { receipts.append(try await alice.send("\(index)", to: .user("bob"))) }
        for receipt in receipts { _ = try await receipt.acknowledged() }
        let bob = try service.client("bob")
        try await bob.connect()
        #expect(await bob.receive(50).map(\.text) == (0..<50).map { "\($0)" })
        for client in [alice, bob] { await client.disconnect() }
        await service.stop()
    }

    @Test("a device returns by 0-RTT: what waited is acknowledged, what it missed comes")
    func earlyReturn() async throws {
        let service = try await LiveService()
        let alice = try service.client("alice")
        let bob = try service.client("bob")
        try await alice.connect()
        try await bob.connect()
        _ = try await bob.send("before", to: .user("alice")).acknowledged()
        let first = try await bob.nextConnection()
        #expect(!first.earlyData)
        await bob.disconnect()
        for index in 0..<20 { _ = try await alice.send("\(index)", to: .user("bob")).acknowledged() }
        let waiting = try await bob.send("waited", to: .user("alice"))
        try await bob.connect()
        let second = try await bob.nextConnection()
        #expect(second.earlyData, "the first flight was taken")
        _ = try await waiting.acknowledged()
        #expect(await bob.receive(20).map(\.text) == (0..<20).map { "\($0)" })
        #expect(await alice.receive(2).map(\.text) == ["before", "waited"])
        for client in [alice, bob] { await client.disconnect() }
        await service.stop()
    }

    @Test("a device that went silent is left behind, and returns")
    func outage() async throws {
        let service = try await LiveService()
        let alice = try service.client("alice")
        let bob = try service.client("bob")
        try await alice.connect()
        try await bob.connect()
        _ = try await bob.send("before", to: .user("alice")).acknowledged()
        try await bob.simulateOutage()
        let waiting = try await bob.send("in the tunnel", to: .user("alice"))
        for index in 0..<20 { _ = try await alice.send("\(index)", to: .user("bob")).acknowledged() }
        try await bob.endOutage()
        _ = try await waiting.acknowledged()
        #expect(await bob.receive(20).map(\.text) == (0..<20).map { "\($0)" })
        #expect(await alice.receive(2).map(\.text) == ["before", "in the tunnel"])
        for client in [alice, bob] { await client.disconnect() }
        await service.stop()
    }

    @Test("a change of port and of address in the middle of a conversation loses, doubles and reorders nothing")
    func migration() async throws {
        let service = try await LiveService()
        let alice = try service.client("alice")
        let bob = try service.client("bob")
        try await alice.connect()
        try await bob.connect()
        let before = try await bob.nextConnection()
        let texts = (0..<300).map { "\($0)" }
        async let fromAlice = alice.sendAll(texts, to: .user("bob"))
        async let fromBob = bob.sendAll(texts, to: .user("alice"))
        async let toBob = bob.receive(300)
        async let toAlice = alice.receive(300)
        try await bob.rebind()
        try await bob.migrate(to: SocketAddress(ipAddress: "127.0.0.2", port: 0))
        let after = try await bob.nextConnection()
        #expect(after.session == before.session, "the session went on")
        #expect(after.localAddress?.hasPrefix("127.0.0.2:") == true)
        _ = try await (fromAlice, fromBob)
        #expect(await toBob.map(\.text) == texts)
        #expect(await toAlice.map(\.text) == texts)
        let statistics = await bob.statistics
        #expect(statistics.connects == 1 && statistics.migrations == 2)
        for client in [alice, bob] { await client.disconnect() }
        await service.stop()
    }

    @Test("clients come back by themselves when the server was started again, and nothing is lost")
    func restart() async throws {
        let service = try await LiveService { $0.drainSpread = .milliseconds(500) }
        let alice = try service.client("alice")
        let bob = try service.client("bob")
        try await alice.connect()
        try await bob.connect()
        _ = try await alice.send("0", to: .user("bob")).acknowledged()
        await service.stop()
        var receipts: [SendReceipt] = []
        for index in 1..<20 { receipts.append(try await alice.send("\(index)", to: .user("bob"))) }
        try await service.start()
        for receipt in receipts { _ = try await receipt.acknowledged() }
        #expect(await bob.receive(20).map(\.text) == (0..<20).map { "\($0)" })
        _ = try await bob.nextConnection()
        #expect(await bob.statistics.connects >= 2)
        for client in [alice, bob] { await client.disconnect() }
        await service.stop()
    }

    @Test("a certificate with another key is not believed")
    func wrongPin() async throws {
        let service = try await LiveService()
        let client = try service.client("alice") { $0.trust = .pinnedPublicKey([[UInt8](repeating: 7, count: 32)]) }
        try await client.start()
        for await state in client.states {
            if case .waiting(_, let cause) = state {
                #expect(cause.code == .connectFailed && !cause.message.isEmpty)
                break
            }
            if state.isConnected {
                Issue.record("connected to a stranger")
                break
            }
        }
        await client.disconnect()
        await service.stop()
    }
}

extension LonglineClient {
    fileprivate func sendAll(_ texts: [String], to destination: Destination) async throws {
        var receipts: [SendReceipt] = []
        for text in texts { receipts.append(try await send(text, to: destination)) }
        for receipt in receipts { _ = try await receipt.acknowledged() }
    }
}
