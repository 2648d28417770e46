import Foundation
import Logging
import LonglineServer
import LonglineStore
import LonglineWire
import NIOCore
import PeerHarness

/// The names that both processes use.
enum Names {
    static let room = "benchmark"
    static let tenant = "benchmark"
    static func user(_ number: Int) -> String { "user\(number)" }
    static let device = "phone"
}

/// The server with a room that has its members already: that each of ten thousand joins is told to all the others is another
/// benchmark.
func serve(_ role: Role) async throws {
    guard role.arguments.count == 2, let size = Int(role.arguments[1]) else {
        throw ChildProcess.Failure("the server takes a folder and a size")
    }
    let directory = try ServerDirectory(role.arguments[0])
    let identity = try directory.developmentIdentity(names: ["localhost"])
    var logger = Logger(label: "rooms")
    logger.logLevel = .error
    let settings = SQLiteStoreConfiguration(directory: directory.storePath, logger: logger)
    try await fill(settings, size)
    var configuration = LonglineServer.Configuration(
        store: .sqlite(settings), certificate: { identity.credentials },
        tokenKeys: [try directory.signingKey().verificationKey],
        addresses: [try SocketAddress(ipAddress: "127.0.0.1", port: 0)])
    configuration.eventLoops = 1
    configuration.logger = logger
    let server = LonglineServer(configuration: configuration)
    try await server.start()
    Role.report("\(server.addresses.first?.port ?? 0)")
    while readLine() != nil {}
    await server.shutdown()
}

private func fill(_ settings: SQLiteStoreConfiguration, _ size: Int) async throws {
    let store = try SQLiteStore(settings)
    let (tenant, room, device) = (try TenantID(Names.tenant), try RoomID(Names.room), try DeviceID(Names.device))
    try await withThrowingTaskGroup(of: Void.self) { group in
        for number in 0..<size {
            if number >= 256 { try await group.next() }
            group.addTask {
                let member = DeviceKey(tenant: tenant, user: try UserID(Names.user(number)), device: device)
                _ = try await store.change(room, .join(create: true), by: member)
            }
        }
        try await group.waitForAll()
    }
    // The joins are past: nobody is to be told of them.
    let key = ChannelKey(tenant: tenant, channel: .room(room))
    while try await store.trim(key, keep: Retention(entries: 1)).more {}
    try await store.close()
}
