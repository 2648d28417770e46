import Configuration

/// The settings that a command line names.
///
/// It looks for options of the catalogue and nothing else. What is no setting, or lacks its value, is for the command line's
/// own parser to complain about.
package struct SettingsCommandLine: Sendable {
    /// What was given, by key.
    package private(set) var values: [SettingKey: SettingValue] = [:]
    /// What `--config` names.
    package private(set) var file: String?
    /// Everything but `--config`, as it was given.
    package private(set) var arguments: [String] = []

    /// Looks through the arguments behind the command's name.
    package init(_ given: [String], catalogue: SettingCatalogue) {
        var lists: [SettingKey: [String]] = [:]
        var rest = given[...]
        while let argument = rest.popFirst() {
            guard argument != "--" else {
                arguments += [argument] + rest
                break
            }
            guard argument.hasPrefix("--") else {
                arguments.append(argument)
                continue
            }
            let parts = argument.dropFirst(2).split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            let (name, inline) = (String(parts[0]), parts.count == 2 ? String(parts[1]) : nil)
            if name == "config" {
                guard let path = inline ?? rest.popFirst() else {
                    arguments.append(argument)
                    break
                }
                file = path
                continue
            }
            arguments.append(argument)
            guard let setting = catalogue.setting(option: name) else { continue }
            if case .flag = setting.kind {
                values[setting.key] = .single(name == setting.negation ? "false" : "true")
                continue
            }
            guard let value = inline ?? rest.popFirst() else { break }
            if inline == nil { arguments.append(value) }
            if case .list = setting.kind {
                lists[setting.key, default: []].append(value)
            } else {
                values[setting.key] = .single(value)
            }
        }
        for (key, items) in lists { values[key] = .list(items) }
    }

    /// The values, for a reader of swift-configuration.
    func provider(_ catalogue: SettingCatalogue) -> InMemoryProvider {
        InMemoryProvider(
            name: "command line",
            values: Dictionary(
                uniqueKeysWithValues: values.map { key, value in
                    (
                        AbsoluteConfigKey(key.components),
                        ConfigValue(value.content, isSecret: catalogue[key]?.isSecret ?? false)
                    )
                }))
    }
}
