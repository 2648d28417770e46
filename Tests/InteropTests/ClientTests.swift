import LonglineTestKit
import NIOCore
import QUICEngine
import Synchronization
import Testing

@testable import QUICTransport

/// Our client and aioquic's server, over loopback sockets.
@Suite(
    "Our client with aioquic's server", .enabled(if: Aioquic.isInstalled, .init(rawValue: Aioquic.howToInstall)),
    .timeLimit(.minutes(1)))
struct ClientTests {
    @Test("Handshake: protocol, version and close reason agree")
    func handshake() async throws {
        try await withClient { client, loop, peer in
            let connection = try await client.connect(try await peer.listen(), on: loop)
            let ours = try await connection.handshake()
            let theirs = try await peer.accepted()
            #expect(ours.applicationProtocol == protocolName && theirs.alpn == protocolName)
            #expect(!ours.resumed && !theirs.resumed && !theirs.retried)
            #expect(theirs.version == 1)
            connection.close(code: 77, reason: "seen enough")
            let end = try await peer.end(theirs.name)
            #expect(end.code == 77 && end.frame == nil && end.reason == "seen enough")
        }
    }

    @Test("The peer's close arrives with code and reason")
    func closedByPeer() async throws {
        try await withClient { client, loop, peer in
            let connection = try await client.connect(try await peer.listen(), on: loop)
            let name = try await peer.accepted().name
            try await peer("close", ["name": .text(name), "code": 4321, "reason": "that was all"])
            #expect(try await connection.closed() == .peerApplication(code: 4321, reason: "that was all"))
        }
    }

    @Test("Transfer: 3 MiB there and back")
    func transfer() async throws {
        try await withClient { client, loop, peer in
            let connection = try await client.connect(try await peer.listen(), on: loop)
            try await connection.exchange(3 << 20)
        }
    }

    @Test("2,000 streams, each echoed whole")
    func manyStreams() async throws {
        try await withClient { client, loop, peer in
            let connection = try await client.connect(try await peer.listen(), on: loop)
            try await withThrowingTaskGroup(of: Void.self) { group in
                for number in 0..<2000 { group.addTask { try await connection.exchange(100, seed: UInt64(number)) } }
                try await group.waitForAll()
            }
        }
    }

    @Test("Multiplexing: 20 connections from one loop at once")
    func multiplexing() async throws {
        try await withClient { client, loop, peer in
            let port = try await peer.listen()
            try await withThrowingTaskGroup(of: Void.self) { group in
                for number in 0..<20 {
                    group.addTask {
                        let connection = try await client.connect(port, on: loop)
                        for round in 0..<3 { try await connection.exchange(5000, seed: UInt64(10 * number + round)) }
                    }
                }
                try await group.waitForAll()
            }
        }
    }

    @Test("Datagrams come back")
    func datagrams() async throws {
        try await withClient { client, loop, peer in
            let connection = try await client.connect(try await peer.listen(), on: loop)
            try await connection.sendDatagram(ByteBuffer(string: "unreliable"))
            var datagrams = connection.datagrams.makeAsyncIterator()
            #expect(try await datagrams.next() == ByteBuffer(string: "unreliable"))
        }
    }

    // MARK: Coming back

    @Test("Resumption")
    func resumption() async throws {
        let cache = InMemorySessionCache()
        try await withClient(cache: cache) { client, loop, peer in
            let port = try await peer.listen()
            try await takeTicket(port, client, cache, peer, on: loop)
            var configuration = clientConfiguration()
            configuration.earlyData = false
            let connection = try await client.connect(port, configuration, on: loop)
            #expect(try await connection.handshake().resumed)
            #expect(try await peer.accepted().resumed)
            try await connection.exchange()
        }
    }

    @Test("0-RTT accepted")
    func earlyData() async throws {
        let cache = InMemorySessionCache()
        try await withClient(cache: cache) { client, loop, peer in
            let port = try await peer.listen()
            try await takeTicket(port, client, cache, peer, on: loop)
            let connection = try await client.connect(port, early: true, on: loop)
            try await connection.exchange()
            #expect(try await connection.handshake().earlyData == .accepted)
            #expect(try await peer.accepted().earlyAccepted)
        }
    }

    @Test("0-RTT refused: what was sent arrives all the same, once")
    func earlyDataRefused() async throws {
        let cache = InMemorySessionCache()
        try await withClient(cache: cache) { client, loop, peer in
            let port = try await peer.listen()
            try await takeTicket(port, client, cache, peer, on: loop)
            try await peer("forgetTickets")
            let connection = try await client.connect(port, early: true, on: loop)
            try await withThrowingTaskGroup(of: Void.self) { group in
                for number in 0..<5 { group.addTask { try await connection.exchange(900, seed: UInt64(number)) } }
                try await group.waitForAll()
            }
            let handshake = try await connection.handshake()
            #expect(handshake.earlyData == .rejected && !handshake.resumed)
            #expect(try await !peer.accepted().earlyAccepted)
        }
    }

