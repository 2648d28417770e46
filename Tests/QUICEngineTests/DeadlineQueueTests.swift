import LonglineTestKit
import Testing

@testable import QUICEngine

@Suite struct DeadlineQueueTests {
    @Test("owners come when they are due, each once, and none leaves anything behind", arguments: 1...10)
    func ownersComeWhenTheyAreDueEachOnceAndNoneLeavesAnythingBehind(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        var queue = DeadlineQueue()
        let owners = (0..<50).map { _ in DeadlineOwner() }
        var expected: [ObjectIdentifier: UInt64] = [:]
        var now: UInt64 = 1
        for _ in 0..<5000 {
            let owner = owners[Int(random.next() % 50)]
            let id = ObjectIdentifier(owner)
            switch random.next() % 4 {
            case 0:
                queue.set(nil, for: owner)
                expected[id] = nil
            case 1:
                now += random.next() % 20
                var due: [ObjectIdentifier] = []
                while let next = queue.popDue(now: QUICInstant(nanoseconds: now)) {
                    #expect(next.deadline == nil)
                    due.append(ObjectIdentifier(next))
                }
                #expect(Set(due) == Set(expected.filter { $0.value <= now }.keys))
                #expect(due.count == Set(due).count)
                for id in due { expected[id] = nil }
            default:
                let at = now + random.next() % 1000
                queue.set(QUICInstant(nanoseconds: at), for: owner)
                expected[id] = at
            }
            #expect(queue.next()?.nanoseconds == expected.values.min())
            #expect(queue.count == expected.count)
        }
    }

    @Test("timers that were used leave nothing in the queue") func timersThatWereUsedLeaveNothingInTheQueue() throws {
        let world = try EngineWorld()
        let (client, _) = try world.connected()
        let stream = try client.open()
        for _ in 0..<300 {
            try client.send([1], on: stream)
            world.simulation.run(for: .milliseconds(60))
        }
        #expect(world.client.deadlines.count == 1)
        #expect(world.server.deadlines.count == 1)
        // Perhaps connection IDs that linger.
        #expect(world.client.lingering.count <= 8)
        #expect(world.server.lingering.count <= 8)
    }
}
