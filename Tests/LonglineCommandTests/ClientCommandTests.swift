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

    private func token(_ folder: TemporaryFolder, _ user: String, _ device: String) async throws -> [String] {
        let token = try await ToolProcess.run(
            ["token", "--data", "\(folder.path)/data", "--user", user, "--device", device])
        return ["--token", token.output]
    }

    /// A server on the folder; the body is given what reaches it.
    private func withServer(
        _ folder: TemporaryFolder, _ more: [String] = [], _ body: (_ place: [String]) async throws -> Void
    ) async throws {
        let server = try ToolProcess(
            ["server", "--data", "\(folder.path)/data", "--host", "127.0.0.1", "--port", "0", "--event-loops", "1"]
                + more)
        let ready = try #require(await server.line(with: "longline server ready on"), "\(server.output)")
        let place = try #require(ready.firstMatch(of: /on (127[0-9.:]+), certificate pin ([0-9a-f]+)/))
        try await body(["--server", String(place.1), "--pin", String(place.2)])
        server.signal(SIGTERM)
        #expect(await server.status() == 0)
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
        let listener = try ToolProcess(["listen", "--token", "t"] + Self.dead)
        #expect(await listener.line(with: "* waiting", "connectFailed") != nil, "\(listener.output)")
        listener.signal(SIGTERM)
        #expect(await listener.status() == 0, "\(listener.output)")
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
}
