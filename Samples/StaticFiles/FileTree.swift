import Foundation
import NIOPosix

/// The files below one directory, by the paths of requests. Nothing outside of it is reachable, by whatever path or symbolic link.
struct FileTree: Sendable {
    /// The directory, without symbolic links.
    private let root: String
    /// What the path of everything in it begins with.
    private var start: String { root == "/" ? root : root + "/" }

    /// - Throws: if there is no such directory.
    init(_ directory: String) throws {
        root = try Self.resolve(directory)
        var isDirectory: ObjCBool = false
        guard FileManager.default.fileExists(atPath: root, isDirectory: &isDirectory), isDirectory.boolValue else {
            throw POSIXError(.ENOTDIR)
        }
    }

    /// The file that a request's path names; nil: none that may be shown. Looks at the disk, so not on an event loop.
    func file(_ requestPath: String) -> String? {
        guard let parts = Self.parts(requestPath) else { return nil }
        let wanted = ([root] + parts).joined(separator: "/")
        guard let path = try? Self.resolve(wanted), path.hasPrefix(start) || path == root else { return nil }
        var isDirectory: ObjCBool = false
        guard FileManager.default.fileExists(atPath: path, isDirectory: &isDirectory) else { return nil }
        if isDirectory.boolValue { return file(requestPath: parts + ["index.html"]) }
        // What ends with a slash would be a directory; as one, the relative links in it would lead elsewhere.
        return Self.path(requestPath).hasSuffix("/") ? nil : path
    }

    private func file(requestPath parts: [String]) -> String? {
        let wanted = ([root] + parts).joined(separator: "/")
        guard let path = try? Self.resolve(wanted), path.hasPrefix(start) else { return nil }
        var isDirectory: ObjCBool = false
        guard FileManager.default.fileExists(atPath: path, isDirectory: &isDirectory), !isDirectory.boolValue else {
            return nil
        }
        return path
    }

    /// The names between the slashes, once percent signs are decoded; nil: one of them leads elsewhere, or is hidden.
    static func parts(_ requestPath: String) -> [String]? {
        let path = Self.path(requestPath)
        guard path.hasPrefix("/") else { return nil }
        var parts: [String] = []
        for raw in path.split(separator: "/") {
            guard let name = String(raw).removingPercentEncoding, !name.isEmpty, !name.hasPrefix("."),
                !name.contains(where: { $0 == "/" || $0 == "\\" || $0 == "\0" })
            else { return nil }
            parts.append(name)
        }
        return parts
    }

    private static func path(_ requestPath: String) -> Substring { requestPath.prefix { $0 != "?" && $0 != "#" } }

    private static func resolve(_ path: String) throws -> String {
        guard let resolved = realpath(path, nil) else { throw POSIXError(POSIXErrorCode(rawValue: errno) ?? .EIO) }
        defer { free(resolved) }
        return String(cString: resolved)
    }

    /// What browsers make of a file.
    static func contentType(_ path: String) -> String {
        switch (path as NSString).pathExtension.lowercased() {
        case "html", "htm": "text/html; charset=utf-8"
        case "css": "text/css; charset=utf-8"
        case "js", "mjs": "text/javascript; charset=utf-8"
        case "json": "application/json"
        case "txt", "md": "text/plain; charset=utf-8"
        case "svg": "image/svg+xml"
        case "png": "image/png"
        case "jpg", "jpeg": "image/jpeg"
        case "gif": "image/gif"
        case "webp": "image/webp"
        case "ico": "image/vnd.microsoft.icon"
        case "pdf": "application/pdf"
        case "wasm": "application/wasm"
        case "woff2": "font/woff2"
        default: "application/octet-stream"
        }
    }
}
