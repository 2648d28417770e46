import ArgumentParser

/// Sizes as options take them: a number of bytes, or one with K, M or G.
enum CommandLineSize {
    /// - Parameter option: the option's name, for the error.
    /// - Throws: `ValidationError` for anything else, and for zero.
    static func bytes(_ text: String, _ option: String) throws -> Int {
        let units: [Character: Int] = ["K": 1 << 10, "M": 1 << 20, "G": 1 << 30]
        let unit = text.last.flatMap { units[$0] }
        let digits = unit == nil ? text[...] : text.dropLast()
        guard let count = Int(digits), count >= 1 else {
            throw ValidationError("\(option): '\(text)' is no size such as 100000, 512K, 64M or 2G.")
        }
        let (bytes, overflow) = count.multipliedReportingOverflow(by: unit ?? 1)
        guard !overflow else { throw ValidationError("\(option): '\(text)' is more than can be counted.") }
        return bytes
    }
}
