/// What a demonstration found: one row per expectation, printed as it happens and as a table at the end.
struct DemoReport {
    /// One expectation and what was seen.
    struct Row {
        let step: Int
        let expectation: String
        let seen: String
        let passed: Bool
    }

    private(set) var rows: [Row] = []

    /// Why it stopped before its last step; nil: it did not.
    var failure: String?

    var passed: Bool { failure == nil && !rows.isEmpty && rows.allSatisfy(\.passed) }

    mutating func record(step: Int, _ expectation: String, seen: String, passed: Bool) {
        rows.append(Row(step: step, expectation: expectation, seen: seen, passed: passed))
        print("  \(passed ? "ok  " : "FAIL")  \(expectation): \(seen)")
    }

    /// The table, in Markdown, so that it can be pasted as it is.
    func table() -> String {
        let header = ["step", "expectation", "seen", ""]
        let cells = rows.map { ["\($0.step)", $0.expectation, $0.seen, $0.passed ? "ok" : "FAILED"] }
        let widths = header.indices.map { column in
            ([header] + cells).map { $0[column].count }.max() ?? 0
        }
        func line(_ row: [String]) -> String {
            let padded = zip(row, widths).map { cell, width in
                cell + String(repeating: " ", count: width - cell.count)
            }
            return "| " + padded.joined(separator: " | ") + " |"
        }
        let rule = "|" + widths.map { String(repeating: "-", count: $0 + 2) }.joined(separator: "|") + "|"
        return ([line(header), rule] + cells.map(line)).joined(separator: "\n")
    }
}

/// Formats of the figures that the table shows.
enum DemoFormat {
    static func milliseconds(_ duration: Duration) -> String {
        let milliseconds = Double(duration.components.seconds) * 1e3 + Double(duration.components.attoseconds) / 1e15
        let hundredths = Int((milliseconds * 100).rounded())
        let fraction = hundredths % 100
        return "\(hundredths / 100).\(fraction < 10 ? "0" : "")\(fraction) ms"
    }
}
