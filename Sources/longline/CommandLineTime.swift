import ArgumentParser

/// Times as options take them: a number with s, m, h or d.
enum CommandLineTime {
    /// - Parameter option: the option's name, for the error.
    /// - Throws: `ValidationError` for anything else, zero, and more than a hundred years' worth of seconds as the number.
    static func milliseconds(_ text: String, _ option: String) throws -> UInt64 {
        let units: [Character: UInt64] = ["s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000]
        guard let unit = text.last.flatMap({ units[$0] }), let count = UInt64(text.dropLast()),
            (1...36_500 * 86_400).contains(count)
        else { throw ValidationError("\(option): '\(text)' is no time such as 90s, 15m, 24h or 30d.") }
        return count * unit
    }

    /// - Parameter bounds: what it may be, and how that is said.
    /// - Throws: `ValidationError` for what is no time, or out of bounds.
    static func duration(
        _ text: String, _ option: String, _ range: ClosedRange<Duration>, _ bounds: String
    ) throws -> Duration {
        let time = Duration.milliseconds(try milliseconds(text, option))
        guard range.contains(time) else { throw ValidationError("\(option) has to be \(bounds).") }
        return time
    }
}
