public import Foundation

#if canImport(Glibc)
    import Glibc
#endif

/// `longline` as its users have it: a process, of which a test reads what it says.
public final class ToolProcess {
    private let process = Process()
    private var lines: AsyncStream<String>.Iterator
    private let end: AsyncStream<Int32>
    /// Everything read so far.
    public private(set) var output: [String] = []

    /// Starts it with these variables and no others of ours: what the tests run under must not count.
    /// - Parameters:
    ///   - standardInput: what it reads; nothing without.
    ///   - standardOutput: where that goes instead of being read here.
    ///   - standardError: where that goes instead of being read here.
    public init(
        _ arguments: [String], environment: [String: String] = [:], standardInput: FileHandle? = nil,
        standardOutput: FileHandle? = nil, standardError: FileHandle? = nil
    ) throws {
        process.executableURL = try HelperProgram.url("longline")
        process.arguments = arguments
        let own = ProcessInfo.processInfo.environment.filter { !$0.key.hasPrefix("LONGLINE_") }
        process.environment = own.merging(environment) { _, given in given }
        let pipe = Pipe()
        process.standardOutput = standardOutput ?? pipe
        process.standardError = standardError ?? pipe
        process.standardInput = standardInput ?? FileHandle.nullDevice
        let (stream, continuation) = AsyncStream.makeStream(of: String.self)
        lines = stream.makeAsyncIterator()
        let (end, ended) = AsyncStream.makeStream(of: Int32.self)
        self.end = end
        process.terminationHandler = {
            ended.yield($0.terminationStatus)
            ended.finish()
        }
        try process.run()
        let descriptor = pipe.fileHandleForReading.fileDescriptor
        Thread.detachNewThread {
            // The pipe lives until its end was read.
            withExtendedLifetime(pipe) { Self.read(descriptor) { continuation.yield($0) } }
            continuation.finish()
        }
    }

    deinit { if process.isRunning { kill(process.processIdentifier, SIGKILL) } }

    private static func read(_ descriptor: Int32, _ line: (String) -> Void) {
        var rest: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = Glibc.read(descriptor, &buffer, buffer.count)
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { break }
            rest += buffer[..<count]
            while let end = rest.firstIndex(of: UInt8(ascii: "\n")) {
                line(String(decoding: rest[..<end], as: UTF8.self))
                rest.removeSubrange(...end)
            }
        }
        if !rest.isEmpty { line(String(decoding: rest, as: UTF8.self)) }
    }

    /// Waits for a line with all of these in it; nil when it ended before.
    public func line(with parts: String...) async -> String? {
        while let line = await lines.next(isolation: #isolation) {
            output.append(line)
            if parts.allSatisfy(line.contains) { return line }
        }
        return nil
    }

    /// Sends it a signal.
    public func signal(_ number: Int32) { kill(process.processIdentifier, number) }

    /// Waits for its end, and reads the rest of what it says.
    public func status() async -> Int32? {
        while let line = await lines.next(isolation: #isolation) { output.append(line) }
        for await status in end { return status }
        return nil
    }

    /// Runs it to its end.
    public static func run(
        _ arguments: [String], environment: [String: String] = [:], standardInput: FileHandle? = nil,
        standardOutput: FileHandle? = nil, standardError: FileHandle? = nil
    ) async throws -> (status: Int32?, output: String) {
        let tool = try ToolProcess(
            arguments, environment: environment, standardInput: standardInput, standardOutput: standardOutput,
            standardError: standardError)
        let status = await tool.status()
        return (status, tool.output.joined(separator: "\n"))
    }
}
