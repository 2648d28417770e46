import Foundation
import LonglineTestKit
import Testing

/// `longline server` with its control layer, as its users have it: a process, in a folder of its own, on free ports of loopback.
final class ToolServer {
    let folder: TemporaryFolder
    /// The UDP port of clients.
    let port: Int
    /// The TCP ports for clients and app servers, and for operators.
    let servicePort: Int
    let adminPort: Int
    /// SHA-256 of the public key, of all listeners.
    let pin: [UInt8]
    private let process: ToolProcess

    var data: String { folder.url.appendingPathComponent("data").path }

    init() async throws {
        folder = try TemporaryFolder()
        let data = folder.url.appendingPathComponent("data").path
        let process = try ToolProcess(["server", "--data", data, "--port", "0", "--control", "0", "--admin", "0"])
        self.process = process
        // They come in any order.
        var lines: [String] = []
        while lines.count < 3 {
            lines.append(try #require(await process.line(with: "longline ", " ready "), "\(process.output)"))
        }
        func number(_ part: String) throws -> Int {
            let line = lines.first { $0.contains(part) }
            return try #require(line?.firstMatch(of: /127\.0\.0\.1:([0-9]+)/).flatMap { Int($0.1) }, "\(lines)")
        }
        servicePort = try number("control ready for clients")
        adminPort = try number("control ready for operators")
        port = try number("server ready on")
        let text = try #require(lines.lazy.compactMap { $0.firstMatch(of: /pin ([0-9a-f]{64})/) }.first).1
        pin = [UInt8](hexadecimal: String(text))
    }

    /// Stops it; what it does last must go well, too.
    func stop() async {
        process.signal(SIGTERM)
        #expect(await process.status() == 0, "\(process.output.suffix(20))")
    }

    /// Runs the tool, and returns what it prints on standard output: a key or a token alone.
    func run(_ arguments: String...) async throws -> String {
        let (status, output) = try await ToolProcess.run(arguments + ["--data", data])
        // A line about it goes to standard error.
        let secret = output.split(separator: "\n").map(String.init).first { !$0.contains(" ") }
        return try #require(status == 0 ? secret : nil, "\(arguments): \(output)")
    }
}
