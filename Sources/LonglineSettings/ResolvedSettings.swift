import Configuration
import Synchronization

/// The settings that are in force: of each the value from the strongest place that has one.
///
/// From weak to strong: defaults, the file, the environment, the command line.
package struct ResolvedSettings: Sendable {
    /// A value that somebody set.
    package struct Entry: Hashable, Sendable {
        /// What it is.
        package let value: SettingValue
        /// Where that was said.
        package let origin: SettingOrigin

        /// An entry.
        package init(_ value: SettingValue, _ origin: SettingOrigin) {
            self.value = value
            self.origin = origin
        }
    }

    /// What was set, by key.
    package private(set) var entries: [SettingKey: Entry] = [:]
    /// What is wrong, each with its place. A setting with a problem has no entry.
    package private(set) var problems: [SettingProblem] = []
    /// What looks like a mistake and is none for sure.
    package private(set) var warnings: [SettingProblem] = []

    /// Asks the file, the environment and the command line.
    /// - Parameters:
    ///   - file: nil when there is none.
    ///   - known: variables of the environment that begin like ours and are no settings.
    package init(
        catalogue: SettingCatalogue, file: SettingsFile?, environment: [String: String],
        commandLine: SettingsCommandLine, known: Set<String> = []
    ) {
        let places = AnsweringPlaces()
        let secret = Set(catalogue.settings.filter(\.isSecret).map(\.key.variable))
        let variables = EnvironmentVariablesProvider(
            environmentVariables: environment,
            secretsSpecifier: .dynamic { name, _ in secret.contains(name) }, arraySeparator: " ")
        var providers: [any ConfigProvider] = [
            commandLine.provider(catalogue), variables.prefixKeys(with: "longline"),
        ]
        if let file {
            providers.append(file.provider)
            problems += file.problems
        }
        let reader = ConfigReader(providers: providers, accessReporter: places)
        for setting in catalogue.settings {
            let key = ConfigKey(setting.key.components)
            let found: SettingValue?
            if case .list = setting.kind {
                found = reader.stringArray(forKey: key, isSecret: setting.isSecret).map(SettingValue.list)
            } else {
                found = reader.string(forKey: key, isSecret: setting.isSecret).map(SettingValue.single)
            }
            guard let found, let place = places.last else { continue }
            switch place {
            case 0: entries[setting.key] = Entry(found, .option(setting.key.option))
            case 1: take(found, setting)
            default:
                guard let file, let entry = file.entries[setting.key] else { continue }
                entries[setting.key] = Entry(entry.value, .file(file.path, line: entry.line))
            }
        }
        noteUnknown(environment, catalogue, known)
    }

    /// A value from the environment: what it is worth is not known yet.
    private mutating func take(_ value: SettingValue, _ setting: Setting) {
        let origin = SettingOrigin.variable(setting.key.variable)
        do {
            switch value {
            case .single(let text): entries[setting.key] = Entry(.single(try setting.kind.value(text)), origin)
            case .list(let texts):
                var items: [String] = []
                for text in texts where !text.isEmpty { items.append(try setting.kind.value(text)) }
                entries[setting.key] = Entry(.list(items), origin)
            }
        } catch {
            problems.append(SettingProblem(origin, key: "\(setting.key)", setting.isSecret ? "is empty" : "\(error)"))
        }
    }

    private mutating func noteUnknown(
        _ environment: [String: String], _ catalogue: SettingCatalogue, _ known: Set<String>
    ) {
        let variables = Set(catalogue.settings.map(\.key.variable)).union(known)
        for name in environment.keys.sorted() where name.hasPrefix(SettingKey.variablePrefix) {
            guard !variables.contains(name) else { continue }
            let written = name.dropFirst(SettingKey.variablePrefix.count).lowercased().replacing("_", with: "-")
            let meant = catalogue.suggestion(for: SettingKey(components: [written]))
            warnings.append(
                SettingProblem(
                    .variable(name), "there is no such setting\(meant.map { ", did you mean \($0.variable)?" } ?? "")"))
        }
    }

    /// Options for everything that comes from the file and the environment, to stand before what the command line says.
    /// - Parameter keys: settings to leave out.
    package func arguments(_ catalogue: SettingCatalogue, without keys: Set<SettingKey> = []) -> [String] {
        var arguments: [String] = []
        for setting in catalogue.settings where !keys.contains(setting.key) && !setting.isSecret {
            guard let entry = entries[setting.key] else { continue }
            if case .option = entry.origin { continue }
            if case .flag = setting.kind {
                if entry.value == .single("true") {
                    arguments.append(setting.key.option)
                } else if let negation = setting.negation {
                    arguments.append("--\(negation)")
                }
            } else {
                arguments += entry.value.items.map { "\(setting.key.option)=\($0)" }
            }
        }
        return arguments
    }
}

/// Remembers which provider the last value came from.
private final class AnsweringPlaces: AccessReporter {
    private let place = Mutex<Int?>(nil)

    /// Its place among the reader's providers; nil: none had a value.
    var last: Int? { place.withLock { $0 } }

    func report(_ event: AccessEvent) {
        // The reader asks until one answers.
        let answering = event.providerResults.firstIndex { (try? $0.result.get().value) != nil }
        place.withLock { $0 = answering }
    }
}
