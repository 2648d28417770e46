import LonglineTestKit
import Testing

@Suite("Sessions over everything that can go wrong")
struct SimulationTests {
    /// A tenth of the seeds at a time, so that a failure says soon which it is; `scripts/simulate` runs more.
    @Test("No message is lost, doubled or reordered", arguments: 0..<10 as Range<UInt64>)
    func keepsPromises(tenth: UInt64) async throws {
        let seeds = seeds(1 + tenth * 100..<101 + tenth * 100)
        let broken = await withTaskGroup(of: String?.self) { group in
            for seed in seeds { group.addTask { Self.run(seed) } }
            return await group.reduce(into: [String]()) { broken, text in if let text { broken.append(text) } }
        }
        #expect(broken.isEmpty, "\(broken.prefix(3).joined(separator: "\n"))")
    }

    private static func run(_ seed: UInt64) -> String? {
        guard let simulation = try? SessionSimulation(seed: seed) else { return "seed \(seed) doesn't start" }
        simulation.run()
        guard !simulation.checker.violations.isEmpty else { return nil }
        let violations = simulation.checker.violations.prefix(5).joined(separator: "\n  ")
        return "seed \(seed):\n  \(violations)\n  replay: scripts/simulate --seeds \(seed) --trace"
    }

    @Test("The checker notices every broken rule")
    func noticesFaults() async throws {
        let missed = await withTaskGroup(of: SimulatedFault?.self) { group in
            for fault in SimulatedFault.allCases { group.addTask { Self.isNoticed(fault) ? nil : fault } }
            return await group.reduce(into: [SimulatedFault]()) { missed, fault in if let fault { missed.append(fault) }
            }
        }
        #expect(SimulatedFault.allCases.count > 70)
        #expect(missed.isEmpty, "no seed noticed these")
    }

    private static func isNoticed(_ fault: SimulatedFault) -> Bool {
        for seed in UInt64(1)...1_000 {
            guard let simulation = try? SessionSimulation(seed: seed, faults: [fault]) else { return false }
            simulation.run()
            if !simulation.checker.violations.isEmpty { return true }
        }
        return false
    }

    @Test("A seed runs the same way again")
    func replays() throws {
        func trace() throws -> [String] {
            var lines: [String] = []
            let simulation = try SessionSimulation(seed: 7)
            simulation.trace = { lines.append($0) }
            simulation.run()
            return lines
        }
        let first = try trace()
        #expect(first.count > 1_000)
        #expect(try trace() == first)
    }

    @Test("Everything that can go wrong does, in some seeds")
    func isNotEmpty() throws {
        var counts = SessionSimulation.Counts()
        var refusals = 0
        for seed in UInt64(1)...40 {
            let simulation = try SessionSimulation(seed: seed)
            simulation.run()
            refusals += simulation.checker.refusals
            #expect(simulation.checker.acknowledgements > 20, "seed \(seed)")
            #expect(simulation.checker.deliveries > 50, "seed \(seed)")
            counts.serverCrashes += simulation.counts.serverCrashes
            counts.storeRestores += simulation.counts.storeRestores
            counts.deviceCrashes += simulation.counts.deviceCrashes
            counts.restores += simulation.counts.restores
            counts.secondRestores += simulation.counts.secondRestores
            counts.twins += simulation.counts.twins
            counts.otherPhones += simulation.counts.otherPhones
            counts.replays += simulation.counts.replays
            counts.early += simulation.counts.early
            counts.gaps += simulation.counts.gaps
            counts.batches += simulation.counts.batches
            counts.renewals += simulation.counts.renewals
            counts.roomChanges += simulation.counts.roomChanges
            counts.rightsTaken += simulation.counts.rightsTaken
            counts.channelsStopped += simulation.counts.channelsStopped
            counts.historyPages += simulation.counts.historyPages
            counts.modes += simulation.counts.modes
            counts.requests += simulation.counts.requests
            counts.replies += simulation.counts.replies
            counts.neighbours += simulation.counts.neighbours
            counts.blocks += simulation.counts.blocks
            counts.fullDisks += simulation.counts.fullDisks
            counts.otherTrims += simulation.counts.otherTrims
            counts.clockJumps += simulation.counts.clockJumps
            counts.olderRecords += simulation.counts.olderRecords
            counts.serviceOrders += simulation.counts.serviceOrders
            counts.serviceRepeats += simulation.counts.serviceRepeats
            counts.serviceBursts += simulation.counts.serviceBursts
            counts.erasures += simulation.counts.erasures
            counts.newAccounts += simulation.counts.newAccounts
            counts.switches += simulation.counts.switches
            counts.halfYears += simulation.counts.halfYears
            counts.sweptDevices += simulation.counts.sweptDevices
            counts.sweptChannels += simulation.counts.sweptChannels
        }
        #expect(refusals > 0)
        for child in Mirror(reflecting: counts).children where !["links", "connects"].contains(child.label) {
            let isCounted = child.label?.hasSuffix("Restarts") == false
            #expect(!isCounted || child.value as? Int ?? 0 > 0, "\(child.label ?? "")")
        }
    }
}
