import Foundation
import LonglineTestKit
import Testing

/// schemathesis (https://schemathesis.io), installed by `scripts/test` in a virtual environment of its own.
enum Schemathesis {
    private static let place = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent(".build/schemathesis")
    static let configuration = Aioquic.scripts.appendingPathComponent("schemathesis.toml")
    /// Test cases of each operation, besides those that cover what its schema says.
    static let examples = ProcessInfo.processInfo.environment["LONGLINE_API_EXAMPLES"] ?? "30"
    static let seed = ProcessInfo.processInfo.environment["LONGLINE_API_SEED"] ?? "1"

    static let isInstalled =
        FileManager.default.fileExists(atPath: place.appendingPathComponent("installed").path)
    static let howToInstall: String =
        "schemathesis is not installed: scripts/test does that where Python 3 and PyPI can be reached"

    /// Tries operations of the OpenAPI document that a server gives out; returns how that ended and what it said.
    static func run(
        _ operations: [String], port: Int, key: String, node: String, authority: String, in folder: URL
    ) async throws -> (status: Int32, output: String) {
        let arguments =
            [
                "--config-file", configuration.path, "run", "https://localhost:\(port)/openapi.yaml", "--url",
                "https://localhost:\(port)", "--tls-verify", authority, "--seed", seed, "--max-examples", examples,
                "--checks", "all",
            ] + operations
        let environment = ["LONGLINE_API_KEY": key, "LONGLINE_API_NODE": node]
        return try await run("schemathesis", arguments, environment, in: folder)
    }

    /// The node's name, which operators find in the figures.
    static func node(port: Int, authority: String, in folder: URL) async throws -> String {
        let program = """
            import requests, sys
            print(requests.get(sys.argv[1], verify=sys.argv[2], timeout=30).json()["nodes"][0]["id"], end="")
            """
        let (status, output) = try await run(
            "python3", ["-c", program, "https://localhost:\(port)/v1/statistics", authority], [:], in: folder)
        return try #require(status == 0 ? output : nil, "\(output)")
    }

    /// Runs a program of the environment to its end.
    private static func run(
        _ program: String, _ arguments: [String], _ variables: [String: String], in folder: URL
    ) async throws -> (status: Int32, output: String) {
        let process = Process()
        process.executableURL = place.appendingPathComponent("bin/\(program)")
        process.arguments = arguments
        let own = ["NO_PROXY": "localhost", "no_proxy": "localhost", "COLUMNS": "120"]
        process.environment = ProcessInfo.processInfo.environment.merging(own) { $1 }.merging(variables) { $1 }
        process.currentDirectoryURL = folder
        process.standardInput = FileHandle.nullDevice
        // A file takes as much as it says.
        let said = folder.appendingPathComponent("said-\(UUID().uuidString)")
        try Data().write(to: said)
        let output = try FileHandle(forWritingTo: said)
        process.standardOutput = output
        process.standardError = output
        let (ends, end) = AsyncStream.makeStream(of: Void.self)
        process.terminationHandler = { _ in end.finish() }
        try process.run()
        let id = process.processIdentifier
        await withTaskCancellationHandler {
            for await _ in ends {}
        } onCancel: {
            kill(id, SIGKILL)
        }
        process.waitUntilExit()
        return (process.terminationStatus, String(decoding: try Data(contentsOf: said), as: UTF8.self))
    }
}

/// The control layer against its own description: what that allows is accepted, what it does not is refused, and every answer is
/// one that it has.
@Suite(
    "The control layer's OpenAPI document, tried by schemathesis", .timeLimit(.minutes(10)),
    .enabled(if: Schemathesis.isInstalled, "\(Schemathesis.howToInstall)"))
struct SchemathesisTests {
    private static let rights = "tokens,revoke,erase,publish,history,retract,rooms"

    @Test("App servers, clients and operators get what it says")
    func conformance() async throws {
        let server = try await ToolServer()
        let authority = server.data + "/certificate.pem"
        let app = try await server.run(
            "apikey", "create", "--tenant", "default", "--label", "shop", "--rights", Self.rights)
        let operators = try await server.run("apikey", "create", "--operator", "--label", "on-call")
        let token = try await server.run("token", "--user", "ann", "--device", "phone")
        let node = try await Schemathesis.node(
            port: server.adminPort, authority: authority, in: server.folder.url)
        let (folder, servicePort, adminPort) = (server.folder.url, server.servicePort, server.adminPort)
        @Sendable func pass(_ operations: [String], _ port: Int, _ key: String) async throws {
            let (status, output) = try await Schemathesis.run(
                operations, port: port, key: key, node: node, authority: authority, in: folder)
            #expect(status == 0, "\(operations): \(output)")
            #expect(output.contains("No issues found"), "\(output)")
        }
        async let apps: Void = pass(["--include-tag", "app", "--include-tag", "public"], servicePort, app)
        async let clients: Void = pass(["--include-tag", "client"], servicePort, token)
        async let operations: Void = pass(
            ["--include-tag", "operator", "--exclude-operation-id", "drain"], adminPort, operators)
        _ = try await (apps, clients, operations)
        // The drain comes last: it lasts, and the node is not ready any more.
        try await pass(["--include-operation-id", "drain"], adminPort, operators)
        await server.stop()
    }
}
