import ArgumentParser
import Foundation
import LonglineControl
import LonglineServer
import LonglineStore
import LonglineTestKit
import Testing

@testable import longline

@Suite("Keys and commands of a folder", .timeLimit(.minutes(1)))
struct KeysCommandTests {
    private func rotation(_ folder: TemporaryFolder, _ more: String...) throws -> KeysCommand.Rotate {
        try KeysCommand.Rotate.parse(["--data", folder.path] + more)
    }

    /// A folder with a control layer, which others get the key set from.
    private func site() throws -> (folder: TemporaryFolder, directory: ServerDirectory) {
        let folder = try TemporaryFolder()
        let directory = try ServerDirectory(folder.path)
        try ControlDatabase(directory).close()
        _ = try directory.signingKey()
        return (folder, directory)
    }

    @Test("A new key is published, and signs once nobody has a copy of the set without it")
    func waits() async throws {
        let (folder, directory) = try site()
        let first = try directory.signingKey().keyID
        var waits: [Duration] = []
        let second = try await rotation(folder).rotate { time in
            waits.append(time)
            let next = try directory.nextSigningKey()?.keyID
            #expect(try directory.signingKey().keyID == first && next != nil)
            #expect(try directory.trustedKeys().map(\.keyID) == [next, first])
        }.key
        #expect(waits.count == 1 && waits[0] > ServerDirectory.keySetLifetime && waits[0] <= .seconds(65))
        #expect(try directory.signingKey().keyID == second.keyID)
        #expect(try directory.trustedKeys().map(\.keyID) == [second.keyID, first])
    }

    @Test("A command that is cut off while it waits leaves a prepared key, which the next rotation takes")
    func cutOff() async throws {
        let (folder, directory) = try site()
        let first = try directory.signingKey().keyID
        await #expect(throws: CancellationError.self) {
            try await rotation(folder).rotate { _ in throw CancellationError() }
        }
        let next = try #require(try directory.nextSigningKey()?.keyID)
        #expect(try directory.signingKey().keyID == first)
        #expect(try await rotation(folder, "--now").rotate { _ in Issue.record("--now waits") }.key.keyID == next)
    }

    @Test(
        "Nobody waits for a key that was prepared long ago, for one in place of a stolen one, or where nobody has the set"
    )
    func atOnce() async throws {
        let (folder, directory) = try site()
        let next = try await directory.prepareSigningKey()
        #expect(directory.timeUntilKnown(now: UInt64(Date().timeIntervalSince1970 * 1_000) + 65_000) == .zero)
        for name in ["token-next.key", "token-keys.json"] {
            try FileManager.default.setAttributes(
                [.modificationDate: Date(timeIntervalSinceNow: -66)], ofItemAtPath: folder.file(name))
        }
        let second = try await rotation(folder).rotate { _ in Issue.record("it was known long ago") }.key
        #expect(second.keyID == next.keyID)
        let third = try await rotation(folder, "--keep", "0").rotate { _ in Issue.record("--keep 0 waits") }.key
        #expect(try directory.trustedKeys().map(\.keyID) == [third.keyID])
        let alone = try TemporaryFolder()
        _ = try ServerDirectory(alone.path)
        _ = try await rotation(alone).rotate { _ in Issue.record("there is no control layer") }
    }

    @Test("A folder that is no server's is no folder to rotate keys in", arguments: ["rotate", "prepare", "remove"])
    func wrongFolder(command: String) async throws {
        let folder = try TemporaryFolder()
        let typo = folder.file("typo")
        let said = try await ToolProcess.run(["keys", command, "--data", typo] + (command == "remove" ? ["1"] : []))
        #expect(said.status == 1 && said.output.contains("\(typo) is no server's data folder"), "\(said.output)")
        #expect(!FileManager.default.fileExists(atPath: typo))
    }

    @Test("Who replaces a key learns whether a server knows")
    func told() async throws {
        let (folder, _) = try site()
        let said = try await ToolProcess.run(["keys", "rotate", "--now", "--data", folder.path])
        #expect(said.status == 0 && said.output.contains("(no server runs there)"), "\(said.output)")
        let server = try ToolProcess(["server", "--data", folder.path, "--port", "0", "--event-loops", "1"])
        #expect(await server.line(with: "longline server ready on") != nil, "\(server.output)")
        let heard = try await ToolProcess.run(["keys", "rotate", "--now", "--data", folder.path])
        #expect(heard.status == 0 && heard.output.contains("(the server that runs there knows)"), "\(heard.output)")
        server.signal(SIGTERM)
        #expect(await server.status() == 0)
    }

    @Test("A server that can't be told is not taken for none")
    func unreachable() async throws {
        let (folder, directory) = try site()
        let store = try SQLiteStore(SQLiteStoreConfiguration(directory: directory.storePath))
        let said = try await ToolProcess.run(["keys", "rotate", "--keep", "0", "--data", folder.path])
        #expect(said.status == 0 && !said.output.contains("no server runs there"), "\(said.output)")
        #expect(said.output.contains("without a control socket: restart it"), "\(said.output)")
        try await store.close()
        let alone = try await ToolProcess.run(["keys", "rotate", "--keep", "0", "--data", folder.path])
        #expect(alone.status == 0 && alone.output.contains("(no server runs there)"), "\(alone.output)")
    }

    @Test("A folder that an API key's command makes is named")
    func newFolder() async throws {
        let folder = try TemporaryFolder()
        let made = try await ToolProcess.run(["apikey", "create", "--data", folder.file("typo")])
        #expect(made.status == 0 && made.output.contains("* \(folder.file("typo")) was made"), "\(made.output)")
        let again = try await ToolProcess.run(["apikey", "create", "--data", folder.file("typo")])
        #expect(again.status == 0 && !again.output.contains("was made"), "\(again.output)")
    }

    @Test("The manual page names every command")
    func manual() throws {
        let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let page = try String(contentsOf: root.appending(path: "packaging/longline.1"), encoding: .utf8)
        let named = Set(page.split { !$0.isLetter }.map(String.init))
        for command in Longline.configuration.subcommands {
            let name = command.configuration.commandName ?? ""
            #expect(named.contains(name) || ["demo", "version"].contains(name), "\(name)")
        }
    }
}
