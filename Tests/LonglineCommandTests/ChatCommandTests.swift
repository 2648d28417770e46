import Foundation
import LonglineTestKit
import Testing

@Suite("What is piped into a chat", .timeLimit(.minutes(3)))
struct ChatCommandTests {
    private func input(_ folder: TemporaryFolder, _ lines: [String]) throws -> FileHandle {
        let path = try folder.write("lines.txt", lines.map { $0 + "\n" }.joined())
        return try FileHandle(forReadingFrom: URL(filePath: path))
    }

    /// The texts in a channel, in order.
    private func texts(_ channel: String, _ options: [String]) async throws -> [String] {
        let past = try await ToolProcess.run(["history", channel, "--limit", "10000"] + options)
        #expect(past.status == 0, "\(past.output)")
        return past.output.split(separator: "\n").compactMap { line in
            line.firstMatch(of: /^(#\S+ )?ann.*?: (.*)$/).map { String($0.2) }
        }
    }

    @Test("More lines than the outbox has room for all arrive, in order, and the command succeeds")
    func manyLines() async throws {
        let folder = try TemporaryFolder()
        try await withServer(folder) { place in
            let lines = (1...3_000).map { "line \($0)" }
            let chat = try await ToolProcess.run(
                ["chat", "--to", "bob"] + place + (try await token(folder, "ann", "phone")),
                standardInput: try input(folder, lines))
            #expect(chat.status == 0 && !chat.output.contains("! "), "\(chat.output.suffix(2_000))")
            #expect(try await texts("user/bob", place + (try await token(folder, "bob", "phone"))) == lines)
        }
    }

    @Test("Lines behind a join go to the room, and a command that fails or is refused fails the chat")
    func failures() async throws {
        let folder = try TemporaryFolder()
        try await withServer(folder) { place in
            let ann = place + (try await token(folder, "ann", "phone"))
            let good = try await ToolProcess.run(
                ["chat"] + ann, standardInput: try input(folder, ["/join tea", "1", "2", "/members", "/quit", "3"]))
            #expect(good.status == 0, "\(good.output)")
            #expect(try await texts("room/tea", ann) == ["1", "2"])
            for (line, says) in [
                ("/add no such name", "!"), ("/room cake\nhello", "! "), ("/nonsense", "unknown command"),
                ("/room cake\n/members", "! "), ("/room\n", "! "), ("hello", "first"),
                ("/migrate wlan0", "! /migrate takes a numeric address such as 192.0.2.7, not 'wlan0'"),
            ] {
                let bad = try await ToolProcess.run(
                    ["chat"] + ann, standardInput: try input(folder, [line, "/to bob", "after \(line)"]))
                #expect(bad.status == 1 && bad.output.contains(says), "\(line): \(bad.output)")
            }
        }
    }

    @Test("A line that is no text is not sent as another one, and fails the chat")
    func noText() async throws {
        let folder = try TemporaryFolder()
        try await withServer(folder) { place in
            let file = folder.file("latin")
            var lines = Data("before\r\ncaf".utf8)
            lines.append(0xE9)
            lines.append(contentsOf: Array("\nbehind".utf8))
            try lines.write(to: URL(filePath: file))
            let chat = try await ToolProcess.run(
                ["chat", "--to", "bob"] + place + (try await token(folder, "ann", "phone")),
                standardInput: try FileHandle(forReadingFrom: URL(filePath: file)))
            #expect(chat.status == 1 && chat.output.contains("is not UTF-8"), "\(chat.output)")
            let bob = place + (try await token(folder, "bob", "phone"))
            #expect(try await texts("user/bob", bob) == ["before", "behind"])
        }
    }

    @Test(
        "Lines behind a name that is none go to nobody, least of all to who was talked to before",
        arguments: [
            "/to bob!", "/room two words", "/all", "/join #tea",
        ])
    func misspelt(command: String) async throws {
        let folder = try TemporaryFolder()
        try await withServer(folder) { place in
            let chat = try await ToolProcess.run(
                ["chat", "--to", "carol"] + place + (try await token(folder, "ann", "phone")),
                standardInput: try input(folder, ["for carol", command, "for bob alone"]))
            #expect(chat.status == 1 && chat.output.contains("has to be 1 to 64 of"), "\(chat.output)")
            #expect(try await texts("user/carol", place + (try await token(folder, "carol", "phone"))) == ["for carol"])
        }
    }

    @Test("A token command reads nothing of what is piped to the chat")
    func tokenCommand() async throws {
        let folder = try TemporaryFolder()
        try await withServer(folder) { place in
            let ann = try await token(folder, "ann", "phone")
            let file = try folder.write("token", ann[1])
            // More than is read at once.
            let lines = (1...1_000).map { "line \($0)" }
            let chat = try await ToolProcess.run(
                ["chat", "--to", "bob", "--token-command", "cat > /dev/null; cat '\(file)'"] + place,
                standardInput: try input(folder, lines))
            #expect(chat.status == 0, "\(chat.output)")
            #expect(try await texts("user/bob", place + (try await token(folder, "bob", "phone"))) == lines)
        }
    }
}