    /// Connects once and waits until the cache holds a ticket.
    private func takeTicket(
        _ port: Int, _ client: QUICClient, _ cache: InMemorySessionCache, _ peer: Peer, on loop: any EventLoop
    ) async throws {
        let connection = try await client.connect(port, on: loop)
        let key = SessionCacheKey(serverName: "localhost", port: port, applicationProtocol: protocolName)
        try await eventually { cache.session(for: key)?.ticket != nil }
        connection.close()
        _ = try await connection.closed()
        _ = try await peer.accepted()
    }

    // MARK: Retry, versions, keys

    @Test("Retry")
    func retry() async throws {
        try await withClient { client, loop, peer in
            let connection = try await client.connect(try await peer.listen(["retry": true]), on: loop)
            #expect(try await peer.accepted().retried)
            try await connection.exchange()
        }
    }

    @Test("Version negotiation: a server that speaks no version of ours ends the attempt")
    func versionNegotiation() async throws {
        try await withClient { client, loop, peer in
            let port = try await peer.listen(["versions": [0x1a2a_3a4a, 0x5a6a_7a8a]])
            let error = await #expect(throws: QUICTransportError.self) { _ = try await client.connect(port, on: loop) }
            guard case .versionNegotiation(let offered) = error?.closeReason else {
                Issue.record("not ended by Version Negotiation: \(String(describing: error))")
                return
            }
            #expect(offered.map(\.rawValue) == [0x1a2a_3a4a, 0x5a6a_7a8a])
        }
    }

    @Test("Version negotiation: begun with a version that the server can't know, gone on with one that it knows")
    func versionFallback() async throws {
        try await withClient { client, loop, peer in
            var configuration = clientConfiguration()
            configuration.versions = [QUICVersion(rawValue: 0x1a2a_3a4a), .v1]
            let connection = try await client.connect(try await peer.listen(), configuration, on: loop)
            #expect(try await peer.accepted().version == 1)
            try await connection.exchange()
        }
    }

    @Test("QUIC version 2", .enabled(if: QUICVersion.v2.isAvailable, "ngtcp2 before 1.0 has no RFC 9369"))
    func version2() async throws {
        try await withClient { client, loop, peer in
            var configuration = clientConfiguration()
            configuration.versions = [.v2]
            let connection = try await client.connect(try await peer.listen(), configuration, on: loop)
            #expect(try await peer.accepted().version == QUICVersion.v2.rawValue)
            try await connection.exchange(50_000)
        }
    }

    @Test("No protocol in common: both sides know")
    func noCommonProtocol() async throws {
        try await withClient { client, loop, peer in
            let port = try await peer.listen(["alpn": ["other"]])
            let error = await #expect(throws: QUICTransportError.self) { _ = try await client.connect(port, on: loop) }
            guard case .handshakeFailed(let reason) = error?.closeReason else {
                Issue.record("not a failed handshake: \(String(describing: error))")
                return
            }
            #expect("\(reason)".contains("ALPN") || "\(reason)".contains("protocol"), "\(reason)")
        }
    }

    @Test("Key updates by the peer, by us, and in turn")
    func keyUpdate() async throws {
        try await withClient { client, loop, peer in
            let connection = try await client.connect(try await peer.listen(), on: loop)
            let name = try await peer.accepted().name
            try await connection.exchange()
            for round in 1...4 {
                try await connection.keysSettle()
                if round % 2 == 1 { try await peer.updateKey(name) } else { try await connection.updateKey() }
                try await connection.exchange(20_000)
                try await eventually { try await peer.state(name).keyPhase == round % 2 }
            }
        }
    }

    // MARK: Paths

    @Test("Rebinding of the port, unknown to our engine")
    func rebindPort() async throws {
        try await withClient { client, loop, peer in
            let connection = try await client.connect(try await peer.listen(), on: loop)
            let name = try await peer.accepted().name
            try await connection.exchange()
            let before = try await peer.state(name).peerPort
            try await connection.rebind()
            try await connection.exchange(100_000)
            #expect(try await peer.state(name).peerPort != before)
            try await eventually { try await peer.state(name).peerValidated }
        }
    }

    @Test("Rebinding of port and address by a NAT", arguments: ["127.0.0.1", "127.0.0.2"])
    func rebindByNAT(host: String) async throws {
        try await withClient { client, loop, peer in
            let relay = try await Relay.open(to: loopback(port: try await peer.listen()), on: loop)
            let connection = try await client.connect(relay.port, on: loop)
            let name = try await peer.accepted().name
            try await connection.exchange()
            let before = try await peer.state(name).peerPort
            try await relay.rebind(host: host)
            try await connection.exchange(100_000)
            let state = try await peer.state(name)
            #expect(state.peerHost == host && state.peerPort != before)
            await relay.close()
        }
    }

