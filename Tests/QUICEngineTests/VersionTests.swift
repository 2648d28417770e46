import LonglineTestKit
import Testing

@testable import QUICEngine

@Suite struct VersionTests {
    private static let reserved = QUICVersion(rawValue: 0x5a6a_7a8a)

    @Test(
        "a version that the library lacks is refused by name",
        .disabled(if: QUICVersion.v2.isAvailable, "ngtcp2 has it"))
    func aVersionThatTheLibraryLacksIsRefusedByName() throws {
        let world = try EngineWorld()
        world.clientConfiguration.versions = [.v2, .v1]
        let error = #expect(throws: QUICError.self) { try world.connect() }
        #expect(error?.message.contains("QUIC version 2") == true)
        world.serverConfiguration.server?.versions = [.v2]
        #expect(throws: QUICError.self) { try world.restartServer() }
    }

    @Test("version 2 is spoken", .enabled(if: QUICVersion.v2.isAvailable, "ngtcp2 before 1.0 has no RFC 9369"))
    func version2IsSpoken() throws {
        let world = try EngineWorld { server, client in
            server.versions = [.v2, .v1]
            client.versions = [.v2]
        }
        world.serverSide.echoes = true
        let (client, server) = try world.connected()
        #expect(client.handshake?.version == .v2 && server.handshake?.version == .v2)
        let stream = try client.open()
        try client.send(pattern(50_000), on: stream, finish: true)
        world.simulation.run(for: .seconds(5)) { world.clientSide.finished.contains(stream) }
        #expect(world.clientSide.received[stream] == pattern(50_000))
    }

    @Test(
        "a server moves a client to the version both prefer",
        .enabled(if: QUICVersion.v2.isAvailable, "ngtcp2 before 1.0 has no RFC 9369"))
    func aServerMovesAClientToTheVersionBothPrefer() throws {
        let world = try EngineWorld { server, client in
            server.versions = [.v2, .v1]
            client.versions = [.v1, .v2]
        }
        let (client, server) = try world.connected()
        #expect(client.handshake?.version == .v2 && server.handshake?.version == .v2)
        #expect(world.server.counters.versionNegotiationsSent == 0)
    }

    @Test(
        "a server that speaks version 1 only gets it from a client that tried 2",
        .enabled(if: QUICVersion.v2.isAvailable, "ngtcp2 before 1.0 has no RFC 9369"))
    func aClientFallsBackToVersion1() throws {
        let world = try EngineWorld { _, client in client.versions = [.v2, .v1] }
        try fallBack(world, from: .v2)
    }

    @Test("a client whose version the server refuses goes on with one they share")
    func aClientGoesOnWithAVersionTheyShare() throws {
        let world = try EngineWorld { _, client in client.versions = [Self.reserved, .v1] }
        try fallBack(world, from: Self.reserved)
    }

    private func fallBack(_ world: EngineWorld, from first: QUICVersion) throws {
        let client = try world.connect()
        world.simulation.run(for: .seconds(2))
        guard case .versionNegotiation(let offered)? = world.clientSide.closed[client.handle] else {
            Issue.record("\(world.clientSide.closed)")
            return
        }
        #expect(offered.contains(.v1) && !offered.contains(first))
        #expect(world.server.counters.versionNegotiationsSent >= 1)
        let again = try #require(world.clientConfiguration.retry(offered: offered))
        world.clientConfiguration = again
        #expect(try world.connected().client.handshake?.version == .v1)
        #expect(again.retry(offered: offered) == nil, "once is enough")
        #expect(world.clientConfiguration.retry(offered: [Self.reserved]) == nil)
    }

    @Test("drafts that the library still knows are not spoken") func draftsAreNotSpoken() throws {
        let world = try EngineWorld()
        var answer: [UInt8] = []
        world.network.filter = { bytes, path in
            if path.local == EngineWorld.serverAddress { answer = bytes }
            return true
        }
        let path = QUICPath(local: EngineWorld.clientAddress, remote: EngineWorld.serverAddress)
        let header: [UInt8] = [0xc0, 0xff, 0, 0, 0x1d, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0]
        world.network.send(header + pattern(1200), on: path, ecn: .notECT)
        world.simulation.run(for: .seconds(1))
        #expect(Array(answer.dropFirst().prefix(4)) == [0, 0, 0, 0])
        #expect(Array(answer.suffix(4)) == [0, 0, 0, 1])
        #expect(world.server.connectionCount == 0)
    }

    @Test("a Version Negotiation packet that names our version is a forgery and ignored")
    func aForgedVersionNegotiationIsIgnored() throws {
        let world = try EngineWorld()
        var flight: [UInt8]?
        world.network.filter = { bytes, path in
            guard path.remote == EngineWorld.serverAddress, flight == nil else { return true }
            flight = bytes
            return false
        }
        let client = try world.connect()
        world.simulation.settle()
        let first = try #require(flight)
        let destinationLength = Int(first[5])
        let destination = first[6..<6 + destinationLength]
        let sourceLength = Int(first[6 + destinationLength])
        let source = first[7 + destinationLength..<7 + destinationLength + sourceLength]
        let back = QUICPath(local: EngineWorld.serverAddress, remote: EngineWorld.clientAddress)
        func forge(_ versions: [UInt8]) -> [UInt8] {
            [0x80, 0, 0, 0, 0, UInt8(sourceLength)] + source + [UInt8(destinationLength)] + destination + versions
        }
        world.network.send(forge([0, 0, 0, 1, 0xba, 0xba, 0xba, 0xba]), on: back, ecn: .notECT)
        // Not for this connection: the IDs are swapped.
        world.network.send(
            [0x80, 0, 0, 0, 0, UInt8(destinationLength)] + destination + [UInt8(sourceLength)] + source
                + [0xba, 0xba, 0xba, 0xba], on: back, ecn: .notECT)
        world.simulation.run(for: .seconds(3)) { world.clientSide.confirmed.contains(client.handle) }
        #expect(client.handshake?.version == .v1)
        #expect(client.closeReason == nil)
    }
}
