import Foundation
import LonglineSettings

/// What the files held that a server reads at its start only: another content takes effect as little as another path.
struct StartFiles: Sendable {
    /// Larger ones are not compared: what settings name is a few certificates or endpoints.
    private static let limit = 1 << 20

    private let contents: [String: Data]

    /// Reads the files that these settings name.
    init(_ settings: ResolvedSettings) {
        let paths = Self.settings.flatMap { Self.paths($0, settings) }
        contents = Dictionary(paths.compactMap { path in Self.read(path).map { (path, $0) } }) { first, _ in first }
    }

    /// The settings that name a file which holds something else now, or can't be read any more.
    func changed(_ settings: ResolvedSettings) -> [Setting] {
        Self.settings.filter { setting in
            Self.paths(setting, settings).contains { path in contents[path].map { $0 != Self.read(path) } ?? false }
        }
    }

    /// The files that a setting names, and those that they name in their turn.
    private static func paths(_ setting: Setting, _ settings: ResolvedSettings) -> [String] {
        let named = settings.entries[setting.key]?.value.items ?? []
        guard setting.key == SettingKey("webhooks") else { return named }
        return named + named.flatMap { WebhookOptions.files(namedIn: $0) }
    }

    private static var settings: [Setting] {
        ServerSettings.catalogue.settings.filter { setting in
            switch setting.kind {
            case .file, .list(.file): !setting.isReloadable
            default: false
            }
        }
    }

    private static func read(_ path: String) -> Data? {
        guard let handle = FileHandle(forReadingAtPath: path) else { return nil }
        defer { try? handle.close() }
        return try? handle.read(upToCount: limit)
    }
}
