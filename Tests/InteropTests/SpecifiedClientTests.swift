import Foundation
import Testing

/// A client that shares nothing with ours: `peers/longline.py` and what it imports follow docs/protocol.md and know nothing else. Where
/// the page says too little or something else than the server does, the client can't be right.
@Suite(
    "A client written from the specification alone",
    .enabled(if: Aioquic.isInstalled, .init(rawValue: Aioquic.howToInstall)), .timeLimit(.minutes(2)))
struct SpecifiedClientTests {
    private struct Vectors: Decodable, Sendable {
        var checked: Int
    }

    private struct Refusals: Decodable, Sendable {
        var wrong: [String]
        var tried: Int
    }

    @Test("It reads the test vectors, writes them as they are, and refuses the invalid ones with their codes")
    func vectors() async throws {
        let tests = Aioquic.scripts.deletingLastPathComponent().deletingLastPathComponent()
        let folder = tests.appendingPathComponent("Vectors").path
        try await Peer.run(script: "longline.py") { peer in
            let vectors = try await peer("vectors", ["folder": .text(folder)], as: Vectors.self)
            #expect(vectors.checked > 200)
        }
    }

    @Test("It talks to our server: by token and by ticket in 0-RTT, and is refused as the page says")
    func session() async throws {
        let server = try await ToolServer()
        let alice = try await server.run("token", "--user", "alice", "--device", "phone")
        let bob = try await server.run("token", "--user", "bob", "--device", "phone")
        let arguments: [String: Argument] = [
            "port": .number(server.port), "authority": .text(server.data + "/certificate.pem"),
            "alice": .text(alice), "bob": .text(bob),
        ]
        try await Peer.run(script: "longline.py") { peer in
            try await peer("talk", arguments)
            try await peer("come_back", arguments)
            let refusals = try await peer("refusals", arguments, as: Refusals.self)
            #expect(refusals.wrong == [])
            #expect(refusals.tried == 20)
        }
        await server.stop()
    }
}
