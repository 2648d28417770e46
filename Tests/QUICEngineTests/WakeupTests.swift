import LonglineTestKit
import Testing

@testable import QUICEngine

/// A server with many short connections must not be woken for each of them.
@Suite struct WakeupTests {
    private func wakeups(of endpoint: QUICEndpoint, in world: EngineWorld, until done: () -> Bool) -> Set<UInt64> {
        var instants: Set<UInt64> = []
        while !done() {
            guard let next = endpoint.nextDeadline else { break }
            instants.insert(next.nanoseconds)
            world.simulation.run(for: .milliseconds(1))
        }
        return instants
    }

    @Test("connections that close one after another are forgotten together")
    func connectionsThatCloseOneAfterAnotherAreForgottenTogether() throws {
        let world = try EngineWorld()
        var clients: [QUICEngineConnection] = []
        for _ in 0..<30 { clients.append(try world.connected().client) }
        for client in clients {
            client.close(code: 1, reason: "", now: world.network.now)
            world.simulation.run(for: .milliseconds(2))
        }
        world.simulation.run(for: .seconds(1)) { world.server.connectionCount == 0 }
        #expect(world.server.connectionCount == 0)
        #expect(world.server.lingering.count == 30)
        let instants = wakeups(of: world.server, in: world) { world.server.lingering.count == 0 }
        #expect((1...3).contains(instants.count), "\(instants.count) wake-ups for 30 connections")
        #expect(world.server.routes.isEmpty)
    }

    @Test("what lingers does so for as long as was asked, and no connection ID is forgotten before")
    func whatLingersDoesSoForAsLongAsWasAsked() throws {
        var random = SeededRandom(seed: 9)
        var routes = LingeringRoutes()
        var ends: [ObjectIdentifier: UInt64] = [:]
        var now: UInt64 = 0
        for _ in 0..<3000 {
            now += random.next() % 40_000_000
            if random.next() % 3 > 0 {
                let route = ConnectionRoute()
                let end = now + random.next() % 2_000_000_000
                ends[ObjectIdentifier(route)] = end
                routes.insert(route, until: QUICInstant(nanoseconds: end))
            }
            while let due = routes.popDue(now: QUICInstant(nanoseconds: now)) {
                for route in due {
                    let known = ends.removeValue(forKey: ObjectIdentifier(route))
                    let end = try #require(known)
                    #expect(end <= now)
                    #expect(now - end <= 140_000_000)
                }
            }
            #expect(routes.count == ends.count)
            #expect(routes.next.map { $0.nanoseconds > now } ?? ends.isEmpty)
        }
    }

    @Test("an answer with nothing behind it asks for no timer of pacing")
    func anAnswerWithNothingBehindItAsksForNoTimerOfPacing() throws {
        let world = try EngineWorld()
        world.serverSide.echoes = true
        let (client, server) = try world.connected()
        let stream = try client.open()
        try client.send(pattern(100), on: stream)
        world.simulation.run(for: .seconds(1))
        for _ in 0..<20 {
            let (before, received) = (server.packetsSent, server.datagramsReceived)
            try client.send(pattern(100), on: stream)
            world.simulation.run(for: .seconds(1)) { server.datagramsReceived > received }
            #expect(server.packetsSent > before)
            let next = try #require(world.server.nextDeadline)
            // Pacing would want the next packet some hundred microseconds later at most.
            #expect(next.nanoseconds - world.network.now.nanoseconds > 2_000_000)
            world.simulation.run(for: .seconds(1))
        }
    }

    @Test("what pacing holds back leaves all the same", arguments: [TransportSettings.CongestionControl.cubic, .bbr])
    func whatPacingHoldsBackLeavesAllTheSame(controller: TransportSettings.CongestionControl) throws {
        let world = try EngineWorld { server, client in
            server.transport.congestionControl = controller
            client.transport.congestionControl = controller
        }
        let (client, _) = try world.connected()
        let stream = try client.open()
        try client.send(pattern(200_000), on: stream, finish: true)
        world.simulation.run(for: .seconds(5)) { world.serverSide.finished.contains(stream) }
        #expect(world.serverSide.received[stream] == pattern(200_000))
    }
}
