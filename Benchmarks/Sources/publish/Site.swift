import BenchmarkHarness
import Foundation
import Logging
import LonglineClient
import LonglineServer
import LonglineStore
import LonglineWire
import NIOCore
import PeerHarness

/// A server with its store in a folder of its own, on loopback, and two clients.
struct Site: MessageService {
    let server: LonglineServer
    let sender: LonglineClient
    let tally: Tally
    private let receiver: LonglineClient
    private let reader: Task<Void, Never>
    private let folder: URL
    private let target: Destination
    /// Where messages go.
    enum Kind { case room, direct }

    /// - Parameter groupCommit: whether publishes share transactions; otherwise each is committed by itself.
    init(groupCommit: Bool = true, to kind: Kind = .room) async throws {
        folder = FileManager.default.benchmarkFolder()
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
        switch kind {
        case .direct: target = .user(try UserID("bob"))
        case .room:
            let room = try RoomID("benchmark")
            try await sender.join(room)
            try await receiver.join(room)
            target = .room(room)
        }
        (self.sender, self.receiver, self.tally) = (sender, receiver, tally)
        reader = Task {
            for await message in receiver.messages where message.kind == .message { tally.delivered(message.payload) }
        }
    }

    /// Publishes one message that is due at `due`, and waits until the server has acknowledged it.
    func publish(due: ContinuousClock.Instant) async throws {
        let payload = tally.payload(due: due)
        while true {
            do {
                _ = try await sender.send(payload, to: target).acknowledged()
                return
            } catch let error as ClientError where error.code == .channelFull {
                // Where the machine doesn't keep up with the rate: the wait is part of the time.
                try await Task.sleep(for: .milliseconds(1))
            }
        }
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
