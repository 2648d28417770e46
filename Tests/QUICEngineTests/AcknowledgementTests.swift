import CQUICShim
import LonglineTestKit
import Testing

@testable import QUICEngine

/// When acknowledgements leave, and what with.
@Suite struct AcknowledgementTests {
    /// Requests and answers of 100 bytes, one at a time, over a path of 10 ms each way.
    /// - Returns: packets that each side sent for one of them.
    private func packets(inExchangesEach interval: QUICDuration) throws -> (client: Double, server: Double) {
        let world = try EngineWorld()
        let (client, server) = try world.connected()
        world.serverSide.echoes = true
        let stream = try client.open()
        world.simulation.run(for: .seconds(5))
        let before = (
            client.statistics(now: world.network.now).packetsSent, server.statistics(now: world.network.now).packetsSent
        )
        for number in 1...50 {
            try client.send(pattern(100), on: stream)
            world.simulation.run(for: interval)
            #expect(world.clientSide.received[stream]?.count == number * 100)
        }
        return (
            Double(client.statistics(now: world.network.now).packetsSent - before.0) / 50,
            Double(server.statistics(now: world.network.now).packetsSent - before.1) / 50
        )
    }

    @Test("an answer takes the acknowledgement of its request along") func anAnswerTakesTheAcknowledgementAlong() throws
    {
        let rare = try packets(inExchangesEach: .milliseconds(100))
        #expect(rare.server < 1.1, "an answer each, and now and then what else a connection sends")
        #expect(rare.client < 2.1, "a request each, and an acknowledgement of the answer")
        let dense = try packets(inExchangesEach: .milliseconds(22))
        #expect(dense.server < 1.1)
        #expect(dense.client < 1.2, "the next request has the acknowledgement of the answer before it")
    }

    /// How long after a datagram was sent its sender knows that it arrived.
    private func acknowledgementTime(
        delay: QUICDuration, maxAckDelay: UInt64 = 25, size: Int = 1, count: UInt64 = 1
    ) throws -> Double {
        var conditions = NetworkConditions()
        conditions.delay = delay
        let world = try EngineWorld(conditions: conditions) { server, _ in
            server.transport.maxAckDelay = .milliseconds(maxAckDelay)
        }
        let (client, _) = try world.connected()
        world.simulation.run(for: .seconds(5))
        let start = world.network.now
        for number in 1...count {
            #expect(try client.offer(pattern(size), id: number))
            world.simulation.run(for: .microseconds(1))
        }
        #expect(world.simulation.run(for: .seconds(2)) { world.clientSide.datagramsAcknowledged.count == count })
        return Double(world.network.now.nanoseconds - start.nanoseconds) / 1e6
    }

    @Test("an acknowledgement without company leaves after 5 ms, or an eighth of a longer round trip")
    func anAcknowledgementWithoutCompanyLeaves() throws {
        #expect(try (6.5...8).contains(acknowledgementTime(delay: .milliseconds(1))))
        #expect(try (220...228).contains(acknowledgementTime(delay: .milliseconds(100))), "at most maxAckDelay")
        #expect(try (112...118).contains(acknowledgementTime(delay: .milliseconds(50))))
        #expect(try (3...4.5).contains(acknowledgementTime(delay: .milliseconds(1), maxAckDelay: 2)))
    }

    @Test("two full-sized packets, and eight small ones, are acknowledged at once")
    func twoFullSizedPacketsAreAcknowledgedAtOnce() throws {
        #expect(try acknowledgementTime(delay: .milliseconds(1), size: 1_100, count: 2) < 3)
        #expect(try acknowledgementTime(delay: .milliseconds(1), size: 1_100, count: 1) > 6)
        #expect(try acknowledgementTime(delay: .milliseconds(1), count: 8) < 3)
        #expect(try acknowledgementTime(delay: .milliseconds(1), count: 7) > 6)
    }

    @Test("a packet behind a lost one is acknowledged at once") func aPacketBehindALostOneIsAcknowledgedAtOnce() throws
    {
        var conditions = NetworkConditions()
        conditions.delay = .milliseconds(1)
        let world = try EngineWorld(conditions: conditions)
        let (client, _) = try world.connected()
        world.simulation.run(for: .seconds(5))
        world.network.setBlackhole(EngineWorld.clientAddress, true)
        #expect(try client.offer([1], id: 1))
        world.simulation.run(for: .microseconds(10))
        world.network.setBlackhole(EngineWorld.clientAddress, false)
        let start = world.network.now
        #expect(try client.offer([2], id: 2))
        #expect(world.simulation.run(for: .seconds(2)) { world.clientSide.datagramsAcknowledged == [2] })
        #expect(world.network.now.nanoseconds - start.nanoseconds < 3_000_000)
        #expect(world.clientSide.datagramsAcknowledged == [2])
    }

