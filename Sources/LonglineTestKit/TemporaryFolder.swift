public import Foundation

/// A folder for a test, of this user alone, that is gone with the last who holds it.
public final class TemporaryFolder: Sendable {
    /// Where it is.
    public let url: URL
    /// The same as text, without a slash at the end.
    public var path: String { url.path }

    /// Makes it, under the system's folder for temporary files.
    public init() throws {
        url = FileManager.default.temporaryDirectory.appendingPathComponent("longline-\(UUID().uuidString)")
        try FileManager.default.createDirectory(
            at: url, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
    }

    deinit { try? FileManager.default.removeItem(at: url) }

    /// The path of a file in it, which need not be there.
    public func file(_ name: String) -> String { path + "/" + name }

    /// Writes a file at once, so that nobody reads half of it, and returns its path.
    @discardableResult
    public func write(_ name: String, _ text: String) throws -> String {
        try Data(text.utf8).write(to: url.appendingPathComponent(name), options: .atomic)
        return file(name)
    }

    /// As ``write(_:_:)``, with a mode of 0600: a secret.
    @discardableResult
    public func writeSecret(_ name: String, _ text: String) throws -> String {
        let path = try write(name, text)
        try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: path)
        return path
    }
}
