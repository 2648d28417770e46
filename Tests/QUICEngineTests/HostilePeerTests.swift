import LonglineTestKit
import Testing

@testable import QUICEngine

/// A peer that holds the keys breaks a rule: the connection ends with the code that RFC 9000 has for it, and the endpoint
/// goes on.
@Suite struct HostilePeerTests {
    enum Victim: CaseIterable, Sendable { case server, client }

    enum Code: UInt64, Sendable {
        case flowControl = 0x3, streamLimit = 0x4, streamState = 0x5, finalSize = 0x6, frameEncoding = 0x7
        case connectionIDLimit = 0x9, protocolViolation = 0xa, cryptoBufferExceeded = 0xd
    }

    struct Attack: CustomTestStringConvertible, Sendable {
        let testDescription: String
        let victim: Victim
        let frames: [UInt8]
        let code: Code

        init(_ name: String, of victim: Victim, _ frames: [UInt8], _ code: Code) {
            testDescription = "\(victim): \(name)"
            self.victim = victim
            self.frames = frames
            self.code = code
        }
    }

    private static func numbers(_ values: UInt64...) -> [UInt8] { values.flatMap { Frames.varint($0) } }

    private static func stream(_ id: UInt64, at offset: UInt64, _ data: [UInt8], fin: Bool = false) -> [UInt8] {
        Frames.stream(id, at: offset, data, fin: fin)
    }

    private static func newConnectionID(
        _ sequence: UInt64, retiring retirePriorTo: UInt64 = 0, length: UInt8 = 8
    ) -> [UInt8] {
        numbers(0x18, sequence, retirePriorTo) + [length]
            + [UInt8](repeating: UInt8(truncatingIfNeeded: sequence), count: Int(length) + 16)
    }

    /// What either side may do wrong. `its`: a stream that the attacker may open; the other's begin at the other parity.
    private static func common(_ victim: Victim) -> [Attack] {
        let its: UInt64 = victim == .server ? 0 : 1
        let victims = 1 - its
        return [
            Attack("bytes beyond a stream's window", of: victim, stream(its, at: 1 << 30, [1]), .flowControl),
            Attack(
                "a reset that says more was sent than may be", of: victim, numbers(0x04, its, 7, 1 << 40), .flowControl),
            Attack("a stream too many", of: victim, stream(its + 4 * 1000, at: 0, [1]), .streamLimit),
            Attack(
                "a unidirectional stream too many", of: victim, stream(its + 2 + 4 * 1000, at: 0, [1]), .streamLimit),
            Attack(
                "data on a stream that the victim never opened", of: victim, stream(victims + 400, at: 0, [1]),
                .streamState),
            Attack(
                "data on a stream that only the victim sends on", of: victim, stream(victims + 2, at: 0, [1]),
                .streamState),
            Attack(
                "a limit for a stream that the victim doesn't send on", of: victim, numbers(0x11, its + 2, 9),
                .streamState),
            Attack(
                "a stop of a stream that the victim doesn't send on", of: victim, numbers(0x05, its + 2, 9),
                .streamState),
            Attack(
                "word of being blocked on a stream that only the victim sends on", of: victim,
                numbers(0x15, victims + 2, 9), .streamState),
            Attack(
                "word of being blocked on a stream that the victim never opened", of: victim,
                numbers(0x15, victims + 400, 9), .streamState),
            Attack(
                "word of being blocked on a stream too many", of: victim, numbers(0x15, its + 4 * 1000, 9),
                .streamLimit),
            Attack(
                "word of being blocked on a unidirectional stream too many", of: victim,
                numbers(0x15, its + 2 + 4 * 1000, 9), .streamLimit),
            Attack(
                "two ends of one stream", of: victim,
                stream(its, at: 0, [1, 2, 3], fin: true) + stream(its, at: 0, [1, 2, 3, 4], fin: true), .finalSize),
            Attack(
                "data behind the end", of: victim, stream(its, at: 0, [1], fin: true) + stream(its, at: 5, [1]),
                .finalSize),
            Attack("an unknown frame", of: victim, numbers(0x21), .frameEncoding),
            Attack("a frame that is cut off", of: victim, numbers(0x0e, its, 0, 16_000), .frameEncoding),
            Attack("more streams than there are numbers", of: victim, numbers(0x12, 1 << 60 + 1), .frameEncoding),
            Attack("a connection ID of 21 bytes", of: victim, newConnectionID(40, length: 21), .frameEncoding),
            Attack(
                "more connection IDs than were asked for", of: victim,
                (40..<50).flatMap { newConnectionID($0) }, .connectionIDLimit),
            Attack(
                "connection IDs that retire those before them, without end", of: victim,
                (40..<62).flatMap { newConnectionID($0, retiring: $0) }, .connectionIDLimit),
            Attack("the retirement of an ID that nobody gave", of: victim, numbers(0x19, 4000), .protocolViolation),
            Attack(
                "the acknowledgement of what was never sent", of: victim, numbers(0x02, 90_000, 0, 0, 0),
                .protocolViolation),
            Attack("an acknowledgement of less than nothing", of: victim, numbers(0x02, 3, 0, 0, 9), .frameEncoding),
            Attack("handshake bytes far ahead", of: victim, numbers(0x06, 1 << 20, 1) + [1], .cryptoBufferExceeded),
        ]
    }

