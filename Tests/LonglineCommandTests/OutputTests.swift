import Foundation
import LonglineClient
import LonglineTestKit
import Testing

@testable import longline

#if canImport(Glibc)
    import Glibc
#endif

@Suite("Output that can't be written", .timeLimit(.minutes(3)))
struct OutputTests {
    /// Where nothing can be written to.
    enum Sink: CaseIterable {
        case fullDisk, goneReader

        func open() throws -> FileHandle {
            switch self {
            case .fullDisk: return try FileHandle(forWritingTo: URL(filePath: "/dev/full"))
            case .goneReader:
                let pipe = Pipe()
                try pipe.fileHandleForReading.close()
                return pipe.fileHandleForWriting
            }
        }
    }

    private func server(_ folder: TemporaryFolder, _ more: [String] = []) -> [String] {
        ["server", "--data", "\(folder.path)/data", "--host", "127.0.0.1", "--port", "0", "--event-loops", "1"] + more
    }

    @Test("A server whose log can't be written serves on", arguments: Sink.allCases, LogOptions.Format.allCases)
    func log(sink: Sink, format: LogOptions.Format) async throws {
        let folder = try TemporaryFolder()
        let server = try ToolProcess(
            server(folder, ["--log-level", "trace", "--log-format", format.rawValue]), standardError: try sink.open())
        let ready = try #require(await server.line(with: "longline server ready on"), "\(server.output)")
        let place = try #require(ready.firstMatch(of: /on (127[0-9.:]+), certificate pin ([0-9a-f]+)/))
        // What it tells to try is what the help and the README have.
        #expect(await server.line(with: "longline chat --server", "--to user/bob") != nil, "\(server.output)")
        let token = try await ToolProcess.run(
            ["token", "--data", "\(folder.path)/data", "--user", "ann", "--device", "phone"])
        let said = try await ToolProcess.run([
            "send", "--server", String(place.1), "--pin", String(place.2), "--token", token.output, "--to", "user/ann",
            "hello",
        ])
        #expect(said.status == 0, "\(said.output)")
        server.signal(SIGTERM)
        #expect(await server.status() == 0)
    }

    @Test("A server that can't say where it listens serves all the same, and its log says so", arguments: Sink.allCases)
    func announcement(sink: Sink) async throws {
        let folder = try TemporaryFolder()
        let server = try ToolProcess(server(folder), standardOutput: try sink.open())
        #expect(await server.line(with: "where the server listens was not printed") != nil, "\(server.output)")
        server.signal(SIGTERM)
        #expect(await server.status() == 0, "\(server.output)")
    }

    @Test("A command that can't say what is wrong ends with its status", arguments: Sink.allCases)
    func silentFailure(sink: Sink) async throws {
        let said = try await ToolProcess.run(
            ["send", "--server", "127.0.0.1:1", "--token", "t", "--to", "user/ann", "--timeout", "1", "hello"],
            standardError: try sink.open())
        #expect(said.status == 1, "\(said.output)")
    }

    @Test("A key that could not be printed is revoked, and the status tells")
    func unprintedKey() async throws {
        let folder = try TemporaryFolder()
        let data = ["--data", "\(folder.path)/data"]
        let made = try await ToolProcess.run(["apikey", "create"] + data, standardOutput: try Sink.fullDisk.open())
        #expect(made.status == 1)
        #expect(made.output.contains("standard output can't be written: No space left on device"), "\(made.output)")
        let list = try await ToolProcess.run(["apikey", "list"] + data).output
        #expect(list.split(separator: "\n").count == 1 && list.hasSuffix("revoked"), "\(list)")
    }

    @Test("Output that is not written is a failure", arguments: [["config", "keys"], ["version"], ["--help"]])
    func unwritten(command: [String]) async throws {
        let said = try await ToolProcess.run(command, standardOutput: try Sink.fullDisk.open())
        #expect(said.status == 1)
        #expect(said.output == "Error: standard output can't be written: No space left on device")
    }

    @Test("Where nobody reads any more a command ends without a word, as any other does")
    func goneReader() async throws {
        let said = try await ToolProcess.run(["config", "keys"], standardOutput: try Sink.goneReader.open())
        #expect(said.status == SIGPIPE && said.output.isEmpty, "\(said.output)")
    }

    /// What asks for a server has sockets of its own, of which one would be standard output.
    @Test("What is printed goes into no other file of the process where standard output is closed")
    func closed() throws {
        let folder = try TemporaryFolder()
        let process = Process()
        process.executableURL = URL(filePath: "/bin/sh")
        process.arguments = [
            "-c", "exec \"$0\" \"$@\" >&-", try HelperProgram.url("longline").path, "token", "--data",
            folder.file("data"), "--user", "ann", "--device", "phone",
        ]
        let pipe = Pipe()
        process.standardError = pipe
        try process.run()
        let said = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        #expect(process.terminationStatus == 1)
        #expect(said.contains("standard output can't be written: Bad file descriptor"), "\(said)")
    }

    @Test("What people are told to type is one word to a shell, whatever the folder is called")
    func shellWords() throws {
        for text in ["longline-data", "/var/lib/longline", "127.0.0.1:4433"] { #expect(ShellWord.quoted(text) == text) }
        for text in ["my data", "[::1]:4433", "it's", "a$b", "~", "*", "", "Größe", "a\nb"] {
            let process = Process()
            process.executableURL = URL(filePath: "/bin/sh")
            process.arguments = ["-c", "printf '<%s>' \(ShellWord.quoted(text))"]
            let pipe = Pipe()
            process.standardOutput = pipe
            try process.run()
            let said = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
            process.waitUntilExit()
            #expect(said == "<\(text)>")
        }
    }

    @Test("Words of others begin no line, move no cursor and turn no text around")
    func printable() {
        let text = "a\u{7}b\nc\u{85}d\u{2028}e\u{2029}f\u{202E}g\u{2066}h\u{200F}i"
        #expect(Terminal.printable(text) == "a b c d e f g h i")
        // A joiner makes one picture of several.
        #expect(Terminal.printable("👩\u{200D}💻 é") == "👩\u{200D}💻 é")
        let cause = ClientError(.notConnected, message: "x\n* connected")
        #expect(
            Terminal.describe(.waiting(delay: .zero, cause: cause)) == "waiting 0.0 ms: notConnected: x * connected")
    }
}
