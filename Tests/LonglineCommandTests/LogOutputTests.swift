import Foundation
import LonglineTestKit
import Testing

@testable import longline

#if canImport(Glibc)
    import Glibc
#endif

@Suite("A log that nobody reads", .timeLimit(.minutes(1))) struct LogOutputTests {
    private let pipe = Pipe()

    /// - Parameter descriptor: where it goes; nil: into the pipe.
    private func log(_ descriptor: Int32? = nil) -> LogOutput {
        LogOutput(descriptor ?? pipe.fileHandleForWriting.fileDescriptor, patience: 0) { Array("missed \($0)\n".utf8) }
    }

    /// What is in the pipe, and was not read before.
    /// - Parameter descriptor: that of another one.
    private func readAll(_ descriptor: Int32? = nil) -> String {
        var bytes: [UInt8] = []
        var piece = [UInt8](repeating: 0, count: 4_096)
        let descriptor = descriptor ?? pipe.fileHandleForReading.fileDescriptor
        var ready = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        while poll(&ready, 1, 0) == 1 {
            let count = read(descriptor, &piece, piece.count)
            guard count > 0 else { break }
            bytes += piece.prefix(count)
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    @Test("A reader that stalls holds nobody up, and learns how many lines it missed")
    func stalled() throws {
        let (log, text) = (log(), String(repeating: "x", count: 999))
        for _ in 0..<100 { log.write(text + "\n") }
        let before = readAll().split(separator: "\n")
        #expect(before.count < 100 && before.allSatisfy { $0 == text })
        log.write("more\n")
        #expect(readAll() == "missed \(100 - before.count)\nmore\n")
        log.write("and more\n")
        #expect(readAll() == "and more\n")
    }

    @Test("What comes after a line that was cut off begins on a line of its own")
    func cut() throws {
        let log = log()
        log.write(String(repeating: "x", count: 1 << 20) + "\n")
        let before = readAll()
        #expect(before.count < 1 << 20 && before.allSatisfy { $0 == "x" })
        log.write("more\n")
        #expect(readAll() == "\nmissed 1\nmore\n")
    }

    @Test("A reader that is gone is nobody to count lines for")
    func gone() throws {
        signal(SIGPIPE, SIG_IGN)
        // One that another reader can come to.
        let folder = try TemporaryFolder()
        let path = folder.file("log")
        try #require(mkfifo(path, 0o600) == 0)
        let first = open(path, O_RDONLY | O_NONBLOCK)
        let writer = open(path, O_WRONLY)
        defer { close(writer) }
        try #require(first >= 0 && writer >= 0)
        let log = log(writer)
        close(first)
        for _ in 0..<3 { log.write("line\n") }
        let next = open(path, O_RDONLY | O_NONBLOCK)
        defer { close(next) }
        log.write("more\n")
        #expect(readAll(next) == "more\n")
    }
}
