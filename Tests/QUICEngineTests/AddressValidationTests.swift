import CQUICShim
import LonglineTestKit
import Testing

@testable import QUICEngine

/// How a client shows that it receives at its address, and what a server sends to one that hasn't (RFC 9000 section 8.1).
@Suite struct AddressValidationTests {
    @Test("above the threshold a client must show its address") func aboveTheThresholdAClientMustShowItsAddress() throws
    {
        let world = try EngineWorld { server, _ in server.retryThreshold = 0 }
        let (client, server) = try world.connected()
        #expect(world.server.counters.retriesSent == 1)
        #expect(client.handshake != nil && server.handshake != nil)
        #expect(client.originalDestinationID == server.originalDestinationID, "also behind a Retry")
        // The token from this connection spares the next one the Retry.
        world.simulation.run(for: .seconds(1)) { !world.clientSide.tokens.isEmpty }
        #expect(!world.clientSide.tokens.isEmpty)
        world.clientConfiguration.addressToken = world.clientSide.tokens.last
        _ = try world.connected()
        #expect(world.server.counters.retriesSent == 1)
        // Once (RFC 9000 section 8.1.4).
        _ = try world.connected()
        #expect(world.server.counters.retriesSent == 2)
    }

    @Test("handshakes that failed a moment ago count for the threshold, too: nobody passes it by ending each")
    func failedHandshakesCount() throws {
        let world = try EngineWorld { server, _ in server.retryThreshold = 8 }
        world.clientConfiguration.applicationProtocols = ["other/1"]
        for number in 1...8 {
            let client = try world.connect()
            world.simulation.run(for: .milliseconds(50))
            #expect(client.isClosed && world.server.handshakesInProgress == 0)
            #expect(world.server.counters.handshakesFailed == UInt64(number))
        }
        #expect(world.server.counters.retriesSent == 0)
        world.clientConfiguration.applicationProtocols = ["test/1"]
        _ = try world.connected()
        #expect(world.server.counters.retriesSent == 1)
        world.simulation.run(for: .seconds(2))
        _ = try world.connected()
        #expect(world.server.counters.retriesSent == 1)
    }

