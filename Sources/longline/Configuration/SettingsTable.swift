import Foundation
import LonglineSettings

/// Settings as text.
enum SettingsTable {
    /// What is in force, as YAML with the origins behind it: it can be read back, and nothing secret is in it.
    static func effective(_ settings: ResolvedSettings, _ catalogue: SettingCatalogue) -> String {
        let lines = catalogue.settings.map { setting -> (text: String, origin: String) in
            guard let entry = settings.entries[setting.key] else {
                guard let standard = setting.standard else { return ("# \(setting.key):", "not set") }
                let items = standard.components(separatedBy: ", ")
                return ("\(setting.key): \(shown(setting.isList ? .list(items) : .single(standard)))", "default")
            }
            if setting.isSecret { return ("# \(setting.key): ***", "\(entry.origin)") }
            return ("\(setting.key): \(shown(entry.value))", "\(entry.origin)")
        }
        let width = min(60, lines.map(\.text.count).max() ?? 0)
        return lines.map { pad($0.text, width) + "  # " + $0.origin }.joined(separator: "\n")
    }

    /// All settings, for people.
    static func keys(_ catalogue: SettingCatalogue) -> String {
        catalogue.settings.map { setting in
            var facts = [type(of: setting)]
            if let standard = setting.standard { facts.append("default \(standard)") }
            facts.append(setting.isReloadable ? "SIGHUP applies it" : "needs a restart")
            let names = setting.isSecret ? setting.key.variable : "\(setting.key.option)  \(setting.key.variable)"
            return "\(setting.key)\n    \(names)\n    \(facts.joined(separator: "; "))\n    \(setting.meaning)"
        }.joined(separator: "\n\n")
    }

    /// The table of docs/configuration.md.
    static func markdown(_ catalogue: SettingCatalogue) -> String {
        var lines = ["| key | type | default | SIGHUP | meaning |", "|---|---|---|---|---|"]
        lines += catalogue.settings.map { setting in
            let standard = setting.standard.map { "`\($0)`" } ?? ""
            let cells = [
                "`\(setting.key)`", type(of: setting), standard, setting.isReloadable ? "yes" : "", setting.meaning,
            ]
            return "| " + cells.map { $0.replacing("|", with: "\\|") }.joined(separator: " | ") + " |"
        }
        return lines.joined(separator: "\n")
    }

    private static func type(of setting: Setting) -> String {
        var text = setting.kind.name
        if let bounds = setting.kind.bounds { text += ", \(bounds)" }
        if let unit = setting.unit { text += " (\(unit))" }
        return text
    }

    private static func shown(_ value: SettingValue) -> String {
        switch value {
        case .single(let text): quoted(withoutSecrets(text))
        case .list(let items): "[" + items.map { quoted(withoutSecrets($0)) }.joined(separator: ", ") + "]"
        }
    }

    /// In quotes where YAML would take the text for something else.
    private static func quoted(_ text: String) -> String {
        guard text.wholeMatch(of: /[A-Za-z0-9_.\/][A-Za-z0-9_.\/@+=-]*/) == nil else { return text }
        var quoted = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"", "\\": quoted += "\\\(scalar)"
            case _ where scalar.value < 0x20 || scalar.value == 0x7f: quoted += String(format: "\\x%02X", scalar.value)
            default: quoted.unicodeScalars.append(scalar)
            }
        }
        return quoted + "\""
    }

    /// An address may carry a password or a key: `https://user:password@host/path?key=secret`.
    private static func withoutSecrets(_ text: String) -> String {
        guard text.contains("://") else { return text }
        return text.replacing(/:\/\/[^\/@]*@/, with: "://***@").replacing(/[?#].*/.dotMatchesNewlines(), with: "?***")
    }

    private static func pad(_ text: String, _ width: Int) -> String {
        text + String(repeating: " ", count: max(0, width - text.count))
    }
}

extension Setting {
    /// Whether it takes several values.
    fileprivate var isList: Bool {
        if case .list = kind { true } else { false }
    }
}
