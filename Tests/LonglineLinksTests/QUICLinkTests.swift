import LonglineLinks
import LonglineSession
import LonglineTestKit
import LonglineWire
import NIOCore
import NIOPosix
import QUICEngine
import QUICTransport
import Synchronization
import Testing

@Suite("Links over QUIC", .timeLimit(.minutes(1)))
struct QUICLinkTests {
    @Test("Frames go both ways on control and on lanes of both sides, in order on each")
    func lanes() async throws {
        try await withLinks { event, link in
            // The answer to lane n goes on the server's own lane n; a side opens its lanes in order.
            if event == .established { for number in 1...3 { link.openLane(LaneID(rawValue: UInt64(number))) } }
            guard case .frame(.ping(let ping), let lane, _) = event else { return }
            link.send(pong(ping.nonce), lane: lane)
            if ping.nonce == 100, lane != .control { link.finishLane(lane) }
        } body: { connector, target, server, loop in
            let log = try await connector.link(target, on: loop) { event, link in
                guard event == .established else { return }
                for number in 0..<4 {
                    let lane = LaneID(rawValue: UInt64(number))
                    if number > 0 { link.openLane(lane) }
                    for nonce in 1...100 { link.send(ping(UInt64(nonce)), lane: lane) }
                    if number > 0 { link.finishLane(lane) }
                }
            }
            var next: [LaneID: UInt64] = [:]
            for _ in 0..<400 {
                let (frame, lane, early) = try await log.frame()
                next[lane, default: 1] += 1
                #expect(frame == pong(next[lane, default: 1] - 1))
                #expect(!early)
            }
            #expect(next.count == 4 && next.values.allSatisfy { $0 == 101 })
            _ = try await server.next { if case .laneFinished(let lane) = $0 { lane } else { nil } }
        }
    }

    @Test(
        "A client's link tells when the server has its last flight, which is after the handshake is complete for the client"
    )
    func confirmed() async throws {
        try await withLinks { connector, target, server, loop in
            let atHandshake = Mutex<Bool?>(nil)
            let isConfirmed = Mutex(false)
            let log = try await connector.link(target, on: loop) { event, link in
                guard let link = link as? QUICLink else { return }
                if case .handshake = event { atHandshake.withLock { $0 = link.isHandshakeConfirmed } }
                isConfirmed.withLock { $0 = link.isHandshakeConfirmed }
            }
            while !isConfirmed.withLock({ $0 }) { try await log.next { $0 == .batchEnded ? () : nil } }
            #expect(atHandshake.withLock { $0 } == false)
        }
    }

    /// What came to the server of ``busyLoop()``.
    private final class Arrivals: Sendable {
        let frames = Atomic(0)
        let hasGivenUp = Atomic(false)
    }

    /// Fills the link's loop with tasks that make tasks and have it look at its sockets, until a second frame has come.
    private static func keepBusy(_ link: any Link, _ arrivals: Arrivals, until end: NIODeadline) {
        guard arrivals.frames.load(ordering: .relaxed) < 2 else { return }
        guard .now() < end else { return arrivals.hasGivenUp.store(true, ordering: .relaxed) }
        link.pollSockets()
        link.eventLoop.assumeIsolated().execute { Self.keepBusy(link, arrivals, until: end) }
    }

    @Test("A loop that never runs out of tasks reads what comes, where a link is told to look at the sockets")
    func busyLoop() async throws {
        let (serverGroup, clientGroup) = (
            MultiThreadedEventLoopGroup(numberOfThreads: 1), MultiThreadedEventLoopGroup(numberOfThreads: 1)
        )
        let (server, arrivals) = (LinkLog(), Arrivals())
        let listener = try await QUICLinkListener.bind(
            addresses: [SocketAddress(ipAddress: "127.0.0.1", port: 0)],
            configuration: QUICLinkServerConfiguration(tls: serverTLS()), group: serverGroup
        ) { _ in
            TestHandler(log: server) { event, link in
                guard case .frame = event else { return }
                guard arrivals.frames.add(1, ordering: .relaxed).newValue == 1 else { return }
                link.send(pong(1), lane: .control)
                Self.keepBusy(link, arrivals, until: .now() + .seconds(20))
            }
        }
        let connector = QUICLinkConnector()
        let target = QUICLinkTarget(
            host: "127.0.0.1", port: listener.localAddresses.first?.port ?? 0, serverName: "localhost",
            verification: .certificateAuthority(pem: certificate.certificatePEM))
        _ = try await connector.link(target, on: clientGroup.next()) { event, link in
            if event == .established { link.send(ping(1), lane: .control) }
            if case .frame = event { link.send(ping(2), lane: .control) }
        }
        #expect(try await server.frame().frame == ping(1))
        #expect(try await server.frame().frame == ping(2))
        let hasGivenUp = arrivals.hasGivenUp.load(ordering: .relaxed)
        #expect(!hasGivenUp)
        await connector.shutdownGracefully()
        await listener.shutdownGracefully(timeout: .seconds(1))
        try await clientGroup.shutdownGracefully()
        try await serverGroup.shutdownGracefully()
    }

