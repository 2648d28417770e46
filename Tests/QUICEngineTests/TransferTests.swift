import LonglineTestKit
import Testing

@testable import QUICEngine

@Suite struct TransferTests {
    @Test("bytes arrive exactly over a rough path", arguments: 1...20)
    func bytesArriveExactlyOverARoughPath(seed: Int) throws {
        let world = try EngineWorld(seed: UInt64(seed), conditions: .rough)
        world.serverSide.echoes = true
        let (client, _) = try world.connected()
        var senders: [Sender] = []
        var expected: [QUICStreamID: [UInt8]] = [:]
        for index in 0..<3 {
            let stream = try client.open()
            let bytes = pattern(30_000 + 7_001 * index, index)
            expected[stream] = bytes
            senders.append(Sender(bytes, on: stream, of: client))
        }
        let done = world.simulation.run(for: .seconds(60)) {
            for sender in senders { try? sender.step() }
            world.simulation.settle()
            return expected.keys.allSatisfy { world.clientSide.finished.contains($0) }
        }
        #expect(done, "seed \(seed): \(world.clientSide.closed) \(world.serverSide.closed)")
        for (stream, bytes) in expected {
            #expect(world.clientSide.received[stream] == bytes, "seed \(seed), \(stream)")
        }
    }

    @Test("corrupted datagrams cost nothing but time", arguments: 100...104)
    func corruptedDatagramsCostNothingButTime(seed: Int) throws {
        var conditions = NetworkConditions()
        conditions.corruption = 0.1
        let world = try EngineWorld(seed: UInt64(seed), conditions: conditions)
        world.serverSide.echoes = true
        let (client, _) = try world.connected()
        let stream = try client.open()
        let bytes = pattern(50_000)
        try client.send(bytes, on: stream, finish: true)
        world.simulation.run(for: .seconds(60)) { world.clientSide.finished.contains(stream) }
        #expect(world.clientSide.received[stream] == bytes, "seed \(seed)")
    }

