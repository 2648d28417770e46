import Foundation
import LonglineTestKit
import Testing

@testable import longline

#if canImport(Glibc)
    import Glibc
#endif

@Suite("A command that prints a token", .timeLimit(.minutes(1)))
struct TokenCommandTests {
    /// Whether a process has not ended; one that nobody waited for yet has.
    private func runs(_ pid: String) -> Bool {
        guard let text = try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8) else { return false }
        return !text.contains(") Z ")
    }

    @Test("What it prints is the token, and what goes wrong is named")
    func outcomes() async throws {
        #expect(try await TokenCommand("echo; echo ' abc '").token() == "abc")
        // One that has closed its output goes on until its end.
        #expect(try await TokenCommand("echo abc; exec > /dev/null; cat /dev/null").token() == "abc")
        await #expect(throws: TokenCommand.Failure.status(3)) { try await TokenCommand("echo abc; exit 3").token() }
        await #expect(throws: TokenCommand.Failure.status(137)) { try await TokenCommand("kill -KILL $$").token() }
        await #expect(throws: TokenCommand.Failure.tooLong(limit: 65_536)) { try await TokenCommand("yes").token() }
    }

    @Test("A pipe that is closed ends what it starts, as under a shell")
    func signals() async throws {
        #expect(try await TokenCommand("sh -c 'kill -PIPE $$'; echo $?").token() == "141")
    }

    @Test(
        "Nothing of it goes on when nobody waits for it any more, also where it does not heed being asked to end",
        arguments: ["", "trap '' TERM; "])
    func cancelled(first: String) async throws {
        let folder = try TemporaryFolder()
        let (made, path) = (folder.file("made"), folder.file("numbers"))
        let command = TokenCommand(first + "sleep 1000 & echo $$ $! > '\(made)'; mv '\(made)' '\(path)'; wait")
        let waiting = Task { try await command.token() }
        while !FileManager.default.fileExists(atPath: path) { await Task.yield() }
        let numbers = try String(contentsOfFile: path, encoding: .utf8).split(whereSeparator: \.isWhitespace)
            .map(String.init)
        let run = numbers.filter { runs($0) }
        #expect(run.count == 2)
        waiting.cancel()
        await #expect(throws: CancellationError.self) { try await waiting.value }
        for number in numbers {
            while runs(number) { await Task.yield() }
        }
    }

    @Test("It has nothing open that this process has")
    func descriptors() async throws {
        let folder = try TemporaryFolder()
        let path = try folder.write("of ours", "")
        let descriptor = open(path, O_RDONLY)
        try #require(descriptor > STDERR_FILENO)
        defer { close(descriptor) }
        let seen = try await TokenCommand("readlink /proc/$$/fd/\(descriptor); true").token()
        #expect(!seen.hasSuffix("of ours"))
    }

    @Test("One runs at a time")
    func turns() async throws {
        let folder = try TemporaryFolder()
        let place = folder.file("place")
        let command = TokenCommand("mkdir '\(place)' && cat /dev/null && rmdir '\(place)' && echo abc")
        try await withThrowingTaskGroup(of: String.self) { group in
            for _ in 0..<8 { group.addTask { try await command.token() } }
            for try await token in group { #expect(token == "abc") }
        }
    }

    @Test("It ends with the tool that waits for it")
    func endOfTool() async throws {
        let folder = try TemporaryFolder()
        let (made, path) = (folder.file("made"), folder.file("number"))
        let input = Pipe()
        let chat = try ToolProcess(
            [
                "chat", "--server", "127.0.0.1:1", "--insecure", "--token-command",
                "echo $$ > '\(made)'; mv '\(made)' '\(path)'; exec sleep 1000",
            ], standardInput: input.fileHandleForReading)
        while !FileManager.default.fileExists(atPath: path) { await Task.yield() }
        let number = try String(contentsOfFile: path, encoding: .utf8).trimmingCharacters(in: .whitespacesAndNewlines)
        #expect(runs(number))
        // There is nothing more to send.
        try input.fileHandleForWriting.close()
        #expect(await chat.status() == 0, "\(chat.output)")
        while runs(number) { await Task.yield() }
    }
}
