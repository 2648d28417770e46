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
    @Test("A command that is told the control layer's address alone finds the server, and keeps what it was told")
    func send() async throws {
        let folder = try TemporaryFolder()
        let made = try ServerDirectory(folder.path + "/identity").developmentIdentity(names: ["localhost", "127.0.0.1"])
        let certificate = try folder.write("chain.pem", made.credentials.certificateChainPEM)
        let key = try folder.write("key.pem", made.credentials.privateKeyPEM)
        let control = try Self.freePort()
        let server = try ToolProcess([
            "server", "--data", "\(folder.path)/data", "--host", "127.0.0.1", "--port", "0", "--event-loops", "1",
            "--certificate", certificate, "--key", key, "--control", "\(control)",
        ])
        #expect(await server.line(with: "longline server ready on") != nil, "\(server.output)")
        let token = try await ToolProcess.run(
            ["token", "--data", "\(folder.path)/data", "--user", "ann", "--device", "phone"])
        let file = try folder.write("ann.token", token.output)
        let state = "\(folder.path)/ann.sqlite"
        func send() async throws -> (status: Int32?, output: String) {
            try await ToolProcess.run([
                "send", "--control", "https://127.0.0.1:\(control)", "--pin", made.pinText, "--token-file", file,
                "--state", state, "--to", "user/ann", "--timeout", "30", "hello",
            ])
        }
        let first = try await send()
        #expect(first.status == 0, "\(first.output)")
        let kept = try await send()
        #expect(kept.status == 0, "\(kept.output)")
        server.signal(SIGTERM)
        #expect(await server.status() == 0)
    }

    @Test("An address of another form is refused before anything is tried")
    func refused() async throws {
        let said = try await ToolProcess.run([
            "send", "--control", "rt.example.com", "--token", "t", "--to", "user/ann", "hello",
        ])
        #expect(said.status != 0 && said.output.contains("'rt.example.com' is not https://host:port."))
    }

    /// A TCP port that nobody has at this moment.
    private static func freePort() throws -> Int {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
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
