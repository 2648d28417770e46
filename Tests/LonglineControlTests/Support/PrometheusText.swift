import Testing

/// The text that Prometheus reads, taken apart by the rules of its format (0.0.4) and those that `promtool check metrics` adds.
struct PrometheusText {
    /// The samples, by name and labels as they stand.
    private(set) var samples: [String: Double] = [:]
    /// What each family is.
    private(set) var kinds: [String: String] = [:]
    private(set) var help: [String: String] = [:]

    /// Takes it apart, and fails the test where it breaks a rule.
    init(_ text: String) {
        #expect(text.hasSuffix("\n"), "the last line has no end")
        var family = ""
        for line in text.split(separator: "\n", omittingEmptySubsequences: false).dropLast() {
            if let match = line.wholeMatch(of: /# HELP ([a-zA-Z_:][a-zA-Z0-9_:]*) (.+)/) {
                family = String(match.1)
                #expect(help.updateValue(String(match.2), forKey: family) == nil && kinds[family] == nil, "\(line)")
            } else if let match = line.wholeMatch(of: /# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge|histogram)/) {
                #expect(help[String(match.1)] == nil || family == match.1, "\(line): its HELP stands elsewhere")
                family = String(match.1)
                #expect(kinds.updateValue(String(match.2), forKey: family) == nil, "\(line): twice")
            } else {
                add(line, of: family)
            }
        }
        for (name, kind) in kinds { check(name, kind) }
    }

    private mutating func add(_ line: Substring, of family: String) {
        let pattern = /([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\]|\\["\\n])*",?)*\})? (\S+)/
        guard let match = line.wholeMatch(of: pattern), let value = Double(match.3.replacing("+Inf", with: "inf"))
        else {
            Issue.record("no sample: \(line)")
            return
        }
        let suffixes = kinds[family] == "histogram" ? ["_bucket", "_sum", "_count"] : [""]
        #expect(suffixes.contains { family + $0 == match.1 }, "\(line) stands in \(family)")
        let name = String(match.1) + (match.2.map(String.init) ?? "")
        #expect(samples.updateValue(value, forKey: name) == nil, "\(line): twice")
    }

    private func check(_ name: String, _ kind: String) {
        #expect(name.hasSuffix("_total") == (kind == "counter"), "\(name) is a \(kind)")
        for unit in ["milliseconds", "_ms", "minutes", "hours", "kilobytes", "megabytes", "percent"] {
            #expect(!name.contains(unit), "\(name) is not in a base unit")
        }
        for suffix in ["_bucket", "_sum", "_count"] where kind != "histogram" {
            #expect(!name.hasSuffix(suffix), "\(name) ends as a histogram's series")
        }
    }
}
