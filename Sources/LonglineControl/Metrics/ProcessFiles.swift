import Foundation

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// What this process has open.
enum ProcessFiles {
    /// Files and sockets, with the one that this is read from; nil where the system does not say.
    static func open() -> Int? {
        guard let directory = opendir("/proc/self/fd") else { return nil }
        defer { closedir(directory) }
        // There may be many: no name is made of any.
        var count = 0
        while readdir(directory) != nil { count += 1 }
        // The directory itself and the one above it.
        return max(count - 2, 0)
    }

    /// How many there may be (`ulimit -n`); nil: any number, or the system does not say.
    static func limit() -> Int? {
        guard let text = try? String(contentsOfFile: "/proc/self/limits", encoding: .utf8),
            let line = text.split(separator: "\n").first(where: { $0.hasPrefix("Max open files") })
        else { return nil }
        return line.split(separator: " ").dropFirst(3).first.flatMap { Int($0) }
    }
}
