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

        /// Without its dashes.
        var name: String { preferredName?.name ?? "" }
        var isFlag: Bool { kind == "flag" }
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
            return (dump?.command.arguments ?? []).filter { !["help", "version"].contains($0.name) }
        }
    }()
}