    @Test("a client that appears elsewhere is answered at once: its new address is validated")
    func aClientThatAppearsElsewhereIsAnsweredAtOnce() throws {
        var conditions = NetworkConditions()
        conditions.delay = .milliseconds(1)
        let world = try EngineWorld(conditions: conditions)
        let (client, _) = try world.connected()
        world.simulation.run(for: .seconds(5))
        world.network.setNAT(EngineWorld.clientAddress, appearsAs: EngineWorld.otherClientAddress)
        let start = world.network.now
        #expect(try client.offer([1], id: 1))
        #expect(
            world.simulation.run(for: .seconds(2)) { world.serverSide.paths.contains { $0.hasPrefix("validated") } })
        // A challenge and its answer; ngtcp2 1.11 takes one more.
        #expect(world.network.now.nanoseconds - start.nanoseconds < 5_500_000)
    }

    @Test("what was lost is sent again in time, though small packets keep coming")
    func whatWasLostIsSentAgainInTime() throws {
        var conditions = NetworkConditions()
        conditions.delay = .milliseconds(1)
        /// How long bytes of the server take that are lost once.
        func time(interval: QUICDuration?) throws -> Double {
            let world = try EngineWorld(conditions: conditions)
            let (client, server) = try world.connected()
            let stream = try client.open()
            try client.send([1], on: stream)
            world.simulation.run(for: .seconds(5))
            world.network.filter = { _, path in path.remote != EngineWorld.clientAddress }
            let start = world.network.now
            try server.send([2], on: stream)
            world.simulation.run(for: .microseconds(10))
            world.network.filter = nil
            for number in 1...1000 as ClosedRange<UInt64> where world.clientSide.received[stream] == nil {
                if interval != nil { #expect(try client.offer([1], id: number)) }
                world.simulation.run(for: interval ?? .microseconds(100)) { world.clientSide.received[stream] != nil }
            }
            #expect(world.clientSide.received[stream] == [2])
            return Double(world.network.now.nanoseconds - start.nanoseconds) / 1e6
        }
        let alone = try time(interval: nil)
        #expect(try time(interval: .microseconds(300)) < alone + 2)
        #expect(try time(interval: .milliseconds(2)) < alone + 2)
    }

    @Test("who waits for streams is not kept waiting by its own acknowledgements")
    func whoWaitsForStreamsIsNotKeptWaiting() throws {
        var conditions = NetworkConditions()
        conditions.delay = .milliseconds(1)
        let world = try EngineWorld(conditions: conditions) { server, _ in
            server.transport.maxBidirectionalStreams = 1
        }
        let (client, _) = try world.connected()
        world.serverSide.echoes = true
        world.simulation.run(for: .seconds(5))
        let start = world.network.now
        for _ in 0..<20 {
            var stream = try client.openStream(bidirectional: true)
            if stream == nil {
                let before = world.clientSide.streamsAvailable
                #expect(world.simulation.run(for: .seconds(1)) { world.clientSide.streamsAvailable > before })
                stream = try client.openStream(bidirectional: true)
            }
            let opened = try #require(stream)
            try client.send([1], on: opened, finish: true)
            // It asks for the next one before the answer to this one is there.
            #expect(try client.openStream(bidirectional: true) == nil)
            #expect(world.simulation.run(for: .seconds(1)) { world.clientSide.finished.contains(opened) })
        }
        // A round trip for the request and one for the credit, each; the first has its credit.
        #expect(world.network.now.nanoseconds - start.nanoseconds < 20 * 4_500_000)
    }

    @Test("the guard tells what is to be acknowledged, and what wants more than that")
    func theGuardTellsWhatIsToBeAcknowledged() {
        func kind(_ frames: [UInt8], acknowledged: UInt64 = 0) -> (eliciting: Bool, ordinary: Bool) {
            var guardState = llq_frame_guard()
            llq_guard_init(&guardState)
            guardState.acked_to = acknowledged
            var frames = frames
            var listener = llq_guard_listener()
            _ = llq_guard_inspect(&guardState, &frames, frames.count, 0, &listener)
            return (guardState.is_eliciting != 0, guardState.is_ordinary != 0)
        }
        let ack: [UInt8] = [0x02, 9, 0, 0, 9]
        let gaps: [UInt8] = [0x02, 9, 0, 1, 3, 1, 1]
        let stream: [UInt8] = [0x0a, 0, 2, 7, 7]
        #expect(kind([0, 0, 0]) == (false, true))
        #expect(kind(ack) == (false, true))
        #expect(kind(gaps) == (false, false), "something may be lost")
        #expect(kind([0x02, 9, 0, 0, 3]) == (false, false), "the same: nobody has told of the packets up to 5")
        #expect(kind([0x02, 9, 0, 0, 3], acknowledged: 6) == (false, true))
        #expect(kind([0x02, 9, 0, 0, 3], acknowledged: 5) == (false, false))
        #expect(kind(stream) == (true, true))
        #expect(kind(ack + stream) == (true, true))
        #expect(kind(gaps + stream) == (true, false))
        #expect(kind([0x31, 1, 7]) == (true, true), "DATAGRAM")
        #expect(kind([0x10, 5]) == (true, true), "MAX_DATA")
        #expect(kind([0x01]) == (true, false), "PING: a probe")
        #expect(kind([0x05, 0, 0]) == (true, false), "STOP_SENDING: RESET_STREAM answers it")
        #expect(kind([0x1a, 1, 2, 3, 4, 5, 6, 7, 8]) == (true, false), "PATH_CHALLENGE")
        #expect(kind([0x1c, 0, 0, 0]) == (false, false), "CONNECTION_CLOSE")
    }
}
