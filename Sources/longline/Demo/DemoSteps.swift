import LonglineClient
import LonglineWire
import NIOCore

extension Demonstration {
    // MARK: 1

    func coldConnect(_ alice: DemoDevice) async throws {
        let start = ContinuousClock.now
        try await alice.client.connect()
        let receipt = try await alice.client.send(ByteBuffer(string: "hello, bob"), to: .user("bob"))
        _ = try await receipt.acknowledged()
        coldAcknowledged = ContinuousClock.now - start
        let info = alice.snapshot.connected.last
        if let info {
            record(1, "handshake of a stranger", inRoundTrips(info.handshakeTime), !info.transportResumed)
            record(1, "authenticated", inRoundTrips(info.connectTime), !info.resumed)
        }
        record(1, "first message acknowledged", inRoundTrips(coldAcknowledged), info != nil)
    }

    // MARK: 2

    func conversation(alice: DemoDevice, tablet: DemoDevice, bob: DemoDevice, carol: DemoDevice) async throws {
        for device in [tablet, bob, carol] { try await device.client.connect() }
        try await bob.wait(for: "alice's message from before he connected") { $0.texts().contains("hello, bob") }
        record(2, "a message sent while bob was offline", "arrived when he connected", true)

        let sent = ContinuousClock.now
        _ = try await alice.client.send(ByteBuffer(string: "ping"), to: .user("bob"))
        try await bob.wait(for: "ping") { $0.texts().contains("ping") }
        _ = try await bob.client.send(ByteBuffer(string: "pong"), to: .user("alice"))
        try await alice.wait(for: "pong") { $0.texts().contains("pong") }
        record(2, "alice to bob and back", inRoundTrips(ContinuousClock.now - sent), true)

        try await tablet.wait(for: "what alice's phone sent and got") { seen in
            ["hello, bob", "ping", "pong"].allSatisfy(seen.texts().contains)
        }
        record(2, "alice's tablet sees both sides", tablet.snapshot.texts().joined(separator: ", "), true)

        let room = try RoomID("harbour")
        for device in [alice, bob, carol] { _ = try await device.client.join(room) }
        let said = ["from alice", "from bob", "from carol"]
        for (device, text) in zip([alice, bob, carol], said) {
            _ = try await device.client.send(ByteBuffer(string: text), to: .room(room)).acknowledged()
        }
        // Own messages are hidden on the device that sent them, so each of the three hears the two others; alice's
        // tablet, which sent none, hears all three.
        for (device, heard) in [(alice, 2), (bob, 2), (carol, 2), (tablet, 3)] {
            try await device.wait(for: "\(heard) messages in the room") { $0.texts(in: .room(room)).count >= heard }
        }
        let counts = [alice, bob, carol].map { $0.snapshot.texts(in: .room(room)).count }
        record(
            2, "each message in the room of three reaches the two others",
            counts.map(String.init).joined(separator: ", "),
            counts == [2, 2, 2])
        record(
            2, "alice's tablet hears the room in its order",
            tablet.snapshot.texts(in: .room(room)).joined(separator: ", "),
            tablet.snapshot.texts(in: .room(room)) == said)
    }

    // MARK: 3

    func moveWhileMessagesFlow(alice: DemoDevice, bob: DemoDevice) async throws {
        let count = 400
        let before = await bob.client.statistics.migrations
        async let fromAlice: Void = Self.flow(from: alice, to: "bob", prefix: "a-", count: count)
        async let fromBob: Void = Self.flow(from: bob, to: "alice", prefix: "b-", count: count)
        try await bob.wait(for: "the first quarter") { $0.texts().contains("a-\(count / 4)") }
        let firstPath = bob.snapshot.connected.last?.localAddress ?? "?"
        try await bob.client.rebind()
        let secondPath = await bob.client.statistics.link?.localAddress ?? "?"
        try await bob.wait(for: "half of the messages") { $0.texts().contains("a-\(count / 2)") }
        try await bob.client.migrate(to: SocketAddress(ipAddress: "127.0.0.2", port: 0))
        let thirdPath = await bob.client.statistics.link?.localAddress ?? "?"
        _ = try await (fromAlice, fromBob)
        try await bob.wait(for: "all of alice's") { $0.texts().contains("a-\(count)") }
        try await alice.wait(for: "all of bob's") { $0.texts().contains("b-\(count)") }
        record(
            3, "paths used", "\(firstPath), \(secondPath), \(thirdPath)",
            Set([firstPath, secondPath, thirdPath]).count == 3 && thirdPath.hasPrefix("127.0.0.2"))
        record(
            3, "one connection throughout", "\(await bob.client.statistics.migrations - before) migrations",
            bob.snapshot.connected.map(\.session).last == bob.snapshot.connected.first?.session)
        for (device, prefix, sender) in [(bob, "a-", "alice"), (alice, "b-", "bob")] {
            let arrivals = device.snapshot.arrivals.filter { $0.text.hasPrefix(prefix) }
            let order = DemoOrder(
                seen: arrivals.compactMap { DemoOrder.number(in: $0.text, after: prefix) }, of: count)
            let gaps = zip(arrivals, arrivals.dropFirst()).map { $1.at - $0.at }
            record(
                3, "\(count) messages from \(sender), one every 5 ms",
                "\(order.description); largest gap \(DemoFormat.milliseconds(gaps.max() ?? .zero))", order.isPerfect)
        }
    }

    private static func flow(from device: DemoDevice, to user: String, prefix: String, count: Int) async throws {
        var next = ContinuousClock.now
        for number in 1...count {
            _ = try await device.client.send(ByteBuffer(string: "\(prefix)\(number)"), to: .user(user))
            next += .milliseconds(5)
            try await Task.sleep(until: next, clock: .continuous)
        }
    }
}
