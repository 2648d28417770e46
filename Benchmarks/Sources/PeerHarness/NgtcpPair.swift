import Foundation

/// Debian's ngtcp2 example server and client (packages ngtcp2-server and ngtcp2-client), with a certificate of their own.
public final class NgtcpPair {
    /// Where they are; nil if one isn't installed.
    public static var programs: (server: String, client: String)? {
        func find(_ name: String) -> String? {
            ["/usr/bin/", "/usr/sbin/", "/usr/local/bin/"].map { $0 + name }
                .first { FileManager.default.isExecutableFile(atPath: $0) }
        }
        guard let server = find("gtlsserver"), let client = find("gtlsclient") else { return nil }
        return (server, client)
    }

    /// The server.
    public let server: ChildProcess
    private let client: String
    /// The port it listens on.
    public let port: Int
    private let folder: URL
    private let clientCore: Int

    /// Starts the server; nil if the programs aren't installed.
    public init?(certificatePEM: String, privateKeyPEM: String, serverCore: Int, clientCore: Int) throws {
        guard let programs = Self.programs else { return nil }
        folder = FileManager.default.benchmarkFolder("peer")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let (key, certificate) = (folder.appending(path: "key.pem").path, folder.appending(path: "cert.pem").path)
        try privateKeyPEM.write(toFile: key, atomically: true, encoding: .utf8)
        try certificatePEM.write(toFile: certificate, atomically: true, encoding: .utf8)
        port = Int.random(in: 20_000..<32_000)
        client = programs.client
        self.clientCore = clientCore
        server = try ChildProcess(
            programs.server,
            ["-q", "--max-dyn-length=64G", "-d", folder.path, "127.0.0.1", "\(port)", key, certificate],
            core: serverCore)
        // It says nothing when it is ready.
        Thread.sleep(forTimeInterval: 0.3)
        try server.requireRunning("gtlsserver")
    }

    /// Runs a client with these options to its end; a number as the path downloads so many bytes.
    public func runClient(_ options: [String] = [], paths: [String]) throws {
        let child = try ChildProcess(
            client,
            ["-q", "--exit-on-all-streams-close"] + options + ["127.0.0.1", "\(port)"]
                + paths.map { "https://localhost/\($0)" },
            core: clientCore)
        try child.wait()
    }

    /// A file in the pair's own folder, which ``end()`` removes.
    public func file(_ name: String) -> String { folder.appending(path: name).path }

    /// Ends the server.
    public func end() {
        server.end()
        try? FileManager.default.removeItem(at: folder)
    }
}
