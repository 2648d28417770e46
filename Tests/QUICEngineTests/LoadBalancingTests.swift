import LonglineTestKit
import Testing

@testable import QUICEngine

@Suite struct LoadBalancingTests {
    private static func bytes(_ hex: String) -> [UInt8] {
        stride(from: 0, to: hex.utf8.count, by: 2).map { offset in
            let start = hex.index(hex.startIndex, offsetBy: offset)
            return UInt8(hex[start..<hex.index(start, offsetBy: 2)], radix: 16) ?? 0
        }
    }

    struct Vector: Sendable, CustomTestStringConvertible {
        var key: String
        var serverID: String
        var nonce: String
        var encrypted: String
        var testDescription: String { encrypted }

        static let draft = "8f95f09245765f80256934e50c66207f"
        /// Appendix B.2 of draft-ietf-quic-load-balancers-21, and the example of section 5.4.2.
        static let all = [
            Vector(key: draft, serverID: "ed793a", nonce: "ee080dbf", encrypted: "20b1d07b359d3c"),
            Vector(
                key: draft, serverID: "ed793a51d49b8f5fab65", nonce: "ee080dbf48",
                encrypted: "cc381bc74cb4fbad2823a3d1f8fed2"),
            Vector(
                key: draft, serverID: "ed793a51d49b8f5f", nonce: "ee080dbf48c0d1e5",
                encrypted: "4dd2d05a7b0de9b2b9907afb5ecf8cc3"),
            Vector(
                key: draft, serverID: "ed793a51d49b8f5fab", nonce: "ee080dbf48c0d1e55d",
                encrypted: "5779c9cc86beb3a3a4a3ca96fce4bfe0cdbc"),
            Vector(
                key: "fdf726a9893ec05c0632d3956680baf0", serverID: "31441a", nonce: "9c69c275",
                encrypted: "67947d29be054a"),
        ]
    }

    @Test("the draft's vectors", arguments: Vector.all) func theDraftsVectors(vector: Vector) throws {
        let cipher = try #require(AESBlock(key: Self.bytes(vector.key)))
        let plain = Self.bytes(vector.serverID + vector.nonce)
        var text = plain
        #expect(cipher.encryptID(&text))
        #expect(text == Self.bytes(vector.encrypted))
        #expect(cipher.decryptID(&text))
        #expect(text == plain)
    }

    @Test("every length decrypts to what was encrypted", arguments: 5...18) func everyLengthDecrypts(length: Int) throws
    {
        var random = SeededRandom(seed: UInt64(length))
        let key = (0..<16).map { _ in UInt8(truncatingIfNeeded: random.next()) }
        let cipher = try #require(AESBlock(key: key))
        for _ in 0..<50 {
            let plain = (0..<length).map { _ in UInt8(truncatingIfNeeded: random.next()) }
            var text = plain
            #expect(cipher.encryptID(&text))
            #expect(text != plain && text.count == length)
            #expect(cipher.decryptID(&text))
            #expect(text == plain)
        }
    }

    @Test("all connection IDs of a server name it and the worker", arguments: [true, false])
    func allConnectionIDsNameServerAndWorker(encrypted: Bool) throws {
        let serverID: [UInt8] = [0x11, 0x22, 0x33]
        let key = encrypted ? Self.bytes(Vector.draft) : nil
        let balancing = try QUICLoadBalancing(rotation: 2, nonceLength: 9, key: key)
        let world = try EngineWorld()
        world.serverConfiguration.serverID = serverID
        world.serverConfiguration.workerID = 6
        world.serverConfiguration.loadBalancing = balancing
        try world.restartServer()
        world.serverSide.echoes = true
        let (client, server) = try world.connected()
        // IDs come and go as the client moves; late ones and stateless resets find their way too.
        for round in 0..<4 {
            world.simulation.run(for: .seconds(1))
            #expect(server.localIDs.count > 1)
            for id in server.localIDs {
                let decoded = try #require(try balancing.decode(id.bytes, serverIDLength: 3))
                #expect(decoded.serverID == serverID)
                #expect(decoded.workerID == 6)
                #expect(id.bytes[world.serverConfiguration.workerIDOffset] == 6)
                #expect(id.bytes[0] == 2 << 5 | 13)
                #expect((id.bytes[1...3].elementsEqual(serverID)) != encrypted)
            }
            try client.migrate(
                to: round.isMultiple(of: 2) ? EngineWorld.otherClientAddress : EngineWorld.clientAddress,
                now: world.network.now)
            let stream = try client.open()
            try client.send(pattern(3000, round), on: stream, finish: true)
            world.simulation.run(for: .seconds(5)) { world.clientSide.finished.contains(stream) }
            #expect(world.clientSide.received[stream] == pattern(3000, round))
        }
        try world.restartServer()
        client.ping(now: world.network.now)
        world.simulation.run(for: .seconds(3))
        #expect(world.clientSide.closed[client.handle] == .statelessReset)
    }

