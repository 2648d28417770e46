import Foundation
import LonglineSettings

/// The files that settings name.
enum ReferencedFiles {
    /// Those that are not there, or that this process can't read.
    static func problems(in settings: ResolvedSettings) -> [SettingProblem] {
        var problems: [SettingProblem] = []
        for setting in ServerSettings.catalogue.settings {
            guard let entry = settings.entries[setting.key] else { continue }
            let paths: [String]
            switch setting.kind {
            case .file, .list(.file): paths = entry.value.items
            // Key sets are files or addresses.
            case .list(.text) where setting.key == SettingKey("jwks"):
                paths = entry.value.items.filter { !$0.hasPrefix("https://") && !$0.hasPrefix("http://") }
            default: continue
            }
            for path in paths {
                guard let message = problem(path) else { continue }
                problems.append(SettingProblem(entry.origin, key: "\(setting.key)", message))
            }
        }
        return problems
    }

    /// Why this process can't read a file; nil: it can.
    static func problem(_ path: String) -> String? {
        var isFolder: ObjCBool = false
        guard FileManager.default.fileExists(atPath: path, isDirectory: &isFolder) else {
            return "there is no file \(path)"
        }
        if isFolder.boolValue { return "\(path) is a folder" }
        return FileManager.default.isReadableFile(atPath: path) ? nil : "\(path) can't be read: check who may"
    }
}
