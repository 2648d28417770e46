import LonglineLinks
import LonglineSession
import LonglineWire
import NIOCore
import NIOPosix
import QUICEngine
import QUICTransport
import Synchronization
import Testing

@Suite("Signals over QUIC", .timeLimit(.minutes(1)))
struct SignalLinkTests {
    private static func signal(
        _ text: String = "", kind: SignalKind = .typing, bytes: Int? = nil, deadline: UInt64 = 5_000
    ) throws -> Signal {
        Signal(
            channel: .room(try RoomID("tea")), kind: kind, deadline: deadline,
            payload: bytes.map { ByteBuffer(repeating: 7, count: $0) } ?? ByteBuffer(string: text))
    }

    private func datagram(_ log: LinkLog) async throws -> Signal {
        try await log.next { if case .datagram(.signal(let signal)) = $0 { signal } else { nil } }
    }

    @Test("A signal travels in a datagram both ways once the handshake is complete, with the time that is left")
    func bothWays() async throws {
        let routes = Mutex<[SignalRoute]>([])
        let sent = try Self.signal("hi")
        try await withLinks { event, link in
            guard case .datagram(.signal(let signal)) = event else { return }
            let route = link.sendSignal(signal, until: .now() + .seconds(3))
            routes.withLock { $0.append(route) }
        } body: { connector, target, server, loop in
            let log = try await connector.link(target, on: loop) { event, link in
                switch event {
                case .established:
                    let route = link.sendSignal(sent, until: .now() + .seconds(9))
                    routes.withLock { $0.append(route) }
                case .handshake:
                    let late = link.sendSignal(sent, until: .now())
                    let route = link.sendSignal(sent, until: .now() + .seconds(9))
                    routes.withLock { $0 += [late, route] }
                default: break
                }
            }
            let there = try await datagram(server)
            #expect(there.payload == sent.payload && there.channel == sent.channel)
            #expect((7_000...9_000).contains(there.deadline))
            #expect((1_000...3_000).contains(try await datagram(log).deadline))
            #expect(routes.withLock { $0 } == [.dropped, .dropped, .datagram, .datagram])
        }
    }

    @Test("What does not fit a datagram goes on lane 0, and so does everything where the peer takes none")
    func laneZero() async throws {
        // At its limits a signal is larger than any datagram that fits every path.
        let large = try Signal(
            channel: .room(RoomID(String(repeating: "n", count: 64))), kind: .app(1), deadline: 5_000,
            sender: SignalSender(
                user: UserID(String(repeating: "u", count: 64)), device: DeviceID(String(repeating: "d", count: 64))),
            payload: ByteBuffer(repeating: 7, count: 1_000))
        let small = try Self.signal("small")
        for takesDatagrams in [true, false] {
            try await withLinks { event, link in
                guard case .frame(.ping, _, _) = event else { return }
                let signal = takesDatagrams ? large : small
                #expect(link.sendSignal(signal, until: .now() + .seconds(5)) == .lane)
            } body: { connector, target, server, loop in
                var target = target
                if !takesDatagrams { target.transport.maxDatagramFrameSize = 0 }
                let log = try await connector.link(target, on: loop) { event, link in
                    if case .handshake = event { link.send(ping(1), lane: .control) }
                }
                let (frame, lane, _) = try await log.frame()
                guard case .signal(let signal) = frame else {
                    Issue.record("\(frame)")
                    return
                }
                #expect(lane == .control && signal.payload == (takesDatagrams ? large : small).payload)
            }
        }
    }

    @Test("A signal that has not left makes room for the newer one; another kind, sender or channel does not")
    func newest() async throws {
        try await withLinks { connector, target, server, loop in
            // Of one turn of the loop nothing has left before its end.
            let texts = (0..<50).map { "\($0)" }
            _ = try await connector.link(target, on: loop) { event, link in
                guard case .handshake = event else { return }
                for text in texts {
                    let signals = [
                        try? Self.signal(text, kind: .app(1)), try? Self.signal(text, kind: .app(2)),
                    ]
                    for case let signal? in signals {
                        #expect(link.sendSignal(signal, until: .now() + .seconds(5)) == .datagram)
                    }
                }
            }
            var seen: [String] = []
            for _ in 0..<2 { seen.append(String(buffer: try await datagram(server).payload)) }
            #expect(seen == ["49", "49"])
        }
    }

