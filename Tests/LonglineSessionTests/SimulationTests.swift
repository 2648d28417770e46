import LonglineTestKit
import Testing

@Suite("Sessions over everything that can go wrong")
struct SimulationTests {
    @Test("No message is lost, doubled or reordered", arguments: seeds(1..<201))
    func keepsPromises(seed: UInt64) throws {
        let simulation = try SessionSimulation(seed: seed)
        simulation.run()
        let violations = simulation.checker.violations.prefix(5).joined(separator: "\n")
        #expect(violations.isEmpty, "seed \(seed):\n\(violations)")
    }

    @Test("The checker notices a broken rule", arguments: SimulatedFault.allCases)
    func noticesFaults(fault: SimulatedFault) throws {
        for seed in UInt64(1)...100 {
            let simulation = try SessionSimulation(seed: seed, faults: [fault])
            simulation.run()
            if !simulation.checker.violations.isEmpty { return }
        }
        Issue.record("no seed noticed \(fault)")
    }
}
