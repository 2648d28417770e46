import Foundation
import LonglineStore
import LonglineTestKit
import LonglineWire
import Testing

@Suite("longline backup", .timeLimit(.minutes(2)))
struct BackupCommandTests {
    private func backup(_ data: String, _ file: String) async throws -> (status: Int32?, output: String) {
        try await ToolProcess.run(["backup", "--data", data, file])
    }

    @Test("The messages of a running server are in the copy, which replaces nothing")
    func running() async throws {
        let folder = try TemporaryFolder()
        let data = folder.path + "/data"
        let server = try ToolProcess([
            "server", "--data", data, "--host", "127.0.0.1", "--port", "0", "--event-loops", "1",
        ])
        let ready = try #require(await server.line(with: "longline server ready on"), "\(server.output)")
        let place = try #require(ready.firstMatch(of: /on (127[0-9.:]+), certificate pin ([0-9a-f]+)/))
        let token = try await ToolProcess.run(["token", "--data", data, "--user", "ann", "--device", "phone"])
        let said = try await ToolProcess.run([
            "send", "--server", String(place.1), "--pin", String(place.2), "--token", token.output, "--to", "user/ann",
            "kept",
        ])
        #expect(said.status == 0, "\(said.output)")

        let restored = folder.path + "/restored"
        try FileManager.default.createDirectory(atPath: restored, withIntermediateDirectories: false)
        let copy = restored + "/longline.db"
        let made = try await backup(data, copy)
        #expect(made.status == 0 && made.output.contains(copy), "\(made.output)")
        let again = try await backup(data, copy)
        #expect(again.status == 1 && again.output.contains("exists"), "\(again.output)")
        server.signal(SIGTERM)
        #expect(await server.status() == 0)

        let store = try SQLiteStore(SQLiteStoreConfiguration(directory: restored))
        let inbox = ChannelKey(tenant: try TenantID("default"), channel: .user(try UserID("ann")))
        let page = try await store.read(inbox, after: 0, upTo: nil, maximumBytes: 1 << 20, now: 0)
        #expect(page.items.count == 1)
        #expect(store.wasRestored)
        try await store.close()
    }

    @Test("A folder that is no server's, and a place that can't be written to, are named")
    func wrong() async throws {
        let folder = try TemporaryFolder()
        let missing = try await backup(folder.path + "/typo", folder.path + "/copy.db")
        #expect(missing.status == 1 && missing.output.contains("no server's data folder"), "\(missing.output)")
        #expect(!FileManager.default.fileExists(atPath: folder.path + "/typo"))
    }
}
