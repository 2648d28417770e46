import Foundation
import LonglineTestKit
import Testing

#if canImport(Glibc)
    import Glibc
#endif

/// The options of a device's token, signed with a folder's key.
func token(_ folder: TemporaryFolder, _ user: String, _ device: String) async throws -> [String] {
    let token = try await ToolProcess.run(
        ["token", "--data", "\(folder.path)/data", "--user", user, "--device", device])
    return ["--token", token.output]
}

/// A server on the folder; the body is given what reaches it.
func withServer(
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
