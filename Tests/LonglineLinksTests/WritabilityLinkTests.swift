import LonglineLinks
import LonglineSession
import LonglineWire
import NIOCore
import QUICEngine
import Testing

/// Whether a lane takes more: what keeps a sender from queueing more than leaves.
@Suite("Writability of QUIC lanes", .timeLimit(.minutes(1)))
struct WritabilityLinkTests {
    private static func publish() -> Frame {
        let payload = ByteBuffer(repeating: 7, count: 15_000)
        return .publish(Publish(id: 1, tag: 2, after: 0, recipient: nil, timeToLive: 0, payload: payload))
    }

    @Test("A lane is full as soon as 64 KiB wait on it, before any of it could leave")
    func atOnce() async throws {
        try await withLinks { event, link in
            guard case .frame(.ping, _, _) = event else { return }
            let lane = LaneID(rawValue: 1)
            link.openLane(lane)
            var count: UInt64 = 0
            while link.isWritable(lane), count < 100 {
                link.send(Self.publish(), lane: lane)
                count += 1
            }
            link.send(pong(count), lane: .control)
        } body: { connector, target, server, loop in
            let log = try await connector.link(target, on: loop) { event, link in
                if event == .established { link.send(ping(1), lane: .control) }
            }
            let count = try await log.next { event -> UInt64? in
                if case .frame(.pong(let pong), _, _) = event { pong.nonce } else { nil }
            }
            #expect(count == 5)
            for wanted in [false, true] {
                let writable = try await server.next { event in
                    if case .writability(LaneID(rawValue: 1), let writable) = event { writable } else { nil }
                }
                #expect(writable == wanted)
            }
        }
    }

