import LonglineTestKit
import NIOCore
import NIOPosix
import QUICEngine
import Testing

@testable import QUICTransport

/// aioquic's client and our server, over loopback sockets.
@Suite(
    "aioquic's client with our server", .enabled(if: Aioquic.isInstalled, .init(rawValue: Aioquic.howToInstall)),
    .timeLimit(.minutes(1)))
struct ServerTests {
    @Test("Handshake: protocol, version and close reason agree")
    func handshake() async throws {
        try await withServer { service, peer in
            let theirs = try await peer.connect(service.port)
            #expect(theirs.alpn == protocolName && !theirs.resumed && !theirs.retried && theirs.version == 1)
            let connection = try await service.connection()
            let ours = try await connection.handshake()
            #expect(ours.applicationProtocol == protocolName && ours.serverName == "localhost")
            try await peer("close", ["name": "client", "code": 99, "reason": "seen enough"])
            #expect(try await connection.closed() == .peerApplication(code: 99, reason: "seen enough"))
        }
    }

    @Test("Our close arrives with code and reason")
    func closedByUs() async throws {
        try await withServer { service, peer in
            _ = try await peer.connect(service.port)
            try await peer.echo()
            try await service.connection().close(code: 4321, reason: "that was all")
            let end = try await peer.end()
            #expect(end.code == 4321 && end.frame == nil && end.reason == "that was all")
        }
    }

    @Test("Transfer: 3 MiB there and back")
    func transfer() async throws {
        try await withServer { service, peer in
            _ = try await peer.connect(service.port)
            try await peer.echo(size: 3 << 20)
        }
    }

    @Test("2,000 streams, each echoed whole")
    func manyStreams() async throws {
        try await withServer { service, peer in
            _ = try await peer.connect(service.port)
            try await peer.echo(streams: 2000, size: 100)
        }
    }

    @Test("Multiplexing: 20 connections at once, over two loops")
    func multiplexing() async throws {
        try await withServer(loops: 2) { service, peer in
            try await withThrowingTaskGroup(of: Void.self) { group in
                for number in 0..<20 {
                    group.addTask {
                        _ = try await peer.connect(service.port, ["name": .text("client\(number)")])
                        try await peer.echo("client\(number)", streams: 3, size: 5000)
                    }
                }
                try await group.waitForAll()
            }
            #expect(await service.counters().handshakesCompleted == 20)
        }
    }

    @Test("Datagrams come back")
    func datagrams() async throws {
        struct Answer: Decodable, Sendable { var text: String }
        try await withServer { service, peer in
            _ = try await peer.connect(service.port)
            let answer = try await peer("datagram", ["name": "client", "text": "unreliable"], as: Answer.self)
            #expect(answer.text == "unreliable")
        }
    }

    @Test("A large certificate is completed in spite of the amplification limit")
    func largeCertificate() async throws {
        let large = developmentCertificate(names: ["localhost"] + (0..<250).map { "host-number-\($0).example.org" })
        try await withServer(serverConfiguration(certificate: large)) { service, peer in
            let authority = try peer.file("large.pem", large.certificatePEM)
            _ = try await peer.connect(service.port, ["authority": .text(authority)])
            try await peer.echo()
        }
    }

    // MARK: Coming back

    @Test("Resumption, and 0-RTT accepted")
    func earlyData() async throws {
        try await withServer { service, peer in
            _ = try await peer.connect(service.port)
            try await eventually { try await peer.state().hasTicket }
            let outcome = try await peer.attempt(
                service.port, ["resume": true, "early": "first flight", "name": "second"])
            #expect(outcome.handshake?.resumed == true && outcome.handshake?.earlyAccepted == true)
            #expect(outcome.earlyEchoed == "first flight")
            _ = try await service.connection()
            let handshake = try await service.connection().handshake()
            #expect(handshake.resumed && handshake.earlyData == .accepted)
            #expect(await service.counters().earlyDataAccepted == 1)
        }
    }

    @Test("0-RTT refused: the session is resumed all the same")
    func earlyDataRefused() async throws {
        var random = SystemRandomNumberGenerator()
        let keys = TicketKeyRing(random: &random, now: wallClock())
        try await withServer(serverConfiguration(tickets: keys)) { service, peer in
            _ = try await peer.connect(service.port)
            try await eventually { try await peer.state().hasTicket }
            // A server of the same group that remembers no flights.
            let other = try await QUICListener.bind(
                addresses: [loopback()], configuration: serverConfiguration(tickets: keys, replayStore: nil),
                group: .singleton)
            let port = try #require(other.localAddresses.first?.port)
            let handshake = try await peer.connect(port, ["resume": true, "name": "second"])
            #expect(handshake.resumed && !handshake.earlyAccepted)
            await other.shutdownGracefully(timeout: .seconds(1))
        }
    }

    // MARK: Address validation, versions, keys