    @Test("A signal that finds no room leaves the older one of its kind where it is")
    func noRoom() async throws {
        let routes = Mutex<[SignalRoute]>([])
        // With no share of its address left a connection may have 4 KiB of datagrams waiting.
        let kinds = ([0, 1, 2, 3, 4, 0] as [UInt8]).map { SignalKind.app($0) }
        let signals = try zip(kinds, [5, 1_000, 1_000, 1_000, 100, 1_000]).map { try Self.signal(kind: $0, bytes: $1) }
        try await withLinks(sendMemory: 0) { event, link in
            guard case .frame(.ping, _, _) = event else { return }
            for signal in signals {
                let route = link.sendSignal(signal, until: .now() + .seconds(5))
                routes.withLock { $0.append(route) }
            }
        } body: { connector, target, server, loop in
            let log = try await connector.link(target, on: loop) { event, link in
                if case .handshake = event { link.send(ping(1), lane: .control) }
            }
            var seen: [Signal] = []
            for _ in 0..<5 { seen.append(try await datagram(log)) }
            #expect(seen.map(\.kind) == Array(kinds.prefix(5)))
            #expect(seen.first?.payload.readableBytes == 5)
            #expect(routes.withLock { $0 } == [SignalRoute](repeating: .datagram, count: 5) + [.dropped])
        }
    }

    @Test("Where lane 0 is backed up, a signal that needs it is dropped")
    func backedUp() async throws {
        let large = try Self.signal(bytes: 1_000)
        try await withLinks { connector, target, server, loop in
            var target = target
            target.transport.maxDatagramFrameSize = 0
            let routes = Mutex<[SignalRoute]>([])
            _ = try await connector.link(target, on: loop) { event, link in
                guard case .handshake = event else { return }
                link.send(.refresh(Refresh(token: String(repeating: "t", count: 6_000))), lane: .control)
                // The server takes datagrams, and so this one needs no lane.
                let direct = link.sendSignal(large, until: .now() + .seconds(5))
                routes.withLock { $0.append(direct) }
            }
            _ = try await server.frame()
            #expect(routes.withLock { $0 } == [.datagram])
        }
        try await withLinks { event, link in
            guard case .frame(.ping, _, _) = event else { return }
            #expect(link.sendSignal(large, until: .now() + .seconds(5)) == .lane)
            link.send(.refresh(Refresh(token: String(repeating: "t", count: 6_000))), lane: .control)
            #expect(link.sendSignal(large, until: .now() + .seconds(5)) == .dropped)
        } body: { connector, target, server, loop in
            var target = target
            target.transport.maxDatagramFrameSize = 0
            let log = try await connector.link(target, on: loop) { event, link in
                if case .handshake = event { link.send(ping(1), lane: .control) }
            }
            guard case .signal = try await log.frame().frame, case .refresh = try await log.frame().frame else {
                Issue.record("the order is another")
                return
            }
        }
    }

    @Test("Bytes in a datagram that are no frame are an error, unknown even types are passed over")
    func invalid() async throws {
        var good = ByteBuffer()
        var random = SystemRandomNumberGenerator()
        FrameEncoder.grease(using: &random, into: &good)
        try FrameEncoder.encode(.signal(Self.signal("x")), into: &good)
        let cases: [(ByteBuffer, FrameError.Code?)] = [
            (good, nil), (ByteBuffer(bytes: [0x40, 0x47, 9, 0]), .malformed),
            (ByteBuffer(bytes: [0x3f, 0]), .unknownType), (ByteBuffer(bytes: [0x40]), .malformed),
        ]
        try await withLinks { connector, target, server, loop in
            // A client that writes datagrams by itself.
            var configuration = ClientConfiguration(
                serverName: "localhost", applicationProtocols: [QUICLinkProtocol.applicationProtocol],
                verification: target.verification)
            configuration.transport = .longline
            let client = QUICClient()
            for (bytes, code) in cases {
                let connection = try await client.connect(
                    host: target.host, port: target.port, configuration: configuration, on: loop)
                try await connection.sendDatagram(bytes)
                if let code {
                    let seen = try await server.next { if case .invalid(let code, _) = $0 { code } else { nil } }
                    #expect(seen == code)
                } else {
                    #expect(String(buffer: try await datagram(server).payload) == "x")
                }
            }
            await client.shutdownGracefully()
        }
    }
}