    @Test("A lane that the peer's window holds up says so, and says when it goes on")
    func writability() async throws {
        try await withLinks { event, link in
            guard case .frame(.ping, _, _) = event else { return }
            link.openLane(LaneID(rawValue: 1))
            for _ in 0..<100 { link.send(Self.publish(), lane: LaneID(rawValue: 1)) }
        } body: { connector, target, server, loop in
            let log = try await connector.link(target, on: loop) { event, link in
                if event == .established { link.send(ping(1), lane: .control) }
            }
            for _ in 0..<100 { _ = try await log.frame() }
            let lane = LaneID(rawValue: 1)
            #expect(
                try await server.next { if case .writability(lane, let writable) = $0 { writable } else { nil } }
                    == false)
            #expect(
                try await server.next { if case .writability(lane, let writable) = $0 { writable } else { nil } }
                    == true)
        }
    }

    @Test("A lane on which too much waits is told of, with and without a stream for it, and a close ends it")
    func overfull() async throws {
        try await withLinks { event, link in
            let lane = LaneID(rawValue: 1)
            if case .overfull(lane) = event { link.close(.overloaded, reason: "too much waits") }
            guard case .frame(.ping, _, _) = event else { return }
            link.openLane(lane)
            for _ in 0..<100 { link.send(Self.publish(), lane: lane) }
        } body: { connector, target, server, loop in
            for streams in [UInt64(0), 16] {
                var target = target
                target.transport.maxUnidirectionalStreams = streams
                target.transport.streamWindow = 64 << 10
                let log = try await connector.link(target, on: loop) { event, link in
                    if event == .established { link.send(ping(1), lane: .control) }
                }
                let overfull = try await server.next { if case .overfull(let lane) = $0 { lane } else { nil } }
                #expect(overfull == LaneID(rawValue: 1))
                #expect(try await log.closed() == .peer(code: .overloaded, reason: "too much waits"))
                #expect(try await server.closed() == .local)
            }
        }
    }

    /// What a peer that takes no streams makes a server hold.
    private func refused(
        waitingBytes: Int? = nil, _ say: @escaping @Sendable (any Link) -> Void
    ) async throws {
        try await withLinks(waitingBytes: waitingBytes) { event, link in
            if case .overfull = event { link.close(.overloaded, reason: "too much waits") }
            if case .frame(.ping, _, _) = event { say(link) }
        } body: { connector, target, server, loop in
            var target = target
            target.transport.maxUnidirectionalStreams = 0
            let log = try await connector.link(target, on: loop) { event, link in
                if event == .established { link.send(ping(1), lane: .control) }
            }
            _ = try await server.next { if case .overfull(let lane) = $0 { lane } else { nil } }
            #expect(try await log.closed() == .peer(code: .overloaded, reason: "too much waits"))
        }
    }

    @Test("Too many lanes that a peer does not let end are told of, whatever is on them")
    func tooManyLanes() async throws {
        try await refused { link in
            for number in 1...8_193 as ClosedRange<UInt64> {
                let lane = LaneID(rawValue: number)
                link.openLane(lane)
                link.send(pong(number), lane: lane)
                link.finishLane(lane)
            }
        }
    }

    @Test("Too much on several lanes together is told of, and no lane has too much")
    func tooMuchTogether() async throws {
        try await refused(waitingBytes: 200_000) { link in
            for number in 1...14 as ClosedRange<UInt64> {
                let lane = LaneID(rawValue: number)
                link.openLane(lane)
                link.send(Self.publish(), lane: lane)
            }
        }
    }

    @Test("What waited and left counts no more")
    func leftAgain() async throws {
        try await withLinks(waitingBytes: 200_000) { event, link in
            guard case .frame(.ping(let ping), _, _) = event else { return }
            let lane = LaneID(rawValue: ping.nonce)
            link.openLane(lane)
            for _ in 0..<10 { link.send(Self.publish(), lane: lane) }
            link.finishLane(lane)
        } body: { connector, target, server, loop in
            let log = try await connector.link(target, on: loop) { event, link in
                if event == .established { link.send(ping(1), lane: .control) }
                if case .laneFinished(let lane) = event { link.send(ping(lane.rawValue + 1), lane: .control) }
            }
            _ = try await log.next { $0 == .laneFinished(LaneID(rawValue: 5)) ? true : nil }
            let isOverfull = try await server.next { event in
                switch event {
                case .overfull: true
                case .frame(.ping(let ping), _, _) where ping.nonce == 6: false
                default: nil as Bool?
                }
            }
            #expect(!isOverfull)
        }
    }

    @Test("What a handler is told of a lane is worked off at once, and does not wait for a packet")
    func writabilityIsABatch() async throws {
        try await withLinks { event, link in
            if case .frame(.ping(let ping), _, _) = event { link.send(pong(ping.nonce), lane: .control) }
        } body: { connector, target, server, loop in
            let log = try await connector.link(target, on: loop) { event, link in
                if event == .established { link.send(ping(1), lane: .control) }
                guard case .frame = event else { return }
                // From here on no packet comes.
                (link as? QUICLink)?.goSilent()
                loop.assumeIsolated().scheduleTask(in: .milliseconds(50)) {
                    for _ in 0..<100 { link.send(Self.publish(), lane: .control) }
                }
            }
            _ = try await log.next { $0 == .writability(.control, false) ? true : nil }
            let isWorkedOff = try await log.next { event in
                switch event {
                case .batchEnded: true
                case .closed: false
                default: nil as Bool?
                }
            }
            #expect(isWorkedOff)
        }
    }

    @Test("A lane that takes more all the time says once that it is drained, when that was asked for")
    func drained() async throws {
        try await withLinks { event, link in
            if case .frame(.ping(let ping), _, _) = event { link.send(pong(ping.nonce), lane: .control) }
        } body: { connector, target, server, loop in
            let log = try await connector.link(target, on: loop) { event, link in
                if event == .established { link.send(ping(1), lane: .control) }
                guard case .frame(.pong(let pong), _, _) = event, pong.nonce == 1 else { return }
                link.send(ping(2), lane: .control)
                link.reportWhenDrained(.control)
            }
            #expect(try await log.next { if case .writability(.control, let writable) = $0 { writable } else { nil } })
            // Nothing more is told: the next thing is the answer.
            let next = try await log.next { event in
                switch event {
                case .writability, .frame: event
                default: nil as LinkEvent?
                }
            }
            if case .frame(.pong, _, _) = next {} else { Issue.record("\(next)") }
        }
    }
}
