import LonglineTestKit
import Testing

@testable import QUICEngine

/// Somebody sees a client's packets, and lets them come from other addresses before they arrive (RFC 9000 sections 9.3.2 and 21.5).
@Suite struct OffPathTests {
    private final class Thief {
        private let world: EngineWorld
        private var wants: (([UInt8]) -> Bool)?
        private var taken: [UInt8]?
        private var received: [QUICSocketAddress: Int] = [:]
        private var sent: [QUICSocketAddress: Int] = [:]

        init(_ world: EngineWorld) {
            self.world = world
            world.network.filter = { [weak self] bytes, path in self?.passes(bytes, path) ?? true }
        }

        private func passes(_ bytes: [UInt8], _ path: QUICPath) -> Bool {
            sent[path.remote, default: 0] += bytes.count
            guard let wants, path.local == EngineWorld.clientAddress, wants(bytes) else { return true }
            self.wants = nil
            taken = bytes
            return false
        }

        /// The next packet of the client that is wanted doesn't arrive, but comes from this address.
        func send(
            from stranger: QUICSocketAddress, where wants: @escaping ([UInt8]) -> Bool, after call: () throws -> Void
        ) throws {
            taken = nil
            self.wants = wants
            try call()
            world.simulation.run(for: .milliseconds(5))
            let packet = try #require(taken)
            received[stranger, default: 0] += packet.count
            let path = QUICPath(local: EngineWorld.serverAddress, remote: stranger)
            packet.withUnsafeBytes { world.server.receive($0, path: path, ecn: .notECT, now: world.network.now) }
        }

        /// No address got more than three times what came from it (RFC 9000 section 8.1).
        var isNoAmplifier: Bool { received.allSatisfy { sent[$0.key, default: 0] <= 3 * $0.value } }
    }

    private func stranger(_ number: UInt8) -> QUICSocketAddress {
        QUICSocketAddress(ipv4: (10, 3, 3, number), port: 3333)
    }

    @Test("a connection goes back from where its client's packets only seem to come from, and all that is sent arrives")
    func stolenPackets() throws {
        let world = try EngineWorld()
        let (client, server) = try world.connected()
        world.simulation.run(for: .seconds(2))
        let thief = Thief(world)
        let stream = try server.open(bidirectional: false)
        try server.send(pattern(200_000), on: stream, finish: true)
        for number in 1...3 as ClosedRange<UInt8> {
            try thief.send(from: stranger(number), where: { $0[0] & 0x80 == 0 }) {
                client.ping(now: world.network.now)
            }
            world.simulation.run(for: .milliseconds(50))
            #expect(thief.isNoAmplifier)
        }
        world.simulation.run(for: .seconds(20)) { world.clientSide.finished.contains(stream) }
        #expect(world.clientSide.received[stream] == pattern(200_000))
        world.simulation.run(for: .seconds(5))
        #expect(server.path.remote == EngineWorld.clientAddress && thief.isNoAmplifier)
        #expect(client.closeReason == nil && server.closeReason == nil)
    }

    @Test("probes move nothing, and an address that nobody has shown to own gets three times their bytes at most")
    func probes() throws {
        let world = try EngineWorld()
        let packets = CraftedPackets(of: world.client)
        let (client, server) = try world.connected()
        world.simulation.run(for: .seconds(5))
        let thief = Thief(world)
        // A hundred PATH_CHALLENGE frames, each with data of its own.
        let frames: [UInt8] = (0..<100).flatMap { [0x1a, 1, 2, 3, 4, 5, 6, 7, UInt8($0)] }
        for number in 1...3 as ClosedRange<UInt8> {
            try thief.send(from: stranger(number), where: { packets.isSent && $0.count > 1_100 }) {
                try packets.send(frames, on: client)
            }
            #expect(server.path.remote == EngineWorld.clientAddress)
            world.simulation.run(for: .seconds(1))
            #expect(server.path.remote == EngineWorld.clientAddress && thief.isNoAmplifier)
        }
        let stream = try client.open()
        try client.send(pattern(3_000), on: stream, finish: true)
        world.simulation.run(for: .seconds(2)) { world.serverSide.finished.contains(stream) }
        #expect(world.serverSide.received[stream] == pattern(3_000))
        #expect(client.closeReason == nil && server.closeReason == nil)
    }
}
