import Foundation
import Glibc

/// What a server process holds, in bytes.
public struct ServerMemory {
    /// What malloc has given out.
    public var heap: Double
    /// Pages in memory.
    public var resident: Double
    /// What the server counted.
    public var count: Int

    /// The server's answer to ``ask(_:)``.
    public static func report(heap: Int, count: Int) { Role.report("\(heap) \(count)") }

    /// Asks a server, once nothing is under way any more. What is resident is read first: the server tidies its heap to count it.
    public static func ask(_ server: ChildProcess) throws -> ServerMemory {
        ChildProcess.pause(seconds: 1.5)
        let resident = try resident(of: server)
        server.send("memory")
        let numbers = try server.line().split(separator: " ").compactMap { Double($0) }
        guard numbers.count == 2 else { throw ChildProcess.Failure("the server reported \(numbers)") }
        return ServerMemory(heap: numbers[0], resident: resident, count: Int(numbers[1]))
    }

    /// The bytes of a process that are in memory now.
    public static func resident(of process: ChildProcess) throws -> Double {
        let pages = try String(contentsOfFile: "/proc/\(process.identifier)/statm", encoding: .utf8)
            .split(separator: " ").compactMap { Double($0) }
        guard pages.count > 1 else { throw ChildProcess.Failure("no memory of process \(process.identifier)") }
        // 4 KiB on x86-64, up to 64 on other machines.
        return pages[1] * Double(sysconf(Int32(_SC_PAGESIZE)))
    }
}

extension ServerMemory {
    /// The most bytes of a process that were in memory while something was done.
    public static func peak<Value>(
        of process: ChildProcess, during body: () throws -> Value
    ) throws -> (value: Value, resident: Double) {
        // 5 sets the high-water mark back to what is resident now: proc_pid_clear_refs(5).
        try "5".write(toFile: "/proc/\(process.identifier)/clear_refs", atomically: false, encoding: .utf8)
        let value = try body()
        let status = try String(contentsOfFile: "/proc/\(process.identifier)/status", encoding: .utf8)
        guard let line = status.split(separator: "\n").first(where: { $0.hasPrefix("VmHWM:") }),
            let kilobytes = line.split(separator: " ").compactMap({ Double($0) }).first
        else { throw ChildProcess.Failure("no high-water mark of process \(process.identifier)") }
        return (value, kilobytes * 1024)
    }
}
