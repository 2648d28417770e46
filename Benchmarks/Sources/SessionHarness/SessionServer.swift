import Foundation
import Logging
public import LonglineServer
public import LonglineStore
public import LonglineWire
import NIOCore
import PeerHarness
import Synchronization

/// The names that a benchmark's server and its devices use.
public enum Names {
    /// The tenant of everybody.
    public static let tenant = "benchmark"
    /// The device of everybody.
    public static let device = "phone"
    /// A user.
    public static func user(_ number: Int) -> String { "user\(number)" }
    /// A user's phone.
    public static func phone(_ number: Int) throws -> DeviceKey {
        DeviceKey(tenant: try TenantID(tenant), user: try UserID(user(number)), device: try DeviceID(device))
    }
}

/// A server with an SQLite store on one loop, as the benchmarks' server processes run it.
public enum SessionServer {
    /// Where the store of a server's folder lies, and how.
    public static func store(in folder: String) throws -> SQLiteStoreConfiguration {
        SQLiteStoreConfiguration(directory: try ServerDirectory(folder).storePath, logger: logger)
    }

    private static var logger: Logger {
        var logger = Logger(label: "benchmark")
        logger.logLevel = .error
        return logger
    }

    /// Has the users from 0 on join rooms before the server starts. All but the last join are trimmed: that each of ten thousand
    /// is told to all the others is another benchmark.
    /// - Parameter rooms: the rooms of one user.
    public static func fill(_ folder: String, users: Int, rooms: @Sendable @escaping (Int) -> [String]) async throws {
        let store = try SQLiteStore(try store(in: folder))
        try await forEach(users) { number in
            for room in rooms(number) {
                _ = try await store.change(RoomID(room), .join(create: true), by: Names.phone(number))
            }
        }
        let all = Array(Set((0..<users).flatMap(rooms)))
        try await forEach(all.count) { number in
            let key = ChannelKey(tenant: try TenantID(Names.tenant), channel: .room(try RoomID(all[number])))
            while try await store.trim(key, keep: Retention(entries: 1)).more {}
        }
        try await store.close()
    }

    /// Has the users' devices read everything in their rooms, so that nothing is sent to them when they connect.
    /// - Returns: each user's cursors, which a device has to know as the server does.
    public static func read(
        _ folder: String, users: Int, rooms: @Sendable @escaping (Int) -> [String]
    ) async throws -> [[ChannelID: Position]] {
        let store = try SQLiteStore(try store(in: folder))
        let cursors = Mutex([[ChannelID: Position]](repeating: [:], count: users))
        try await forEach(users) { number in
            let phone = try Names.phone(number)
            var ends: [ChannelPosition] = []
            for room in rooms(number) {
                let channel = ChannelID.room(try RoomID(room))
                let head = try await store.head(of: ChannelKey(tenant: phone.tenant, channel: channel))
                if let head { ends.append(ChannelPosition(channel: channel, position: head.position)) }
            }
            _ = try await store.advance(phone, to: ends)
            let read = Dictionary(uniqueKeysWithValues: ends.map { ($0.channel, $0.position) })
            cursors.withLock { $0[number] = read }
        }
        try await store.close()
        return cursors.withLock { $0 }
    }

    /// Some at a time, so that they share transactions.
    private static func forEach(_ count: Int, _ body: @Sendable @escaping (Int) async throws -> Void) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<count {
                if number >= 256 { try await group.next() }
                group.addTask { try await body(number) }
            }
            try await group.waitForAll()
        }
    }

    /// Serves in a folder until the parent closes our standard input; says the port first.
    /// - Parameter command: answers a line that the parent sent.
    public static func run(
        _ folder: String, command: (String, LonglineServer) async -> Void = { _, _ in }
    ) async throws {
        let directory = try ServerDirectory(folder)
        let identity = try directory.developmentIdentity(names: ["localhost"])
        var configuration = LonglineServer.Configuration(
            store: .sqlite(try store(in: folder)), certificate: { identity.credentials },
            tokenKeys: [try directory.signingKey().verificationKey],
            addresses: [try SocketAddress(ipAddress: "127.0.0.1", port: 0)])
        configuration.eventLoops = 1
        configuration.logger = logger
        let server = LonglineServer(configuration: configuration)
        try await server.start()
        Role.report("\(server.addresses.first?.port ?? 0)")
        while let line = readLine() { await command(line, server) }
        await server.shutdown()
    }
}