    @Test("tokens that were used are remembered, the latest of them") func tokensThatWereUsedAreRemembered() {
        var used = UsedTokens()
        used.capacity = 3
        func use(_ number: UInt8) -> Bool {
            let token = [1, 2, 3] + [UInt8](repeating: number, count: 8)
            return token.withUnsafeBytes { used.insert($0) }
        }
        for number in 0..<3 as Range<UInt8> { #expect(use(number)) }
        #expect(!use(0))
        #expect(use(3) && use(0))
        #expect(!use(3) && !use(2) && used.count == 3)
    }

    @Test("a full memory of tokens has eight bytes for each in their order, and goes on in it round after round")
    func fullMemoryOfTokens() {
        var used = UsedTokens()
        func use(_ number: Int) -> Bool {
            withUnsafeBytes(of: UInt64(number)) { used.insert($0) }
        }
        let capacity = used.capacity
        var taken = 0
        for number in 0..<2 * capacity + capacity / 2 where use(number) { taken += 1 }
        #expect(taken == 2 * capacity + capacity / 2)
        // What malloc rounds up to may be more by a little.
        #expect(used.count == capacity && used.orderSize < 8 * capacity + 4096)
        // The oldest that is known, the newest, and the one that was forgotten last.
        let first = capacity + capacity / 2
        #expect(!use(first) && !use(first + capacity - 1))
        #expect(use(first - 1) && use(first))
    }

    @Test("a client takes one Retry, and no other behind it (RFC 9000 section 17.2.5.2)")
    func oneRetry() throws {
        let world = try EngineWorld()
        var initials: [[UInt8]] = []
        world.network.filter = { bytes, path in
            if path.local == EngineWorld.clientAddress { initials.append(bytes) }
            return false
        }
        let client = try world.connect()
        world.simulation.settle()
        let flight = try #require(initials.first)
        let own = Array(flight[(7 + Int(flight[5]))...].prefix(Int(flight[6 + Int(flight[5])])))
        var chosen: [UInt8] { Array(initials.last?.dropFirst(6).prefix(Int(initials.last?[5] ?? 0)) ?? []) }
        let original = client.originalDestinationID
        #expect(chosen == original)

        func retry(source: [UInt8], original: [UInt8]) {
            func id(_ bytes: [UInt8]) -> llq_cid { bytes.withUnsafeBytes { ConnectionID($0) }.shim }
            var (destination, source, original) = (id(own), id(source), id(original))
            var packet = [UInt8](repeating: 0, count: 256)
            let token = [UInt8](repeating: 0x77, count: 32)
            let length = llq_write_retry(
                &packet, packet.count, 1, &destination, &source, &original, token, token.count)
            #expect(length > 0)
            let back = QUICPath(local: EngineWorld.clientAddress, remote: EngineWorld.serverAddress)
            packet.prefix(length).withUnsafeBytes {
                world.client.receive($0, path: back, ecn: .notECT, now: world.network.now)
            }
        }
        /// The destination of what the client sends next.
        func next() -> [UInt8] {
            let count = initials.count
            world.simulation.run(for: .seconds(4)) { initials.count > count }
            #expect(initials.count > count)
            return chosen
        }
        let (first, second) = ([UInt8](repeating: 0xaa, count: 8), [UInt8](repeating: 0xbb, count: 8))
        retry(source: first, original: original)
        #expect(next() == first)
        retry(source: second, original: first)
        #expect(next() == first)
        #expect(client.closeReason == nil)
    }

    @Test("a token of a Retry proves no other address") func aTokenOfARetryProvesNoOtherAddress() throws {
        let world = try EngineWorld { server, _ in server.retryThreshold = 0 }
        var answer: [UInt8]?
        world.network.filter = { bytes, path in
            guard path.remote == EngineWorld.serverAddress, world.server.counters.retriesSent == 1 else { return true }
            if answer == nil { answer = bytes }
            return false
        }
        _ = try world.connect()
        world.simulation.run(for: .milliseconds(100))
        let stolen = try #require(answer)
        world.network.filter = nil
        let accepted = world.server.counters.connectionsAccepted
        let other = QUICPath(local: EngineWorld.otherClientAddress, remote: EngineWorld.serverAddress)
        world.network.send(stolen, on: other, ecn: .notECT)
        world.simulation.run(for: .milliseconds(15))
        #expect(world.server.counters.connectionsAccepted == accepted)
        #expect(world.server.counters.connectionsRefused == 1)
        // Where it was sent it holds.
        let own = QUICPath(local: EngineWorld.clientAddress, remote: EngineWorld.serverAddress)
        world.network.send(stolen, on: own, ecn: .notECT)
        world.simulation.run(for: .milliseconds(15))
        #expect(world.server.counters.connectionsAccepted == accepted + 1)
    }

    @Test("a server that never asks for a Retry never does") func aServerThatNeverAsksForARetryNeverDoes() throws {
        let world = try EngineWorld { server, _ in
            server.retryThreshold = nil
            server.maxHandshakesPerAddress = 1
        }
        world.network.filter = { _, path in path.local != EngineWorld.serverAddress }
        for _ in 0..<80 { _ = try world.connect() }
        world.simulation.run(for: .milliseconds(50))
        #expect(world.server.counters.retriesSent == 0)
        #expect(world.server.handshakesInProgress == 80)
    }

    @Test("a forged or expired token proves nothing") func aForgedOrExpiredTokenProvesNothing() throws {
        let world = try EngineWorld { server, _ in server.retryThreshold = 0 }
        let (first, _) = try world.connected()
        world.simulation.run(for: .seconds(1)) { !world.clientSide.tokens.isEmpty }
        let token = try #require(world.clientSide.tokens.last)
        first.close(code: 0, reason: "", now: world.network.now)
        // What a client kept from long ago, or made up: it is asked for its address like any other.
        var forged = token
        forged[token.count / 2] ^= 1
        var retries: UInt64 = 1
        for token in [forged, [token[0]], [UInt8](repeating: 0xff, count: 40)] {
            world.clientConfiguration.addressToken = token
            _ = try world.connected()
            retries += 1
            #expect(world.server.counters.retriesSent == retries)
        }
        // No lifetime at all: every token has expired.
        world.serverConfiguration.server?.addressTokenLifetime = .seconds(0)
        try world.restartServer()
        world.clientConfiguration.addressToken = token
        _ = try world.connected()
        #expect(world.server.counters.retriesSent == 1)
        #expect(world.server.counters.connectionsRefused == 0)
    }

    @Test("a token whose lifetime has no end is good") func aTokenWithoutAnEndIsGood() throws {
        let world = try EngineWorld { server, _ in
            server.retryThreshold = 0
            server.addressTokenLifetime = .seconds(.max)
        }
        let (first, _) = try world.connected()
        world.simulation.run(for: .seconds(1)) { !world.clientSide.tokens.isEmpty }
        let token = try #require(world.clientSide.tokens.last)
        world.clientConfiguration.addressToken = token
        first.close(code: 0, reason: "", now: world.network.now)
        _ = try world.connected()
        #expect(world.server.counters.retriesSent == 1)
    }

    @Test("the token of a Retry is good for ten seconds, and a forged one for nothing", arguments: [true, false])
    func theTokenOfARetryExpires(forged: Bool) throws {
        let world = try EngineWorld { server, _ in server.retryThreshold = 0 }
        var answer: [UInt8]?
        world.network.filter = { bytes, path in
            guard path.remote == EngineWorld.serverAddress, world.server.counters.retriesSent == 1 else { return true }
            if answer == nil { answer = bytes }
            return false
        }
        _ = try world.connect()
        world.simulation.run(for: .milliseconds(100))
        var late = try #require(answer)
        if forged {
            // In the middle of the token, behind both connection IDs and its length.
            let token = 6 + Int(late[5]) + 1 + Int(late[6 + Int(late[5])]) + 2
            late[token + 20] ^= 1
        } else {
            world.simulation.run(for: .seconds(11))
        }
        // The client's own tries stay away.
        world.network.filter = { bytes, path in path.local == EngineWorld.serverAddress || bytes == late }
        let own = QUICPath(local: EngineWorld.clientAddress, remote: EngineWorld.serverAddress)
        world.network.send(late, on: own, ecn: .notECT)
        world.simulation.run(for: .milliseconds(15))
        #expect(world.server.counters.connectionsAccepted == 0)
        #expect(world.server.counters.connectionsRefused == 1)
    }

    @Test("the token of a Retry expires over a restart of the machine, whose clock begins anew, too")
    func theTokenOfARetryExpiresOverARestart() throws {
        func retried(after days: UInt64) throws -> (EngineWorld, [UInt8]) {
            let world = try EngineWorld(seed: days + 1) { server, _ in server.retryThreshold = 0 }
            world.simulation.run(for: .seconds(days * 24 * 3600))
            var answer: [UInt8]?
            world.network.filter = { bytes, path in
                guard path.remote == EngineWorld.serverAddress, world.server.counters.retriesSent == 1 else {
                    return true
                }
                if answer == nil { answer = bytes }
                return false
            }
            _ = try world.connect()
            world.simulation.run(for: .milliseconds(100))
            return (world, try #require(answer))
        }
        let (_, token) = try retried(after: 5)
        // Another endpoint with the same key, whose clock has just begun.
        let (world, _) = try retried(after: 0)
        let own = QUICPath(local: EngineWorld.clientAddress, remote: EngineWorld.serverAddress)
        world.simulation.run(for: .seconds(12))
        world.network.filter = { bytes, path in path.local == EngineWorld.serverAddress || bytes == token }
        world.network.send(token, on: own, ecn: .notECT)
        world.simulation.run(for: .milliseconds(15))
        #expect(world.server.counters.connectionsAccepted == 0)
        #expect(world.server.counters.connectionsRefused == 1)
    }

    enum Token: CaseIterable, Sendable { case none, elsewhere, own, used }

    @Test("an address that proved nothing gets three times what came from it", arguments: Token.allCases)
    func anAddressThatProvedNothingGetsThreeTimesWhatCameFromIt(token: Token) throws {
        // A long chain, as real ones are: the first flight alone exceeds the limit.
        let names = ["server.test"] + (0..<150).map { "a-rather-long-alternative-name-\($0).server.test" }
        let certificate = EngineWorld.makeCertificate(names: names)
        let world = try EngineWorld { _, client in
            client.verification = .certificateAuthority(pem: certificate.certificatePEM)
        }
        try world.tls.reload(certificate.credentials)
        let from = token == .elsewhere ? EngineWorld.otherClientAddress : EngineWorld.clientAddress
        let first = try world.connect(from: from)
        world.simulation.run(for: .seconds(5)) { !world.clientSide.tokens.isEmpty }
        first.close(code: 0, reason: "", now: world.network.now)
        world.simulation.run(for: .seconds(10))
        if token != .none { world.clientConfiguration.addressToken = world.clientSide.tokens.last }
        if token == .used {
            try world.connect().close(code: 0, reason: "", now: world.network.now)
            world.simulation.run(for: .seconds(10))
        }

        var received = 0
        var sent = 0
        world.network.filter = { bytes, path in
            if path.local == EngineWorld.serverAddress {
                sent += bytes.count
                return false
            }
            received += bytes.count
            return received <= bytes.count
        }
        _ = try world.connect()
        world.simulation.settle()
        let size = received
        world.simulation.run(for: .seconds(8))
        #expect(size >= 1200)
        #expect(sent > 2 * size)
        #expect((sent <= 3 * size) == (token != .own), "\(sent) bytes for \(size)")
    }
}
