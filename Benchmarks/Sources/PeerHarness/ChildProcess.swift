import Foundation
import Glibc

/// Another process of a benchmark, on one core, whose CPU time is counted.
public final class ChildProcess {
    /// What went wrong with a child.
    public struct Failure: Error, CustomStringConvertible {
        public let description: String
        /// A failure.
        public init(_ description: String) { self.description = description }
    }

    private let process = Process()
    private let output = Pipe()
    private let input = Pipe()
    private var unread = Data()

    /// The cores that this process may use. In a container they need not begin at 0.
    private static let cores: [Int] = {
        let status = (try? String(contentsOfFile: "/proc/self/status", encoding: .utf8)) ?? ""
        let name = "Cpus_allowed_list:"
        guard let line = status.split(separator: "\n").first(where: { $0.hasPrefix(name) }) else { return [] }
        return line.dropFirst(name.count).split(separator: ",").flatMap { range -> [Int] in
            let ends = range.split(separator: "-").compactMap { Int($0.trimmingCharacters(in: .whitespaces)) }
            guard let first = ends.first, let last = ends.last, first <= last else { return [] }
            return Array(first...last)
        }
    }()

    /// Its process ID.
    public var identifier: Int32 { process.processIdentifier }

    /// Starts a program.
    /// - Parameters:
    ///   - core: the one it may use, by its place among those that this process may use; nil: all.
    ///   - readsOutput: whether its standard output is for ``line()``; otherwise it is thrown away.
    public init(_ program: String, _ arguments: [String], core: Int?, readsOutput: Bool = false) throws {
        if let core {
            guard core < Self.cores.count else {
                throw Failure("this takes \(core + 1) cores, and may use \(Self.cores.count)")
            }
            process.executableURL = URL(fileURLWithPath: "/usr/bin/taskset")
            process.arguments = ["-c", "\(Self.cores[core])", program] + arguments
        } else {
            process.executableURL = URL(fileURLWithPath: program)
            process.arguments = arguments
        }
        process.standardInput = input
        process.standardOutput = readsOutput ? output : FileHandle.nullDevice
        if !readsOutput { process.standardError = FileHandle.nullDevice }
        try process.run()
        Leftovers.started(identifier)
    }

    /// Starts this program again in another role.
    public convenience init(role: String, _ arguments: [String] = [], core: Int) throws {
        // The link, not CommandLine.arguments[0]: that may be relative to a folder we aren't in.
        let program = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
        try self.init(program, ["--role", role] + arguments, core: core, readsOutput: true)
    }

    /// The next line of its output. Throws when it ended, or says nothing for half an hour: rounds take ten minutes at most.
    public func line() throws -> String {
        while true {
            if let end = unread.firstIndex(of: 10) {
                defer { unread = Data(unread[(end + 1)...]) }
                return String(decoding: unread[..<end], as: UTF8.self)
            }
            var waiting = pollfd(
                fd: output.fileHandleForReading.fileDescriptor, events: Int16(POLLIN), revents: 0)
            guard poll(&waiting, 1, 1_800_000) != 0 else { throw Failure("the child said nothing for half an hour") }
            let more = output.fileHandleForReading.availableData
            guard !more.isEmpty else {
                throw Failure("the child ended after: \(String(decoding: unread, as: UTF8.self))")
            }
            unread.append(more)
        }
    }

    /// Writes a line to its standard input.
    public func send(_ line: String) { input.fileHandleForWriting.write(Data((line + "\n").utf8)) }

    /// Waits for its end. Throws when it failed.
    public func wait() throws {
        process.waitUntilExit()
        Leftovers.ended(identifier)
        guard process.terminationStatus == 0 else {
            throw Failure("\(process.arguments ?? []) ended with \(process.terminationStatus)")
        }
    }

    /// Ends it.
    public func end() {
        try? input.fileHandleForWriting.close()
        process.terminate()
        process.waitUntilExit()
        Leftovers.ended(identifier)
    }

    /// Throws when a program that says nothing has not stayed: its port was taken, or an option is none.
    public func requireRunning(_ name: String) throws {
        guard process.isRunning else { throw Failure("\(name) ended with \(process.terminationStatus)") }
    }

    /// Ends it at once, without waiting: for where waiting would hold a task's thread up. A child that such a thread started
    /// has its blocked signals, so only the one that can't be blocked ends it.
    public func kill() {
        Glibc.kill(identifier, SIGKILL)
        Leftovers.ended(identifier)
    }

    /// CPU seconds that it has used, to the nanosecond: all of its threads, also those that have ended. NaN when it is gone.
    public var cpuTime: Double {
        var clock = clockid_t()
        var time = timespec()
        guard clock_getcpuclockid(identifier, &clock) == 0, clock_gettime(clock, &time) == 0 else { return .nan }
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }

    /// Waits for a while, blocking.
    public static func pause(seconds: Double) { usleep(UInt32(seconds * 1e6)) }

    /// CPU seconds of all children of this process that have ended, user and system.
    public static var endedChildrenCPUTime: Double {
        var usage = rusage()
        getrusage(__rusage_who_t(RUSAGE_CHILDREN.rawValue), &usage)
        return usage.ru_utime.inSeconds + usage.ru_stime.inSeconds
    }

    /// CPU seconds of this process, user and system.
    public static var ownCPUTime: Double {
        var usage = rusage()
        getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
        return usage.ru_utime.inSeconds + usage.ru_stime.inSeconds
    }
}

extension timeval {
    fileprivate var inSeconds: Double { Double(tv_sec) + Double(tv_usec) / 1e6 }
}
