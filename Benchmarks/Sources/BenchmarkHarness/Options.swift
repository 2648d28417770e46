#if canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// What every benchmark takes on its command line: `--rounds N` and `--seconds S`, and what is its own.
public struct Options: Sendable {
    /// How often each contender is measured.
    public var rounds: Int
    /// How long a round lasts at least.
    public var roundTime = Duration.milliseconds(300)

    private var extra: [String: Double]

    /// The value of one of the benchmark's own options.
    public subscript(name: String) -> Double { extra[name] ?? .nan }

    /// Reads the process's arguments; ends the process with a message when it can't.
    /// - Parameters:
    ///   - extra: the benchmark's own options, all positive numbers, with their defaults.
    ///   - rounds: how often each contender is measured unless `--rounds` says otherwise.
    public init(extra: [String: Double] = [:], rounds: Int = 7) {
        self.extra = extra
        self.rounds = rounds
        var arguments = CommandLine.arguments.dropFirst()
        while let option = arguments.popFirst() {
            let value = arguments.popFirst()
            switch (option, value.flatMap(Double.init)) {
            case ("--rounds", let number?) where number >= 1: self.rounds = Int(min(number, 1_000))
            case ("--seconds", let number?) where number > 0: roundTime = .seconds(min(number, 600))
            case (_, let number?) where extra[option] != nil && number > 0: self.extra[option] = number
            default:
                let own = extra.keys.sorted().map { " [\($0) N]" }.joined()
                print("usage: \(CommandLine.arguments[0]) [--rounds N] [--seconds S per round]\(own)")
                exit(64)
            }
        }
    }
}
