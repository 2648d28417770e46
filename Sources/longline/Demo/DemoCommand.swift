import ArgumentParser
import Foundation
import Logging
import NIOCore
import NIOPosix

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
        let directory = try workDirectory()
        defer { if keep == nil { try? FileManager.default.removeItem(at: directory) } }
        var logger = Logger(label: "longline.demo")
        logger.logLevel = verbose ? .debug : .error
        let group = MultiThreadedEventLoopGroup.singleton
        let port = try await freePort(on: group)
        let server = DemoServerProcess(dataDirectory: directory.appendingPathComponent("server"), port: port)
        print("Starting the server on 127.0.0.1:\(port) …")
        let signals = server.endsWithThisProcess()
        defer { for signal in signals { signal.cancel() } }
        try await server.start()
        let relay = try await DatagramRelay.open(
            to: SocketAddress(ipAddress: "127.0.0.1", port: port), roundTrip: Demonstration.roundTrip, on: group)
        let demonstration = Demonstration(
            directory: directory, server: server, relay: relay, group: group, logger: logger)
        do {
            try await demonstration.run()
        } catch {
            print("\nThe demonstration stopped early: \(error)")
        }
        await relay.close()
        await server.stop()
        print("\n\(demonstration.report.table())\n")
        guard demonstration.report.passed else {
            print("At least one expectation did not hold.")
            throw ExitCode.failure
        }
        print("Every expectation held.")
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