    @Test("many small streams share packets") func manySmallStreamsSharePackets() throws {
        let world = try EngineWorld { server, _ in server.transport.maxUnidirectionalStreams = 200 }
        let (client, _) = try world.connected()
        let before = client.packetsSent
        for index in 0..<100 {
            let stream = try client.open(bidirectional: false)
            try client.send([UInt8(index)], on: stream, finish: true)
        }
        world.simulation.run(for: .seconds(2)) { world.serverSide.finished.count == 100 }
        #expect(world.serverSide.finished.count == 100)
        for (stream, bytes) in world.serverSide.received { #expect(bytes == [UInt8(stream.ordinal)]) }
        #expect(client.packetsSent - before < 20)
    }

    @Test("streams beyond the limit wait for credit") func streamsBeyondTheLimitWaitForCredit() throws {
        let world = try EngineWorld { server, _ in server.transport.maxUnidirectionalStreams = 2 }
        let (client, _) = try world.connected()
        for _ in 0..<2 {
            let stream = try client.open(bidirectional: false)
            try client.send([1, 2, 3], on: stream, finish: true)
        }
        #expect(try client.openStream(bidirectional: false) == nil)
        world.simulation.run(for: .seconds(2)) { world.clientSide.streamsAvailable > 0 }
        #expect(world.clientSide.streamsAvailable > 0)
        #expect(try client.openStream(bidirectional: false) != nil)
    }

    @Test("a reader that doesn't read stops the sender") func aReaderThatDoesntReadStopsTheSender() throws {
        let world = try EngineWorld { server, client in
            server.transport.streamWindow = 10_000
            server.transport.connectionWindow = 15_000
            client.transport.streamSendBuffer = 20_000
        }
        world.serverSide.reads = false
        let (client, server) = try world.connected()
        let first = try client.open(bidirectional: false)
        let second = try client.open(bidirectional: false)
        let bytes = pattern(20_000)
        #expect(try client.send(bytes, on: first) == 20_000)
        // The buffer is full: nothing more is accepted, and no byte is lost.
        #expect(try client.send([0], on: first) == 0)
        #expect(try client.send(bytes, on: second, finish: true) == 20_000)
        world.simulation.run(for: .seconds(3))
        let held = server.readableBytes(first) + server.readableBytes(second)
        #expect(server.readableBytes(first) <= 10_000 && server.readableBytes(second) <= 10_000)
        #expect(held == 15_000)
        #expect(world.clientSide.writable.isEmpty)
        world.serverSide.reads = true
        for stream in [first, second] { world.serverSide.drain(stream, of: server) }
        world.simulation.run(for: .seconds(5)) {
            world.serverSide.finished.contains(second) && world.serverSide.received[first]?.count == 20_000
        }
        #expect(world.serverSide.received[first] == bytes)
        #expect(world.serverSide.received[second] == bytes)
        #expect(world.clientSide.writable.contains(first))
    }

    @Test("a stream half closed goes on in the other direction") func aStreamHalfClosedGoesOn() throws {
        let world = try EngineWorld()
        let (client, server) = try world.connected()
        let stream = try client.open()
        try client.send([1, 2, 3], on: stream, finish: true)
        world.simulation.run(for: .seconds(1)) { world.serverSide.finished.contains(stream) }
        #expect(throws: QUICError.self) { try client.send([4], on: stream) }
        for round in 0..<5 {
            world.simulation.run(for: .seconds(1))
            try server.send(pattern(20_000, round), on: stream, finish: round == 4)
        }
        world.simulation.run(for: .seconds(5)) { world.clientSide.finished.contains(stream) }
        #expect(world.clientSide.received[stream] == (0..<5).flatMap { pattern(20_000, $0) })
        world.simulation.run(for: .seconds(1))
        #expect(world.clientSide.streamsClosed.contains(stream) && world.serverSide.streamsClosed.contains(stream))
    }

    @Test("reset and stop-sending carry their codes") func resetAndStopSendingCarryTheirCodes() throws {
        let world = try EngineWorld()
        let (client, server) = try world.connected()
        let given = try client.open()
        try client.send(pattern(1000), on: given)
        world.simulation.run(for: .seconds(1)) { world.serverSide.received[given]?.count == 1000 }
        client.reset(given, code: 0xabc)
        server.stopSending(given, code: 0x777)
        world.simulation.run(for: .seconds(1)) { world.serverSide.resets[given] != nil }
        #expect(world.serverSide.resets[given] == 0xabc)

        let refused = try client.open()
        try client.send(pattern(1000), on: refused)
        world.simulation.run(for: .seconds(1)) { world.serverSide.received[refused]?.count == 1000 }
        server.stopSending(refused, code: 0xdef)
        world.simulation.run(for: .seconds(1)) { world.clientSide.stops[refused] != nil }
        #expect(world.clientSide.stops[refused] == 0xdef)
        #expect(throws: QUICError.self) { try client.send([1], on: refused) }
        try server.send([9], on: refused, finish: true)
        world.simulation.run(for: .seconds(1)) { world.clientSide.streamsClosed.contains(refused) }
        #expect(world.clientSide.streamsClosed.contains(refused))
        #expect(world.clientSide.received[refused] == [9])
    }

    @Test("streams that are stopped all at once are all told of, with their codes")
    func streamsStoppedAtOnceAreAllToldOf() throws {
        let world = try EngineWorld()
        let (client, server) = try world.connected()
        let streams = try (0..<100).map { _ in try client.open() }
        for stream in streams { try client.send(pattern(100), on: stream) }
        world.simulation.run(for: .seconds(5)) { world.serverSide.received.count == 100 }
        for stream in streams { server.stopSending(stream, code: 1000 + stream.rawValue) }
        world.simulation.run(for: .seconds(5)) { world.clientSide.stops.count == streams.count }
        #expect(world.clientSide.stops == Dictionary(uniqueKeysWithValues: streams.map { ($0, 1000 + $0.rawValue) }))
    }

    @Test("datagrams arrive and are accounted for") func datagramsArriveAndAreAccountedFor() throws {
        let world = try EngineWorld { _, client in client.transport.datagramQueueLimit = 8 }
        let (client, _) = try world.connected()
        let limit = try #require(client.maxDatagramSize)
        #expect(limit >= 1100)
        let largest = pattern(limit)
        #expect(try client.offer(largest, id: 7))
        for id in 8..<15 { #expect(try client.offer([UInt8(id)], id: UInt64(id))) }
        #expect(try client.offer([0], id: 99) == false)
        #expect(throws: QUICError.self) { try client.offer([UInt8](repeating: 0, count: limit + 1), id: 100) }
        world.simulation.run(for: .seconds(1)) { world.clientSide.datagramsAcknowledged.count == 8 }
        #expect(world.serverSide.datagrams.first == largest)
        #expect(world.serverSide.datagrams.count == 8)
        #expect(Set(world.clientSide.datagramsAcknowledged) == Set(7..<15))
    }

    @Test("a lost datagram is reported and not sent again") func aLostDatagramIsReportedAndNotSentAgain() throws {
        let world = try EngineWorld()
        let (client, _) = try world.connected()
        world.simulation.run(for: .seconds(1))
        world.network.filter = { _, path in path.local != EngineWorld.clientAddress }
        #expect(try client.offer([1], id: 1))
        world.simulation.settle()
        world.network.filter = nil
        let stream = try client.open()
        try client.send(pattern(20_000), on: stream)
        world.simulation.run(for: .seconds(3)) { !world.clientSide.datagramsLost.isEmpty }
        #expect(world.clientSide.datagramsLost == [1])
        #expect(world.serverSide.datagrams.isEmpty)
    }

    @Test("what the application doesn't take is dropped oldest first")
    func whatTheApplicationDoesntTakeIsDroppedOldestFirst() throws {
        let world = try EngineWorld { server, client in
            server.transport.receivedDatagramLimit = 3
            client.transport.datagramQueueLimit = 64
        }
        let (client, _) = try world.connected()
        // One packet carries them all, so they are received within one call.
        for id in 0..<10 { #expect(try client.offer([UInt8(id)], id: UInt64(id))) }
        world.simulation.run(for: .seconds(1))
        #expect(world.serverSide.datagrams == [[7], [8], [9]])
        #expect(world.server.counters.datagramFramesDropped == 7)
    }

    @Test("the same seed makes the same run", arguments: [3, 4])
    func theSameSeedMakesTheSameRun(seed: Int) throws {
        func run() throws -> (UInt64, Int, UInt64) {
            let world = try EngineWorld(seed: UInt64(seed), conditions: .rough)
            world.serverSide.echoes = true
            let (client, _) = try world.connected()
            let stream = try client.open()
            try client.send(pattern(40_000), on: stream, finish: true)
            world.simulation.run(for: .seconds(30)) { world.clientSide.finished.contains(stream) }
            return (world.network.traceHash, world.network.sent, world.network.now.nanoseconds)
        }
        let first = try run()
        let second = try run()
        #expect(first == second)
    }

    @Test("statistics count what is on the wire") func statisticsCountWhatIsOnTheWire() throws {
        let world = try EngineWorld()
        let (client, server) = try world.connected()
        let stream = try client.open()
        try client.send(pattern(100_000), on: stream, finish: true)
        world.simulation.run(for: .seconds(5)) { world.serverSide.finished.contains(stream) }
        // What is still on its way arrives.
        world.simulation.run(for: .milliseconds(300))
        let sending = client.statistics(now: world.network.now)
        let receiving = server.statistics(now: world.network.now)
        #expect(sending.bytesSent > 100_000)
        #expect(receiving.bytesReceived == sending.bytesSent)
        #expect(receiving.datagramsReceived == sending.packetsSent)
        #expect(receiving.packetsReceived > 70)
        #expect(sending.minimumRTT == .milliseconds(20))
        #expect(sending.congestionWindow > 12_000)
        #expect(sending.path == QUICPath(local: EngineWorld.clientAddress, remote: EngineWorld.serverAddress))
    }

    @Test("runs for GSO have one size but the last") func runsForGSOHaveOneSizeButTheLast() throws {
        let world = try EngineWorld()
        let (client, _) = try world.connected()
        world.simulation.run(for: .seconds(3))
        let stream = try client.open()
        try client.send(pattern(12_000), on: stream)
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 65536, alignment: 16)
        defer { buffer.deallocate() }
        let run = try #require(world.client.pollTransmit(into: buffer, now: world.network.now))
        #expect(run.length > 2 * run.segmentSize)
        #expect(run.segmentSize > 1200, "path MTU discovery found more")
        #expect(run.ecn == .ect0)
    }

    @Test("packets are marked ECN-capable exactly where that is asked for", arguments: [true, false])
    func packetsAreMarkedECNCapableExactlyWhereThatIsAskedFor(ecn: Bool) throws {
        let world = try EngineWorld { server, client in
            client.transport.ecn = ecn
            server.transport.ecn = ecn
        }
        let (client, _) = try world.connected()
        let stream = try client.open()
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 65536, alignment: 16)
        defer { buffer.deallocate() }
        var runs = 0
        for size in [1, 100, 5000] {
            // What pacing holds back passes meanwhile.
            world.simulation.run(for: .seconds(1))
            try client.send(pattern(size), on: stream)
            while let run = world.client.pollTransmit(into: buffer, now: world.network.now) {
                #expect(run.ecn == (ecn ? .ect0 : .notECT))
                runs += 1
            }
        }
        #expect(runs >= 3)
    }

    @Test("congestion marks reach the sender") func congestionMarksReachTheSender() throws {
        var conditions = NetworkConditions()
        conditions.congestionMark = 0.2
        let world = try EngineWorld(seed: 5, conditions: conditions)
        let (client, _) = try world.connected()
        let clean = try EngineWorld(seed: 5)
        let (other, _) = try clean.connected()
        for (world, connection) in [(world, client), (clean, other)] {
            let stream = try connection.open()
            try connection.send(pattern(100_000), on: stream, finish: true)
            world.simulation.run(for: .seconds(20)) { world.serverSide.finished.contains(stream) }
            #expect(world.serverSide.finished.contains(stream))
        }
        let marked = client.statistics(now: world.network.now).congestionWindow
        #expect(marked < other.statistics(now: clean.network.now).congestionWindow)
    }

    @Test("BBR fills a path and lives with loss", arguments: [(0.0, 7), (0.03, 8)])
    func bbrFillsAPathAndLivesWithLoss(loss: Double, seed: UInt64) throws {
        var conditions = NetworkConditions()
        conditions.loss = loss
        let world = try EngineWorld(seed: seed, conditions: conditions) { server, client in
            server.transport.congestionControl = .bbr
            client.transport.congestionControl = .bbr
        }
        world.serverSide.echoes = true
        let (client, _) = try world.connected()
        let stream = try client.open()
        let bytes = pattern(1_000_000)
        let sender = Sender(bytes, on: stream, of: client)
        let start = world.network.now
        world.simulation.run(for: .seconds(120)) {
            try? sender.step()
            world.simulation.settle()
            return world.clientSide.finished.contains(stream)
        }
        #expect(world.clientSide.received[stream] == bytes)
        // In virtual time; the path has no limit, so a controller that doesn't grow its window would take far longer.
        let took = Double(world.network.now.nanoseconds - start.nanoseconds) / 1e9
        #expect(took < 20, "\(took) s")
        #expect(client.statistics(now: world.network.now).congestionWindow > 20_000)
    }

    @Test("keys can be updated while data flows") func keysCanBeUpdatedWhileDataFlows() throws {
        let world = try EngineWorld()
        world.serverSide.echoes = true
        let (client, server) = try world.connected()
        for round in 0..<3 {
            world.simulation.run(for: .seconds(2))
            // A packet after the last update is confirmed prepares the next keys.
            for connection in [client, server] {
                let stream = try connection.open(bidirectional: false)
                try connection.send([1], on: stream, finish: true)
            }
            world.simulation.run(for: .seconds(2))
            let updated =
                round.isMultiple(of: 2)
                ? client.requestKeyUpdate(now: world.network.now)
                : server.requestKeyUpdate(now: world.network.now)
            #expect(updated)
            let stream = try client.open()
            try client.send(pattern(20_000, round), on: stream, finish: true)
            world.simulation.run(for: .seconds(5)) { world.clientSide.finished.contains(stream) }
            #expect(world.clientSide.received[stream] == pattern(20_000, round))
        }
    }
}
