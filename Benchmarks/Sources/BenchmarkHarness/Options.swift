#if canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// What every benchmark takes on its command line: `--rounds N` and `--seconds S`.
public struct Options: Sendable {
    /// How often each contender is measured.
    public var rounds = 7
    /// How long a round lasts at least.
    public var roundTime = Duration.milliseconds(300)

    /// Reads the process's arguments; ends the process with a message when it can't.
    public init() {
        var arguments = CommandLine.arguments.dropFirst()
        while let option = arguments.popFirst() {
            let value = arguments.popFirst()
            switch (option, value.flatMap(Double.init)) {
            case ("--rounds", let number?) where number >= 1: rounds = Int(min(number, 1_000))
            case ("--seconds", let number?) where number > 0: roundTime = .seconds(min(number, 600))
            default:
                print("usage: \(CommandLine.arguments[0]) [--rounds N] [--seconds S per round]")
                exit(64)
            }
        }
    }
}
