/// One of the things that a benchmark compares.
public struct Contender {
    /// For the table.
    public let name: String
    let body: () throws -> Int

    /// A contender.
    /// - Parameter body: one batch of work, of at least a few microseconds; returns how many operations it was. What it
    ///   computes must go through ``consume(_:)``, or the compiler leaves it out.
    public init(_ name: String, _ body: @escaping () throws -> Int) {
        self.name = name
        self.body = body
    }

    /// Operations per second in one round of at least `time`.
    func round(_ time: Duration) throws -> Double {
        let clock = ContinuousClock()
        let start = clock.now
        var operations = 0
        var elapsed = Duration.zero
        repeat {
            operations += try body()
            elapsed = clock.now - start
        } while elapsed < time
        return Double(operations) / elapsed.inSeconds
    }
}

/// What a contender reached: one rate per round, in operations per second.
public struct Rates: Sendable {
    /// In the order of the rounds.
    public let rounds: [Double]

    /// Rates that were measured or computed elsewhere.
    public init(rounds: [Double]) { self.rounds = rounds }

    /// The middle round.
    public var median: Double { rounds.median }
    /// How far the middle half of the rounds lies apart, relative to the median: the noise.
    public var spread: Double {
        let sorted = rounds.sorted()
        return (sorted[sorted.count * 3 / 4] - sorted[sorted.count / 4]) / median
    }
}

/// Measures contenders in turns (A B C A B C …), so that whatever else the machine does hits all of them alike. The first
/// turn warms up and isn't counted. Prints a line for each.
public func measure(_ contenders: [Contender], options: Options) throws -> [Rates] {
    var rates = contenders.map { _ in [Double]() }
    for round in 0...options.rounds {
        for (index, contender) in contenders.enumerated() {
            let rate = try contender.round(options.roundTime)
            if round > 0 { rates[index].append(rate) }
        }
    }
    let results = rates.map { Rates(rounds: $0) }
    let width = contenders.map(\.name.count).max() ?? 0
    for (contender, result) in zip(contenders, results) {
        let name = contender.name + String(repeating: " ", count: width - contender.name.count)
        print("\(name)  \(result.median.readable)/s  ±\((result.spread * 50).readable) %")
    }
    return results
}

/// How many times faster `ours` was: the median over the turns, so that slow turns weigh the same on both.
public func ratio(_ ours: Rates, over peer: Rates) -> Double {
    zip(ours.rounds, peer.rounds).map { $0 / $1 }.median
}

/// Keeps the compiler from leaving out the computation of a value.
@inline(never)
public func consume<Value>(_ value: Value) { withExtendedLifetime(value) {} }

extension [Double] {
    /// The middle value; NaN of nothing.
    public var median: Double {
        let sorted = sorted()
        guard !sorted.isEmpty else { return .nan }
        return (sorted[(sorted.count - 1) / 2] + sorted[sorted.count / 2]) / 2
    }
}

extension Duration {
    /// In seconds.
    public var inSeconds: Double { Double(components.seconds) + Double(components.attoseconds) * 1e-18 }
}
