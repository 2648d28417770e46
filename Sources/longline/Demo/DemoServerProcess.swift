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
    private let state = Mutex(State())

    private struct State {
        var running: Running?
        /// No other is started, and the folder is given up.
        var isOver = false
    }

    private struct Running: Sendable {
        let identifier: Int32
        /// Ends with the process.
        let end: Task<Void, Never>
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
        child.environment = Self.environment(ProcessInfo.processInfo.environment)
        let output = Pipe()
        child.standardOutput = output
        child.standardInput = FileHandle.nullDevice
        let (end, ended) = AsyncStream.makeStream(of: Void.self)
        child.terminationHandler = { _ in ended.finish() }
        try state.withLock { state in
            try Self.requireGoing(state)
            try child.run()
            state.running = Running(identifier: child.processIdentifier, end: Task { for await _ in end {} })
        }
        guard await Self.saysReady(output.fileHandleForReading) else {
            throw StartFailure(description: "the server ended before it was ready; its messages are above")
        }
    }

    /// Makes something that has files, unless ``killForGood()`` came before: then nothing may come into a folder that goes.
    func make<Made: Sendable>(_ body: () throws -> Made) throws -> Made {
        try state.withLock { state in
            try Self.requireGoing(state)
            return try body()
        }
    }

    private static func requireGoing(_ state: State) throws {
        guard !state.isOver else { throw StartFailure(description: "the demonstration is over") }
    }

    /// Without the settings that are meant for other servers: their files, certificates and ports.
    private static func environment(_ own: [String: String]) -> [String: String] {
        own.filter { !$0.key.hasPrefix("LONGLINE_") || ServerSettings.packetProtection == $0.key }
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

    /// Kills the server, and starts no other one.
    func killForGood() async {
        state.withLock { $0.isOver = true }
        await kill()
    }

    private func end(with signal: Int32) async {
        // It stays known until it is gone: who asks for an end at once does not wait for one in order.
        guard let server = state.withLock({ $0.running }) else { return }
        Foundation.kill(server.identifier, signal)
        await server.end.value
        state.withLock { if $0.running?.identifier == server.identifier { $0.running = nil } }
    }
}
