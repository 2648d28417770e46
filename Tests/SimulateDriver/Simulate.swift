import ArgumentParser
import Dispatch
import LonglineTestKit
internal import Synchronization

#if canImport(Glibc)
    internal import Glibc
#endif

/// Runs the session simulation over many seeds; `scripts/simulate` builds and starts it.
@main
struct Simulate: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "simulate", abstract: "Runs sessions over everything that can go wrong, one run for each seed.")

    @Option(help: "Seeds to run, FIRST..LAST, or one.")
    var seeds: SeedRange = SeedRange(first: 1, last: 10_000)

    @Option(help: "Goes on behind the last seed for this long.")
    var seconds: Int?

    @Option(
        help: "Rules to break on purpose, by name (\(SimulatedFault.allCases.map(\.rawValue).joined(separator: ", ")))."
    )
    var fault: [String] = []

    @Option(help: "Threads.")
    var threads = 2

    @Flag(help: "Prints everything that happens. With one seed.")
    var trace = false

    func validate() throws {
        if trace, seeds.first != seeds.last { throw ValidationError("--trace is for one seed: --seeds N --trace") }
        if let unknown = fault.first(where: { SimulatedFault(rawValue: $0) == nil }) {
            throw ValidationError("there is no rule '\(unknown)'")
        }
        if threads < 1 { throw ValidationError("at least one thread is needed") }
    }

    func run() throws {
        let faults = Set(fault.compactMap(SimulatedFault.init))
        if trace { return try traceOne(faults) }
        let next = Atomic<UInt64>(seeds.first)
        let totals = Mutex(Totals())
        let end = seconds.map { DispatchTime.now() + .seconds($0) }
        let last = seeds.last
        DispatchQueue.concurrentPerform(iterations: threads) { _ in
            while true {
                let seed = next.wrappingAdd(1, ordering: .relaxed).oldValue
                let isInTime = end.map { DispatchTime.now() < $0 } ?? false
                guard seed <= last || isInTime, let simulation = try? SessionSimulation(seed: seed, faults: faults)
                else { return }
                simulation.run()
                totals.withLock { $0.add(simulation) }
            }
        }
        let result = totals.withLock { $0 }
        print(result)
        if !result.failed.isEmpty { throw ExitCode.failure }
    }

    private func traceOne(_ faults: Set<SimulatedFault>) throws {
        let simulation = try SessionSimulation(seed: seeds.first, faults: faults)
        simulation.trace = { print($0) }
        simulation.run()
        if !simulation.checker.violations.isEmpty { throw ExitCode.failure }
    }
}

/// Seeds from one to another, both included.
struct SeedRange: ExpressibleByArgument {
    let first: UInt64
    let last: UInt64

    init(first: UInt64, last: UInt64) { (self.first, self.last) = (first, last) }

    init?(argument: String) {
        let ends = argument.split(separator: ".", omittingEmptySubsequences: true).compactMap { UInt64($0) }
        guard let first = ends.first, let last = ends.last, ends.count <= 2, first <= last, last < .max else {
            return nil
        }
        self.init(first: first, last: last)
    }

    var defaultValueDescription: String { "\(first)..\(last)" }
}

/// What all runs came to.
private struct Totals: CustomStringConvertible {
    var runs = 0
    var failed: [UInt64] = []
    private var deliveries = 0
    private var acknowledgements = 0
    private var refusals = 0
    private var counts: [String: Int] = [:]

    mutating func add(_ simulation: SessionSimulation) {
        runs += 1
        deliveries += simulation.checker.deliveries
        acknowledgements += simulation.checker.acknowledgements
        refusals += simulation.checker.refusals
        for child in Mirror(reflecting: simulation.counts).children {
            if let label = child.label, let count = child.value as? Int { counts[label, default: 0] += count }
        }
        guard !simulation.checker.violations.isEmpty else { return }
        failed.append(simulation.seed)
        guard failed.count <= 10 else { return }
        print("seed \(simulation.seed) breaks \(simulation.checker.violations.count) promises:")
        for violation in simulation.checker.violations.prefix(5) { print("  \(violation)") }
        let faults = simulation.brokenRules.map { " --fault \($0)" }.joined()
        print("  replay: scripts/simulate --seeds \(simulation.seed)\(faults) --trace")
        fflush(nil)
    }

    var description: String {
        let seen = counts.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }.joined(separator: " ")
        return """
            deliveries=\(deliveries) acknowledgements=\(acknowledgements) refusals=\(refusals) \(seen)
            \(runs) seeds, \(failed.count) of them break a promise
            """
    }
}