    private static let attacks =
        Victim.allCases.flatMap { common($0) } + [
            Attack("the end of the handshake, from the client", of: .server, [0x1e], .protocolViolation),
            Attack("an address token, from the client", of: .server, numbers(0x07, 3) + [1, 2, 3], .protocolViolation),
            Attack("an empty address token", of: .client, numbers(0x07, 0), .frameEncoding),
        ]

    private final class Hook {
        var frames: [UInt8]?
        var matches: (UInt8) -> Bool = { $0 & 0x80 == 0 }
        /// At least so large is a packet whose frames are replaced; the rest of it becomes PADDING.
        var size = 600

        func rewrite(_ plaintext: UnsafeMutableRawBufferPointer, _ header: UnsafeRawBufferPointer) {
            guard let frames, let first = header.first, matches(first), plaintext.count >= max(size, frames.count)
            else {
                return
            }
            self.frames = nil
            for index in plaintext.indices { plaintext[index] = index < frames.count ? frames[index] : 0 }
        }
    }

    private func hook(_ attacker: QUICEndpoint) -> Hook {
        let hook = Hook()
        attacker.rewrite = { hook.rewrite($0, $1) }
        return hook
    }

    @Test("a broken rule ends the connection with its code", arguments: attacks)
    func aBrokenRuleEndsTheConnection(attack: Attack) throws {
        let world = try EngineWorld()
        let hook = hook(attack.victim == .server ? world.client : world.server)
        let (client, server) = try world.connected()
        world.simulation.run(for: .seconds(4))
        let (attacker, victim) = attack.victim == .server ? (client, server) : (server, client)
        hook.frames = attack.frames
        // Not on the streams that the attack is about.
        _ = try attacker.open()
        try attacker.send(pattern(1000), on: attacker.open())
        world.simulation.run(for: .seconds(2))
        #expect(hook.frames == nil, "the packet was sent")
        guard case .localTransport(let code, _)? = victim.closeReason else {
            Issue.record("\(String(describing: victim.closeReason))")
            return
        }
        #expect(code == attack.code.rawValue)
        #expect(attacker.closeReason == .peerTransport(code: code, reason: ""))
        // Nothing is left of it, and another client is served.
        hook.frames = nil
        world.serverSide.echoes = true
        let next = try world.connected().client
        let stream = try next.open()
        try next.send(pattern(3000), on: stream, finish: true)
        world.simulation.run(for: .seconds(10)) { world.clientSide.finished.contains(stream) }
        #expect(world.clientSide.received[stream] == pattern(3000))
        #expect(world.server.connectionCount == 1)
    }

    @Test("a peer that says that it is blocked on a stream, old or new, goes on with it")
    func blockedStreamsGoOn() throws {
        let world = try EngineWorld()
        let hook = hook(world.client)
        let (client, server) = try world.connected()
        let (old, new) = (try client.open(), try client.open())
        try client.send([1], on: old)
        world.simulation.run(for: .seconds(4))
        hook.frames = Self.numbers(0x15, old.rawValue, 1, 0x15, new.rawValue, 0)
        // What is in the packet that is replaced never arrives.
        #expect(try client.offer(pattern(700), id: 1))
        world.simulation.run(for: .seconds(1))
        #expect(hook.frames == nil, "the packet was sent")
        #expect(world.serverSide.datagrams.isEmpty)
        for stream in [old, new] { try client.send(pattern(3000), on: stream, finish: true) }
        world.simulation.run(for: .seconds(5)) { world.serverSide.finished.isSuperset(of: [old, new]) }
        #expect(world.serverSide.received[old] == [1] + pattern(3000))
        #expect(world.serverSide.received[new] == pattern(3000))
        #expect(server.closeReason == nil && world.server.counters.containedFrames == 0)
    }

