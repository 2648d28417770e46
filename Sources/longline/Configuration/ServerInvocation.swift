import ArgumentParser
import Foundation
import LonglineSettings

/// How a server was asked to run: enough to work out its settings, at the start and again whenever the file changes.
struct ServerInvocation: Sendable {
    /// Where the Debian package has it.
    static let installedPath = "/etc/longline/longline.yaml"

    let commandLine: SettingsCommandLine
    let environment: [String: String]
    /// The configuration file; nil: there is none.
    let path: String?

    /// - Parameter arguments: what stands behind `longline server`.
    init(arguments: [String], environment: [String: String]) {
        commandLine = SettingsCommandLine(arguments, catalogue: ServerSettings.catalogue)
        self.environment = environment
        path = commandLine.file ?? environment["LONGLINE_CONFIG"].flatMap { $0.isEmpty ? nil : $0 }
    }

    /// The one of this process. What it was started with does not change.
    static let ofThisProcess = ServerInvocation(
        arguments: Array(CommandLine.arguments.dropFirst(2)), environment: ProcessInfo.processInfo.environment)

    /// What came out of reading everything.
    struct Outcome {
        let settings: ResolvedSettings
        /// nil when something is wrong.
        let command: ServerCommand?
        /// Each with its place.
        let problems: [SettingProblem]
        /// What a server starts with all the same, each with its place.
        var warnings: [SettingProblem] = []
        /// What is wrong with the command line alone, in its parser's words.
        let commandLineError: (any Error)?
    }

    /// Reads the file and those that it names, and checks everything together.
    func evaluate() -> Outcome {
        let catalogue = ServerSettings.catalogue
        let settings = ResolvedSettings(
            catalogue: catalogue, file: path.map { SettingsFile(path: $0, catalogue: catalogue) },
            environment: environment, commandLine: commandLine, known: ServerSettings.otherVariables)
        var problems = settings.problems + Self.emptyLists(settings, catalogue)
        let files = ReferencedFiles.problems(in: settings)
        let broken = Set(problems.compactMap(\.key))
        var leftOut: Set<SettingKey> = []
        // The options' own rules, those about several of them too. Each round leaves out what the one before complained about.
        while true {
            do {
                let arguments = settings.arguments(catalogue, without: leftOut) + commandLine.arguments
                let command = try ServerCommand.parse(arguments)
                let untried = Set((problems + files).compactMap(\.key).map { SettingKey($0) }).union(leftOut)
                let trial = ConfigurationTrial(command, settings, without: untried)
                problems += files + trial.problems
                return Outcome(
                    settings: settings, command: problems.isEmpty ? command : nil, problems: problems,
                    warnings: trial.warnings, commandLineError: nil)
            } catch {
                let message = ServerCommand.message(for: error)
                let named = Self.settings(namedIn: message, catalogue)
                let culprits = named.filter { key in
                    guard let entry = settings.entries[key], !leftOut.contains(key) else { return false }
                    if case .option = entry.origin { return false }
                    return true
                }
                // What goes with a value that is wrong itself was complained about already.
                let followsFromOthers = named.contains { broken.contains("\($0)") || leftOut.contains($0) }
                guard !culprits.isEmpty else {
                    return Outcome(
                        settings: settings, command: nil, problems: problems + files,
                        commandLineError: followsFromOthers ? nil : error)
                }
                if !followsFromOthers {
                    problems += culprits.map { key in
                        SettingProblem(
                            settings.entries[key]?.origin, key: "\(key)", Self.words(message, of: key, catalogue))
                    }
                }
                leftOut.formUnion(culprits)
            }
        }
    }

    /// Lists without an item, of settings that have a default: that would be in force, whatever was meant.
    private static func emptyLists(_ settings: ResolvedSettings, _ catalogue: SettingCatalogue) -> [SettingProblem] {
        catalogue.settings.compactMap { setting in
            guard setting.standard != nil, let entry = settings.entries[setting.key], entry.value == .list([]) else {
                return nil
            }
            return SettingProblem(
                entry.origin, key: "\(setting.key)", "the list is empty: leave the setting out for its default")
        }
    }

    /// The settings whose options a message names, in its order.
    private static func settings(namedIn message: String, _ catalogue: SettingCatalogue) -> [SettingKey] {
        var keys: [SettingKey] = []
        for match in message.matches(of: /--([a-z][a-z-]*)/) {
            guard let setting = catalogue.setting(option: String(match.1)) else { continue }
            if !keys.contains(setting.key) { keys.append(setting.key) }
        }
        return keys
    }

    /// What a message says of a setting that is named in front of it already.
    static func words(_ message: String, of key: SettingKey, _ catalogue: SettingCatalogue) -> String {
        let prefix = "\(key.option): "
        return withKeys(message.hasPrefix(prefix) ? String(message.dropFirst(prefix.count)) : message, catalogue)
    }

    /// A message with the names that files use.
    static func withKeys(_ message: String, _ catalogue: SettingCatalogue) -> String {
        message.replacing(/--([a-z][a-z-]*)/) { match in
            catalogue.setting(option: String(match.1)).map { "\($0.key)" } ?? String(match.0)
        }
    }
}
