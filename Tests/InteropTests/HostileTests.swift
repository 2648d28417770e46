import LonglineTestKit
import NIOCore
import QUICEngine
import Testing

@testable import QUICTransport

/// What peers send by mistake or on purpose: the standard's error or silence, a counter, and nobody else notices.
@Suite(
    "Hostile datagrams", .enabled(if: Aioquic.isInstalled, .init(rawValue: Aioquic.howToInstall)),
    .timeLimit(.minutes(1)))
struct HostileTests {
    @Test("Garbage, and Initial packets cut, stretched and damaged: at most three bytes back for each")
    func mutations() async throws {
        let configuration = try serverConfiguration { $0.transport.handshakeTimeout = .seconds(2) }
        try await withServer(configuration) { service, peer in
            _ = try await peer.connect(service.port, ["name": "bystander"])
            let flight = try #require(try await peer.firstFlight().first)
            let mutants = Self.mutants(of: flight)
            for mutant in mutants {
                try await RawPeer.run(to: service.port, on: service.loop) { raw in
                    try await raw.send(mutant)
                    // A connection beside it shows that the server has seen the mutant.
                    try await peer("ping", ["name": "bystander"])
                    #expect(raw.receivedBytes <= 3 * mutant.count, "\(mutant.prefix(32))… of \(mutant.count)")
                }
            }
            try await peer.echo("bystander", streams: 5)
            let counters = await service.counters()
            #expect(counters.handshakesCompleted == 1)
            #expect(counters.garbageDatagrams > 30)
            // Nothing of theirs stays.
            try await eventually { await service.listener.counters().connections == 1 }
        }
    }

    /// Datagrams that are almost this Initial packet, and some that never were one.
    private static func mutants(of flight: [UInt8]) -> [[UInt8]] {
        let cuts = [1, 4, 5, 6, 7, 14, 15, 23, 24, 25, 26, 27, 50, 600, 1199].map { Array(flight.prefix($0)) }
        var mutants = cuts + cuts.map { $0 + [UInt8](repeating: 0, count: 1200 - $0.count) }
        // Behind the version: length of the destination ID, the ID, length of the source ID, the ID, token, length.
        let fields = 5..<28
        for index in fields {
            for value: UInt8 in [0x00, 0x15, 0x3f, 0x7f, 0xff] {
                var mutant = flight
                mutant[index] = value
                if mutant != flight { mutants.append(mutant) }
            }
        }
        for bit in stride(from: 28 * 8, to: flight.count * 8, by: 401) {
            var mutant = flight
            mutant[bit / 8] ^= 1 << UInt8(bit % 8)
            mutants.append(mutant)
        }
        for first: UInt8 in [0x00, 0x40, 0x7f, 0xc0, 0xd0, 0xe0, 0xf0, 0xff] {
            for length in [1, 21, 43, 1200] { mutants.append([first] + pattern(length - 1, seed: UInt64(first))) }
        }
        return mutants
    }

    @Test("Amplification: a silent client with any address gets at most three times its bytes", arguments: [1, 3])
    func amplification(flights: Int) async throws {
        // Its certificate alone is larger than what may be sent.
        let large = developmentCertificate(names: ["localhost"] + (0..<250).map { "host-number-\($0).example.org" })
        let configuration = try serverConfiguration(certificate: large) {
            $0.transport.handshakeTimeout = .milliseconds(1500)
            $0.transport.initialRTT = .milliseconds(50)
        }
        try await withServer(configuration) { service, peer in
            let flight = try #require(try await peer.firstFlight().first)
            try await RawPeer.run(to: service.port, on: service.loop) { raw in
                for _ in 0..<flights { try await raw.send(flight) }
                // Retransmissions count as well: wait until the server has given up.
                try await eventually { await service.counters().handshakesFailed == 1 }
                #expect(raw.receivedBytes > 1200, "the limit was not reached: the test shows nothing")
                #expect(raw.receivedBytes <= 3 * flights * flight.count)
            }
        }
    }

    @Test("An Initial packet repeated from elsewhere takes nothing over and gets no second connection")
    func replayedInitial() async throws {
        try await withServer { service, peer in
            _ = try await peer.connect(service.port)
            try await peer.echo()
            let flight = try #require(try await peer.firstFlight().first)
            try await RawPeer.run(to: service.port, on: service.loop) { first in
                try await first.send(flight)
                try await eventually { !first.received.isEmpty }
                try await RawPeer.run(to: service.port, from: "127.0.0.2", on: service.loop) { second in
                    for _ in 0..<10 { try await second.send(flight) }
                    try await peer("ping", ["name": "client"])
                    #expect(second.receivedBytes <= 3 * 10 * flight.count)
                }
            }
            #expect(await service.counters().connectionsAccepted == 2)
            try await peer.echo()
        }
    }

