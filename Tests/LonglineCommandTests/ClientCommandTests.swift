import Foundation
import LonglineTestKit
import Testing

#if canImport(Glibc)
    import Glibc
#endif

@Suite("Commands that ask the service", .timeLimit(.minutes(3)))
struct ClientCommandTests {
    /// Nobody answers there.
    private static let dead = ["--server", "127.0.0.1:1", "--insecure"]

    @Test("A message for a service that can't be reached waits in the state file, and a later run sends it")
    func keptMessage() async throws {
        let folder = try TemporaryFolder()
        // Makes the folder with its key.
        try await withServer(folder) { _ in }
        let ann = try await token(folder, "ann", "phone") + ["--state", folder.file("ann.sqlite")]
        let lost = try await ToolProcess.run(["send", "--to", "user/bob", "--timeout", "3", "first"] + ann + Self.dead)
        #expect(lost.status == 1 && lost.output.contains("it waits in the state file"), "\(lost.output)")
        try await withServer(folder) { place in
            let said = try await ToolProcess.run(["send", "--to", "user/bob", "second"] + ann + place)
            #expect(said.status == 0, "\(said.output)")
            let past = try await ToolProcess.run(
                ["history", "user/bob"] + place + (try await token(folder, "bob", "phone")))
            let texts = past.output.split(separator: "\n").map { $0.split(separator: " ").last ?? "" }
            #expect(past.status == 0 && texts == ["first", "second"], "\(past.output)")
        }
    }

    @Test("What one user's state file holds lets nobody else send in that user's name")
    func otherUsersState() async throws {
        let folder = try TemporaryFolder()
        try await withServer(folder) { place in
            let state = ["--state", folder.file("state.sqlite")]
            let send = ["send", "--to", "user/carol", "--timeout", "10"] + state + place
            let ann = try await ToolProcess.run(send + (try await token(folder, "ann", "phone")) + ["ann's"])
            #expect(ann.status == 0, "\(ann.output)")
            let bob = try await token(folder, "bob", "phone")
            try folder.write("bob.token", bob[1])
            for given in [bob, ["--token-file", folder.file("bob.token")]] {
                let said = try await ToolProcess.run(send + given + ["bob's"])
                #expect(said.status == 1 && said.output.contains("what is stored is ann's"), "\(said.output)")
            }
            let past = try await ToolProcess.run(
                ["history", "user/carol"] + place + (try await token(folder, "carol", "phone")))
            #expect(past.status == 0 && past.output == "ann: ann's", "\(past.output)")
        }
    }

    @Test("A payload's file that can't be read is named with the reason, and one that can be arrives whole")
    func payloadFile() async throws {
        let folder = try TemporaryFolder()
        try await withServer(folder) { place in
            let ann = place + (try await token(folder, "ann", "phone"))
            let send = ["send", "--to", "user/ann"] + ann
            for (path, says) in [
                (folder.file("absent"), "No such file or directory"), (folder.path, "Is a directory"),
            ] {
                let said = try await ToolProcess.run(send + ["--file", path])
                // Nothing is wrong with how the command is used, and of the tool's other commands it is not.
                #expect(said.status == 64 && said.output == "Error: \(path) can't be read: \(says).")
            }
            let file = try folder.write("whole", String(repeating: "0123456789", count: 50_000))
            let sent = try await ToolProcess.run(send + ["--file", file])
            #expect(sent.status == 0, "\(sent.output)")
            let past = try await ToolProcess.run(["history", "user/ann", "--json"] + ann)
            #expect(past.status == 0 && past.output.contains("\"bytes\":500000"), "\(past.output.suffix(300))")
        }
    }

