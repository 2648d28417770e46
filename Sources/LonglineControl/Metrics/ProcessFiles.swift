import Foundation

/// What this process has open.
enum ProcessFiles {
    /// Files and sockets, with the one that this is read from; nil where the system does not say.
    static func open() -> Int? { (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd"))?.count }

    /// How many there may be (`ulimit -n`); nil: any number, or the system does not say.
    static func limit() -> Int? {
        guard let text = try? String(contentsOfFile: "/proc/self/limits", encoding: .utf8),
            let line = text.split(separator: "\n").first(where: { $0.hasPrefix("Max open files") })
        else { return nil }
        return line.split(separator: " ").dropFirst(3).first.flatMap { Int($0) }
    }
}
