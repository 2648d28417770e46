import Foundation
import LonglineServer
import LonglineTestKit
import QUICEngine
import Testing

@testable import longline

#if canImport(Glibc)
    import Glibc
#endif

@Suite("Commands that ask the control layer", .timeLimit(.minutes(3)))
struct ControlAddressTests {
    /// A server with its control layer, a client's token, and what every command needs to ask it.
    private func withServer(
        _ body: (_ folder: TemporaryFolder, _ data: String, _ options: [String]) async throws -> Void
    ) async throws {
        let folder = try TemporaryFolder()
        let made = try ServerDirectory(folder.path + "/identity").developmentIdentity(names: ["localhost", "127.0.0.1"])
        let certificate = try folder.write("chain.pem", made.credentials.certificateChainPEM)
        let key = try folder.writeSecret("key.pem", made.credentials.privateKeyPEM)
        let (control, data) = (try Self.freePort(), "\(folder.path)/data")
        let server = try ToolProcess([
            "server", "--data", data, "--host", "127.0.0.1", "--port", "0", "--event-loops", "1",
            "--certificate", certificate, "--key", key, "--control", "\(control)",
        ])
        #expect(await server.line(with: "longline server ready on") != nil, "\(server.output)")
        let token = try await ToolProcess.run(["token", "--data", data, "--user", "ann", "--device", "phone"])
        let file = try folder.write("ann.token", token.output)
        try await body(
            folder, data,
            ["--control", "https://127.0.0.1:\(control)", "--pin", made.pinText, "--token-file", file])
        server.signal(SIGTERM)
        #expect(await server.status() == 0)
    }

    private func command(_ options: [String]) -> [String] {
        ["send"] + options + ["--to", "user/ann", "--timeout", "30", "hello"]
    }

    private func send(_ options: [String]) async throws -> (status: Int32?, output: String) {
        try await ToolProcess.run(command(options))
    }

    @Test("A command that is told the control layer's address alone finds the server, and keeps what it was told")
    func send() async throws {
        try await withServer { folder, _, options in
            for _ in 0..<2 {
                let said = try await send(options + ["--state", "\(folder.path)/ann.sqlite"])
                #expect(said.status == 0, "\(said.output)")
            }
        }
    }

    @Test("With a file of keys a command believes the control layer that has them, and no other")
    func keys() async throws {
        try await withServer { folder, data, options in
            // A folder of another server, with keys of its own.
            _ = try ServerDirectory("\(folder.path)/other")
            for (name, place, isGood) in [("own", data, true), ("other", "\(folder.path)/other", false)] {
                let set = try await ToolProcess.run(["keys", "list", "--jwks", "--data", place])
                let file = try folder.write("\(name).json", set.output)
                let tool = try ToolProcess(
                    command(options + ["--control-keys", file, "--log-level", "warning"]))
                // It goes on asking until its time is over.
                if !isGood {
                    #expect(await tool.line(with: "controlAnswerUntrusted") != nil)
                    // Not SIGINT, which a process in the background of a script has from there as ignored.
                    tool.signal(SIGTERM)
                }
                #expect((await tool.status() == 0) == isGood, "\(tool.output)")
                #expect(tool.output.contains { $0.contains("controlAnswerUntrusted") } == !isGood, "\(tool.output)")
            }
        }
    }

    @Test("A file of keys that is none, or for no control layer, is refused before anything is tried")
    func refusedKeys() async throws {
        let folder = try TemporaryFolder()
        let options = ["--token", "t"]
        let control = ["--control", "https://127.0.0.1:1"]
        let alone = try await send(options + ["--control-keys", "x.json"])
        #expect(alone.status != 0 && alone.output.contains("--control-keys goes with --control."))
        let absent = try await send(options + control + ["--control-keys", "\(folder.path)/absent.json"])
        #expect(absent.status != 0 && absent.output.contains("absent.json can't be read"))
        let broken = try folder.write("broken.json", #"{"keys": []}"#)
        let said = try await send(options + control + ["--control-keys", broken])
        #expect(said.status != 0 && said.output.contains("broken.json can't be used: keyUnusable"), "\(said.output)")
    }

    @Test("An address of another form is refused before anything is tried")
    func refused() async throws {
        let said = try await ToolProcess.run([
            "send", "--control", "rt.example.com", "--token", "t", "--to", "user/ann", "hello",
        ])
        #expect(said.status != 0 && said.output.contains("'rt.example.com' is not https://host:port."))
    }

    @Test("A server whose control port is taken is never said to be ready")
    func takenPort() async throws {
        let folder = try TemporaryFolder()
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        let port = try Self.bindFreePort(descriptor)
        try #require(listen(descriptor, 1) == 0)
        let said = try await ToolProcess.run([
            "server", "--data", "\(folder.path)/data", "--port", "0", "--event-loops", "1", "--control", "\(port)",
        ])
        #expect(said.status != 0 && said.output.contains("can't serve HTTPS"), "\(said.output)")
        #expect(!said.output.contains("longline server ready"), "\(said.output)")
    }

    /// A TCP port that nobody has at this moment.
    private static func freePort() throws -> Int {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        return try bindFreePort(descriptor)
    }

    private static func bindFreePort(_ descriptor: Int32) throws -> Int {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isBound = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, size) == 0 && getsockname(descriptor, $0, &size) == 0
            }
        }
        try #require(isBound)
        return Int(UInt16(bigEndian: address.sin_port))
    }
}