    @Test("A message that the service refuses for as long as the command waits is said to be refused, with the code")
    func refusedMessage() async throws {
        let folder = try TemporaryFolder()
        // Nobody answers there, so that nobody decides.
        try await withServer(folder, ["--authorize-url", "http://127.0.0.1:1/ask"]) { place in
            let ann = try await token(folder, "ann", "phone")
            let sent = try await ToolProcess.run(["send", "--to", "user/bob", "--timeout", "3", "hello"] + ann + place)
            #expect(sent.status == 1 && sent.output.contains("timedOut: no answer in 3.0 s"), "\(sent.output)")
            #expect(sent.output.contains("refused it so far") && sent.output.contains("(code 8)"), "\(sent.output)")
        }
    }

    @Test("Nothing is said to wait that does not: without a state file, and before the room was joined")
    func lostMessage() async throws {
        let folder = try TemporaryFolder()
        try await withServer(folder) { _ in }
        let ann = try await token(folder, "ann", "phone")
        let state = ["--state", folder.file("ann.sqlite")]
        for options in [["--to", "user/bob"], state + ["--to", "room/tea"]] {
            let lost = try await ToolProcess.run(["send", "--timeout", "1", "hello"] + options + ann + Self.dead)
            #expect(lost.status == 1 && lost.output.contains("no answer in 1.0 s"), "\(lost.output)")
            #expect(!lost.output.contains("it waits"), "\(lost.output)")
        }
    }

    static let oneShots = [
        ["history", "user/ann", "--timeout", "1"], ["conversations", "--timeout", "1"],
        ["presence", "bob", "--once", "--timeout", "1"], ["presence", "--show", "state", "--timeout", "1"],
        ["request", "--to", "bob", "--deadline", "1", "who?"], ["signal", "--to", "user/bob", "--timeout", "1"],
        ["room", "members", "tea", "--timeout", "1"],
    ]

    @Test("A command that can't reach the service gives up in time, and says why", arguments: oneShots)
    func patience(command: [String]) async throws {
        let said = try await ToolProcess.run(command + ["--token", "t"] + Self.dead)
        #expect(said.status == 1 && said.output.contains("no answer in 1.0 s"), "\(said.output)")
        #expect(said.output.contains("127.0.0.1:1") || said.output.contains("connectFailed"), "\(said.output)")
    }

    @Test("A command that waits for ever says why it has to")
    func trouble() async throws {
        try await withServer(try TemporaryFolder()) { place in
            // The key is not the server's, which shows at once; where nobody answers a client waits for ten seconds.
            let wrong = Array(place.prefix(2)) + ["--pin", String(repeating: "0", count: 64)]
            let listener = try ToolProcess(["listen", "--token", "t"] + wrong)
            #expect(await listener.line(with: "* waiting", "connectFailed") != nil, "\(listener.output)")
            listener.signal(SIGTERM)
            #expect(await listener.status() == 0, "\(listener.output)")
        }
    }

