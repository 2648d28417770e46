import Foundation
import LonglineTestKit
import Testing

@testable import longline

#if canImport(Glibc)
    import Glibc
#endif

/// Runs a command at a terminal of its own.
private let scriptProgram = "/usr/bin/script"

@Suite("A command that prints a token", .timeLimit(.minutes(1)))
struct TokenCommandTests {
    /// Whether a process has not ended; one that nobody waited for yet has.
    private func runs(_ pid: String) -> Bool {
        guard let text = try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8) else { return false }
        return !text.contains(") Z ")
    }

    /// Who starts what is to be ended, and does not heed being asked to end.
    enum Starter: CaseIterable {
        case shell
        /// Of a process whose first thread starts nothing, as with programs in Go.
        case otherThread

        private static let python = "/usr/bin/python3"

        var isThere: Bool { self == .shell || FileManager.default.isExecutableFile(atPath: Self.python) }

        /// Of the shell: they write down the numbers of all that is started.
        var lines: String {
            switch self {
            case .shell:
                "trap '' TERM HUP; sleep 1000 & trap - TERM HUP; echo $$ $! > made; mv made numbers"
            case .otherThread:
                "trap '' HUP; \(Self.python) start.py $$ & trap - HUP"
            }
        }

        /// It is gone at once when it is asked to end, and what it started is nobody's then.
        static let program = """
            import os, subprocess, sys, threading
            def start():
                child = subprocess.Popen(["/bin/sh", "-c", "trap '' TERM; echo; exec sleep 1000"], stdout=subprocess.PIPE)
                child.stdout.readline()
                with open("made", "w") as made: print(sys.argv[1], os.getpid(), child.pid, file=made)
                os.rename("made", "numbers")
                child.wait()
            threading.Thread(target=start).start()
            """
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

    @Test("A pipe that is closed ends what it starts, as under a shell, though this process ignores that")
    func signals() async throws {
        // As the tool does, which is not to end with a reader of its output.
        signal(SIGPIPE, SIG_IGN)
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

    @Test(
        "One that asks at the terminal and is ended leaves nothing of it running, and the terminal as it was",
        .enabled(if: FileManager.default.isExecutableFile(atPath: scriptProgram), "script of util-linux is missing"),
        arguments: Starter.allCases.filter(\.isThere))
    func terminal(starter: Starter) async throws {
        let folder = try TemporaryFolder()
        let input = folder.file("input")
        try #require(mkfifo(input, 0o600) == 0)
        // Not closed by who opens it to read until it is closed here.
        let writer = open(input, O_RDWR | O_CLOEXEC)
        try #require(writer >= 0)
        // As who asks for a password does; what it started does not heed being asked to end, and outlives it.
        try folder.write(
            "ask",
            """
            stty -echo < /dev/tty
            \(starter.lines)
            wait
            """)
        try folder.write("start.py", Starter.program)
        try folder.write(
            "run",
            """
            cd '\(folder.path)'
            stty -a > before
            "$TOOL" chat --server 127.0.0.1:1 --insecure --token-command "$(cat ask)" < input
            echo $? > status
            stty -a > after
            """)
        let process = Process()
        process.executableURL = URL(filePath: scriptProgram)
        process.arguments = ["-q", "-e", "-c", "sh '\(folder.file("run"))'", "/dev/null"]
        process.environment = ProcessInfo.processInfo.environment.merging(
            ["SHELL": "/bin/sh", "TOOL": try HelperProgram.url("longline").path]) { _, given in given }
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = FileHandle.nullDevice
        try process.run()
        let numbers = folder.file("numbers")
        while !FileManager.default.fileExists(atPath: numbers) { await Task.yield() }
        // The end of what is piped to the chat, and so of the chat.
        close(writer)
        while process.isRunning { await Task.yield() }
        func text(_ name: String) throws -> String { try String(contentsOfFile: folder.file(name), encoding: .utf8) }
        let status = try text("status")
        #expect(status == "0\n")
        let (before, after) = (try text("before"), try text("after"))
        #expect(before.contains(" echo ") && after == before)
        for number in try text("numbers").split(whereSeparator: \.isWhitespace) {
            while runs(String(number)) { await Task.yield() }
        }
    }

    @Test(
        "Beside a chat that reads the terminal itself it is not of those whom the terminal asks",
        .enabled(if: FileManager.default.isExecutableFile(atPath: scriptProgram), "script of util-linux is missing"))
    func besideTheChat() async throws {
        let folder = try TemporaryFolder()
        // Its number and its process group's; then the chat's end, which is told nothing by the terminal.
        try folder.write(
            "ask", "cut -d ' ' -f 1,5 /proc/$$/stat > '\(folder.file("group"))'; kill -TERM $PPID")
        try folder.write(
            "run",
            """
            "$TOOL" chat --server 127.0.0.1:1 --insecure --token-command "$(cat '\(folder.file("ask"))')"
            exit 0
            """)
        let process = Process()
        process.executableURL = URL(filePath: scriptProgram)
        process.arguments = ["-q", "-c", "sh '\(folder.file("run"))'", "/dev/null"]
        process.environment = ProcessInfo.processInfo.environment.merging(
            ["SHELL": "/bin/sh", "TOOL": try HelperProgram.url("longline").path]) { _, given in given }
        // The end of it would be the end of the chat.
        let input = Pipe()
        process.standardInput = input
        process.standardOutput = FileHandle.nullDevice
        try process.run()
        while process.isRunning { await Task.yield() }
        try input.fileHandleForWriting.close()
        let numbers = try String(contentsOfFile: folder.file("group"), encoding: .utf8)
            .split(whereSeparator: \.isWhitespace)
        #expect(numbers.count == 2 && numbers.first == numbers.last, "\(numbers)")
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
