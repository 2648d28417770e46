import BenchmarkHarness
import Foundation
import Logging
import LonglineClient
import LonglineServer
import LonglineStore
import LonglineWire
import NIOCore

/// A server with its store in a folder of its own, on loopback, and two clients that share a room.
struct Site {
    let server: LonglineServer
    let sender: LonglineClient
    let tally: Tally
    private let receiver: LonglineClient
    private let reader: Task<Void, Never>
    private let folder: URL
    private let room: RoomID

    /// - Parameter groupCommit: whether publishes share transactions; otherwise each is committed by itself.
    init(groupCommit: Bool) async throws {
        // TMPDIR chooses the disk.
        folder = FileManager.default.temporaryDirectory.appending(path: "longline-benchmark-\(UUID().uuidString)")
        let directory = try ServerDirectory(folder.path)
        let identity = try directory.developmentIdentity(names: ["localhost"])
        var logger = Logger(label: "publish")
        logger.logLevel = .error
        var store = SQLiteStoreConfiguration(directory: directory.storePath, logger: logger)
        if !groupCommit { store.batchRequests = 1 }
        var configuration = LonglineServer.Configuration(
            store: .sqlite(store), certificate: { identity.credentials },
            tokenKeys: [try directory.signingKey().verificationKey],
            addresses: [try SocketAddress(ipAddress: "127.0.0.1", port: 0)])
        if !groupCommit { configuration.limits.appendBatch = 1 }
        configuration.eventLoops = 1
        configuration.logger = logger
        server = LonglineServer(configuration: configuration)
        try await server.start()

        let accessPoint = AccessPoint(host: "127.0.0.1", port: server.addresses.first?.port ?? 0)
        let tenant = try TenantID("benchmark")
        func client(_ name: String) async throws -> LonglineClient {
            let (user, device) = (try UserID(name), try DeviceID("phone"))
            var configuration = LonglineClient.Configuration(
                accessPoints: [accessPoint], trust: .pinnedPublicKey([identity.pin])
            ) {
                try await directory.sign(tenant: tenant, user: user, device: device, lifetime: 3_600_000)
            }
            configuration.watchesNetwork = false
            configuration.logger = logger
            let client = try LonglineClient(configuration: configuration)
            try await client.connect()
            return client
        }
        let (sender, receiver, tally) = (try await client("alice"), try await client("bob"), Tally())
        let room = try RoomID("benchmark")
        try await sender.join(room)
        try await receiver.join(room)
        (self.sender, self.receiver, self.tally, self.room) = (sender, receiver, tally, room)
        reader = Task {
            for await message in receiver.messages where message.kind == .message { tally.delivered(message.payload) }
        }
    }

    /// Publishes one message that is due at `due`, and waits until the server has acknowledged it.
    func publish(due: ContinuousClock.Instant) async throws {
        _ = try await sender.send(tally.payload(due: due), to: .room(room)).acknowledged()
    }

    /// Publishes for at least `time` with so many messages in flight.
    /// - Returns: acknowledged and delivered messages per second, each until the last one was.
    func round(_ time: Duration, window: Int) async throws -> (acknowledged: Double, delivered: Double) {
        let clock = ContinuousClock()
        let (before, start) = (tally.deliveries.count, clock.now)
        let sent = try await withThrowingTaskGroup(of: Int.self) { group in
            for _ in 0..<window {
                group.addTask {
                    var count = 0
                    repeat {
                        try await publish(due: clock.now)
                        count += 1
                    } while clock.now - start < time
                    return count
                }
            }
            return try await group.reduce(0, +)
        }
        let acknowledged = clock.now - start
        let last = try await tally.waitForDeliveries(before + sent)
        return (Double(sent) / acknowledged.inSeconds, Double(sent) / (last - start).inSeconds)
    }

    /// Offers messages at a fixed rate for a while, whatever becomes of them, and notes how long after they were due
    /// they were acknowledged and delivered.
    func paced(perSecond rate: Int, for time: Duration) async throws -> (
        acknowledged: Latencies, delivered: Latencies
    ) {
        let clock = ContinuousClock()
        let before = tally.deliveries.count
        tally.startTiming()
        let (start, count) = (clock.now, Int(time.inSeconds * Double(rate)))
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<count {
                let due = start + .seconds(Double(number) / Double(rate))
                if due > clock.now { try await Task.sleep(until: due, tolerance: .zero, clock: clock) }
                group.addTask {
                    try await publish(due: due)
                    tally.acknowledged(due: due)
                }
            }
            try await group.waitForAll()
        }
        _ = try await tally.waitForDeliveries(before + count)
        return tally.stopTiming()
    }

    /// Ends all, and removes the folder.
    func end() async {
        await sender.disconnect()
        await receiver.disconnect()
        await server.shutdown()
        _ = await reader.value
        try? FileManager.default.removeItem(at: folder)
    }
}
