import ArgumentParser
import Foundation
import Logging
import NIOCore
import NIOPosix
import Synchronization
import UnixSignals

#if canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// Shows the main job on real sockets, and fails when an expectation does not hold.
struct DemoCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "demo",
        abstract: "Show the main job on real sockets: connect, talk, move, vanish, come back, crash.",
        discussion: """
            Starts a server as a process of its own with a store in a temporary directory, and four devices that reach it \
            through a relay on the loopback interface that behaves like a NAT on a path of 40 ms. Ends in a table; the \
            exit code is 0 only if every expectation held.
            """)

    @Option(help: "Keep the server's data and the devices' storage in this directory instead of a temporary one.")
    var keep: String?

    @Flag(name: .shortAndLong, help: "Show the clients' log lines.")
    var verbose = false

    func run() async throws {
        // What is ignored from the start stays so: nohup means that a hangup ends nothing.
        let signals = await UnixSignalsSequence(
            trapping: [.sighup, .sigint, .sigterm].filter { !Self.isIgnored($0.rawValue) })
        let directory = try workDirectory()
        let isTemporary = keep == nil
        defer { if isTemporary { Self.remove(directory) } }
        let group = MultiThreadedEventLoopGroup.singleton
        let port = try await freePort(on: group)
        let server = DemoServerProcess(dataDirectory: directory.appendingPathComponent("server"), port: port)
        let end = DemoEnd()
        // Whoever ends this process ends a server that nobody else would end, too.
        let interruption = Task {
            for await signal in signals {
                guard end.take() else { return }
                await server.killForGood()
                if isTemporary { Self.remove(directory) }
                Foundation.exit(128 + signal.rawValue)
            }
        }
        defer { interruption.cancel() }
        print("Starting the server on 127.0.0.1:\(port) …")
        let outcome: Result<DemoReport, any Error>
        do {
            try await server.start()
            outcome = .success(try await demonstrate(server, in: directory, on: group))
        } catch {
            outcome = .failure(error)
        }
        await server.stop()
        guard end.take() else {
            // What came of it was the signal's doing, which ends the process.
            await interruption.value
            return
        }
        let report = try outcome.get()
        if let failure = report.failure { print("\nThe demonstration stopped early: \(failure)") }
        print("\n\(report.table())\n")
        guard report.passed else {
            print("At least one expectation did not hold.")
            throw ExitCode.failure
        }
        print("Every expectation held.")
    }

    private func demonstrate(
        _ server: DemoServerProcess, in directory: URL, on group: MultiThreadedEventLoopGroup
    ) async throws -> DemoReport {
        var logger = Logger(label: "longline.demo")
        logger.logLevel = verbose ? .debug : .error
        let relay = try await DatagramRelay.open(
            to: SocketAddress(ipAddress: "127.0.0.1", port: server.port), roundTrip: Demonstration.roundTrip, on: group)
        let demonstration = Demonstration(
            directory: directory, server: server, relay: relay, group: group, logger: logger)
        do { try await demonstration.run() } catch { demonstration.report.failure = "\(error)" }
        await relay.close()
        return demonstration.report
    }

    /// A device that still writes may put a file into a folder that is just being emptied.
    private static func remove(_ directory: URL) {
        for _ in 0..<100 where FileManager.default.fileExists(atPath: directory.path) {
            try? FileManager.default.removeItem(at: directory)
        }
    }

    /// Whether a signal does nothing to this process.
    static func isIgnored(_ number: Int32) -> Bool {
        var action = sigaction()
        guard sigaction(number, nil, &action) == 0 else { return false }
        #if canImport(Musl)
            let handler = action.__sa_handler.sa_handler
        #else
            let handler = action.__sigaction_handler.sa_handler
        #endif
        return unsafeBitCast(handler, to: Int.self) == unsafeBitCast(SIG_IGN, to: Int.self)
    }

    private func workDirectory() throws -> URL {
        let directory =
            keep.map { URL(fileURLWithPath: $0, isDirectory: true) }
            ?? FileManager.default.temporaryDirectory.appendingPathComponent(
                "longline-demo-\(UUID().uuidString)", isDirectory: true)
        do {
            try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        } catch {
            guard let keep else { throw error }
            throw ValidationError("--keep: \(keep) can't be made a directory: \(error.localizedDescription)")
        }
        return directory
    }

    /// A port that is free now: found by binding to port 0.
    private func freePort(on group: any EventLoopGroup) async throws -> Int {
        let channel = try await DatagramBootstrap(group: group).bind(host: "127.0.0.1", port: 0).get()
        let port = channel.localAddress?.port ?? 0
        try await channel.close()
        return port
    }
}

/// Who ends the process: the demonstration when its server is gone, or the first signal before that.
private final class DemoEnd: Sendable {
    private let isTaken = Atomic(false)

    /// - Returns: false where the other does.
    func take() -> Bool {
        isTaken.compareExchange(expected: false, desired: true, ordering: .acquiringAndReleasing).exchanged
    }
}