    @Test("Active migration to another port, another address, and back")
    func migration() async throws {
        try await withClient { client, loop, peer in
            let connection = try await client.connect(try await peer.listen(), on: loop)
            let name = try await peer.accepted().name
            for host in ["127.0.0.1", "127.0.0.2", "127.0.0.1"] {
                async let transfer: Void = connection.exchange(300_000)
                try await connection.migrate(to: loopback(host))
                try await transfer
                let local = try #require(await connection.statistics()?.path.local)
                #expect(local.host == host)
                try await connection.exchange()
                let state = try await peer.state(name)
                #expect(state.peerHost == host && state.peerPort == Int(local.port))
            }
        }
    }

    // MARK: Bad paths

    @Test(
        "Each early datagram lost or damaged in turn: the handshake completes",
        arguments: [Relay.Fate.lose, .damage], [Relay.Direction.toServer, .toClient])
    func badHandshake(fate: Relay.Fate, direction: Relay.Direction) async throws {
        try await withClient { client, loop, peer in
            let server = try loopback(port: try await peer.listen())
            for victim in 0..<4 {
                let relay = try await Relay.open(to: server, on: loop) { way, number, _ in
                    way == direction && number == victim ? fate : .pass
                }
                let configuration = clientConfiguration { $0.initialRTT = .milliseconds(50) }
                let connection = try await client.connect(relay.port, configuration, on: loop)
                try await connection.exchange()
                connection.close()
                _ = try await connection.closed()
                await relay.close()
            }
        }
    }

    @Test("A third of all datagrams lost: everything arrives")
    func heavyLoss() async throws {
        try await withClient { client, loop, peer in
            let relay = try await Relay.open(to: loopback(port: try await peer.listen()), on: loop) { _, number, _ in
                number % 3 == 1 ? .lose : .pass
            }
            let configuration = clientConfiguration { $0.initialRTT = .milliseconds(50) }
            let connection = try await client.connect(relay.port, configuration, on: loop)
            try await connection.exchange(100_000)
            await relay.close()
        }
    }

    @Test("Blackhole: after a while without answers the transfer goes on")
    func blackhole() async throws {
        try await withClient { client, loop, peer in
            let relay = try await Relay.open(to: loopback(port: try await peer.listen()), on: loop)
            let connection = try await client.connect(relay.port, on: loop)
            try await connection.exchange()
            let before = try await relay.traffic(.toServer).datagrams
            async let transfer: Void = connection.exchange(1 << 20)
            try await eventually { try await relay.traffic(.toServer).datagrams > before + 50 }
            try await relay.setSilent(true)
            try await Task.sleep(for: .seconds(1))
            try await relay.setSilent(false)
            try await transfer
            await relay.close()
        }
    }

    @Test("Blackhole for good: the idle timeout ends the connection")
    func idleTimeout() async throws {
        try await withClient { client, loop, peer in
            let relay = try await Relay.open(to: loopback(port: try await peer.listen()), on: loop)
            let configuration = clientConfiguration { $0.maxIdleTimeout = .seconds(3) }
            let connection = try await client.connect(relay.port, configuration, on: loop)
            try await connection.exchange()
            try await relay.setSilent(true)
            #expect(try await connection.closed() == .idleTimeout)
            await relay.close()
        }
    }

    @Test("ECN: we mark, and stop where the peer doesn't report; its marks are reported")
    func ecn() async throws {
        try await withClient { client, loop, peer in
            let connection = try await client.connect(try await peer.listen(["ecn": 2]), on: loop)
            let name = try await peer.accepted().name
            try await connection.exchange(200_000)
            let state = try await peer.state(name)
            #expect(state.markedECT0 > 0, "our packets carry no ECT(0)")
            #expect(state.unmarked > 0, "aioquic reports no marks, so the path must fail validation")
            #expect(state.acksWithECN > 0, "its marks are not reported")
        }
    }

    @Test("A stateless reset ends the connection")
    func statelessReset() async throws {
        try await withClient { client, loop, peer in
            let connection = try await client.connect(try await peer.listen(), on: loop)
            let name = try await peer.accepted().name
            try await connection.exchange()
            try await peer("forget", ["name": .text(name)])
            // An acknowledgement may have met with the reset already.
            let stream = try? await connection.openStream()
            try? await stream?.write(ByteBuffer(string: "anyone there?"))
            #expect(try await connection.closed() == .statelessReset)
            #expect(await client.counters().engine.statelessResetsReceived == 1)
        }
    }
}
