/// Where a setting's value comes from, the weakest first.
package enum SettingOrigin: Hashable, Sendable, CustomStringConvertible {
    /// Nobody set it.
    case standard
    /// A line of a file, counted from 1.
    case file(String, line: Int)
    /// A variable of the environment.
    case variable(String)
    /// An option on the command line.
    case option(String)

    package var description: String {
        switch self {
        case .standard: "default"
        case .file(let path, let line): "\(path):\(line)"
        case .variable(let name): "environment: \(name)"
        case .option(let option): "command line: \(option)"
        }
    }
}

/// Something that is wrong with what was set, and where.
package struct SettingProblem: Error, Hashable, Sendable, CustomStringConvertible {
    /// Where it was set; nil: it is about no single place.
    package let origin: SettingOrigin?
    /// The setting's name as it was written.
    package let key: String?
    /// What is wrong, and what to do.
    package let message: String

    /// A problem.
    package init(_ origin: SettingOrigin?, key: String? = nil, _ message: String) {
        self.origin = origin
        self.key = key
        self.message = message
    }

    package var description: String {
        [origin.map { "\($0)" }, key, message].compactMap { $0 }.joined(separator: ": ")
    }
}