    @Test("Retry, and a token from NEW_TOKEN that spares it")
    func retry() async throws {
        let configuration = try serverConfiguration { $0.retryThreshold = 0 }
        try await withServer(configuration) { service, peer in
            #expect(try await peer.connect(service.port).retried)
            try await peer.echo()
            #expect(await service.counters().retriesSent == 1)
            try await eventually { try await !peer.state().token.isEmpty }
            let second = try await peer.connect(service.port, ["withToken": true, "name": "second"])
            #expect(!second.retried)
            try await peer.echo("second")
            #expect(await service.counters().retriesSent == 1)
        }
    }

    @Test("Version negotiation: a client begins with a version unknown to us, and goes on with one that we know")
    func versionNegotiation() async throws {
        try await withServer { service, peer in
            let handshake = try await peer.connect(service.port, ["versions": [0x1a2a_3a4a, 1]])
            #expect(handshake.version == 1)
            try await peer.echo()
            #expect(await service.counters().versionNegotiationsSent == 1)
        }
    }

    @Test(
        "QUIC version 2, asked for and agreed on by a client that begins with version 1",
        .enabled(if: QUICVersion.v2.isAvailable, "ngtcp2 before 1.0 has no RFC 9369"))
    func version2() async throws {
        let v2 = Argument.number(Int(QUICVersion.v2.rawValue))
        try await withServer(serverConfiguration { $0.versions = [.v2, .v1] }) { service, peer in
            for (name, versions) in [("only", [v2]), ("both", [1, v2])] {
                let handshake = try await peer.connect(
                    service.port, ["name": .text(name), "versions": .list(versions)])
                #expect(handshake.version == QUICVersion.v2.rawValue, "\(name)")
                try await peer.echo(name, size: 50_000)
            }
            #expect(await service.counters().versionNegotiationsSent == 0)
        }
    }

    @Test("No protocol in common: the alert no_application_protocol (RFC 9001 section 8.1)")
    func noCommonProtocol() async throws {
        try await withServer { service, peer in
            let end = try #require(try await peer.attempt(service.port, ["alpn": ["other"]]).end)
            #expect(end.code == 0x178)
            #expect(await service.counters().handshakesFailed == 1)
        }
    }

    @Test("Key updates by the peer, by us, and in turn")
    func keyUpdate() async throws {
        try await withServer { service, peer in
            _ = try await peer.connect(service.port)
            let connection = try await service.connection()
            try await peer.echo()
            for round in 1...4 {
                try await connection.keysSettle()
                if round % 2 == 1 { try await peer.updateKey() } else { try await connection.updateKey() }
                try await peer.echo(size: 20_000)
                try await eventually { try await peer.state().keyPhase == round % 2 }
            }
        }
    }

    // MARK: Paths

    @Test("Rebinding of the port and of the address", arguments: ["127.0.0.1", "127.0.0.2"])
    func rebind(host: String) async throws {
        try await withServer(loops: 2) { service, peer in
            _ = try await peer.connect(service.port)
            let connection = try await service.connection()
            try await peer.echo()
            let moved = try await peer("move", ["name": "client", "local": .text(host)], as: Listening.self)
            try await peer.echo(size: 100_000)
            let remote = try #require(await connection.statistics()?.path.remote)
            #expect(remote.host == host && Int(remote.port) == moved.port)
            #expect(try await peer.state().pathChallenges > 0, "a new address must be validated")
        }
    }

    @Test("Active migration: new addresses with new connection IDs", arguments: ["127.0.0.1", "127.0.0.2"])
    func migration(host: String) async throws {
        try await withServer(loops: 2) { service, peer in
            _ = try await peer.connect(service.port)
            let connection = try await service.connection()
            try await peer.echo()
            for _ in 0..<3 {
                let moved = try await peer(
                    "move", ["name": "client", "local": .text(host), "newID": true], as: Listening.self)
                try await peer.echo(size: 50_000)
                let remote = try #require(await connection.statistics()?.path.remote)
                #expect(remote.host == host && Int(remote.port) == moved.port)
            }
        }
    }

    @Test("The server's preferred address: the client moves there")
    func preferredAddress() async throws {
        let free = try await DatagramBootstrap(group: MultiThreadedEventLoopGroup.singleton).bind(
            host: "127.0.0.1", port: 0
        ).get()
        let port = try #require(free.localAddress?.port)
        try await free.close()
        let preferred = try #require(QUICSocketAddress(numericHost: "127.0.0.2", port: UInt16(port)))
        let addresses = [try loopback(port: port), try loopback("127.0.0.2", port: port)]
        try await withServer(at: addresses, serverConfiguration { $0.preferredAddresses = [preferred] }) {
            service, peer in
            _ = try await peer.connect(port)
            try await peer.echo()
            try await eventually { try await peer.state().peerHost == "127.0.0.2" }
            try await peer.echo(size: 50_000)
            #expect(try await service.connection().statistics()?.path.local == preferred)
        }
    }

    @Test("Rebinding by a NAT in the midst of a transfer")
    func rebindByNAT() async throws {
        try await withServer { service, peer in
            let relay = try await Relay.open(to: loopback(port: service.port), on: service.loop)
            _ = try await peer.connect(relay.port)
            let before = try await relay.traffic(.toServer).datagrams
            async let transfer: Void = peer.echo(size: 1 << 20)
            for host in ["127.0.0.1", "127.0.0.2"] {
                try await eventually { try await relay.traffic(.toServer).datagrams > before + 100 }
                try await relay.rebind(host: host)
            }
            try await transfer
            await relay.close()
        }
    }

