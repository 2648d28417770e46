import Foundation

#if canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// What a process started, and what that started in turn, as it was seen: whoever's parent ends is nobody's child that could be found.
struct ProcessDescendants {
    private struct Member: Hashable {
        var pid: pid_t
        /// When it started, which tells it from a later process that has its number.
        var start: UInt64

        var runs: Bool { ProcessStatus(pid).map { $0.start == start && !$0.hasEnded } ?? false }
    }

    private var members: [Member] = []

    /// Whether all that were seen have ended.
    var haveEnded: Bool { members.allSatisfy { !$0.runs } }

    /// Looks whom a process has started by now, and whom these have.
    mutating func look(below parent: pid_t) {
        for child in Self.children(of: parent) {
            // The number may be another's since it was read.
            guard let status = ProcessStatus(child), status.parent == parent else { continue }
            let member = Member(pid: child, start: status.start)
            if !members.contains(member) { members.append(member) }
            look(below: child)
        }
    }

    /// Looks whom those that were seen have started since.
    mutating func lookAgain() {
        for member in members where member.runs { look(below: member.pid) }
    }

    func signal(_ number: Int32) {
        for member in members where member.runs { kill(member.pid, number) }
    }

    private static func children(of pid: pid_t) -> [pid_t] {
        let threads = "/proc/\(pid)/task"
        // Each file tells only what that thread started, and a program in Go for one starts others from any of its threads.
        let names = (try? FileManager.default.contentsOfDirectory(atPath: threads)) ?? []
        return names.flatMap { name in
            let text = (try? String(contentsOfFile: "\(threads)/\(name)/children", encoding: .utf8)) ?? ""
            return text.split(whereSeparator: \.isWhitespace).compactMap { pid_t($0) }
        }
    }
}

/// What the kernel tells of a process: proc(5).
private struct ProcessStatus {
    let parent: pid_t
    /// In ticks since the machine started.
    let start: UInt64
    /// Whether it only waits to be waited for.
    let hasEnded: Bool

    /// - Returns: nil where there is no such process.
    init?(_ pid: pid_t) {
        // Its name stands in parentheses, and may be of any bytes.
        guard let text = try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .isoLatin1),
            let name = text.lastIndex(of: ")")
        else { return nil }
        let fields = text[text.index(after: name)...].split(separator: " ")
        guard fields.count > 19, let parent = pid_t(fields[1]), let start = UInt64(fields[19]) else { return nil }
        self.parent = parent
        self.start = start
        hasEnded = ["Z", "X"].contains(fields[0])
    }
}
