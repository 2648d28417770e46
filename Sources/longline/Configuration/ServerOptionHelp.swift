import ArgumentParser
import Foundation

/// What the options of `longline server` say about themselves: the catalogue of settings says it once more, in other words,
/// nowhere.
enum ServerOptionHelp {
    /// One option.
    struct Option: Decodable, Equatable {
        struct Name: Decodable, Equatable {
            let kind: String
            let name: String
        }

        let kind: String
        let names: [Name]?
        let preferredName: Name?
        let defaultValue: String?
        let abstract: String?
        let isRepeating: Bool
        /// The option that says no, of a flag that has one.
        var negation: String?

        /// Without its dashes.
        var name: String { preferredName?.name ?? "" }
        var isFlag: Bool { kind == "flag" }
        /// What holds when it is not given.
        var standard: String? {
            guard isFlag else { return defaultValue }
            return defaultValue == "--\(name)" ? "true" : "false"
        }
        var aliases: [String] { (names ?? []).filter { $0.kind == "long" && $0.name != name }.map(\.name) }
    }

    private struct Command: Decodable { let arguments: [Option]? }
    private struct Dump: Decodable { let command: Command }

    /// All options, in the order of the help text; nothing but `--help` and `--version` is missing.
    static let all: [Option] = {
        do {
            _ = try ServerCommand.parse(["--experimental-dump-help"])
            return []
        } catch {
            let text = ServerCommand.message(for: error)
            let dump = try? JSONDecoder().decode(Dump.self, from: Data(text.utf8))
            return joined((dump?.command.arguments ?? []).filter { !["help", "version"].contains($0.name) })
        }
    }()

    /// The same, with `--no-x` as a part of `--x`.
    private static func joined(_ options: [Option]) -> [Option] {
        let names = Set(options.map(\.name))
        return options.compactMap { option in
            if option.isFlag, option.name.hasPrefix("no-"), names.contains(String(option.name.dropFirst(3))) {
                return nil
            }
            var option = option
            let negation = "no-\(option.name)"
            if option.isFlag, names.contains(negation) { option.negation = negation }
            return option
        }
    }
}
