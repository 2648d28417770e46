import LonglineSession
import LonglineTestKit
import LonglineWire
import NIOCore
import QUICEngine
import Testing

/// Real sessions over real QUIC, through a NAT that forgets.
@Suite("The heartbeat through a NAT")
struct LearnedHeartbeatTests {
    private static let timeouts: [UInt64] = [15, 30, 60, 120, 300]

    private func nat(
        _ timeout: UInt64, isRefreshedFromOutside: Bool = true, keepsPorts: Bool = false
    ) -> SimulatedNAT {
        SimulatedNAT(
            inside: QUICSessionSimulation.clientAddresses,
            outside: QUICSocketAddress(ipv4: (192, 0, 2, 1), port: 20_000), timeout: .seconds(timeout),
            isRefreshedFromOutside: isRefreshedFromOutside, keepsPorts: keepsPorts)
    }

    private func seconds(_ time: TimeAmount?) -> Double { Double(time?.nanoseconds ?? 0) / 1e9 }

    /// Nothing that a user would notice.
    private func expectUnbroken(_ simulation: QUICSessionSimulation, _ what: String = "") {
        #expect(
            simulation.grants == 1 && simulation.ends.isEmpty && simulation.client.isConnected,
            "\(what) \(simulation.ends)")
    }

    @Test("Four fifths of the NAT's timeout within eight questions, in one session", arguments: timeouts)
    func learns(timeout: UInt64) throws {
        var search = HeartbeatSearch()
        search.beatsUntilRetry = .max
        for refreshes in [true, false] {
            let simulation = try QUICSessionSimulation(
                seed: timeout, heartbeat: .learned(search), nat: nat(timeout, isRefreshedFromOutside: refreshes))
            let reached = simulation.run(for: .hours(2)) {
                seconds(simulation.client.learnedInterval) >= 0.8 * Double(timeout)
            }
            #expect(reached)
            #expect(simulation.questions.count <= 8, "\(simulation.questions)")
            simulation.run(for: .hours(1))
            #expect(seconds(simulation.client.learnedInterval) >= 0.8 * Double(timeout))
            #expect(seconds(simulation.client.learnedInterval) < Double(timeout))
            // Settled: what the server says at any time gets through at once.
            let forgotten = simulation.network.nat?.forgotten
            var late = 0.0
            for step in 0..<20 {
                simulation.run(for: .seconds(7 + Int64(step) * 13))
                let before = (simulation.deliveries.count, simulation.seconds)
                simulation.post(in: simulation.inbox)
                simulation.run(for: .hours(1)) { simulation.deliveries.count > before.0 }
                late = max(late, simulation.seconds - before.1)
            }
            #expect(late < 0.1)
            #expect(simulation.network.nat?.forgotten == forgotten)
            expectUnbroken(simulation)
        }
    }

    @Test("The search survives a bad network", arguments: timeouts)
    func loss(timeout: UInt64) throws {
        var conditions = NetworkConditions.rough
        conditions.loss = 0.1
        for seed in seeds(0..<6) {
            let simulation = try QUICSessionSimulation(
                seed: seed, conditions: conditions, heartbeat: .learned(), nat: nat(timeout))
            let reached = simulation.run(for: .hours(3)) {
                seconds(simulation.client.learnedInterval) >= 0.8 * Double(timeout)
            }
            // Where a question or its answer is lost, it is asked again: eight answered ones, and what the loss costs.
            #expect(reached && simulation.questions.count <= 12, "seed \(seed): \(simulation.questions)")
            simulation.run(for: .hours(2))
            #expect(seconds(simulation.client.learnedInterval) < Double(timeout), "seed \(seed)")
            expectUnbroken(simulation, "seed \(seed)")
        }
    }

    @Test("A NAT that gives a forgotten path its old port again deceives nobody", arguments: timeouts)
    func keepsPorts(timeout: UInt64) throws {
        let simulation = try QUICSessionSimulation(
            seed: timeout, heartbeat: .learned(), nat: nat(timeout, keepsPorts: true))
        simulation.run(for: .hours(3))
        let learned = seconds(simulation.client.learnedInterval)
        #expect(learned >= 0.8 * Double(timeout) && learned < Double(timeout))
        expectUnbroken(simulation)
    }

    @Test("At 120 seconds at most a third of the packets of a fixed 30 seconds")
    func packets() throws {
        func count(_ policy: HeartbeatPolicy) throws -> Int {
            let simulation = try QUICSessionSimulation(seed: 7, heartbeat: policy, nat: nat(120))
            simulation.run(for: .hours(1))
            let before = simulation.network.sent
            // Long enough for the tries of a longer interval, which cost something.
            simulation.run(for: .hours(24))
            expectUnbroken(simulation)
            return simulation.network.sent - before
        }
        let fixed = try count(HeartbeatPolicy(interval: .seconds(30)))
        let learned = try count(.learned())
        #expect(learned * 3 <= fixed, "\(learned) of \(fixed)")
    }

    @Test("A NAT that becomes impatient is followed at once, and one that becomes patient again after a while")
    func changes() throws {
        for seed in seeds(0..<4) {
            let simulation = try QUICSessionSimulation(seed: seed, heartbeat: .learned(), nat: nat(120))
            simulation.run(for: .hours(1))
            #expect((96..<120).contains(seconds(simulation.client.learnedInterval)))
            simulation.network.nat?.timeout = .seconds(30)
            // One beat finds it; the safe interval is next.
            let steppedBack = simulation.run(for: .seconds(130)) {
                seconds(simulation.client.learnedInterval) < 30
            }
            #expect(steppedBack, "seed \(seed)")
            simulation.run(for: .minutes(10))
            #expect((24..<30).contains(seconds(simulation.client.learnedInterval)), "seed \(seed)")
            simulation.network.nat?.timeout = .seconds(120)
            simulation.run(for: .hours(2))
            #expect((96..<120).contains(seconds(simulation.client.learnedInterval)), "seed \(seed)")
            expectUnbroken(simulation, "seed \(seed)")
        }
    }

    @Test("A restart goes on with what was remembered")
    func memory() throws {
        let first = try QUICSessionSimulation(seed: 3, heartbeat: .learned(), nat: nat(120))
        first.run(for: .hours(1))
        let learned = seconds(first.client.learnedInterval)
        let second = try QUICSessionSimulation(
            seed: 4, heartbeat: .learned(), knowledge: first.knowledge, nat: nat(120))
        second.run(for: .hours(1))
        let asked = second.questions.map { Double($0.silence) / 1000 }
        #expect((learned / 2 - 1...learned).contains(asked.first ?? 0), "the first is drawn from the second half")
        #expect(asked.dropFirst().allSatisfy { (0.94 * learned...learned).contains($0) })
        #expect(second.network.nat?.forgotten == 0)
        expectUnbroken(second)
    }

    @Test("A path that is dead for good is found by the next question, and left for another port in the same session")
    func repairs() throws {
        let simulation = try QUICSessionSimulation(seed: 5, heartbeat: .learned(), nat: nat(60))
        // Whatever port the NAT gave the client's first one.
        var ports: Set<UInt16> = [QUICSessionSimulation.clientAddress.port]
        simulation.network.filter = { _, path in
            ports.insert(path.remote.port)
            return true
        }
        simulation.run(for: .hours(1))
        ports.remove(QUICSessionSimulation.serverAddress.port)
        let learned = seconds(simulation.client.learnedInterval)
        simulation.network.filter = { [ports] _, path in
            !ports.contains(path.local.port) && !ports.contains(path.remote.port)
        }
        let start = simulation.seconds
        simulation.run(for: .minutes(5)) { simulation.migrations > 0 }
        #expect(simulation.migrations == 1 && simulation.seconds - start < learned + 11)
        simulation.run(for: .minutes(30))
        #expect(simulation.migrations == 1)
        simulation.post(in: simulation.inbox)
        simulation.run(for: .seconds(1))
        #expect(simulation.deliveries.count == 1)
        expectUnbroken(simulation)
    }

    @Test("An outage of the whole network is no silence's fault")
    func outage() throws {
        let simulation = try QUICSessionSimulation(seed: 6, heartbeat: .learned(), nat: nat(120))
        simulation.run(for: .hours(1))
        let knowledge = simulation.client.heartbeatKnowledge
        simulation.network.filter = { _, _ in false }
        simulation.run(for: .minutes(5)) { !simulation.ends.isEmpty }
        #expect(simulation.ends.map(\.code) == [.idle], "\(simulation.ends)")
        #expect(simulation.migrations == 1)
        #expect(simulation.client.heartbeatKnowledge == knowledge)
    }

    @Test("Modes say when something comes, not what: everything, once, in order")
    func completeness() throws {
        for seed in seeds(0..<10) {
            let simulation = try QUICSessionSimulation(
                seed: seed, conditions: .rough, heartbeat: .learned(), nat: nat(30))
            var random = SeededRandom(seed: seed)
            var posted: [ChannelID: UInt64] = [:]
            simulation.run(for: .seconds(2))
            for _ in 0..<300 {
                simulation.run(for: .milliseconds(Int64.random(in: 0...4_000, using: &random)))
                if random.happens(0.1), let mode = SessionMode.allCases.randomElement(using: &random) {
                    simulation.setMode(mode)
                }
                let channel = random.happens(0.8) ? simulation.room : simulation.inbox
                simulation.post(in: channel)
                posted[channel, default: 0] += 1
            }
            // The longest that anything waits.
            simulation.run(for: .minutes(5) + .seconds(10))
            for (channel, count) in posted {
                let offsets = simulation.deliveries.filter { $0.channel == channel }.map(\.offset)
                #expect(offsets == Array(1...count), "seed \(seed)")
            }
            expectUnbroken(simulation, "seed \(seed)")
        }
    }

    @Test("News for a client in the background come with the next answer, an urgent message, or the half minute")
    func background() throws {
        let simulation = try QUICSessionSimulation(seed: 8, heartbeat: .learned(), nat: nat(120))
        simulation.run(for: .hours(1))
        simulation.setMode(.background)
        simulation.run(for: .seconds(1))
        func delivered(after time: TimeAmount) -> [ChannelID] {
            let before = simulation.deliveries.count
            simulation.run(for: time)
            return simulation.deliveries.dropFirst(before).map(\.channel)
        }
        let room = simulation.room
        simulation.post(in: room)
        simulation.post(in: room)
        #expect(delivered(after: .seconds(3)).isEmpty)
        #expect(delivered(after: .seconds(28)) == [room, room])
        simulation.post(in: room)
        simulation.post(in: simulation.inbox)
        #expect(Set(delivered(after: .seconds(1))) == [room, simulation.inbox])
        simulation.post(in: room)
        simulation.setMode(.foreground)
        #expect(delivered(after: .seconds(1)) == [room])
        simulation.post(in: room)
        #expect(delivered(after: .seconds(1)) == [room])
        #expect(simulation.deliveries.filter { $0.channel == room }.map(\.offset) == [1, 2, 3, 4, 5])
        expectUnbroken(simulation)
    }
}
