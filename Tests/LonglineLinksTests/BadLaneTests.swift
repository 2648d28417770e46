import LonglineLinks
import LonglineSession
import LonglineWire
import NIOCore
import QUICEngine
import QUICTransport
import Testing

@Suite("What a peer may send wrong on a link", .timeLimit(.minutes(1)))
struct BadLaneTests {
    /// Speaks raw QUIC to a link server and sends bytes on a stream.
    private func send(
        _ bytes: [UInt8], bidirectional: Bool, finish: Bool, to target: QUICLinkTarget, on loop: any EventLoop
    )
        async throws -> (client: QUICClient, connection: QUICConnection, stream: QUICStream)
    {
        let client = QUICClient()
        let connection = try await client.connect(
            host: target.host, port: target.port,
            configuration: ClientConfiguration(
                serverName: "localhost", applicationProtocols: ["longline/1"], verification: target.verification),
            on: loop)
        let stream = try await connection.openStream(bidirectional: bidirectional)
        try await stream.write(ByteBuffer(bytes: bytes))
        if finish { try await stream.finish() }
        return (client, connection, stream)
    }

    @Test(
        "Bytes that are no frame are reported with their code, on the lane they came on",
        arguments: [
            // A type and a length over the limit (RFC 9000 varints): type 2, length 1 GiB.
            ([0x02, 0xC0, 0, 0, 0, 0x40, 0, 0, 0], FrameError.Code.tooLarge),
            // An unknown odd type.
            ([0x7F, 0xFF, 0x00], .unknownType),
        ] as [([UInt8], FrameError.Code)])
    func invalid(bytes: [UInt8], code: FrameError.Code) async throws {
        try await withLinks { event, link in
            guard case .invalid(_, let lane) = event else { return }
            link.openLane(lane)
            link.send(pong(1), lane: lane)
        } body: { connector, target, server, loop in
            let raw = try await send(bytes, bidirectional: false, finish: false, to: target, on: loop)
            let found = try await server.next {
                if case .invalid(let code, let lane) = $0 { (code, lane) } else { nil }
            }
            #expect(found.0 == code)
            #expect(found.1 == LaneID(rawValue: 1))
            // Whoever sees a lane stopped closes, and would not read the close that says why.
            var lanes = raw.connection.inboundStreams.makeAsyncIterator()
            _ = try await #require(await lanes.next()).read()
            await #expect(throws: Never.self) {
                try await raw.stream.finish()
                try await raw.stream.delivered()
            }
            await raw.client.shutdownGracefully()
        }
    }

    @Test("A lane that ends inside a frame is malformed")
    func cutShort() async throws {
        try await withLinks { connector, target, server, loop in
            let raw = try await send([0x02], bidirectional: true, finish: true, to: target, on: loop)
            let found = try await server.next {
                if case .invalid(let code, let lane) = $0 { (code, lane) } else { nil }
            }
            #expect(found.0 == .malformed)
            #expect(found.1 == .control)
            await raw.client.shutdownGracefully()
        }
    }

    @Test("A link that is closing takes nothing more, and ends in time, whatever becomes of the peer's lanes")
    func closing() async throws {
        try await withLinks { event, link in
            guard case .frame = event else { return }
            // More than the peer takes, so that the close has to wait for it.
            let payload = ByteBuffer(repeating: 7, count: 15_000)
            let publish = Publish(id: 1, tag: 2, after: 0, recipient: nil, timeToLive: 0, payload: payload)
            for _ in 0..<100 { link.send(.publish(publish), lane: .control) }
            link.close(.overloaded, reason: "enough")
        } body: { connector, target, server, loop in
            var frame = ByteBuffer()
            try FrameEncoder.encode(ping(1), into: &frame)
            let raw = try await send(
                Array(frame.readableBytesView), bidirectional: true, finish: false, to: target, on: loop)
            _ = try await server.frame()
            let finished = try await raw.connection.openStream(bidirectional: false)
            try await finished.write(frame)
            try await finished.finish()
            let reset = try await raw.connection.openStream(bidirectional: false)
            try await reset.write(frame)
            reset.reset(code: 1)
            // Beyond what the window lets a peer send to nobody who reads, and what waits at the peer.
            let flood = try await raw.connection.openStream(bidirectional: false)
            await #expect(throws: (any Error).self) { try await flood.write(ByteBuffer(repeating: 2, count: 3 << 20)) }
            let told = try await server.next { event -> LinkEvent? in
                switch event {
                case .closed, .frame, .invalid, .laneFinished: event
                default: nil
                }
            }
            #expect(told == .closed(.local))
            await raw.client.shutdownGracefully()
        }
    }

    /// What a peer does that wants no more of a lane, or to say no more on lane 0.
    enum Refusal: CaseIterable, Sendable { case stopsControl, resetsControl, stopsLane }

    @Test("A lane that the peer takes no more of is told of, and so is lane 0 broken off", arguments: Refusal.allCases)
    func stopped(_ refusal: Refusal) async throws {
        try await withLinks { event, link in
            switch event {
            case .frame(.ping, _, _):
                link.openLane(LaneID(rawValue: 1))
                link.send(pong(1), lane: LaneID(rawValue: 1))
            case .stopped: link.close(.unexpectedFrame, reason: "stopped")
            default: break
            }
        } body: { connector, target, server, loop in
            var bytes = ByteBuffer()
            try FrameEncoder.encode(ping(1), into: &bytes)
            let raw = try await send(
                Array(bytes.readableBytesView), bidirectional: true, finish: false, to: target, on: loop)
            var lanes = raw.connection.inboundStreams.makeAsyncIterator()
            let lane = try #require(await lanes.next())
            switch refusal {
            case .stopsControl: raw.stream.stopSending(code: 0)
            case .resetsControl: raw.stream.reset(code: 0)
            case .stopsLane: lane.stopSending(code: 0)
            }
            let told = try await server.next { if case .stopped(let lane) = $0 { lane } else { nil } }
            #expect(told == (refusal == .stopsLane ? LaneID(rawValue: 1) : .control))
            guard case .peerApplication(let code, _) = try await raw.connection.closed() else {
                Issue.record("it was not closed by the server")
                return
            }
            #expect(code == UInt64(CloseCode.unexpectedFrame.rawValue))
            await raw.client.shutdownGracefully()
        }
    }

    @Test("A link knows how much it holds of frames whose end has not come, lane 0 left out")
    func partialFrames() async throws {
        try await withLinks { event, link in
            if event == .batchEnded, link.partialBytes >= 16_000 {
                link.close(.limitExceeded, reason: "\(link.partialBytes)")
            }
        } body: { connector, target, server, loop in
            var whole = ByteBuffer()
            try FrameEncoder.encode(ping(1), into: &whole)
            // The head of a publish of 10,000 bytes (RFC 9000 varint: 0x67, 0x10).
            let header: [UInt8] = [0x13, 0x67, 0x10]
            let raw = try await send(
                header + [UInt8](repeating: 0, count: 9_000), bidirectional: true, finish: false, to: target, on: loop)
            var lanes: [QUICStream] = []
            for size in [5_000, 4_000, 7_000] {
                let lane = try await raw.connection.openStream(bidirectional: false)
                let part = header + [UInt8](repeating: 0, count: size)
                try await lane.write(ByteBuffer(bytes: Array(whole.readableBytesView) + part))
                lanes.append(lane)
            }
            let reason = try await raw.connection.closed()
            #expect("\(reason)".contains("16000"), "\(reason)")
            // A stream that nobody refers to any more is reset.
            #expect(lanes.count == 3)
            await raw.client.shutdownGracefully()
        }
    }
}