    // MARK: Bad paths

    @Test(
        "Each early datagram lost or damaged in turn: the handshake completes",
        arguments: [Relay.Fate.lose, .damage], [Relay.Direction.toServer, .toClient])
    func badHandshake(fate: Relay.Fate, direction: Relay.Direction) async throws {
        let configuration = try serverConfiguration { $0.transport.initialRTT = .milliseconds(50) }
        try await withServer(configuration) { service, peer in
            for victim in 0..<4 {
                let relay = try await Relay.open(to: loopback(port: service.port), on: service.loop) { way, number, _ in
                    way == direction && number == victim ? fate : .pass
                }
                let name = "client\(victim)"
                _ = try await peer.connect(relay.port, ["name": .text(name)])
                try await peer.echo(name)
                await relay.close()
            }
        }
    }

    @Test("A third of all datagrams lost: everything arrives")
    func heavyLoss() async throws {
        let configuration = try serverConfiguration { $0.transport.initialRTT = .milliseconds(50) }
        try await withServer(configuration) { service, peer in
            let relay = try await Relay.open(to: loopback(port: service.port), on: service.loop) { _, number, _ in
                number % 3 == 1 ? .lose : .pass
            }
            _ = try await peer.connect(relay.port)
            try await peer.echo(size: 100_000)
            await relay.close()
        }
    }

    @Test("Blackhole: after a while without answers the transfer goes on")
    func blackhole() async throws {
        try await withServer { service, peer in
            let relay = try await Relay.open(to: loopback(port: service.port), on: service.loop)
            _ = try await peer.connect(relay.port)
            try await peer.echo()
            let before = try await relay.traffic(.toClient).datagrams
            async let transfer: Void = peer.echo(size: 1 << 20)
            try await eventually { try await relay.traffic(.toClient).datagrams > before + 50 }
            try await relay.setSilent(true)
            try await Task.sleep(for: .seconds(1))
            try await relay.setSilent(false)
            try await transfer
            await relay.close()
        }
    }

    @Test("Blackhole for good: the idle timeout ends the connection")
    func idleTimeout() async throws {
        let configuration = try serverConfiguration { $0.transport.maxIdleTimeout = .seconds(3) }
        try await withServer(configuration) { service, peer in
            let relay = try await Relay.open(to: loopback(port: service.port), on: service.loop)
            _ = try await peer.connect(relay.port)
            let connection = try await service.connection()
            try await peer.echo()
            try await relay.setSilent(true)
            #expect(try await connection.closed() == .idleTimeout)
            await relay.close()
        }
    }

    @Test("Every datagram twice makes no difference")
    func doubled() async throws {
        try await withServer(serverConfiguration { $0.retryThreshold = 0 }) { service, peer in
            let relay = try await Relay.open(to: loopback(port: service.port), on: service.loop) { _, _, _ in .double }
            _ = try await peer.connect(relay.port)
            try await peer.echo(size: 50_000)
            #expect(await service.counters().handshakesCompleted == 1)
            await relay.close()
        }
    }

    @Test("ECN: the peer's marks are reported; ours stop where it doesn't report them")
    func ecn() async throws {
        try await withServer { service, peer in
            _ = try await peer.connect(service.port, ["ecn": 2])
            try await peer.echo(size: 200_000)
            let state = try await peer.state()
            #expect(state.acksWithECN > 0, "its marks are not reported")
            #expect(state.markedECT0 > 0, "our packets carry no ECT(0)")
            #expect(state.unmarked > 0, "aioquic reports no marks, so the path must fail validation")
        }
    }

    @Test("A connection that we forgot gets the stateless reset that the peer was told of")
    func statelessReset() async throws {
        let key = pattern(32)
        var before = try serverConfiguration()
        before.endpoint.staticKey = key
        try await withServer(before) { service, peer in
            let relay = try await Relay.open(to: loopback(port: service.port), on: service.loop)
            _ = try await peer.connect(relay.port)
            try await peer.echo()
            // The server is gone and comes back at the same port without its connections.
            try await relay.setSilent(true)
            let port = service.port
            await service.listener.shutdownGracefully(timeout: .seconds(1))
            var after = try serverConfiguration()
            after.endpoint.staticKey = key
            let next = try await QUICServer.bind(
                addresses: [loopback(port: port)], configuration: after, group: .singleton
            ) { _ in
                Ignoring()
            }
            try await relay.setSilent(false)
            try await peer("ping", ["name": "client", "wait": false])
            try await eventually { try await peer.state().statelessResets > 0 }
            #expect(await next.counters().engine.statelessResetsSent > 0)
            await next.shutdownGracefully()
            await relay.close()
        }
    }
}

private final class Ignoring: QUICConnectionHandler {
    func handle(_ event: QUICConnectionEvent, on connection: QUICLoopConnection) {}
    func batchEnded(on connection: QUICLoopConnection) {}
}
