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
    ///   - extra: the benchmark's own options with their defaults: positive numbers up to 10^9, whole ones where the default is.
    ///   - rounds: how often each contender is measured unless `--rounds` says otherwise.
    public init(extra: [String: Double] = [:], rounds: Int = 7) {
        self.extra = extra
        self.rounds = rounds
        let name = CommandLine.arguments.first?.split(separator: "/").last ?? "benchmark"
        let own = extra.sorted { $0.key < $1.key }.map { " [\($0.key) \($0.value.readable)]" }.joined()
        let shared = "[--rounds \(rounds)] [--seconds \(roundTime.inSeconds.readable)]"
        let usage = "usage, with the defaults: \(name) \(shared)\(own)\n"
        var arguments = CommandLine.arguments.dropFirst()
        while let option = arguments.popFirst() {
            if ["-h", "--help"].contains(option) {
                print(usage, terminator: "")
                exit(0)
            }
            let value = arguments.popFirst()
            guard let number = value.flatMap(Double.init), take(option, number) else {
                let text = Array("error: \(option) \(value ?? "without a number")\n\(usage)".utf8)
                _ = write(STDERR_FILENO, text, text.count)
                exit(64)
            }
        }
    }

    /// - Returns: whether there is such an option, and this is a value for it.
    private mutating func take(_ option: String, _ value: Double) -> Bool {
        switch option {
        case "--rounds" where value >= 1: rounds = Int(min(value, 1_000))
        case "--seconds" where value > 0: roundTime = .seconds(min(value, 600))
        default:
            guard let standard = extra[option], value > 0, value <= 1e9 else { return false }
            // A half of a connection is none, and no divisor.
            guard value == value.rounded() || standard != standard.rounded() else { return false }
            extra[option] = value
        }
        return true
    }
}
