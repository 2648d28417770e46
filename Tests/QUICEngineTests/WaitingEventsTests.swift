import LonglineTestKit
import Testing

@testable import QUICEngine

/// In what order an endpoint's owner is told what its connections have to tell.
@Suite struct WaitingEventsTests {
    private func emit(_ numbers: Range<UInt64>, from connection: QUICEngineConnection) {
        for number in numbers { connection.emit(.datagramLost(id: number)) }
    }

    private func take(from endpoint: QUICEndpoint) throws -> (connection: ConnectionHandle, number: UInt64)? {
        guard let (connection, event) = endpoint.pollEvent() else { return nil }
        guard case .datagramLost(let number) = event else { throw EngineWorld.Failure("unexpected: \(event)") }
        return (connection.handle, number)
    }

    @Test("a connection with one event doesn't wait for the hundred thousand of another")
    func oneBehindMany() throws {
        let world = try EngineWorld()
        let busy = try world.connect()
        let quiet = try world.connect()
        emit(0..<100_000, from: busy)
        emit(0..<1, from: quiet)
        var before = 0
        while let next = try take(from: world.client), next.connection != quiet.handle { before += 1 }
        #expect(before <= WaitingEvents.roundLength)
        #expect(world.client.waitingEventCount == 100_000 - before)
    }

    @Test("a connection behind many others waits for a short turn of each")
    func oneBehindManyConnections() throws {
        let world = try EngineWorld()
        let others = try (0..<200).map { _ in try world.connect() }
        let last = try world.connect()
        for other in others { emit(0..<100, from: other) }
        emit(0..<1, from: last)
        var before: [ConnectionHandle: Int] = [:]
        while let next = try take(from: world.client), next.connection != last.handle {
            before[next.connection, default: 0] += 1
        }
        #expect(before.count == 200)
        #expect(before.values.allSatisfy { $0 == WaitingEvents.shortestTurn })
    }

    @Test("where few connections have events a turn takes all that one has")
    func turnsOfFewAreLong() throws {
        let world = try EngineWorld()
        let connections = try (0..<4).map { _ in try world.connect() }
        for number in 0..<UInt64(200) {
            for connection in connections { emit(number..<number + 1, from: connection) }
        }
        var turns: [ConnectionHandle] = []
        while let next = try take(from: world.client) {
            if turns.last != next.connection { turns.append(next.connection) }
        }
        #expect(turns == connections.map(\.handle))
    }

    @Test("the events of each connection come in their order, each once", arguments: 1...3)
    func inOrder(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        let world = try EngineWorld()
        let connections = try (0..<150).map { _ in try world.connect() }
        var emitted: [ConnectionHandle: UInt64] = [:]
        var taken: [ConnectionHandle: UInt64] = [:]
        var outOfOrder = 0
        func takeOne() throws -> Bool {
            guard let (connection, number) = try take(from: world.client) else { return false }
            if number != taken[connection, default: 0] { outOfOrder += 1 }
            taken[connection] = number + 1
            return true
        }
        for _ in 0..<400 {
            let count = 1 + random.next() % 50
            let connection = connections[Int(random.next() % 150)]
            let first = emitted[connection.handle, default: 0]
            emit(first..<first + count, from: connection)
            emitted[connection.handle] = first + count
            var wanted = random.next() % 40
            while wanted > 0, try takeOne() { wanted -= 1 }
            let waiting = emitted.values.reduce(0, +) - taken.values.reduce(0, +)
            #expect(world.client.waitingEventCount == Int(waiting))
        }
        while try takeOne() {}
        #expect(outOfOrder == 0)
        #expect(taken == emitted)
    }

    @Test("a close comes behind all that its connection told before, and not behind all that others tell")
    func closedWhileWaiting() throws {
        let world = try EngineWorld()
        let busy = try world.connect()
        let closing = try world.connect()
        world.clientHost.takesEvents = false
        emit(0..<50_000, from: busy)
        emit(0..<100, from: closing)
        closing.close(code: 7, reason: "", now: world.network.now)
        world.simulation.settle()
        #expect(world.client.connectionCount == 1)
        // Nothing is told behind the close.
        emit(100..<101, from: closing)
        var numbers: [UInt64] = []
        var reasons: [QUICCloseReason] = []
        var othersBefore = 0
        while let (connection, event) = world.client.pollEvent() {
            switch event {
            case .datagramLost where connection !== closing: if reasons.isEmpty { othersBefore += 1 }
            case .datagramLost(let number): numbers.append(number)
            case .closed(let reason): reasons.append(reason)
            default: Issue.record("unexpected: \(event)")
            }
        }
        #expect(numbers == [UInt64](0..<100))
        #expect(reasons == [.localApplication(code: 7, reason: "")])
        #expect(othersBefore <= WaitingEvents.roundLength)
    }

    @Test("places are used again, and those of a flood are given back")
    func placesAreUsedAgain() throws {
        let world = try EngineWorld()
        let connection = try world.connect()
        var events = WaitingEvents()
        for number in 0..<UInt64(1_000) {
            events.append(.datagramLost(id: number), of: connection)
            events.append(.datagramLost(id: number), of: connection)
            while events.popFirst() != nil {}
        }
        #expect(events.placeCount == 2)
        for number in 0..<UInt64(50_000) { events.append(.datagramLost(id: number), of: connection) }
        #expect(events.placeCount == 50_000)
        while events.popFirst() != nil {}
        #expect(events.count == 0 && events.placeCount == 0)
    }
}
