import CQUICShim
import LonglineTestKit
import Testing

@testable import QUICEngine

/// What is left of streams when they are done: nothing, whatever the peer did, and the peer's limit is as it was.
@Suite struct StreamLifecycleTests {
    enum First: CaseIterable, Sendable { case resetStream, stopSending, both }

    /// Whether a packet carries stream data is told by its size: the tests lose the large ones.
    private func loseLarge(_ world: EngineWorld, _ lose: Bool) {
        world.network.filter =
            lose ? { bytes, path in bytes.count < 700 || path.local != EngineWorld.clientAddress } : nil
    }

    @Test("a stream whose end comes before its data is freed", arguments: First.allCases, [true, false])
    func aStreamWhoseEndComesBeforeItsDataIsFreed(first: First, bidirectional: Bool) throws {
        let world = try EngineWorld { server, client in
            server.transport.maxBidirectionalStreams = 4
            server.transport.maxUnidirectionalStreams = 4
            client.transport.discoverPathMTU = false
            server.transport.discoverPathMTU = false
        }
        world.serverSide.answersResets = true
        let (client, server) = try world.connected()
        world.simulation.run(for: .seconds(2))
        for round in 0..<30 {
            let id: QUICStreamID
            if let next = try client.openStream(bidirectional: bidirectional) {
                id = next
            } else {
                world.simulation.run(for: .seconds(2))
                id = try client.open(bidirectional: bidirectional)
            }
            loseLarge(world, true)
            try client.send(pattern(800), on: id)
            world.simulation.settle()
            loseLarge(world, false)
            // On the wire the latest is the first.
            if first != .resetStream { client.stopSending(id, code: 8) }
            if first != .stopSending || !bidirectional { client.reset(id, code: 7) }
            world.simulation.run(for: .seconds(1))
            if first == .stopSending, bidirectional {
                #expect(server.streams[id]?.resetCode == 8)
                client.reset(id, code: 7)
            }
            world.simulation.run(for: .seconds(1))
            #expect(server.streams.isEmpty, "round \(round)")
            #expect(world.serverSide.resets[id] == 7)
            #expect(world.serverSide.streamsClosed.contains(id))
            #expect(server.closeReason == nil && client.closeReason == nil)
        }
    }

    @Test("a peer that resets what it opens gets no more streams than it was promised", arguments: [true, false])
    func aPeerThatResetsWhatItOpensGetsNoMoreStreamsThanItWasPromised(bidirectional: Bool) throws {
        let world = try EngineWorld { server, _ in
            server.transport.maxBidirectionalStreams = 4
            server.transport.maxUnidirectionalStreams = 4
        }
        world.serverSide.answersResets = true
        let (client, server) = try world.connected()
        for _ in 0..<10 {
            // A stream that never carried anything.
            let id = try client.open(bidirectional: bidirectional)
            client.reset(id, code: 1)
            world.simulation.run(for: .seconds(1))
        }
        #expect(server.streams.isEmpty)
        var opened = 0
        while try client.openStream(bidirectional: bidirectional) != nil { opened += 1 }
        #expect(opened == 4)
    }

    /// A client and a server that allows ten unidirectional streams at a time.
    private func tenStreams() throws -> (world: EngineWorld, client: QUICEngineConnection, server: QUICEngineConnection)
    {
        let world = try EngineWorld { server, _ in server.transport.maxUnidirectionalStreams = 10 }
        let (client, server) = try world.connected()
        world.simulation.run(for: .seconds(1))
        return (world, client, server)
    }

    /// How many more unidirectional streams the peer allows.
    private func credit(of client: QUICEngineConnection) throws -> Int {
        var count = 0
        while count < 100, try client.openStream(bidirectional: false) != nil { count += 1 }
        return count
    }

