/// One thing that can be set, wherever its value comes from.
package struct Setting: Sendable {
    /// What it is called.
    package let key: SettingKey
    /// Other names of its option, as they are typed without dashes.
    package let aliases: [String]
    /// The option that says no, without dashes, of a flag that has one.
    package let negation: String?
    /// Which values it takes.
    package let kind: SettingKind
    /// What a number counts: seconds, bytes; nil for none.
    package let unit: String?
    /// What it does.
    package let meaning: String
    /// What holds when nobody sets it, as `longline config keys` shows it; nil: nothing.
    package let standard: String?
    /// Whether a server that runs takes a new value on SIGHUP.
    package let isReloadable: Bool
    /// Whether its value is shown to nobody.
    package let isSecret: Bool
    /// The setting that names a file with the value: a secret does not belong into a configuration file itself.
    package let file: SettingKey?

    /// A setting.
    package init(
        key: SettingKey, aliases: [String] = [], negation: String? = nil, kind: SettingKind, unit: String? = nil,
        meaning: String,
        standard: String? = nil, isReloadable: Bool = false, isSecret: Bool = false, file: SettingKey? = nil
    ) {
        self.key = key
        self.aliases = aliases
        self.negation = negation
        self.kind = kind
        self.unit = unit
        self.meaning = meaning
        self.standard = standard
        self.isReloadable = isReloadable
        self.isSecret = isSecret
        self.file = file
    }
}

/// All settings of a program.
package struct SettingCatalogue: Sendable {
    /// In the order in which they are shown.
    package let settings: [Setting]
    private let byKey: [SettingKey: Setting]
    private let byOption: [String: Setting]
    /// Keys that hold others.
    private let groups: Set<SettingKey>

    /// A catalogue. Of two settings with one name the first counts.
    package init(_ settings: [Setting]) {
        self.settings = settings
        byKey = Dictionary(settings.map { ($0.key, $0) }) { first, _ in first }
        let names = settings.flatMap { setting in
            ([setting.key.optionName] + setting.aliases + (setting.negation.map { [$0] } ?? [])).map { ($0, setting) }
        }
        byOption = Dictionary(names) { first, _ in first }
        groups = Set(
            settings.flatMap { setting in
                (1..<max(1, setting.key.components.count)).map {
                    SettingKey(components: Array(setting.key.components.prefix($0)))
                }
            })
    }

    /// The setting with this key.
    package subscript(key: SettingKey) -> Setting? { byKey[key] }

    /// The setting with this option, given without its dashes.
    package func setting(option: String) -> Setting? { byOption[option] }

    /// Whether other keys begin with this one.
    package func isGroup(_ key: SettingKey) -> Bool { groups.contains(key) }

    /// The key that somebody who wrote this one may have meant.
    package func suggestion(for wrong: SettingKey) -> SettingKey? {
        // Nested otherwise, or as the option: `publish-rate`, `log.format.level`.
        if let setting = byOption[wrong.optionName] { return setting.key }
        let near = settings.map { (key: $0.key, distance: Self.distance("\($0.key)", "\(wrong)")) }
        guard let best = near.min(by: { $0.distance < $1.distance }), best.distance <= 1 + wrong.optionName.count / 4
        else { return nil }
        return best.key
    }

    /// How many characters have to be put in, taken out or replaced to get from one text to the other.
    private static func distance(_ left: String, _ right: String) -> Int {
        let (left, right) = (Array(left.prefix(64)), Array(right.prefix(64)))
        var row = Array(0...right.count)
        for (line, character) in left.enumerated() {
            var diagonal = row[0]
            row[0] = line + 1
            for (column, other) in right.enumerated() {
                let step = min(row[column] + 1, row[column + 1] + 1, diagonal + (character == other ? 0 : 1))
                diagonal = row[column + 1]
                row[column + 1] = step
            }
        }
        return row[right.count]
    }
}
