import Foundation
import Logging
import LonglineClient
import LonglineServer
import LonglineWire
import NIOCore
import NIOPosix

/// The main job of Longline on real sockets, step by step. Each step adds what it saw to the report.
final class Demonstration {
    /// The round-trip time of the path between the devices and the server: a good mobile network.
    static let roundTrip = Duration.milliseconds(40)

    let directory: URL
    let server: DemoServerProcess
    let relay: DatagramRelay
    let group: MultiThreadedEventLoopGroup
    let logger: Logger
    var report = DemoReport()
    var coldAcknowledged = Duration.zero
    private var devices: [DemoDevice] = []

    init(
        directory: URL, server: DemoServerProcess, relay: DatagramRelay, group: MultiThreadedEventLoopGroup,
        logger: Logger
    ) {
        self.directory = directory
        self.server = server
        self.relay = relay
        self.group = group
        self.logger = logger
    }

    /// Runs all steps.
    func run() async throws {
        let alice = try device("alice", "phone")
        let tablet = try device("alice", "tablet")
        let bob = try device("bob", "phone")
        let carol = try device("carol", "phone")
        try await step(1, "cold connect, first message acknowledged") { try await self.coldConnect(alice) }
        try await step(2, "messages between users, in a room, and on a second device") {
            try await self.conversation(alice: alice, tablet: tablet, bob: bob, carol: carol)
        }
        try await step(3, "bob's phone changes its port, then its address, while messages flow") {
            try await self.moveWhileMessagesFlow(alice: alice, bob: bob)
        }
        try await step(4, "bob's phone goes silent, and comes back by 0-RTT") {
            try await self.silenceAndReturn(alice: alice, bob: bob)
        }
        try await step(5, "the server is killed while publishes are in flight, and started again") {
            try await self.killServer(alice: alice, bob: bob)
        }
        try await step(6, "a captured 0-RTT flight is sent again") {
            try await self.replayFlight(alice: alice, bob: bob)
        }
        for device in devices { await device.end() }
    }

    private func step(_ number: Int, _ title: String, _ body: () async throws -> Void) async throws {
        print("\n\(number). \(title)")
        do {
            try await body()
        } catch {
            report.record(step: number, title, seen: "\(error)", passed: false)
            throw error
        }
    }

    /// A device with storage of its own on disk. `label` tells devices of one name apart.
    func device(_ user: String, _ device: String) throws -> DemoDevice {
        let made = try server.make { try makeDevice(user, device) }
        devices.append(made)
        return made
    }

    private func makeDevice(_ user: String, _ device: String) throws -> DemoDevice {
        let name = "\(user)/\(device)"
        let files = directory.appendingPathComponent("devices/\(user)-\(device)", isDirectory: true)
        try FileManager.default.createDirectory(at: files, withIntermediateDirectories: true)
        let service = try ServerDirectory(server.dataDirectory.path)
        let identity = try service.developmentIdentity(names: ["127.0.0.1"])
        let (tenant, userID, deviceID) = (try TenantID("default"), try UserID(user), try DeviceID(device))
        var configuration = LonglineClient.Configuration(
            accessPoints: [AccessPoint(host: "127.0.0.1", port: relay.port)],
            trust: .pinnedPublicKey([identity.pin]),
            storage: try SQLiteClientStorage(path: files.appendingPathComponent("client.sqlite").path),
            tokenProvider: {
                try await service.sign(tenant: tenant, user: userID, device: deviceID, lifetime: 3_600_000)
            })
        configuration.user = userID
        configuration.backOff = BackOffPolicy(base: .milliseconds(100), maximum: .seconds(2))
        configuration.connectTimeout = .seconds(3)
        configuration.eventLoopGroup = group
        configuration.logger = logger
        configuration.agent = "longline-demo"
        return DemoDevice(name: name, client: try LonglineClient(configuration: configuration))
    }

    func record(_ step: Int, _ expectation: String, _ seen: String, _ passed: Bool) {
        report.record(step: step, expectation, seen: seen, passed: passed)
    }

    func inRoundTrips(_ duration: Duration) -> String {
        let trips = duration / Self.roundTrip
        let tenths = Int((trips * 10).rounded())
        return "\(DemoFormat.milliseconds(duration)), \(tenths / 10).\(tenths % 10) RTT"
    }
}
