import LonglineTestKit
import Testing

@testable import QUICEngine

@Suite struct DatagramTests {
    @Test("a datagram that can't leave in time is dropped, and its sender told")
    func aDatagramThatCantLeaveInTimeIsDropped() throws {
        let world = try EngineWorld { _, client in client.transport.streamSendBuffer = 4 << 20 }
        let (client, _) = try world.connected()
        world.simulation.run(for: .seconds(1))
        // Nothing comes back: the congestion window fills and stays full.
        world.network.setBlackhole(EngineWorld.serverAddress, true)
        let stream = try client.open()
        try client.send(pattern(1 << 20), on: stream)
        world.simulation.run(for: .milliseconds(5))
        func offer(_ id: UInt64, within milliseconds: UInt64?) throws {
            let deadline = milliseconds.map { world.network.now.advanced(byNanoseconds: $0 * 1_000_000) }
            #expect(try [UInt8(id)].withUnsafeBytes { try client.sendDatagram($0, id: id, deadline: deadline) })
        }
        try offer(1, within: 30)
        try offer(2, within: nil)
        try offer(3, within: 10)
        try offer(4, within: 5000)
        world.simulation.run(for: .milliseconds(9))
        #expect(world.clientSide.datagramsExpired.isEmpty)
        world.simulation.run(for: .milliseconds(2))
        #expect(world.clientSide.datagramsExpired == [3])
        world.simulation.run(for: .milliseconds(20))
        #expect(world.clientSide.datagramsExpired == [3, 1])
        #expect(client.datagramsToSend.count == 2)
        world.network.setBlackhole(EngineWorld.serverAddress, false)
        world.simulation.run(for: .seconds(4)) { world.clientSide.datagramsAcknowledged.count == 2 }
        #expect(world.serverSide.datagrams == [[2], [4]])
        #expect(world.client.counters.datagramFramesExpired == 2)
        #expect(world.clientSide.datagramsExpired.count == 2)
    }

    @Test("a datagram that waits can be taken back, and what has left can't")
    func aDatagramThatWaitsCanBeTakenBack() throws {
        let world = try EngineWorld { _, client in client.transport.streamSendBuffer = 4 << 20 }
        let (client, _) = try world.connected()
        world.simulation.run(for: .seconds(1))
        #expect(try [UInt8(9)].withUnsafeBytes { try client.sendDatagram($0, id: 9) })
        world.simulation.run(for: .milliseconds(200))
        #expect(world.serverSide.datagrams == [[9]])
        #expect(!client.isDatagramWaiting(9) && !client.withdrawDatagram(9))
        world.network.setBlackhole(EngineWorld.serverAddress, true)
        let stream = try client.open()
        try client.send(pattern(1 << 20), on: stream)
        world.simulation.run(for: .milliseconds(5))
        #expect(client.unsentBytes(stream) > 100_000, "the congestion window holds it up")
        let deadline = world.network.now.advanced(byNanoseconds: 50_000_000)
        for id in UInt64(1)...3 {
            #expect(try [UInt8(id)].withUnsafeBytes { try client.sendDatagram($0, id: id, deadline: deadline) })
        }
        #expect(client.isDatagramWaiting(2) && client.withdrawDatagram(2))
        #expect(!client.isDatagramWaiting(2) && !client.withdrawDatagram(2))
        world.simulation.run(for: .milliseconds(100))
        #expect(world.clientSide.datagramsExpired == [1, 3], "nothing is reported of the one that was taken back")
    }

    @Test("where all connections together hold too much each keeps but a few received datagrams")
    func datagramsOfAFullEndpoint() throws {
        let limit = 1 << 20
        let world = try EngineWorld(maxBufferedBytes: limit)
        let (hoarder, reader) = (try world.connected(), try world.connected())
        world.simulation.run(for: .seconds(1))
        var next: UInt8 = 0
        func arrives(at pair: (client: QUICEngineConnection, server: QUICEngineConnection)) throws -> Bool {
            next += 1
            #expect(try pair.client.offer([next], id: UInt64(next)))
            world.simulation.run(for: .seconds(1))
            return world.serverSide.datagrams.contains([next])
        }
        hoarder.server.bytesKeptByOwner = limit - 1
        #expect(try arrives(at: hoarder))
        hoarder.server.bytesKeptByOwner = limit
        #expect(try arrives(at: hoarder) == false)
        #expect(try arrives(at: reader))
        #expect(world.server.counters.datagramFramesDropped == 1)
        // A few wait at each of the others.
        reader.server.bytesKeptByOwner = 4_095
        #expect(try arrives(at: reader))
        reader.server.bytesKeptByOwner = 4_096
        #expect(try arrives(at: reader) == false)
        hoarder.server.bytesKeptByOwner = 0
        #expect(try arrives(at: reader))
        #expect(try arrives(at: hoarder))
        #expect(world.server.counters.datagramFramesDropped == 2)
    }

