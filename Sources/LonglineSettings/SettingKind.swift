/// Which values a setting takes.
package indirect enum SettingKind: Sendable, Equatable {
    /// true or false.
    case flag
    /// A whole number within bounds.
    case integer(ClosedRange<Int>)
    /// A number above the first, up to the second. With `includesLower`, the first as well.
    case number(above: Double, upTo: Double, includesLower: Bool)
    /// Any text that is not empty.
    case text
    /// One of these words.
    case choice([String])
    /// The path of a file that has to be there.
    case file
    /// The path of a folder that is made when it is not there.
    case folder
    /// A time with a unit: 90s, 15m, 24h, 30d.
    case time
    /// Bytes, in units of 1024 where K, M or G stands behind the number.
    case size
    /// Any number of these.
    case list(SettingKind)

    /// What `longline config keys` calls it.
    package var name: String {
        switch self {
        case .flag: "true or false"
        case .integer: "whole number"
        case .number: "number"
        case .text: "text"
        case .choice(let words): words.joined(separator: ", ")
        case .file: "file"
        case .folder: "folder"
        case .time: "time (90s, 15m, 24h, 30d)"
        case .size: "size (100000, 512K, 64M, 2G)"
        case .list(let element): "list of \(element.plural)"
        }
    }

    private var plural: String {
        switch self {
        case .file: "files"
        case .text: "texts"
        default: name
        }
    }

    /// The bounds, as text; nil when it has none.
    package var bounds: String? {
        switch self {
        case .integer(let range):
            range.upperBound == .max ? "\(range.lowerBound) or more" : "\(range.lowerBound) to \(range.upperBound)"
        case .number(let lower, let upper, let includesLower):
            includesLower
                ? "\(Self.plain(lower)) to \(Self.plain(upper))" : "above \(Self.plain(lower)), to \(Self.plain(upper))"
        default: nil
        }
    }

    /// The value in the form that the command line takes.
    /// - Throws: ``SettingMistake`` when the text is none of the values.
    package func value(_ text: String) throws(SettingMistake) -> String {
        switch self {
        case .flag:
            switch text.lowercased() {
            case "true", "yes", "on", "1": return "true"
            case "false", "no", "off", "0": return "false"
            default: throw SettingMistake("'\(text)' is neither true nor false")
            }
        case .integer(let range):
            guard let number = Int(text) else { throw SettingMistake("'\(text)' is no whole number") }
            guard range.contains(number) else { throw outOfBounds(text) }
            return "\(number)"
        case .number(let lower, let upper, let includesLower):
            guard let number = Double(text), number.isFinite else { throw SettingMistake("'\(text)' is no number") }
            guard number > lower || (includesLower && number == lower), number <= upper else { throw outOfBounds(text) }
            return text
        case .text, .file, .folder:
            guard !text.isEmpty else { throw SettingMistake("the value is empty") }
            return text
        case .choice(let words):
            guard words.contains(text) else {
                throw SettingMistake("'\(text)' is none of \(words.joined(separator: ", "))")
            }
            return text
        case .time:
            guard let unit = text.last, "smhd".contains(unit), let count = Int(text.dropLast()), count >= 1 else {
                throw SettingMistake("'\(text)' is no time such as 90s, 15m, 24h or 30d")
            }
            return text
        case .size:
            let digits = text.last.map { "KMG".contains($0) } ?? false ? text.dropLast() : text[...]
            guard let count = Int(digits), count >= 1 else {
                throw SettingMistake("'\(text)' is no size such as 100000, 512K, 64M or 2G")
            }
            return text
        case .list(let element):
            return try element.value(text)
        }
    }

    private func outOfBounds(_ text: String) -> SettingMistake {
        SettingMistake("\(text) is out of bounds: it has to be \(bounds ?? "something else")")
    }

    private static func plain(_ number: Double) -> String {
        number == number.rounded() && abs(number) < 1e15 ? "\(Int(number))" : "\(number)"
    }
}

/// What is wrong with a value.
package struct SettingMistake: Error, CustomStringConvertible {
    /// For people, without the setting's name.
    package let description: String

    init(_ description: String) { self.description = description }
}