    @Test("A first flight with 0-RTT that is sent again reaches the application once")
    func replayedEarlyData() async throws {
        let configuration = try serverConfiguration {
            $0.transport.handshakeTimeout = .seconds(2)
            $0.transport.initialRTT = .milliseconds(20)
        }
        try await withServer(configuration) { service, peer in
            _ = try await peer.connect(service.port)
            try await eventually { try await peer.state().hasTicket }
            let flight = try await peer.firstFlight(["resume": true, "early": "pay 10"])
            #expect(service.streamsSeen.value == 0)
            for attempt in 1...3 {
                try await RawPeer.run(to: service.port, on: service.loop) { raw in
                    // Each is a connection of its own, once the one before and its closing period are over.
                    try await eventually {
                        for datagram in flight { try await raw.send(datagram) }
                        try await Task.sleep(for: .milliseconds(20))
                        return await service.counters().handshakesFailed == UInt64(attempt)
                    }
                }
            }
            #expect(await service.counters().connectionsAccepted >= 4)
            #expect(service.streamsSeen.value == 1)
        }
    }

    // MARK: Tokens

    @Test("A forged Retry token is refused with INVALID_TOKEN, one that isn't ours is no token")
    func forgedTokens() async throws {
        try await withServer { service, peer in
            // Ours begin with a byte that tells their kind.
            let forged = try await peer.attempt(
                service.port, ["token": .text("b6" + String(repeating: "5a", count: 60))])
            #expect(forged.end?.code == 0x0b)
            let regular = try await peer.attempt(
                service.port, ["token": .text("36" + String(repeating: "5a", count: 60)), "name": "regular"])
            #expect(regular.handshake != nil)
            let foreign = try await peer.attempt(service.port, ["token": "0102030405", "name": "foreign"])
            #expect(foreign.handshake != nil)
            #expect(await service.counters().connectionsRefused == 1)
        }
    }

    @Test("A Retry token holds for the address that it was given to")
    func stolenToken() async throws {
        try await withServer(serverConfiguration { $0.retryThreshold = 0 }) { service, peer in
            #expect(try await peer.connect(service.port).retried)
            let token = try await peer.state().tokenInUse
            #expect(!token.isEmpty)
            let thief = try await peer.attempt(
                service.port, ["token": .text(token), "local": "127.0.0.2", "name": "thief"])
            #expect(thief.end?.code == 0x0b)
            try await peer.echo()
        }
    }

    // MARK: Toward our client

    @Test("A damaged Retry is ignored", arguments: [0, 1])
    func damagedRetry(count: Int) async throws {
        try await withClient { client, loop, peer in
            let server = try loopback(port: try await peer.listen(["retry": true]))
            let relay = try await Relay.open(to: server, on: loop) { way, number, _ in
                way == .toClient && number <= count ? .damage : .pass
            }
            let configuration = clientConfiguration { $0.initialRTT = .milliseconds(50) }
            let connection = try await client.connect(relay.port, configuration, on: loop)
            try await connection.exchange()
            await relay.close()
        }
    }

    @Test("Every datagram twice, the Retry included, makes no difference")
    func doubled() async throws {
        try await withClient { client, loop, peer in
            let server = try loopback(port: try await peer.listen(["retry": true]))
            let relay = try await Relay.open(to: server, on: loop) { _, _, _ in .double }
            let connection = try await client.connect(relay.port, on: loop)
            try await connection.exchange(50_000)
            await relay.close()
        }
    }

    @Test("Version Negotiation that names our version, or comes too late, is ignored (RFC 9000 section 6.2)")
    func forgedVersionNegotiation() async throws {
        try await withClient { client, loop, peer in
            let server = try loopback(port: try await peer.listen())
            for (victim, version) in [(0, UInt32(1)), (1, 0x1a2a_3a4a)] {
                let relay = try await Relay.open(to: server, on: loop) { way, number, data in
                    guard way == .toServer, number == victim,
                        let answer = Self.versionNegotiation(to: data, offering: version)
                    else { return .pass }
                    return .answer(answer)
                }
                let connection = try await client.connect(relay.port, on: loop)
                try await connection.exchange()
                await relay.close()
            }
        }
    }

    /// The answer of a server that speaks this version only.
    private static func versionNegotiation(to initial: ByteBuffer, offering version: UInt32) -> [UInt8]? {
        let bytes = Array(initial.readableBytesView)
        guard bytes.count > 50, bytes[0] & 0x80 != 0 else { return nil }
        let destination = bytes[6..<6 + Int(bytes[5])]
        let sourceAt = destination.endIndex
        let source = bytes[sourceAt + 1..<sourceAt + 1 + Int(bytes[sourceAt])]
        var answer = ByteBuffer()
        answer.writeInteger(UInt8(0xc0))
        answer.writeInteger(UInt32(0))
        for id in [source, destination] {
            answer.writeInteger(UInt8(id.count))
            answer.writeBytes(id)
        }
        answer.writeInteger(version)
        return Array(answer.readableBytesView)
    }

    @Test("Garbage and forged resets from elsewhere don't touch our client's connection")
    func garbageForClient() async throws {
        try await withClient { client, loop, peer in
            let connection = try await client.connect(try await peer.listen(), on: loop)
            try await connection.exchange()
            let port = try #require(await connection.statistics()?.path.local.port)
            try await RawPeer.run(to: Int(port), on: loop) { raw in
                for length in [1, 5, 20, 43, 100, 1200] {
                    for first: UInt8 in [0x40, 0xc0, 0xf0] { try await raw.send([first] + pattern(length)) }
                }
                try await connection.exchange()
                #expect(raw.received.isEmpty, "a client answers nothing that it can't read")
            }
        }
    }
}