    @Test("a side that refuses datagrams is told of none, and they are acknowledged and counted")
    func datagramsThatAreRefused() throws {
        let world = try EngineWorld()
        let (client, server) = try world.connected()
        #expect(try client.offer([1], id: 1))
        world.simulation.run(for: .milliseconds(200))
        server.refuseDatagrams()
        // Two packets: what is counted for one is not counted again for the next.
        for ids in [UInt64(2)...6, 7...8] {
            for id in ids { #expect(try client.offer([UInt8(id)], id: id)) }
            world.simulation.run(for: .milliseconds(200))
        }
        #expect(world.serverSide.datagrams == [[1]])
        #expect(world.clientSide.datagramsAcknowledged.sorted() == Array(1...8))
        #expect(world.server.counters.datagramFramesDropped == 7)
    }

    @Test("the largest datagram follows the path's MTU") func theLargestDatagramFollowsThePathsMTU() throws {
        let world = try EngineWorld()
        let (client, _) = try world.connected()
        let first = try #require(world.clientSide.datagramSizes.first)
        world.simulation.run(for: .seconds(5))
        let found = try #require(world.clientSide.datagramSizes.last)
        #expect(found > first + 100, "discovery found more")
        #expect(client.maxDatagramSize == found)
        #expect(try client.offer(pattern(found), id: 1))
        world.simulation.run(for: .seconds(1)) { !world.serverSide.datagrams.isEmpty }
        #expect(world.serverSide.datagrams == [pattern(found)])
        // A new path starts with what every path takes.
        world.network.conditions.maxDatagramSize = 1280
        try client.migrate(to: EngineWorld.otherClientAddress, now: world.network.now)
        world.simulation.run(for: .seconds(5)) { client.path.local == EngineWorld.otherClientAddress }
        world.simulation.run(for: .seconds(1))
        let now = try #require(client.maxDatagramSize)
        #expect(now < found)
        #expect(world.clientSide.datagramSizes.last == now)
        #expect(try client.offer(pattern(now), id: 2))
        world.simulation.run(for: .seconds(1)) { world.serverSide.datagrams.count == 2 }
        #expect(world.serverSide.datagrams.last == pattern(now))
    }

    @Test(
        "a queued datagram for which a new path is too small is lost, and holds up nothing", arguments: [true, false])
    func aQueuedDatagramThatNoLongerFitsHoldsUpNothing(serverSends: Bool) throws {
        let world = try EngineWorld { server, client in
            server.transport.streamSendBuffer = 4 << 20
            client.transport.streamSendBuffer = 4 << 20
        }
        let (client, server) = try world.connected()
        world.simulation.run(for: .seconds(5))
        let sender = serverSends ? server : client
        let found = try #require(sender.maxDatagramSize)
        #expect(found > 1250, "discovery found more")
        // Nothing comes through: the congestion window fills, and the datagram has to wait.
        let unreachable = serverSends ? EngineWorld.clientAddress : EngineWorld.serverAddress
        world.network.setBlackhole(unreachable, true)
        let stream = try sender.open(bidirectional: false)
        let bytes = pattern(1 << 20)
        try sender.send(bytes, on: stream, finish: true)
        world.simulation.run(for: .milliseconds(5))
        #expect(sender.unsentBytes(stream) > 100_000)
        #expect(try sender.offer(pattern(found), id: 1))
        #expect(try sender.offer(pattern(100), id: 2))
        world.network.setBlackhole(unreachable, false)
        world.network.conditions.maxDatagramSize = 1280
        try client.migrate(to: EngineWorld.otherClientAddress, now: world.network.now)
        let receiving = serverSends ? world.clientSide : world.serverSide
        let sending = serverSends ? world.serverSide : world.clientSide
        world.simulation.run(for: .seconds(60)) {
            receiving.finished.contains(stream) && !sending.datagramsAcknowledged.isEmpty
        }
        #expect(sending.datagramsLost == [1])
        #expect(sending.datagramsAcknowledged == [2])
        let isWhole = receiving.received[stream] == bytes
        #expect(isWhole)
    }

    @Test("what was queued goes out before a close") func whatWasQueuedGoesOutBeforeAClose() throws {
        let world = try EngineWorld()
        let (client, _) = try world.connected()
        for id in UInt64(1)...3 { #expect(try client.offer([UInt8(id)], id: id)) }
        client.close(code: 0, reason: "", now: world.network.now)
        world.simulation.run(for: .seconds(5))
        #expect(world.serverSide.datagrams == [[1], [2], [3]])
    }

    @Test("nothing is reported of a connection after its end") func nothingIsReportedAfterTheEnd() throws {
        let world = try EngineWorld()
        let (client, _) = try world.connected()
        let deadline = world.network.now.advanced(byNanoseconds: 1_000_000)
        world.network.setBlackhole(EngineWorld.serverAddress, true)
        let stream = try client.open()
        try client.send(pattern(200_000), on: stream)
        world.simulation.settle()
        #expect(try [1].withUnsafeBytes { try client.sendDatagram($0, id: 1, deadline: deadline) })
        client.close(code: 0, reason: "", now: world.network.now)
        world.simulation.run(for: .seconds(5))
        guard case .closed? = world.clientSide.events.last else {
            Issue.record("\(String(describing: world.clientSide.events.last))")
            return
        }
    }

    @Test("an empty datagram arrives, also one from before the handshake's end") func anEmptyDatagramArrives() throws {
        let world = try EngineWorld(tickets: true)
        let (client, server) = try world.connected()
        world.simulation.run(for: .seconds(2)) { !world.clientSide.tickets.isEmpty }
        #expect(try client.offer([], id: 1))
        #expect(try server.offer([], id: 2))
        world.simulation.run(for: .seconds(1))
        #expect(world.serverSide.datagrams == [[]] && world.clientSide.datagrams == [[]])
        #expect(world.clientSide.datagramsAcknowledged == [1] && world.serverSide.datagramsAcknowledged == [2])
        client.close(code: 0, reason: "", now: world.network.now)
        world.simulation.run(for: .seconds(3))

        let ticket = try #require(world.clientSide.tickets.last)
        world.clientConfiguration.sessionTicket = ticket
        let returning = try world.connect()
        // In a packet of its own, behind the first flight.
        world.simulation.run(for: .milliseconds(1))
        #expect(returning.handshake == nil && returning.maxDatagramSize != nil)
        #expect(try returning.offer([], id: 3))
        world.simulation.run(for: .seconds(2))
        #expect(world.serverSide.datagrams == [[], []])
        #expect(world.clientSide.datagramsAcknowledged == [1, 3] && !returning.isClosed)
    }
}
