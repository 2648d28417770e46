import Configuration
package import Foundation
import Yams

/// A configuration file: what it sets, on which line, and what is wrong with it.
///
/// The YAML snapshot that comes with swift-configuration knows no lines, keeps the last of two values for one key, and can't
/// tell which of its keys nobody asks for. So the file is read here, and handed over as values.
package struct SettingsFile: Sendable {
    /// One value and its place.
    package struct Entry: Sendable {
        /// As the catalogue's kinds have it.
        package let value: SettingValue
        /// From 1.
        package let line: Int
    }

    /// Where it is.
    package let path: String
    /// What it sets, by key. What is wrong is left out.
    package private(set) var entries: [SettingKey: Entry] = [:]
    /// What is wrong with it, by line.
    package private(set) var problems: [SettingProblem] = []

    /// A file may have so many bytes.
    package static let maximumSize = 1 << 20

    /// Reads a file.
    package init(path: String, catalogue: SettingCatalogue) {
        do {
            let handle = try FileHandle(forReadingFrom: URL(fileURLWithPath: path))
            defer { try? handle.close() }
            let bytes = try handle.read(upToCount: Self.maximumSize + 1) ?? Data()
            self.init(path: path, bytes: bytes, catalogue: catalogue)
        } catch {
            self.init(path: path)
            var isFolder: ObjCBool = false
            if !FileManager.default.fileExists(atPath: path, isDirectory: &isFolder) {
                note("there is no such file")
            } else {
                note(isFolder.boolValue ? "is a folder, not a file" : "can't be read: check who may read it")
            }
        }
    }

    /// Takes a file's content.
    package init(path: String, bytes: Data, catalogue: SettingCatalogue) {
        self.init(path: path)
        if bytes.count > Self.maximumSize {
            note("is larger than \(Self.maximumSize) bytes")
        } else if let text = String(validating: bytes, as: UTF8.self) {
            read(text, catalogue)
        } else {
            note("is not UTF-8")
        }
    }

    private init(path: String) { self.path = path }

    /// The values, for a reader of swift-configuration.
    var provider: InMemoryProvider {
        InMemoryProvider(
            name: path,
            values: Dictionary(
                uniqueKeysWithValues: entries.map { key, entry in
                    (AbsoluteConfigKey(key.components), ConfigValue(entry.value.content, isSecret: false))
                }))
    }

    private mutating func read(_ text: String, _ catalogue: SettingCatalogue) {
        // Some editors write a byte-order mark, which the parser would take for a document of its own.
        let hasMark = text.unicodeScalars.first == "\u{FEFF}"
        do {
            switch try Parser(yaml: hasMark ? String(text.unicodeScalars.dropFirst()) : text).singleRoot() {
            case .mapping(let mapping): read(mapping, below: [], catalogue)
            case nil: break
            // A file with nothing but comments.
            case .scalar(let scalar) where Self.isNull(scalar): break
            case .some(let root): note(root, nil, "a configuration is made of lines with 'key: value'")
            }
        } catch {
            problems.append(problem(error))
        }
        problems.sort { Self.line($0) < Self.line($1) }
    }

    private mutating func read(_ mapping: Node.Mapping, below group: [String], _ catalogue: SettingCatalogue) {
        for (name, node) in mapping {
            guard case .scalar(let scalar) = name else {
                note(name, nil, "a key has to be a word")
                continue
            }
            // A dot stands for a level: what `longline config show` prints is a configuration, too.
            let parts = scalar.string.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
            let key = SettingKey(components: group + parts)
            if let setting = catalogue[key] {
                read(node, at: name, setting)
            } else if catalogue.isGroup(key) {
                switch node {
                case .mapping(let inner): read(inner, below: key.components, catalogue)
                case .scalar(let scalar) where Self.isNull(scalar): break
                default: note(name, key, "is a group: its keys belong below it, indented")
                }
            } else {
                let suggestion = catalogue.suggestion(for: key).map { ", did you mean \($0)?" } ?? ""
                note(name, key, "there is no such setting\(suggestion)")
            }
        }
    }

    private mutating func read(_ node: Node, at name: Node, _ setting: Setting) {
        if let earlier = entries[setting.key] {
            return note(name, setting.key, "is set twice, on line \(earlier.line) before")
        }
        if setting.isSecret {
            let advice = setting.file.map { ": put it into a file of its own and name that with \($0)" } ?? ""
            return note(name, setting.key, "a secret has no place here\(advice)")
        }
        do {
            let value: SettingValue
            switch (setting.kind, node) {
            case (_, .scalar(let scalar)) where Self.isNull(scalar):
                throw SettingMistake("has no value: give it one, or leave the line out")
            case (.list(let element), .sequence(let nodes)):
                var items: [String] = []
                for (index, node) in nodes.enumerated() {
                    guard case .scalar(let scalar) = node, !Self.isNull(scalar) else {
                        throw SettingMistake("item \(index + 1) of the list is no single value")
                    }
                    items.append(try element.value(scalar.string))
                }
                value = .list(items)
            case (.list, _):
                throw SettingMistake("takes a list: [first, second], or one item a line behind '- '")
            case (_, .scalar(let scalar)):
                value = .single(try setting.kind.value(scalar.string))
            default:
                throw SettingMistake("takes a single value (\(setting.kind.name))")
            }
            entries[setting.key] = Entry(value: value, line: name.mark?.line ?? 0)
        } catch {
            note(name, setting.key, "\(error)")
        }
    }

    /// Notes what is wrong with the file as a whole.
    private mutating func note(_ message: String) {
        problems.append(SettingProblem(nil, key: path, message))
    }

    private mutating func note(_ node: Node, _ key: SettingKey?, _ message: String) {
        problems.append(
            SettingProblem(.file(path, line: node.mark?.line ?? 1), key: key.map { "\($0)" }, message))
    }

    private func problem(_ error: any Error) -> SettingProblem {
        switch error as? YamlError {
        case .scanner(_, let problem, let mark, _), .parser(_, let problem, let mark, _),
            .composer(_, let problem, let mark, _):
            SettingProblem(.file(path, line: mark.line), "is no YAML: \(problem)")
        case .duplicatedKeysInMapping(let keys, let context):
            SettingProblem(
                .file(path, line: context.mark.line), key: keys.joined(separator: ", "),
                "is set here and once more below")
        default:
            SettingProblem(nil, key: path, "is no YAML")
        }
    }

    /// An empty value, `~` or `null`, without quotes.
    private static func isNull(_ scalar: Node.Scalar) -> Bool {
        scalar.style == .plain && ["", "~", "null", "Null", "NULL"].contains(scalar.string)
    }

    private static func line(_ problem: SettingProblem) -> Int {
        if case .file(_, let line) = problem.origin { line } else { 0 }
    }
}

extension SettingValue {
    /// As swift-configuration has it.
    var content: ConfigContent {
        switch self {
        case .single(let text): .string(text)
        case .list(let items): .stringArray(items)
        }
    }
}