    static let misplaced: [[UInt8]] = [
        stream(0, at: 0, [1]), numbers(0x04, 0, 7, 0), numbers(0x07, 1) + [1], numbers(0x10, 9), newConnectionID(1),
        numbers(0x19, 0), [0x1a, 1, 2, 3, 4, 5, 6, 7, 8], [0x1e], numbers(0x31, 1) + [1], numbers(0x1d, 1, 0),
    ]

    @Test("a frame that has no place in a Handshake packet ends the handshake", arguments: misplaced)
    func aFrameHasNoPlaceInAHandshakePacket(frames: [UInt8]) throws {
        let world = try EngineWorld()
        let hook = hook(world.client)
        hook.matches = { $0 & 0xb0 == 0xa0 }
        hook.size = 30
        hook.frames = frames
        let client = try world.connect()
        world.simulation.run(for: .seconds(3))
        #expect(hook.frames == nil, "the packet was sent")
        let server = try #require(world.serverSide.connections.first)
        #expect(server.handshake == nil)
        guard case .localTransport(Code.protocolViolation.rawValue, _)? = server.closeReason else {
            Issue.record("\(String(describing: server.closeReason)), \(String(describing: client.closeReason))")
            return
        }
        #expect(world.server.counters.handshakesCompleted == 0)
    }

    @Test("a server's transport parameters that break a rule are told as what they are, and not as a failure of TLS")
    func aServersTransportParametersBreakARule() throws {
        let world = try EngineWorld()
        // active_connection_id_limit, and a value that it must not have (RFC 9000 section 18.2).
        let (parameter, tooFew): ([UInt8], UInt8) = ([0x0e, 1, 7], 1)
        var changed = 0
        world.server.rewrite = { plaintext, header in
            guard let first = header.first, first & 0xb0 == 0xa0 else { return }
            for start in plaintext.indices.dropLast(2) {
                guard (0..<3).allSatisfy({ plaintext[start + $0] == parameter[$0] }) else { continue }
                plaintext[start + 2] = tooFew
                changed += 1
            }
        }
        let client = try world.connect()
        world.simulation.run(for: .seconds(3))
        #expect(changed > 0, "the parameter was sent")
        guard case .handshakeFailed(let error)? = client.closeReason else {
            Issue.record("\(String(describing: client.closeReason))")
            return
        }
        #expect(error.message == "The server's transport parameters break a rule of QUIC")
        #expect(error.cause == "ERR_TRANSPORT_PARAM")
        guard case .peerTransport(0x08, _)? = world.serverSide.connections.first?.closeReason else {
            Issue.record("\(String(describing: world.serverSide.connections.first?.closeReason))")
            return
        }
    }

    static let notEarly: [[UInt8]] = [
        numbers(0x02, 0, 0, 0, 0), numbers(0x06, 0, 1) + [1], numbers(0x07, 1) + [1],
        [0x1b, 1, 2, 3, 4, 5, 6, 7, 8], numbers(0x19, 0), [0x1e],
    ]

    @Test("a frame that has no place in a 0-RTT packet ends the connection", arguments: notEarly)
    func aFrameHasNoPlaceIn0RTT(frames: [UInt8]) throws {
        let world = try EngineWorld(tickets: true)
        let hook = hook(world.client)
        let (first, _) = try world.connected()
        world.simulation.run(for: .seconds(2)) { !world.clientSide.tickets.isEmpty }
        world.clientConfiguration.sessionTicket = world.clientSide.tickets.last
        first.close(code: 0, reason: "", now: world.network.now)
        world.simulation.run(for: .seconds(3))
        hook.matches = { $0 & 0xb0 == 0x90 }
        hook.size = 20
        hook.frames = frames
        let client = try world.connect()
        try client.send(pattern(900), on: client.open())
        world.simulation.run(for: .seconds(3))
        #expect(hook.frames == nil, "the packet was sent")
        let server = try #require(world.serverSide.connections.last)
        guard case .localTransport(Code.protocolViolation.rawValue, _)? = server.closeReason else {
            Issue.record("\(String(describing: server.closeReason)), \(String(describing: client.closeReason))")
            return
        }
    }
}