    @Test("A frame that can't be written closes the link instead of leaving a hole")
    func unsendable() async throws {
        try await withLinks { connector, target, server, loop in
            let log = try await connector.link(target, on: loop) { event, link in
                guard event == .established else { return }
                link.send(ping(7), lane: .control)
                // 2^62 has no varint.
                link.send(.acknowledge(Acknowledge(offset: 1 << 62)), lane: .control)
            }
            #expect(try await server.frame().frame == ping(7))
            guard case .peer(code: .internalError, _) = try await server.closed() else {
                Issue.record("the server was not told")
                return
            }
            #expect(try await log.closed() == .local)
        }
    }

    @Test("Many lanes, some of which begin with a frame that nobody knows, all arrive")
    func grease() async throws {
        try await withLinks { connector, target, server, loop in
            _ = try await connector.link(target, on: loop) { event, link in
                guard event == .established else { return }
                for number in UInt64(1)...200 {
                    link.openLane(LaneID(rawValue: number))
                    link.send(ping(number), lane: LaneID(rawValue: number))
                    link.finishLane(LaneID(rawValue: number))
                }
            }
            var seen: Set<LaneID> = []
            while seen.count < 200 {
                let (frame, lane, _) = try await server.frame()
                #expect(frame == ping(lane.rawValue))
                seen.insert(lane)
            }
        }
    }

    @Test("The close code and reason reach the peer behind the last frame", arguments: [true, false])
    func close(byServer: Bool) async throws {
        try await withLinks { event, link in
            guard byServer, case .frame = event else { return }
            link.send(pong(7), lane: .control)
            link.close(.replaced, reason: "another device")
        } body: { connector, target, server, loop in
            let log = try await connector.link(target, on: loop) { event, link in
                guard event == .established else { return }
                link.send(ping(7), lane: .control)
                if !byServer { link.close(.loggedOut, reason: "bye") }
            }
            #expect(try await server.frame().frame == ping(7))
            if byServer {
                #expect(try await log.frame().frame == pong(7))
                #expect(try await log.closed() == .peer(code: .replaced, reason: "another device"))
                #expect(try await server.closed() == .local)
            } else {
                #expect(try await server.closed() == .peer(code: .loggedOut, reason: "bye"))
                #expect(try await log.closed() == .local)
            }
        }
    }

