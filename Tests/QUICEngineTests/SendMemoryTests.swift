import LonglineTestKit
import Testing

@testable import QUICEngine

/// What peers that acknowledge nothing make a server hold of what it sends.
@Suite struct SendMemoryTests {
    private static let share = 1_000_000
    private static let size = 400_000

    /// Its connections have one stream each, on which the server writes as much as is taken.
    private final class Writers {
        private var left: [ConnectionHandle: Int] = [:]
        private var streams: [ConnectionHandle: QUICStreamID] = [:]

        func begin(on connection: QUICEngineConnection) throws -> Int {
            let id = try connection.open(bidirectional: false)
            streams[connection.handle] = id
            left[connection.handle] = SendMemoryTests.size
            return try write(on: connection)
        }

        func write(on connection: QUICEngineConnection) throws -> Int {
            guard let id = streams[connection.handle], let count = left[connection.handle], count > 0 else { return 0 }
            let taken = try connection.send([UInt8](repeating: 7, count: count), on: id, finish: true)
            left[connection.handle] = count - taken
            return taken
        }

        func stream(of connection: QUICEngineConnection) throws -> QUICStreamID {
            try #require(streams[connection.handle])
        }

        var areDone: Bool { left.values.allSatisfy { $0 == 0 } }
    }

    private func makeWorld() throws -> EngineWorld {
        let world = try EngineWorld { server, client in
            server.transport.streamSendBuffer = 2 * Self.size
            client.transport.streamWindow = 1 << 20
        }
        world.server.maxSendMemoryPerAddress = Self.share
        return world
    }

    @Test(
        "connections of one address that take nothing leave room to send to the next ones, and to all other addresses")
    func oneAddressIsBounded() throws {
        let world = try makeWorld()
        let writers = Writers()
        let pairs = try (0..<7).map { _ in try world.connected() }
        world.network.setBlackhole(EngineWorld.clientAddress, true)
        let taken = try pairs.map { try writers.begin(on: $0.server) }
        // Half of what is free each time, and in the end what everybody has.
        #expect(taken == [400_000, 300_000, 150_000, 75_000, 37_500, 18_750, 16_384])
        #expect(world.server.counters.writesWithheld == 6)
        #expect(pairs.allSatisfy { $0.server.closeReason == nil })
        // What is more urgent than the others is never kept waiting by what those wrote.
        let last = pairs[6].server
        let urgent = try last.open(bidirectional: false)
        last.setPriority(StreamPriority(urgency: 0), of: urgent)
        let bulk = try writers.stream(of: last)
        #expect(last.writableBytes(urgent) == 2_048 && last.writableBytes(bulk) == 0)

        let other = try world.connect(from: EngineWorld.otherClientAddress)
        world.simulation.run(for: .seconds(2)) { world.clientSide.confirmed.contains(other.handle) }
        let server = try #require(world.serverSide.connections.last)
        #expect(try writers.begin(on: server) == Self.size)
        let clients = [other] + pairs.map { $0.client }
        for connection in clients { connection.close(code: 0, reason: "", now: world.network.now) }
        world.network.setBlackhole(EngineWorld.clientAddress, false)
        world.simulation.run(for: .seconds(20))
        #expect(world.server.sendMemoryByAddress.isEmpty && world.server.connectionCount == 0)
    }

