import CQUICShim
import LonglineTestKit
import Testing

@testable import QUICEngine

/// What comes to a client, or is asked of it, between the end of its handshake and the first packet that it writes behind that. ngtcp2
/// holds the handshake for unfinished until then.
@Suite struct EarlyFrameTests {
    private static func newConnectionID(_ sequence: UInt64, retiring retirePriorTo: UInt64) -> [UInt8] {
        Frames.numbers(0x18, sequence, retirePriorTo) + [8] + [UInt8](repeating: 0xee, count: 8 + 16)
    }

    private static let early: [[UInt8]] = [[0x1e], newConnectionID(1, retiring: 1)]

    @Test(
        "a server that confirms the handshake before it has the client's end of it, or retires its first ID, ends no process",
        arguments: early)
    func withTheFirstFlight(frames: [UInt8]) throws {
        let world = try EngineWorld()
        var attack: [UInt8]? = frames
        world.server.rewrite = { plaintext, header in
            guard let bytes = attack, let first = header.first, first & 0x80 == 0, plaintext.count >= 600 else {
                return
            }
            attack = nil
            for index in plaintext.indices { plaintext[index] = index < bytes.count ? bytes[index] : 0 }
        }
        // So much that some comes behind the frames.
        var stream: QUICStreamID?
        world.serverHost.onEvent = { [unowned world] connection, event in
            world.serverSide.handle(event, on: connection)
            guard case .accepted = event, let opened = try? connection.open(bidirectional: false) else { return }
            stream = opened
            _ = try? connection.send(pattern(3_000), on: opened, finish: true)
        }
        // All of the flight comes at once, whenever pacing let its packets leave: the client writes nothing in between.
        var flight: [[UInt8]]? = []
        world.network.filter = { bytes, path in
            guard path.local == EngineWorld.serverAddress, flight != nil else { return true }
            flight?.append(bytes)
            return false
        }
        let client = try world.connect()
        world.simulation.run(for: .milliseconds(500)) { attack == nil }
        #expect(attack == nil && client.handshake == nil, "the packet was sent with the first flight")
        let datagrams = try #require(flight)
        flight = nil
        let path = QUICPath(local: EngineWorld.clientAddress, remote: EngineWorld.serverAddress)
        for datagram in datagrams {
            datagram.withUnsafeBytes { world.client.receive($0, path: path, ecn: .notECT, now: world.network.now) }
        }
        #expect(client.handshake != nil)
        world.simulation.run(for: .seconds(5))
        // What was in the place of the frames is sent again.
        let id = try #require(stream)
        #expect(world.clientSide.received[id] == pattern(3_000))
        #expect(world.clientSide.confirmed.contains(client.handle))
        #expect(client.closeReason == nil && world.serverSide.closed.isEmpty)
    }

    @Test("frames that come too early are found wherever they are in a packet, and no others")
    func found() {
        func isTooEarly(_ frames: [UInt8], preferred: Bool = false) -> Bool {
            var frames = frames
            return frames.withUnsafeMutableBufferPointer {
                llq_guard_is_too_early($0.baseAddress, $0.count, preferred ? 1 : 0) != 0
            }
        }
        let before = [0, 0, 0x01] + Frames.stream(3, at: 0, [0x1e, 0x18, 1, 1])
        #expect(isTooEarly(before + [0x1e]))
        #expect(isTooEarly(before + Self.newConnectionID(1, retiring: 0) + Self.newConnectionID(2, retiring: 1)))
        #expect(isTooEarly(before + Self.newConnectionID(1, retiring: 0), preferred: true))
        #expect(!isTooEarly(before + Self.newConnectionID(2, retiring: 0) + [0, 0], preferred: true))
        #expect(!isTooEarly(before + Self.newConnectionID(1, retiring: 0)))
        #expect(!isTooEarly([]))
        // ngtcp2 ends the connection at a frame that can't be read.
        #expect(!isTooEarly([0x21, 0x1e]) && !isTooEarly([0x18, 0x41]) && !isTooEarly([0x18]))
    }

    @Test("a client may ask for a key update as soon as the handshake is complete, and doesn't get it yet")
    func keyUpdate() throws {
        let world = try EngineWorld()
        var answers: [Bool] = []
        world.clientHost.onEvent = { [unowned world] connection, event in
            world.clientSide.handle(event, on: connection)
            guard case .handshakeCompleted = event else { return }
            answers.append(connection.requestKeyUpdate(now: world.network.now))
        }
        let (client, server) = try world.connected()
        #expect(answers == [false])
        world.simulation.run(for: .seconds(2))
        #expect(client.closeReason == nil && server.closeReason == nil)
    }
}