    @Test("a reset behind the end of a stream opens none, and gives credit once", arguments: [true, false])
    func aResetBehindTheEndGivesCreditOnce(reads: Bool) throws {
        let (world, client, server) = try tenStreams()
        world.serverSide.reads = reads
        for round in 0..<30 {
            guard let stream = try client.openStream(bidirectional: false) else {
                Issue.record("no credit in round \(round)")
                return
            }
            // Nothing is acknowledged, so that the client may reset what it finished.
            world.network.filter = { _, path in path.local != EngineWorld.serverAddress }
            try client.send(pattern(100), on: stream, finish: true)
            world.simulation.run(for: .milliseconds(20))
            client.reset(stream, code: 9)
            world.simulation.run(for: .milliseconds(20))
            world.network.filter = nil
            world.simulation.run(for: .milliseconds(500))
            // Where the reset came too late, there is what came before it.
            if world.serverSide.resets[stream] == nil { world.serverSide.drain(stream, of: server) }
            world.simulation.run(for: .milliseconds(50))
            #expect(server.streams.isEmpty, "round \(round)")
            #expect(world.serverSide.opened.count == round + 1)
        }
        if reads { #expect(world.serverSide.resets.isEmpty && world.serverSide.finished.count == 30) }
        #expect(try credit(of: client) == 10)
    }

    @Test("an end and a reset behind it that come together are the end of all bytes", arguments: [true, false])
    func anEndAndAResetThatComeTogether(bidirectional: Bool) throws {
        let (world, client, server) = try tenStreams()
        let stream = try #require(try client.openStream(bidirectional: bidirectional))
        try client.send(pattern(100), on: stream, finish: true)
        world.simulation.settle()
        client.reset(stream, code: 9)
        world.simulation.run(for: .seconds(1))
        let side = world.serverSide
        #expect(side.finished.contains(stream) && side.received[stream] == pattern(100))
        #expect(side.resets[stream] == nil)
        if !bidirectional { #expect(server.streams.isEmpty) }
    }

    @Test("a stream that is stopped gives its credit back although STOP_SENDING is lost")
    func aStoppedStreamGivesItsCreditBack() throws {
        let (world, client, server) = try tenStreams()
        for round in 0..<30 {
            guard let stream = try client.openStream(bidirectional: false) else {
                Issue.record("no credit in round \(round)")
                return
            }
            try client.send(pattern(100), on: stream)
            world.simulation.run(for: .milliseconds(100))
            var isLost = false
            world.network.filter = { _, path in
                guard path.local == EngineWorld.serverAddress, !isLost else { return true }
                isLost = true
                return false
            }
            server.stopSending(stream, code: 5)
            // What comes behind it is nobody's, and opens nothing.
            try client.send(pattern(100), on: stream, finish: true)
            world.simulation.run(for: .seconds(2))
            #expect(isLost)
            world.network.filter = nil
            #expect(server.streams.isEmpty, "round \(round)")
            #expect(world.serverSide.streamsClosed.contains(stream))
            #expect(world.serverSide.opened.count == round + 1)
        }
        #expect(try credit(of: client) == 10)
        // Bytes that were dropped count as read.
        let last = QUICStreamID(rawValue: 2 + 4 * 30)
        #expect(try client.send(pattern(50_000), on: last, finish: true) == 50_000)
        world.simulation.run(for: .seconds(2))
        #expect(world.serverSide.received[last]?.count == 50_000)
    }

    @Test("what a stream that was reset or stopped had not sent leaves its room to others", arguments: [true, false])
    func whatAResetStreamHadNotSentLeavesItsRoom(isStopped: Bool) throws {
        let world = try EngineWorld { server, client in
            server.transport.streamWindow = 1000
            client.transport.streamSendBuffer = 50_000
            client.transport.connectionSendBuffer = 100_000
        }
        world.serverSide.reads = false
        let (client, server) = try world.connected()
        world.simulation.run(for: .seconds(1))
        let streams = try [client.open(), client.open()]
        for stream in streams { #expect(try client.send(pattern(50_000), on: stream) == 50_000) }
        client.setPriority(StreamPriority(urgency: 7), of: streams[0])
        let third = try client.open()
        #expect(try client.send([1], on: third) == 0)
        world.simulation.run(for: .seconds(1))
        for stream in streams {
            if isStopped { server.stopSending(stream, code: 5) } else { client.reset(stream, code: 5) }
        }
        world.simulation.run(for: .seconds(5))
        // The server may still send on both.
        #expect(streams.allSatisfy { client.priority(of: $0) != nil })
        #expect(world.clientSide.writable == [third])
        #expect(client.writableBytes(third) == 50_000)
        #expect(client.sendBufferBytes == 0 && client.backgroundBytes == 0 && world.client.bufferedBytes == 0)
        world.serverSide.reads = true
        #expect(try client.send(pattern(50_000), on: third, finish: true) == 50_000)
        world.simulation.run(for: .seconds(20)) { world.serverSide.finished.contains(third) }
        let isWhole = world.serverSide.received[third] == pattern(50_000)
        #expect(isWhole)
    }

    /// Opens a unidirectional stream and ends it, with or without anything else before its end.
    private func openAndEnd(_ client: QUICEngineConnection, resetFirst: Bool) throws {
        let stream = try client.open(bidirectional: false)
        if resetFirst { client.reset(stream, code: 1) } else { try client.send([1], on: stream, finish: true) }
    }

    @Test("a peer that uses up stream records is sent away and may come again")
    func aPeerThatUsesUpStreamRecordsIsSentAwayAndMayComeAgain() throws {
        let world = try EngineWorld()
        world.server.maxPeerStreamRecords = 50
        let (client, server) = try world.connected()
        for _ in 0..<51 {
            #expect(server.closeReason == nil)
            try openAndEnd(client, resetFirst: !Self.keepsRecordsOfFinished)
            world.simulation.run(for: .milliseconds(100))
        }
        #expect(world.serverSide.finished.count + world.serverSide.resets.count == 51)
        // The last stream is read after its packet; the next packet meets the limit.
        client.ping(now: world.network.now)
        world.simulation.run(for: .seconds(1))
        guard case .localTransport(0, _)? = server.closeReason, case .peerTransport(0, _)? = client.closeReason else {
            Issue.record("\(String(describing: server.closeReason)) \(String(describing: client.closeReason))")
            return
        }
        _ = try world.connected()
    }

    @Test("streams that leave no record are not counted")
    func streamsThatLeaveNoRecordAreNotCounted() throws {
        let world = try EngineWorld()
        world.server.maxPeerStreamRecords = 5
        let (client, server) = try world.connected()
        for _ in 0..<20 {
            try openAndEnd(client, resetFirst: Self.keepsRecordsOfFinished)
            world.simulation.run(for: .milliseconds(100))
        }
        client.ping(now: world.network.now)
        world.simulation.run(for: .seconds(1))
        #expect(server.closeReason == nil)
        #expect(server.peerStreamRecords == 0)
    }

    /// ngtcp2 0.12 keeps the record of a unidirectional stream that the peer finished, 1.11 of one that the peer reset before
    /// anything else.
    private static let keepsRecordsOfFinished = llq_contains_frames() != 0

    @Test("an application code that no packet can carry goes out as the largest")
    func aCodeThatNoPacketCanCarryGoesOutAsTheLargest() throws {
        let world = try EngineWorld()
        let (client, server) = try world.connected()
        let stream = try client.open()
        try client.send([1], on: stream, finish: false)
        world.simulation.run(for: .seconds(1))
        client.reset(stream, code: .max)
        client.stopSending(stream, code: 1 << 62)
        world.simulation.run(for: .seconds(1))
        #expect(world.serverSide.resets[stream] == ApplicationCode.largest)
        #expect(world.serverSide.stops[stream] == ApplicationCode.largest)
        server.close(code: .max, reason: "", now: world.network.now)
        world.simulation.run(for: .seconds(1))
        #expect(client.closeReason == .peerApplication(code: ApplicationCode.largest, reason: ""))
    }
}