    @Test("datagrams that wait are bounded for an address, too, and one may always wait")
    func datagramsAreBounded() throws {
        let world = try EngineWorld()
        world.server.maxSendMemoryPerAddress = 20_000
        let servers = try (0..<4).map { _ in try world.connected().server }
        world.simulation.run(for: .seconds(1))
        world.network.setBlackhole(EngineWorld.clientAddress, true)
        var next: UInt64 = 1
        func fill(_ connection: QUICEngineConnection) throws -> Int {
            let first = next
            while try connection.offer([UInt8](repeating: 7, count: 1_100), id: next) { next += 1 }
            return Int(next - first)
        }
        // Half of what is free each time, and in the end what everybody has.
        let taken = try servers.prefix(3).map { try fill($0) }
        #expect(taken == [9, 4, 3])
        #expect(world.server.counters.writesWithheld == 3)
        #expect(world.server.bufferedBytes == 16 * 1_100)
        // It counts for streams, and they for it.
        let writer = servers[3]
        let stream = try writer.open(bidirectional: false)
        #expect(writer.writableBytes(stream) == 16_384)
        #expect(try writer.send([UInt8](repeating: 7, count: 20_000), on: stream) == 16_384)
        #expect(try fill(writer) == 3)

        // What leaves, is taken back or is too late gives its room to others.
        let first = servers[0]
        #expect(first.withdrawDatagram(1) && !first.withdrawDatagram(1))
        #expect(first.countedDatagramBytes == 8 * 1_100)
        world.simulation.run(for: .seconds(1))
        #expect(servers.allSatisfy { $0.countedDatagramBytes == 0 && $0.closeReason == nil })
        #expect(world.server.sendMemoryByAddress.values.map(\.total) == [16_384])
        #expect(world.server.bufferedBytes == 16_384)
    }

    @Test("datagrams that wait count no more when they are too late, or their connection has ended")
    func datagramsAreGone() throws {
        let world = try EngineWorld()
        let (client, server) = try world.connected()
        let deadline = world.network.now.advanced(byNanoseconds: 1)
        let bytes: [UInt8] = [1, 2, 3]
        #expect(try bytes.withUnsafeBytes { try server.sendDatagram($0, id: 1, deadline: deadline) })
        #expect(try client.offer([1, 2], id: 1))
        #expect(server.countedDatagramBytes == 3 && world.client.bufferedBytes == 2)
        world.server.handleDeadline(now: deadline)
        #expect(server.countedDatagramBytes == 0 && world.server.bufferedBytes == 0)

        #expect(try server.offer(bytes, id: 2))
        #expect(world.server.bufferedBytes == 3)
        server.endWithoutError("the test says so")
        #expect(world.server.bufferedBytes == 0 && world.server.sendMemoryByAddress.isEmpty)
    }

    @Test(
        "the share is an eighth of what all may hold, and lets one connection alone fill its buffer, however large that is"
    )
    func sizeOfTheShare() throws {
        #expect(try EngineWorld().server.maxSendMemoryPerAddress == 128 << 20)
        let size = 1 << 30
        let large = try EngineWorld { server, _ in server.transport.connectionSendBuffer = size }
        #expect(large.server.maxSendMemoryPerAddress / 2 == size + size / 8)
        let largest = try EngineWorld { server, _ in server.transport.connectionSendBuffer = .max }
        let (_, server) = try largest.connected()
        #expect(try server.send([1], on: server.open(bidirectional: false)) == 1)
    }

    @Test("writers that had to wait for their address's share are woken by what their own peers acknowledge")
    func writersAreWoken() throws {
        let world = try makeWorld()
        let writers = Writers()
        let pairs = try (0..<7).map { _ in try world.connected() }
        world.network.setBlackhole(EngineWorld.clientAddress, true)
        for pair in pairs { _ = try writers.begin(on: pair.server) }
        #expect(!writers.areDone)
        world.network.setBlackhole(EngineWorld.clientAddress, false)
        world.serverHost.onEvent = { connection, event in
            if case .streamWritable = event { _ = try? writers.write(on: connection) }
        }
        world.simulation.run(for: .seconds(25)) {
            writers.areDone && world.server.sendMemoryByAddress.values.allSatisfy { $0.total == 0 }
        }
        #expect(writers.areDone && pairs.allSatisfy { $0.server.sendBufferBytes == 0 && $0.server.closeReason == nil })
        #expect(world.clientSide.received.values.reduce(0) { $0 + $1.count } == 7 * Self.size)
        #expect(world.server.sendMemoryByAddress.values.map(\.total) == [0])
    }
}
