import Foundation
import Synchronization

/// The server as a process of its own, so that it can be killed the hard way and started again on the same store.
final class DemoServerProcess: Sendable {
    /// Why the server did not come up.
    struct StartFailure: Error, CustomStringConvertible {
        let description: String
    }

    let dataDirectory: URL
    let port: Int
    private let running = Mutex<Running?>(nil)

    private struct Running {
        let identifier: Int32
        /// Ends with the process.
        let end: AsyncStream<Void>
    }

    init(dataDirectory: URL, port: Int) {
        self.dataDirectory = dataDirectory
        self.port = port
    }

    /// The program that runs now: the server is the same one with another command.
    static var ownExecutable: URL {
        get throws {
            let path = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
            return URL(fileURLWithPath: path)
        }
    }

    /// Starts the server and waits until it says that it is ready, or ends.
    func start() async throws {
        let child = Process()
        child.executableURL = try Self.ownExecutable
        child.arguments = [
            "server", "--host", "127.0.0.1", "--port", "\(port)", "--data", dataDirectory.path,
            "--log-level", "warning",
        ]
        let output = Pipe()
        child.standardOutput = output
        child.standardInput = FileHandle.nullDevice
        let (end, ended) = AsyncStream.makeStream(of: Void.self)
        child.terminationHandler = { _ in ended.finish() }
        try child.run()
        let started = Running(identifier: child.processIdentifier, end: end)
        running.withLock { $0 = started }
        guard await Self.saysReady(output.fileHandleForReading) else {
            throw StartFailure(description: "the server ended before it was ready; its messages are above")
        }
    }

    /// Reads what the server prints until it is ready; false at the end.
    private static func saysReady(_ output: FileHandle) async -> Bool {
        await withCheckedContinuation { continuation in
            DispatchQueue.global().async {
                var text = ""
                while true {
                    let data = output.availableData
                    guard !data.isEmpty else { return continuation.resume(returning: false) }
                    text += String(decoding: data, as: UTF8.self)
                    if text.contains("server ready") { return continuation.resume(returning: true) }
                }
            }
        }
    }

    /// Ends the server with SIGKILL: no goodbye, no flush.
    func kill() async { await end(with: SIGKILL) }

    /// Asks the server to stop, and waits until it did.
    func stop() async { await end(with: SIGTERM) }

    /// Kills the server when this process is asked to end: nobody else would.
    func endsWithThisProcess() -> [any DispatchSourceSignal] {
        [SIGINT, SIGTERM].map { number in
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number)
            source.setEventHandler {
                if let server = self.running.withLock({ $0 }) { Foundation.kill(server.identifier, SIGKILL) }
                exit(128 + number)
            }
            source.resume()
            return source
        }
    }

    private func end(with signal: Int32) async {
        guard let server = running.withLock({ $0.take() }) else { return }
        Foundation.kill(server.identifier, signal)
        for await _ in server.end {}
    }
}
