/// The last line of a benchmark: its name, then `key=value` for each figure.
public struct Report {
    private var line: String

    /// A report of the benchmark `name`.
    public init(_ name: String) { line = name }

    /// Adds a figure, to four digits.
    public mutating func add(_ key: String, _ value: Double) { line += " \(key)=\(value.readable)" }
    /// Adds a count.
    public mutating func add(_ key: String, _ value: Int) { line += " \(key)=\(value)" }

    /// Prints the line.
    public func finish() { print(line) }
}

extension Double {
    /// Four digits, without an exponent.
    public var readable: String {
        guard isFinite else { return "\(self)" }
        var scale = 1.0
        // As many decimal places as give four digits, at most six.
        for _ in 0..<6 where abs(self) * scale < 1_000 { scale *= 10 }
        let rounded = (self * scale).rounded() / scale
        return rounded == rounded.rounded() && abs(rounded) < 1e15 ? "\(Int64(rounded))" : "\(rounded)"
    }
}