    @Test("A returning client's first flight carries frames, marked as early")
    func earlyFrames() async throws {
        try await withLinks { event, link in
            if case .frame(.ping(let ping), _, _) = event { link.send(pong(ping.nonce), lane: .control) }
        } body: { connector, target, server, loop in
            let first = try await connector.link(target, on: loop) { event, link in
                if event == .established { link.send(ping(1), lane: .control) }
            }
            let ticket = try await first.next { if case .ticket(let bytes) = $0 { bytes } else { nil } }
            #expect(try await server.frame().early == false)

            var returning = target
            returning.sessionTicket = ticket
            let second = try await connector.link(returning, on: loop) { event, link in
                guard event == .established else { return }
                link.send(ping(2), lane: .control)
                link.openLane(LaneID(rawValue: 1))
                link.send(ping(3), lane: LaneID(rawValue: 1))
            }
            let one = try await server.frame()
            let two = try await server.frame()
            #expect(one.early && two.early)
            #expect(Set([one.frame, two.frame]) == [ping(2), ping(3)])
            let handshake = try await second.next {
                if case .handshake(let resumed, let early) = $0 { [resumed, early] } else { nil }
            }
            #expect(handshake == [true, true])

            // Without early data the same ticket still resumes.
            returning.earlyData = false
            let third = try await connector.link(returning, on: loop) { event, link in
                if event == .established { link.send(ping(4), lane: .control) }
            }
            #expect(try await server.frame().early == false)
            _ = try await third.next { if case .handshake = $0 { true } else { nil } }

            // Bytes that are no ticket are ignored.
            returning.sessionTicket = [1, 2, 3]
            let fourth = try await connector.link(returning, on: loop)
            #expect(
                try await fourth.next { if case .handshake(let resumed, _) = $0 { resumed } else { nil } } == false)
        }
    }

    @Test("More lanes than the peer allows at once wait their turn")
    func streamCredit() async throws {
        try await withLinks { event, link in
            if case .laneFinished(let lane) = event { link.send(pong(lane.rawValue), lane: .control) }
        } body: { connector, target, server, loop in
            let log = try await connector.link(target, on: loop) { event, link in
                guard event == .established else { return }
                for number in 1...600 {
                    let lane = LaneID(rawValue: UInt64(number))
                    link.openLane(lane)
                    link.send(ping(UInt64(number)), lane: lane)
                    link.finishLane(lane)
                }
                link.send(ping(0), lane: .control)
            }
            var finished: Set<UInt64> = []
            while finished.count < 600 {
                if case .pong(let pong) = try await log.frame().frame { finished.insert(pong.nonce) }
            }
            #expect(finished == Set(1...600))
            _ = server
        }
    }

    @Test("A server has a lane for each of many channels, a client as many as a server takes, and others as they end")
    func manyLanes() async throws {
        let first = LaneID(rawValue: 1)
        try await withLinks { event, link in
            guard case .frame(ping(1), .control, _) = event else { return }
            #expect(link.laneLimit == 4_096)
            for number in 1...600 as ClosedRange<UInt64> {
                link.openLane(LaneID(rawValue: number))
                link.send(pong(number), lane: LaneID(rawValue: number))
            }
            #expect(link.laneLimit == 4_096)
        } body: { connector, target, server, loop in
            let log = try await connector.link(target, on: loop) { event, link in
                if event == .established {
                    #expect(link.laneLimit == 512)
                    for number in 1...513 as ClosedRange<UInt64> {
                        link.openLane(LaneID(rawValue: number))
                        link.send(ping(number + 1), lane: LaneID(rawValue: number))
                    }
                    link.send(ping(1), lane: .control)
                }
                if case .frame(.pong(let pong), _, _) = event, pong.nonce == 600 { link.finishLane(first) }
            }
            var lanes: Set<LaneID> = []
            while lanes.count < 600 { lanes.insert(try await log.frame().lane) }
            lanes = []
            while lanes.count < 514 { lanes.insert(try await server.frame().lane) }
            #expect(lanes.contains(LaneID(rawValue: 513)))
        }
    }

    @Test("A link moves to another address and goes on")
    func migrate() async throws {
        try await withLinks { event, link in
            if case .frame(.ping(let ping), _, _) = event { link.send(pong(ping.nonce), lane: .control) }
        } body: { connector, target, server, loop in
            let moved = Mutex<Bool?>(nil)
            let log = try await connector.link(target, on: loop) { event, link in
                switch event {
                case .established: link.send(ping(1), lane: .control)
                case .frame(.pong(let pong), _, _) where pong.nonce == 1:
                    guard let quic = link as? QUICLink, let local = try? SocketAddress(ipAddress: "127.0.0.2", port: 0)
                    else { return }
                    quic.migrate(to: local) { result in
                        moved.withLock { $0 = (try? result.get()) != nil }
                        link.send(ping(2), lane: .control)
                    }
                default: break
                }
            }
            while try await log.frame().frame != pong(2) {}
            #expect(moved.withLock { $0 } == true)
            _ = try await server.next { $0 == .pathChanged ? true : nil }
        }
    }

    @Test("A silent link is an outage: nothing arrives any more, and nobody is told")
    func outage() async throws {
        try await withLinks { event, link in
            if case .frame(.ping(let ping), _, _) = event { link.send(pong(ping.nonce), lane: .control) }
        } body: { connector, target, server, loop in
            let first = try await connector.link(target, on: loop) { event, link in
                if event == .established { link.send(ping(1), lane: .control) }
                if case .frame = event {
                    (link as? QUICLink)?.goSilent()
                    link.send(ping(2), lane: .control)
                }
            }
            _ = try await first.frame()
            // Another link's whole life passes; the silent one's ping is not among what came.
            let second = try await connector.link(target, on: loop) { event, link in
                if event == .established { link.send(ping(3), lane: .control) }
            }
            #expect(try await second.frame().frame == pong(3))
            #expect(try await server.frame().frame == ping(1))
            #expect(try await server.frame().frame == ping(3))
        }
    }

    @Test(
        "What was sent on a lane counts as delivered once the peer has it, with what was sent until it was asked about last"
    )
    func delivered() async throws {
        try await withLinks { connector, target, server, loop in
            let isShut = Mutex(false)
            let relay = try await Relay.open(to: SocketAddress(ipAddress: "127.0.0.1", port: target.port)) { _, _, _ in
                isShut.withLock { $0 } ? .lose : .pass
            }
            var target = target
            target.port = relay.port
            let lane = LaneID(rawValue: 1)
            let log = try await connector.link(target, on: loop) { event, link in
                if event == .established { link.openLane(lane) }
                guard case .handshake = event else { return }
                for nonce in 1...2 as ClosedRange<UInt64> {
                    link.send(ping(nonce), lane: lane)
                    link.reportWhenDelivered(lane, question: nonce)
                }
                isShut.withLock { $0 = true }
            }
            _ = try await log.next { if case .handshake = $0 { true } else { nil } }
            let before = try await relay.traffic(.toServer).datagrams
            while try await relay.traffic(.toServer).datagrams < before + 2 {
                try await Task.sleep(for: .milliseconds(5))
            }
            // Lost more than once by now.
            log.record(.overfull(lane))
            isShut.withLock { $0 = false }
            var told: [LinkEvent] = []
            while told.last != .delivered(lane, question: 2) {
                told.append(
                    try await log.next { event in
                        switch event {
                        case .overfull, .delivered: event
                        default: nil as LinkEvent?
                        }
                    })
            }
            #expect(told == [.overfull(lane), .delivered(lane, question: 2)])
            for nonce in 1...2 as ClosedRange<UInt64> { #expect(try await server.frame().frame == ping(nonce)) }
            await relay.close()
        }
    }

    @Test("A lane that is no more counts as delivered")
    func deliveredOfNothing() async throws {
        try await withLinks { event, link in
            if event == .established { link.send(pong(1), lane: .control) }
        } body: { connector, target, server, loop in
            let lane = LaneID(rawValue: 9)
            let log = try await connector.link(target, on: loop) { event, link in
                if event == .established {
                    link.send(ping(1), lane: .control)
                    link.reportWhenDelivered(lane, question: 7)
                }
            }
            #expect(try await log.next { $0 == .delivered(lane, question: 7) ? true : nil })
        }
    }

    @Test("Where nothing can be sent it isn't the handshake that failed, for which a ticket could be to blame")
    func nothingSent() async throws {
        try await withLinks { connector, target, _, loop in
            var target = target
            // Of another family than the server's only address.
            target.localAddress = try SocketAddress(ipAddress: "::1", port: 0)
            let log = try await connector.link(target, on: loop)
            guard case .failed = try await log.closed() else {
                Issue.record("nothing should have left")
                return
            }
        }
    }

    @Test("A server of another protocol is refused in the handshake")
    func wrongProtocol() async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let listener = try await QUICLinkListener.bind(
            addresses: [SocketAddress(ipAddress: "127.0.0.1", port: 0)],
            configuration: QUICLinkServerConfiguration(tls: serverTLS(protocols: ["other/1"])), group: group
        ) { _ in TestHandler(log: LinkLog()) }
        let connector = QUICLinkConnector()
        let target = QUICLinkTarget(
            host: "127.0.0.1", port: listener.localAddresses.first?.port ?? 0, serverName: "localhost",
            verification: .certificateAuthority(pem: certificate.certificatePEM))
        let log = try await connector.link(target, on: group.next())
        guard case .handshakeFailed = try await log.closed() else {
            Issue.record("the handshake should have failed")
            return
        }
        await connector.shutdownGracefully()
        await listener.shutdownGracefully()
        try await group.shutdownGracefully()
    }
}
