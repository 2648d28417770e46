import LonglineTestKit
import Testing

@testable import QUICEngine

@Suite struct PriorityTests {
    /// A client that the path's rate holds back: everything written waits in the queue while the first packets are away. Each
    /// stream has more than arrives at one time.
    private func compete(
        _ priorities: [StreamPriority], bytes: Int = 150_000,
        change: ((QUICEngineConnection, [QUICStreamID]) -> Void)? = nil
    ) throws -> (order: [QUICStreamID], world: EngineWorld, streams: [QUICStreamID]) {
        let world = try EngineWorld { server, client in
            server.transport.streamWindow = 1 << 20
            server.transport.connectionWindow = 4 << 20
        }
        let (client, _) = try world.connected()
        var streams: [QUICStreamID] = []
        for priority in priorities {
            let stream = try client.open()
            client.setPriority(priority, of: stream)
            #expect(client.priority(of: stream) == priority)
            streams.append(stream)
        }
        for stream in streams { try client.send(pattern(bytes), on: stream, finish: true) }
        change?(client, streams)
        var order: [QUICStreamID] = []
        world.simulation.run(for: .seconds(30)) {
            for stream in streams where world.serverSide.finished.contains(stream) && !order.contains(stream) {
                order.append(stream)
            }
            return order.count == streams.count
        }
        for stream in streams { #expect(world.serverSide.received[stream] == pattern(bytes)) }
        return (order, world, streams)
    }

    @Test("a more urgent stream is done before a less urgent one begins")
    func aMoreUrgentStreamIsDoneFirst() throws {
        let (order, _, streams) = try compete([
            StreamPriority(urgency: 7), StreamPriority(urgency: 3), StreamPriority(urgency: 0),
        ])
        #expect(order == streams.reversed())
    }

    @Test("streams that aren't incremental are sent one after the other, in order")
    func streamsThatArentIncrementalAreSentInOrder() throws {
        let plain = StreamPriority(urgency: 3, isIncremental: false)
        let world = try EngineWorld { server, _ in server.transport.connectionWindow = 4 << 20 }
        let (client, server) = try world.connected()
        let streams = try (0..<4).map { _ in try client.open() }
        // The last is the first to have something to send.
        for stream in streams.reversed() {
            client.setPriority(plain, of: stream)
            try client.send(pattern(60_000), on: stream, finish: true)
        }
        world.serverSide.reads = false
        world.simulation.run(for: .seconds(30)) { server.readableBytes(streams[1]) > 0 }
        #expect(server.readableBytes(streams[0]) > 55_000, "the first is all but done when the second begins")
        #expect(server.readableBytes(streams[2]) == 0)
        #expect(server.readableBytes(streams[3]) == 0)
    }

    @Test("incremental streams take turns") func incrementalStreamsTakeTurns() throws {
        let world = try EngineWorld { server, _ in server.transport.connectionWindow = 4 << 20 }
        let (client, server) = try world.connected()
        let streams = try (0..<4).map { _ in try client.open() }
        for stream in streams { try client.send(pattern(100_000), on: stream, finish: true) }
        world.serverSide.reads = false
        world.simulation.run(for: .seconds(30)) { server.readableBytes(streams[0]) > 40_000 }
        let bytes = streams.map { server.readableBytes($0) }.sorted()
        #expect(bytes[3] - bytes[0] < 3_000 && bytes[3] < 80_000, "\(bytes)")
    }

    @Test("a stream that becomes urgent while it waits overtakes") func aStreamThatBecomesUrgentOvertakes() throws {
        let (order, _, streams) = try compete([
            StreamPriority(urgency: 3), StreamPriority(urgency: 3), StreamPriority(urgency: 6),
        ]) { client, streams in
            client.setPriority(StreamPriority(urgency: 1), of: streams[2])
        }
        #expect(order.first == streams[2])
    }

    @Test("an urgent stream that its window holds back doesn't hold up the others")
    func anUrgentStreamThatIsBlockedHoldsUpNobody() throws {
        let world = try EngineWorld { server, _ in
            server.transport.streamWindow = 10_000
            server.transport.connectionWindow = 1 << 20
        }
        world.serverSide.reads = false
        let (client, server) = try world.connected()
        let urgent = try client.open()
        client.setPriority(StreamPriority(urgency: 0), of: urgent)
        try client.send(pattern(50_000), on: urgent)
        let other = try client.open()
        try client.send(pattern(5000), on: other)
        world.simulation.run(for: .seconds(2))
        #expect(server.readableBytes(urgent) == 10_000)
        #expect(server.readableBytes(other) == 5000)
    }

    @Test("streams below the standard urgency share a buffer of their own, and leave the others theirs")
    func backgroundStreamsLeaveRoom() throws {
        let world = try EngineWorld { _, client in
            client.transport.connectionSendBuffer = 300_000
            client.transport.backgroundSendBuffer = 100_000
        }
        let (client, _) = try world.connected()
        world.network.setBlackhole(EngineWorld.clientAddress, true)
        let bytes = pattern(80_000)
        let bulk = try (0..<3).map { _ in try client.open(bidirectional: false) }
        for stream in bulk { client.setPriority(StreamPriority(urgency: 5), of: stream) }
        var sent = try bulk.map { try client.send(bytes, on: $0) }
        #expect(sent == [80_000, 20_000, 0])
        let chat = try client.open(bidirectional: false)
        #expect(try client.send(bytes, on: chat) == 80_000)
        // One that becomes as urgent as the others weighs on them no more, and may go on at once.
        client.setPriority(.standard, of: bulk[1])
        world.simulation.run(for: .milliseconds(1))
        #expect(world.clientSide.writable.contains(bulk[1]))
        #expect(client.writableBytes(bulk[2]) == 20_000)
        client.setPriority(StreamPriority(urgency: 5), of: bulk[1])
        #expect(client.writableBytes(bulk[2]) == 0)
        // All of it arrives, when it can.
        world.network.setBlackhole(EngineWorld.clientAddress, false)
        for _ in 0..<400 {
            world.simulation.run(for: .milliseconds(20))
            for (index, stream) in bulk.enumerated() where world.clientSide.writable.contains(stream) {
                guard sent[index] < bytes.count else { continue }
                sent[index] += try client.send(Array(bytes[sent[index]...]), on: stream, finish: true)
            }
        }
        #expect(sent == [80_000, 80_000, 80_000])
        #expect(client.statistics(now: world.network.now).sendBufferBytes == 0)
        client.setPriority(StreamPriority(urgency: 5), of: chat)
        #expect(client.writableBytes(chat) == 100_000, "nothing is left that weighs")
    }

    @Test("what standard streams wrote keeps no urgent stream waiting, and urgent ones leave the most urgent its own")
    func urgentStreamsHaveRoom() throws {
        let world = try EngineWorld { server, client in
            client.transport.streamSendBuffer = 100_000
            client.transport.connectionSendBuffer = 160_000
            server.transport.streamWindow = 1 << 20
        }
        let (client, _) = try world.connected()
        world.network.setBlackhole(EngineWorld.clientAddress, true)
        let bytes = pattern(90_000)
        let chat = try (0..<2).map { _ in try client.open(bidirectional: false) }
        var sent: [QUICStreamID: Int] = [:]
        for stream in chat { sent[stream] = try client.send(bytes, on: stream) }
        #expect(chat.map { sent[$0] } == [90_000, 70_000])
        // A sixteenth and an eighth beyond what is full.
        let urgent = try client.open(bidirectional: false)
        client.setPriority(StreamPriority(urgency: 1), of: urgent)
        sent[urgent] = try client.send(bytes, on: urgent)
        let control = try client.open(bidirectional: false)
        client.setPriority(StreamPriority(urgency: 0), of: control)
        #expect(try client.send(pattern(5_000), on: control) == 5_000)
        #expect(sent[urgent] == 10_000)
        #expect(client.writableBytes(control) == 5_000)
        let last = Array(pattern(11_000)[5_000...])
        #expect(try client.send(last, on: control) == 5_000)
        // Who waits is told when what is only for such streams is free, before half of all is.
        world.network.setBlackhole(EngineWorld.clientAddress, false)
        world.simulation.run(for: .seconds(10)) { world.clientSide.writable.contains(control) }
        #expect(world.clientSide.writable.contains(urgent) && world.clientSide.writable.contains(control))
        #expect(!world.clientSide.writable.contains(chat[1]))
        #expect(client.sendBufferBytes > 80_000)
        #expect(try client.send(Array(last[5_000...]), on: control, finish: true) == 1_000)
        for _ in 0..<400 {
            world.simulation.run(for: .milliseconds(20))
            for stream in chat + [urgent] where (sent[stream] ?? 0) < bytes.count {
                let done = sent[stream] ?? 0
                sent[stream] = done + (try client.send(Array(bytes[done...]), on: stream, finish: true))
            }
        }
        for stream in [chat[1], urgent] { #expect(world.serverSide.received[stream] == bytes) }
        #expect(world.serverSide.received[control] == pattern(11_000))
        #expect(client.sendBufferBytes == 0)
    }

    @Test("an answer on an urgent stream passes the chat that fills a slow path, and so does one that becomes urgent")
    func anAnswerPassesAFullBuffer() throws {
        var conditions = NetworkConditions()
        conditions.bytesPerSecond = 125_000
        let world = try EngineWorld(conditions: conditions) { server, client in
            client.transport.connectionSendBuffer = 2 << 20
            server.transport.maxUnidirectionalStreams = 100
        }
        let (client, _) = try world.connected()
        for _ in 0..<10 { try client.send(pattern(300_000), on: client.open(bidirectional: false)) }
        let control = try client.open(bidirectional: false)
        #expect(client.writableBytes(control) == 0)
        // As one that was full and waits.
        #expect(try client.send(pattern(100), on: control) == 0)
        client.setPriority(StreamPriority(urgency: 0), of: control)
        world.simulation.run(for: .milliseconds(1)) { world.clientSide.writable.contains(control) }
        #expect(world.clientSide.writable.contains(control))
        #expect(try client.send(pattern(100), on: control) == 100)
        world.simulation.run(for: .seconds(2)) { world.serverSide.received[control]?.count == 100 }
        #expect(world.serverSide.received[control]?.count == 100)
        #expect(client.sendBufferBytes > 1 << 20, "the rest takes its time")
    }

    @Test("the queue keeps every stream once, whatever is done to it", arguments: 1...20)
    func theQueueKeepsEveryStreamOnce(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        var queue = SendQueue()
        var expected: Set<UInt64> = []
        let streams = (0..<40).map { EngineStream(id: QUICStreamID(rawValue: $0 * 4), isLocal: true) }
        for _ in 0..<2000 {
            let stream = streams[Int(random.next() % 40)]
            switch random.next() % 3 {
            case 0 where !expected.contains(stream.id.rawValue):
                stream.priority = StreamPriority(
                    urgency: UInt8(random.next() % 8), isIncremental: random.next() % 2 == 0)
                queue.append(stream)
                expected.insert(stream.id.rawValue)
            case 1:
                let urgent = streams.filter { expected.contains($0.id.rawValue) }.map(\.priority.urgency).min()
                let first = queue.popFirst()
                #expect(first?.priority.urgency == urgent, "seed \(seed)")
                if let first { #expect(expected.remove(first.id.rawValue) != nil) }
            default:
                queue.remove(stream)
                expected.remove(stream.id.rawValue)
            }
            #expect(queue.isEmpty == expected.isEmpty)
        }
        while let stream = queue.popFirst() { #expect(expected.remove(stream.id.rawValue) != nil) }
        #expect(expected.isEmpty)
    }
}
