@_spi(Testing) import LonglineClient
import LonglineWire
import NIOCore

extension Demonstration {
    // MARK: 4

    func silenceAndReturn(alice: DemoDevice, bob: DemoDevice) async throws {
        try await bob.client.simulateOutage()
        let count = 100
        let waiting = try await bob.client.send(ByteBuffer(string: "written in the tunnel"), to: .user("alice"))
        for number in 1...count {
            let receipt = try await alice.client.send(ByteBuffer(string: "s-\(number)"), to: .user("bob"))
            if number == count { _ = try await receipt.acknowledged() }
        }
        record(4, "sent to bob while he was silent", "\(count) messages acknowledged", true)

        let start = ContinuousClock.now
        try await bob.client.endOutage()
        _ = try await waiting.acknowledged()
        let acknowledged = ContinuousClock.now - start
        try await bob.wait(for: "the last of the \(count)") { $0.texts().contains("s-\(count)") }
        let complete = ContinuousClock.now - start
        let info = bob.snapshot.connected.last
        record(
            4, "bob came back in 0-RTT, session resumed",
            info.map { "early data \($0.earlyData ? "accepted" : "not used"), resumed: \($0.resumed)" }
                ?? "not connected",
            info?.earlyData == true && info?.resumed == true)
        record(
            4, "the publish that waited, from the first packet",
            "\(inRoundTrips(acknowledged)) (cold: \(inRoundTrips(coldAcknowledged)))", acknowledged < coldAcknowledged)
        let numbers = bob.snapshot.texts().compactMap { DemoOrder.number(in: $0, after: "s-") }
        let order = DemoOrder(seen: numbers, of: count)
        record(
            4, "the \(count) messages bob missed", "\(order.description); all there after \(inRoundTrips(complete))",
            order.isPerfect)
        try await alice.wait(for: "bob's message") { $0.texts().contains("written in the tunnel") }
    }

    // MARK: 5

    func killServer(alice: DemoDevice, bob: DemoDevice) async throws {
        let count = 300
        async let fromAlice = Self.publish(from: alice, to: "bob", prefix: "k-", count: count)
        async let fromBob = Self.publish(from: bob, to: "alice", prefix: "l-", count: count)
        try await bob.wait(for: "a third of the messages") { $0.texts().contains("k-\(count / 3)") }
        await server.kill()
        let killed = ContinuousClock.now
        let early = [alice, bob].map { $0.client.state.isConnected }
        try await server.start()
        let started = ContinuousClock.now
        let (aliceSent, bobSent) = try await (fromAlice, fromBob)
        record(
            5, "killed with publishes in flight", "server back after \(DemoFormat.milliseconds(started - killed))",
            early == [true, true])
        try await bob.wait(for: "all of alice's") { $0.texts().contains("k-\(count)") }
        try await alice.wait(for: "all of bob's") { $0.texts().contains("l-\(count)") }
        record(
            5, "clients came back by themselves",
            "everything acknowledged \(DemoFormat.milliseconds(ContinuousClock.now - started)) after the restart",
            aliceSent == count && bobSent == count)
        for (device, prefix) in [(bob, "k-"), (alice, "l-")] {
            let numbers = device.snapshot.texts().compactMap { DemoOrder.number(in: $0, after: prefix) }
            let order = DemoOrder(seen: numbers, of: count)
            record(5, "\(device.name) got \(count) messages across the kill", order.description, order.isPerfect)
        }
        // A device that was never here reads the logs from their start: what it sees is what is on disk.
        let witness = try device("bob", "witness")
        try await witness.client.connect()
        try await witness.wait(for: "the whole log") { seen in
            seen.texts().contains("k-\(count)") && seen.texts().contains("l-\(count)")
        }
        for prefix in ["k-", "l-"] {
            let numbers = witness.snapshot.texts().compactMap { DemoOrder.number(in: $0, after: prefix) }
            let order = DemoOrder(seen: numbers, of: count)
            record(5, "\(count) acknowledged messages in the log (\(prefix)…)", order.description, order.isPerfect)
        }
        await witness.end()
    }

    /// Sends as fast as acknowledgements come, with a window of messages on their way; answers how many were acknowledged.
    private static func publish(from device: DemoDevice, to user: String, prefix: String, count: Int) async throws
        -> Int
    {
        var receipts: [SendReceipt] = []
        var acknowledged = 0
        let window = 16
        for number in 1...count {
            receipts.append(
                try await device.client.send(ByteBuffer(string: "\(prefix)\(number)"), to: .user(user)))
            if receipts.count >= window {
                _ = try await receipts.removeFirst().acknowledged()
                acknowledged += 1
            }
        }
        for receipt in receipts {
            _ = try await receipt.acknowledged()
            acknowledged += 1
        }
        return acknowledged
    }

    // MARK: 6

    func replayFlight(alice: DemoDevice, bob: DemoDevice) async throws {
        try await bob.client.simulateOutage()
        let text = "said once"
        let waiting = try await bob.client.send(ByteBuffer(string: text), to: .user("alice"))
        try await bob.client.endOutage()
        _ = try await waiting.acknowledged()
        let info = bob.snapshot.connected.last
        let flight = relay.latestFirstFlight
        let bytes = flight.reduce(0) { $0 + $1.readableBytes }
        record(
            6, "the flight that was captured",
            "\(flight.count) datagrams, \(bytes) bytes, early data \(info?.earlyData == true ? "accepted" : "not used")",
            info?.earlyData == true && !flight.isEmpty)
        let answers = try await relay.replay(flight, patience: .milliseconds(500))
        // A marker behind it: whatever the replay had entered would stand before it in alice's inbox.
        _ = try await bob.client.send(ByteBuffer(string: "after the replay"), to: .user("alice")).acknowledged()
        try await alice.wait(for: "the marker") { $0.texts().contains("after the replay") }
        let copies = alice.snapshot.texts().filter { $0 == text }.count
        record(
            6, "sent again from another port",
            "the server answered \(answers) datagrams; \(copies) entry in alice's inbox",
            copies == 1)
    }
}