    @Test(
        "A payload that is saved is its reader's alone, in a folder that all may read too, and nothing else is left there"
    )
    func savedPayload() async throws {
        let folder = try TemporaryFolder()
        try await withServer(folder) { place in
            let bob = place + (try await token(folder, "bob", "phone"))
            let saved = folder.file("saved")
            try FileManager.default.createDirectory(
                atPath: saved, withIntermediateDirectories: false, attributes: [.posixPermissions: 0o755])
            let sent = try await ToolProcess.run(["send", "--to", "user/bob", "secret"] + bob)
            #expect(sent.status == 0, "\(sent.output)")
            let heard = try await ToolProcess.run(["listen", "--count", "1", "--save", saved] + bob)
            #expect(heard.status == 0, "\(heard.output)")
            let names = try FileManager.default.contentsOfDirectory(atPath: saved)
            #expect(names.count == 1)
            for name in names {
                let path = saved + "/" + name
                let mode = try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions]
                #expect(mode as? Int == 0o600)
                #expect(try String(contentsOfFile: path, encoding: .utf8) == "secret")
            }
        }
    }

    @Test("Options that can't be used are refused before anything is tried")
    func refused() async throws {
        let folder = try TemporaryFolder()
        let text = try folder.write("text.pem", "nothing")
        for (options, says) in [
            (["--token", "t", "--ca", text], "text.pem"), (["--token-file", folder.file("absent")], "absent"),
            (["--token", "t", "--room", "a b"], "--room: 'a b'"), (["--token", "t", "--count", "0"], "--count"),
        ] {
            let said = try await ToolProcess.run(["listen", "--server", "127.0.0.1:1"] + options)
            #expect(said.status == 64 && said.output.contains(says), "\(said.output)")
        }
    }

    @Test("Who is refused a room, or ended while watching, has said farewell when the process ends")
    func farewell() async throws {
        let folder = try TemporaryFolder()
        try await withServer(folder) { place in
            let ann = place + (try await token(folder, "ann", "phone"))
            let bob = place + (try await token(folder, "bob", "phone"))
            for command in [["join", "tea"], ["joining", "tea", "owners"]] {
                let done = try await ToolProcess.run(["room"] + command + ann)
                #expect(done.status == 0, "\(command): \(done.output)")
            }
            // Without a farewell the session is there until the idle timeout, for minutes.
            func expectGone() async throws {
                var said = ""
                for _ in 0..<50 {
                    let left = try await ToolProcess.run(
                        ["sessions", "--user", "bob", "--data", "\(folder.path)/data"])
                    said = left.output
                    if left.status == 0, said == "* bob is not connected" { return }
                    try await Task.sleep(for: .milliseconds(100))
                }
                Issue.record("\(said)")
            }
            // A process that does not wait for its farewell often gets it out all the same.
            for _ in 0..<5 {
                let said = try await ToolProcess.run(["listen", "--room", "tea"] + bob)
                #expect(said.status == 1 && said.output.contains("refused"), "\(said.output)")
                try await expectGone()
                let watcher = try ToolProcess(["presence", "ann"] + bob)
                #expect(await watcher.line(with: "ann") != nil, "\(watcher.output)")
                watcher.signal(SIGTERM)
                #expect(await watcher.status() == 0, "\(watcher.output)")
                try await expectGone()
            }
        }
    }

    @Test("A device that the service knows and that keeps nothing can ask at once")
    func forgetfulDevice() async throws {
        let folder = try TemporaryFolder()
        try await withServer(folder) { place in
            let bob = try await token(folder, "bob", "phone")
            let ann = try await token(folder, "ann", "phone")
            for (command, whose) in [
                (["send", "--to", "room/tea", "1"], bob), (["send", "--to", "user/bob", "2"], ann),
                (["listen", "--count", "1"], bob), (["conversations"], bob), (["room", "members", "tea"], bob),
                (["signal", "--to", "user/ann"], bob), (["history", "user/bob"], bob),
            ] {
                let said = try await ToolProcess.run(command + place + whose)
                #expect(said.status == 0, "\(command): \(said.output)")
            }
        }
    }

    @Test("Who lists a room's members is told who may join and publish, and what one is there, beside the list")
    func roomSettings() async throws {
        let folder = try TemporaryFolder()
        try await withServer(folder) { place in
            let ann = place + (try await token(folder, "ann", "phone"))
            let bob = place + (try await token(folder, "bob", "phone"))
            for (command, whose) in [
                (["join", "tea"], ann), (["publishing", "tea", "owners"], ann), (["join", "tea"], bob),
                (["joining", "tea", "owners"], ann),
            ] {
                let done = try await ToolProcess.run(["room"] + command + whose)
                #expect(done.status == 0, "\(command): \(done.output)")
            }
            for (whose, role) in [(ann, "an owner"), (bob, "a member")] {
                let said = try await ToolProcess.run(["room", "members", "tea"] + whose)
                let lines = said.output.split(separator: "\n")
                let settings = "* owners add members, only owners may publish, you are \(role)"
                #expect(said.status == 0 && lines.contains(Substring(settings)), "\(said.output)")
                #expect(lines.contains("ann (owner)") && lines.contains("bob"), "\(said.output)")
            }
            let lines = try folder.write("lines", "/room tea\nhello\n")
            let refused = try await ToolProcess.run(
                ["chat"] + bob, standardInput: try FileHandle(forReadingFrom: URL(filePath: lines)))
            // The token does.
            #expect(refused.status == 1 && refused.output.contains("the room's settings"), "\(refused.output)")
        }
    }

    @Test("A message is given up when its time is over, though a token is still waited for", .timeLimit(.minutes(1)))
    func sendWithoutToken() async throws {
        let folder = try TemporaryFolder()
        let gate = folder.file("gate")
        try #require(mkfifo(gate, 0o600) == 0)
        // Nobody opens the other end. The command would be ended after a minute.
        let lost = try await ToolProcess.run(
            ["send", "--to", "user/bob", "--timeout", "1", "--token-command", "cat '\(gate)'", "hello"] + Self.dead)
        #expect(lost.status == 1 && lost.output.contains("no answer in 1.0 s"), "\(lost.output)")
    }

    @Test("An argument that is no text is refused, and not taken for another one")
    func argumentOfNoText() throws {
        let process = Process()
        process.executableURL = URL(filePath: "/bin/sh")
        process.arguments = [
            "-c", #"exec "$0" send --server 127.0.0.1:1 --insecure --token t --to bob "$(printf 'caf\351')""#,
            try HelperProgram.url("longline").path,
        ]
        let errors = Pipe()
        process.standardError = errors
        try process.run()
        let said = try errors.fileHandleForReading.readToEnd() ?? Data()
        process.waitUntilExit()
        #expect(process.terminationStatus == 64)
        #expect(String(decoding: said, as: UTF8.self).hasPrefix("Error: an argument is not UTF-8"))
    }

    @Test("A line says that it holds the beginning of a message only where it does")
    func beginningOfMessage() async throws {
        let folder = try TemporaryFolder()
        try await withServer(folder) { place in
            let ann = place + (try await token(folder, "ann", "phone"))
            let noText = folder.file("no-text")
            try Data(repeating: 0xFF, count: 3_000).write(to: URL(filePath: noText))
            for content in [["a\u{202E}b"], ["--file", noText]] {
                let sent = try await ToolProcess.run(["send", "--to", "user/ann"] + ann + content)
                #expect(sent.status == 0, "\(sent.output)")
            }
            let past = try await ToolProcess.run(["history", "user/ann"] + ann)
            let lines = past.output.split(separator: "\n")
            #expect(past.status == 0 && lines.count == 2, "\(past.output)")
            #expect(lines.first?.hasSuffix(": a b") == true, "\(past.output)")
            #expect(lines.last?.hasSuffix("\u{FFFD} … (3000 bytes)") == true, "\(past.output)")
        }
    }

    @Test("A program is told what an owner changed in words, and whom it is about")
    func roomChangesAsJSON() async throws {
        let folder = try TemporaryFolder()
        try await withServer(folder) { place in
            let ann = place + (try await token(folder, "ann", "phone"))
            for command in [
                ["join", "tea"], ["add", "tea", "bob"], ["owner", "tea", "bob"], ["publishing", "tea", "owners"],
            ] {
                let done = try await ToolProcess.run(["room"] + command + ann)
                #expect(done.status == 0, "\(command): \(done.output)")
            }
            let past = try await ToolProcess.run(["history", "room/tea", "--json"] + ann)
            var lines: [[String: Any]] = []
            for line in past.output.split(separator: "\n") {
                let object = try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any]
                lines.append(object ?? [:])
            }
            #expect(past.status == 0 && lines.count == 4, "\(past.output)")
            #expect(lines.map { $0["kind"] as? String } == ["joined", "joined", "changed", "changed"])
            #expect(lines.map { $0["change"] as? String } == [nil, nil, "owner", "publishing owners"])
            #expect(lines.map { $0["recipient"] as? String } == [nil, "bob", "bob", nil])
            #expect(lines.map { $0["text"] as? String } == ["", "", nil, nil])
        }
    }

    @Test("A token may end with a line, wherever it comes from")
    func tokenWithLine() async throws {
        let folder = try TemporaryFolder()
        try await withServer(folder) { place in
            let line = try await token(folder, "ann", "phone")[1] + "\n"
            let file = try folder.writeSecret("token", line)
            for (options, environment) in [
                (["--token", line], [:]), (["--token-file", file], [:]), ([], ["LONGLINE_TOKEN": line]),
                (["--token-command", "cat '\(file)'"], [:]),
            ] as [([String], [String: String])] {
                let said = try await ToolProcess.run(
                    ["conversations"] + place + options, environment: environment)
                #expect(said.status == 0, "\(options.first ?? "LONGLINE_TOKEN"): \(said.output)")
            }
        }
    }

    @Test("Who revokes or erases for a tenant that isn't served is told so")
    func unservedTenant() async throws {
        let folder = try TemporaryFolder()
        let data = ["--data", "\(folder.path)/data"]
        try await withServer(folder, ["--tenant", "acme"]) { _ in
            for command in [
                ["revoke", "--user", "ann"], ["revoke", "--user", "ann", "--device", "phone"],
                ["revoke", "--token", "t"], ["erase", "--user", "ann", "--yes"],
            ] {
                let refused = try await ToolProcess.run(command + data + ["--tenant", "acne"])
                #expect(refused.status == 1 && refused.output.contains("acne is not served"), "\(refused.output)")
                #expect(try await ToolProcess.run(command + data + ["--tenant", "acme"]).status == 0)
            }
        }
    }

    @Test("A token's end that is a lifetime or in milliseconds is refused", arguments: ["3600", "1800000000000"])
    func endOfRevokedToken(expires: String) async throws {
        let folder = try TemporaryFolder()
        let said = try await ToolProcess.run(
            ["revoke", "--token", "t", "--expires", expires, "--data", folder.file("absent")])
        #expect(said.status == 64 && said.output.contains("in seconds since 1970"), "\(said.output)")
    }

    @Test("Commands that look into a folder make none, and a token that makes one says so")
    func folders() async throws {
        let folder = try TemporaryFolder()
        let typo = folder.file("typo")
        for command in [
            ["keys"], ["keys", "list", "--jwks"], ["keys", "remove", "x"], ["apikey"], ["apikey", "revoke", "x"],
            ["token", "--user", "a b", "--device", "phone"],
            ["token", "--user", "ann", "--device", "phone", "--lifetime", "x"],
            ["token", "--user", "ann", "--device", "phone", "--lifetime", "99999999d"],
        ] {
            let said = try await ToolProcess.run(command + ["--data", typo])
            #expect(said.status != 0 && !FileManager.default.fileExists(atPath: typo), "\(command): \(said.output)")
        }
        let signed = try await ToolProcess.run(["token", "--user", "ann", "--device", "phone", "--data", typo])
        #expect(signed.status == 0 && signed.output.contains("\(typo) was made"), "\(signed.output)")
        #expect(try await ToolProcess.run(["keys", "--data", typo]).status == 0)
    }

    @Test("A key's label stands on the key's line, whatever it is")
    func label() async throws {
        let folder = try TemporaryFolder()
        let data = ["--data", folder.file("data")]
        let made = try await ToolProcess.run(["apikey", "create", "--label", "one\ntwo\u{1b}[2J"] + data)
        #expect(made.status == 0, "\(made.output)")
        let list = try await ToolProcess.run(["apikey", "list"] + data).output
        #expect(list.split(separator: "\n").count == 1 && list.contains("one two [2J"), "\(list)")
    }

    @Test("An operator's key has no tenant and no other rights, whatever is asked")
    func operatorKey() async throws {
        let folder = try TemporaryFolder()
        for options in [["--tenant", "acme"], ["--rights", "publish"]] {
            let said = try await ToolProcess.run(
                ["apikey", "create", "--operator", "--data", folder.file("data")] + options)
            #expect(said.status == 64 && said.output.contains("contradicts"), "\(said.output)")
        }
    }
}
