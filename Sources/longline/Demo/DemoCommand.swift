import ArgumentParser
import Foundation
import Logging
import NIOCore
import NIOPosix
import UnixSignals

/// Shows the main job on real sockets, and fails when an expectation does not hold.
struct DemoCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "demo",
        abstract: "Show the main job on real sockets: connect, talk, move, vanish, come back, crash.",
        discussion: """
            Starts a server as a process of its own with a store in a temporary directory, and four devices that reach it
            through a relay on the loopback interface that behaves like a NAT on a path of 40 ms. Ends in a table; the
            exit code is 0 only if every expectation held.
            """)

    @Option(help: "Keep the server's data and the devices' storage in this directory instead of a temporary one.")
    var keep: String?

    @Flag(name: .shortAndLong, help: "Show the clients' log lines.")
    var verbose = false

    func run() async throws {
        let signals = await UnixSignalsSequence(trapping: .sighup, .sigint, .sigterm)
        let directory = try workDirectory()
        let isTemporary = keep == nil
        defer { if isTemporary { Self.remove(directory) } }
        let group = MultiThreadedEventLoopGroup.singleton
        let port = try await freePort(on: group)
        let server = DemoServerProcess(dataDirectory: directory.appendingPathComponent("server"), port: port)
        // Whoever ends this process ends a server that nobody else would end, too.
        let interruption = Task {
            for await signal in signals {
                await server.killForGood()
                if isTemporary { Self.remove(directory) }
                Foundation.exit(128 + signal.rawValue)
            }
        }
        defer { interruption.cancel() }
        print("Starting the server on 127.0.0.1:\(port) …")
        let report: DemoReport
        do {
            try await server.start()
            report = try await demonstrate(server, in: directory, on: group)
        } catch {
            await server.stop()
            throw error
        }
        await server.stop()
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
        do {
            try await demonstration.run()
        } catch {
            print("\nThe demonstration stopped early: \(error)")
        }
        await relay.close()
        return demonstration.report
    }

    /// A device that still writes may put a file back meanwhile.
    private static func remove(_ directory: URL) {
        for _ in 0..<3 where FileManager.default.fileExists(atPath: directory.path) {
            try? FileManager.default.removeItem(at: directory)
        }
    }

    private func workDirectory() throws -> URL {
        let directory =
            keep.map { URL(fileURLWithPath: $0, isDirectory: true) }
            ?? FileManager.default.temporaryDirectory.appendingPathComponent(
                "longline-demo-\(UUID().uuidString)", isDirectory: true)
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
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
