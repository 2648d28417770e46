import Foundation
import LonglineSettings

/// A few settings of each kind.
enum ExampleCatalogue {
    static let catalogue = SettingCatalogue([
        Setting(key: SettingKey("host"), kind: .list(.text), meaning: "Where."),
        Setting(key: SettingKey("port"), kind: .integer(0...65535), meaning: "Where.", standard: "4433"),
        Setting(key: SettingKey("data"), aliases: ["data-directory"], kind: .folder, meaning: "Where."),
        Setting(
            key: SettingKey("publish.rate"), kind: .number(above: 0, upTo: 1000, includesLower: false),
            meaning: "How fast."),
        Setting(key: SettingKey("publish.burst"), kind: .integer(1...Int.max), meaning: "How many."),
        Setting(key: SettingKey("log.level"), kind: .choice(["info", "debug"]), meaning: "How much."),
        Setting(key: SettingKey("room.max-age"), kind: .time, meaning: "How long."),
        Setting(key: SettingKey("room.max-bytes"), kind: .size, meaning: "How much."),
        Setting(key: SettingKey("trust-all"), kind: .flag, meaning: "Whether."),
        Setting(
            key: SettingKey("authorize.token"), kind: .text, meaning: "Secret.", isSecret: true,
            file: SettingKey("authorize.token-file")),
        Setting(key: SettingKey("authorize.token-file"), kind: .file, meaning: "Where the secret is."),
    ])

    static func file(_ text: String) -> SettingsFile {
        SettingsFile(path: "c.yaml", bytes: Data(text.utf8), catalogue: catalogue)
    }

    static func resolve(
        file text: String? = nil, environment: [String: String] = [:], arguments: [String] = []
    ) -> ResolvedSettings {
        ResolvedSettings(
            catalogue: catalogue, file: text.map(file), environment: environment,
            commandLine: SettingsCommandLine(arguments, catalogue: catalogue), known: ["LONGLINE_CONFIG"])
    }
}