    @Test("servers with one static key don't reset each other's connections") func serversDontResetEachOthers() throws {
        let world = try EngineWorld()
        world.serverConfiguration.serverID = [1]
        try world.restartServer()
        let (client, server) = try world.connected()
        world.simulation.run(for: .seconds(1))
        var configuration = world.serverConfiguration
        configuration.serverID = [2]
        let other = try QUICEndpoint(configuration: configuration, random: SeededRandom(seed: 99))
        let address = QUICSocketAddress(ipv4: (10, 0, 0, 7), port: 4433)
        _ = world.simulation.add(other, at: [address])
        var answers: [[UInt8]] = []
        world.network.filter = { bytes, path in
            if path.local == address { answers.append(bytes) }
            return true
        }
        // The answers come to the client as well.
        let attacker = QUICPath(local: EngineWorld.otherClientAddress, remote: address)
        let ids = server.localIDs
        for id in ids {
            let packet = [0x40] + id.bytes + [UInt8](repeating: 0, count: 60)
            world.network.send(packet, on: attacker, ecn: .notECT)
        }
        world.simulation.run(for: .seconds(1))
        #expect(ids.count > 1 && answers.count == ids.count)
        let tokens = ids.map { world.server.resetTokens.token(for: $0) }
        #expect(!answers.contains { tokens.contains(Array($0.suffix(16))) })
        #expect(client.closeReason == nil)
        // The server itself resets them when it has forgotten them.
        try world.restartServer()
        client.ping(now: world.network.now)
        world.simulation.run(for: .seconds(3))
        #expect(world.clientSide.closed[client.handle] == .statelessReset)
    }

    @Test("a length that no server's ID can have is refused by name", arguments: [Int.min, -1, 0, 11, 241, Int.max])
    func impossibleLength(length: Int) throws {
        let balancing = try QUICLoadBalancing(rotation: 1)
        // As long as its length asks for, where an array can be.
        let count = (0...1000).contains(length) ? 1 + length + 8 + 1 : 20
        let error = #expect(throws: QUICError.self) {
            try balancing.decode([UInt8](repeating: 0x29, count: count), serverIDLength: length)
        }
        #expect(error?.code == .invalidConfiguration)
    }

    @Test("what isn't of the configuration is not decoded, and impossible ones are refused") func limits() throws {
        let balancing = try QUICLoadBalancing(rotation: 1)
        #expect(try balancing.decode([], serverIDLength: 3) == nil)
        #expect(try balancing.decode([UInt8](repeating: 0xff, count: 13), serverIDLength: 3) == nil)
        #expect(
            try balancing.decode([1 << 5 | 12] + [UInt8](repeating: 7, count: 12), serverIDLength: 3)?.serverID == [
                7, 7, 7,
            ])
        #expect(throws: QUICError.self) { try QUICLoadBalancing(rotation: 7) }
        #expect(throws: QUICError.self) { try QUICLoadBalancing(rotation: 0, nonceLength: 4) }
        #expect(throws: QUICError.self) { try QUICLoadBalancing(rotation: 0, key: [1]) }
        var configuration = EndpointConfiguration()
        configuration.loadBalancing = balancing
        #expect(throws: QUICError.self) {
            try QUICEndpoint(configuration: configuration, random: SeededRandom(seed: 1))
        }
        configuration.serverID = [UInt8](repeating: 1, count: 11)
        #expect(throws: QUICError.self) {
            try QUICEndpoint(configuration: configuration, random: SeededRandom(seed: 1))
        }
    }
}