/// What a stranger sends who holds no keys.
@Suite struct StrangerTests {
    private static let stranger = QUICSocketAddress(ipv4: (10, 3, 3, 3), port: 3333)

    /// The first flight of a client, which never arrived.
    private func firstFlight(_ world: EngineWorld) throws -> [UInt8] {
        var flight: [UInt8]?
        world.network.filter = { bytes, path in
            if flight == nil, path.local == EngineWorld.clientAddress { flight = bytes }
            return false
        }
        _ = try world.connect()
        world.simulation.settle()
        world.network.filter = nil
        world.network.setBlackhole(EngineWorld.clientAddress, true)
        return try #require(flight)
    }

    private func inject(_ bytes: [UInt8], into world: EngineWorld) {
        let path = QUICPath(local: EngineWorld.serverAddress, remote: Self.stranger)
        bytes.withUnsafeBytes { world.server.receive($0, path: path, ecn: .notECT, now: world.network.now) }
        world.simulation.settle()
    }

    /// Counts what goes to the stranger.
    private func watch(_ world: EngineWorld) -> () -> Int {
        final class Count { var bytes = 0 }
        let count = Count()
        world.network.filter = { bytes, path in
            if path.remote == Self.stranger { count.bytes += bytes.count }
            return true
        }
        return { count.bytes }
    }

    @Test("a first flight that is cut off anywhere gets no answer and leaves nothing")
    func aFirstFlightThatIsCutOffGetsNoAnswer() throws {
        let world = try EngineWorld()
        let flight = try firstFlight(world)
        #expect(flight.count >= 1200)
        let sent = watch(world)
        for length in 0..<1200 { inject(Array(flight.prefix(length)), into: world) }
        #expect(sent() == 0)
        #expect(world.server.connectionCount == 0)
        #expect(world.server.counters.handshakesCompleted == 0)
        // Whole it is a client's.
        inject(flight, into: world)
        #expect(world.server.connectionCount == 1)
        #expect(sent() > 0 && sent() <= 3 * flight.count)
    }

    @Test("a first flight with any byte changed starts nothing, or something that ends by itself")
    func aFirstFlightWithAByteChanged() throws {
        let world = try EngineWorld()
        let flight = try firstFlight(world)
        let sent = watch(world)
        var received = 0
        for index in stride(from: 0, to: flight.count, by: 7) {
            var changed = flight
            changed[index] ^= 0x41
            received += changed.count
            inject(changed, into: world)
            #expect(sent() <= 3 * received)
        }
        world.simulation.run(for: .seconds(30))
        #expect(sent() <= 3 * received)
        #expect(world.server.counters.handshakesCompleted == 0)
        #expect(world.server.connectionCount == 0)
        #expect(world.server.deadlines.count == 0)
    }

    @Test("an Initial that is repeated costs a half-open handshake at most, and no more bytes than thrice its own")
    func anInitialThatIsRepeated() throws {
        let world = try EngineWorld()
        world.serverSide.echoes = true
        var flight: [UInt8]?
        world.network.filter = { bytes, path in
            if flight == nil, path.local == EngineWorld.clientAddress { flight = bytes }
            return true
        }
        let (client, server) = try world.connected()
        let initial = try #require(flight)
        let sent = watch(world)
        // It looks like a client's that the server never saw; beside it the connection goes on.
        for _ in 0..<20 { inject(initial, into: world) }
        #expect(world.server.connectionCount <= 2)
        let stream = try client.open()
        try client.send(pattern(3000), on: stream, finish: true)
        world.simulation.run(for: .seconds(2)) { world.clientSide.finished.contains(stream) }
        #expect(world.clientSide.received[stream] == pattern(3000))
        #expect(server.path.remote == EngineWorld.clientAddress)
        client.close(code: 0, reason: "", now: world.network.now)
        world.simulation.run(for: .seconds(30))
        #expect(world.server.connectionCount == 0)
        for _ in 0..<20 { inject(initial, into: world) }
        #expect(world.server.connectionCount <= 1)
        world.simulation.run(for: .seconds(30))
        #expect(sent() <= 3 * 40 * initial.count)
        #expect(world.server.connectionCount == 0)
        #expect(world.server.counters.handshakesCompleted == 1)
    }
}
