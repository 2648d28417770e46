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

    /// Seven connections of one address, whose writers have all that they may have together, and nothing arrives.
    private func makeFullWorld() throws -> (world: EngineWorld, servers: [QUICEngineConnection]) {
        let world = try makeWorld()
        let writers = Writers()
        let servers = try (0..<7).map { _ in try world.connected().server }
        world.network.setBlackhole(EngineWorld.clientAddress, true)
        for server in servers { _ = try writers.begin(on: server) }
        return (world, servers)
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
        // A stream with more than each may have in any case gets nothing.
        let bulk = try pairs.map { try $0.server.writableBytes(writers.stream(of: $0.server)) }
        #expect(bulk == [Int](repeating: 0, count: 7))

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

    @Test("a datagram takes another's place and its room, or leaves it where it is")
    func datagramsAreReplaced() throws {
        let world = try EngineWorld { _, client in client.transport.datagramQueueLimit = 2 }
        world.server.maxSendMemoryPerAddress = 4_096
        let (client, server) = try world.connected()
        world.simulation.run(for: .seconds(1))
        func replace(_ older: UInt64, with id: UInt64, of count: Int, on side: QUICEngineConnection) throws -> Bool {
            try pattern(count).withUnsafeBytes { try side.sendDatagram($0, id: id, replacing: older) }
        }
        #expect(try server.offer(pattern(100), id: 1))
        for id in UInt64(2)...4 { #expect(try server.offer(pattern(1_100), id: id)) }
        #expect(try !replace(1, with: 5, of: 797, on: server))
        #expect(server.isDatagramWaiting(1) && !server.isDatagramWaiting(5))
        #expect(server.countedDatagramBytes == 3_400 && world.server.counters.writesWithheld == 1)
        #expect(try replace(1, with: 5, of: 796, on: server))
        #expect(!server.isDatagramWaiting(1) && server.isDatagramWaiting(5))
        #expect(server.countedDatagramBytes == 4_096)

        for id in UInt64(1)...2 { #expect(try client.offer([UInt8(id)], id: id)) }
        #expect(try !client.offer([3], id: 3))
        #expect(try replace(1, with: 4, of: 7, on: client))
        #expect(try !replace(1, with: 5, of: 7, on: client), "it takes nobody's place")
        world.simulation.run(for: .seconds(1)) { world.clientSide.datagramsAcknowledged.count == 2 }
        #expect(world.serverSide.datagrams == [[2], pattern(7)])
        #expect(Set(world.clientSide.datagramsAcknowledged) == [2, 4])
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

    @Test(
        "the share may be set, up to no limit at all and down to what each has in any case",
        arguments: [Int.min, 0, 200_000, .max])
    func shareThatIsSet(share: Int) throws {
        let world = try EngineWorld(maxUnacknowledgedBytesPerAddress: share) { server, _ in
            server.transport.streamSendBuffer = 2 * Self.size
        }
        #expect(world.server.maxSendMemoryPerAddress == max(share, 0))
        let (_, server) = try world.connected()
        let stream = try server.open(bidirectional: false)
        #expect(server.writableBytes(stream) == min(max(share / 2, 16_384), 2 * Self.size))
    }

    @Test(
        "however much a connection and its neighbours wrote, what is more urgent finds room, and the most urgent its own"
    )
    func urgentStreamsHaveRoom() throws {
        let world = try makeWorld()
        let writers = Writers()
        let pairs = try (0..<7).map { _ in try world.connected() }
        world.network.setBlackhole(EngineWorld.clientAddress, true)
        for pair in pairs { _ = try writers.begin(on: pair.server) }
        for server in [pairs[0].server, pairs[6].server] {
            for urgency: UInt8 in [1, 0] {
                // The fifth finds what the others of its urgency took.
                for room in [2_048, 2_048, 2_048, 2_048, 0] {
                    let stream = try server.open(bidirectional: false)
                    server.setPriority(StreamPriority(urgency: urgency), of: stream)
                    #expect(server.writableBytes(stream) == room)
                    #expect(try server.send(pattern(3_000), on: stream) == room)
                }
            }
            // A stream that is said to be less urgent, or more, leaves no room by that.
            let first = server.streams.all.first { $0.priority.urgency == 1 && $0.firstBytes > 0 }
            let id = try #require(first).id
            server.setPriority(.standard, of: id)
            let urgent = try server.open(bidirectional: false)
            server.setPriority(StreamPriority(urgency: 1), of: urgent)
            #expect(server.writableBytes(urgent) == 0)
        }
        let server = pairs[0].server
        let waiting = Set(server.streams.all.filter { $0.owesWritable && $0.isUrgent }.map(\.id))
        #expect(waiting.count == 9)
        var woken: Set<QUICStreamID> = []
        world.serverHost.onEvent = { connection, event in
            if connection.handle == server.handle, case .streamWritable(let id) = event { woken.insert(id) }
        }
        world.network.setBlackhole(EngineWorld.clientAddress, false)
        world.simulation.run(for: .seconds(10)) { waiting.isSubset(of: woken) }
        #expect(waiting.isSubset(of: woken))
    }

    @Test("a stream that its peer doesn't read keeps no other of its connection from sending, and many are bounded")
    func streamsHaveRoom() throws {
        let (world, servers) = try makeFullWorld()
        let server = servers[0]
        let streams = try (0..<8).map { _ in try server.open(bidirectional: false) }
        #expect(try streams.map { try server.send(pattern(3_000), on: $0) } == [Int](repeating: 2_048, count: 7) + [0])
        // One that ends leaves its room to the one that has none.
        server.reset(streams[0], code: 1)
        world.simulation.settle()
        #expect(world.serverSide.writable == [streams[7]])
        #expect(try server.send(pattern(3_000), on: streams[7]) == 2_048)
    }

    @Test(
        "as many streams are told of room that each may have as find some, and the next ones if those don't write",
        arguments: [true, false])
    func someStreamsAreToldAtATime(writes: Bool) throws {
        let (world, servers) = try makeFullWorld()
        let server = servers[0]
        let streams = try (0..<20).map { _ in try server.open(bidirectional: false) }
        let taken = try streams.map { try server.send(pattern(3_000), on: $0) }
        #expect(taken == [Int](repeating: 2_048, count: 7) + [Int](repeating: 0, count: 13))
        var told: [QUICStreamID] = []
        world.serverHost.onEvent = { _, event in
            if case .streamWritable(let id) = event { told.append(id) }
        }
        server.reset(streams[0], code: 1)
        while let (connection, event) = world.server.pollEvent() { world.serverHost.onEvent?(connection, event) }
        #expect(told == [streams[7]])
        if writes { #expect(try server.send(pattern(3_000), on: streams[7]) == 2_048) }
        world.simulation.run(for: .milliseconds(100))
        #expect(told == (writes ? [streams[7]] : Array(streams[7...])))
    }

    @Test("a writer is woken when other connections of its address end, though nothing of its own is acknowledged")
    func theEndOfOthersWakes() throws {
        let (world, servers) = try makeFullWorld()
        let server = servers[0]
        let second = try server.open(bidirectional: false)
        #expect(try server.send(pattern(100_000), on: second) == 2_048)
        for other in servers[1...] { other.close(code: 0, reason: "", now: world.network.now) }
        world.simulation.run(for: .seconds(20)) { world.serverSide.writable.contains(second) }
        #expect(world.serverSide.writable.contains(second))
        #expect(server.sendBufferBytes == Self.size + 2_048 && server.closeReason == nil)
        #expect(try server.send(pattern(97_952), on: second) >= 8_192)
    }

    @Test("writers are woken by what the peers of other connections acknowledge, and as many as find room")
    func acknowledgementsOfOthersWake() throws {
        let world = try EngineWorld { server, client in
            server.transport.streamSendBuffer = 2 * Self.size
            client.transport.streamWindow = 16 << 10
            client.transport.connectionWindow = 4 << 20
        }
        world.server.maxSendMemoryPerAddress = Self.share
        world.clientSide.reads = false
        let writers = Writers()
        let pairs = try (0..<7).map { _ in try world.connected() }
        let readers = Set(pairs[2...4].map { $0.client.handle })
        for pair in pairs { _ = try writers.begin(on: pair.server) }
        world.serverHost.onEvent = { [unowned world] connection, event in
            world.serverSide.handle(event, on: connection)
            if case .streamWritable = event { _ = try? writers.write(on: connection) }
        }
        world.simulation.run(for: .seconds(5))
        // All that is allowed is acknowledged, and each connection waits for its peer to read.
        #expect(!writers.areDone)
        let before = pairs.map { $0.server.sendBufferBytes }
        let memory = try #require(world.server.sendMemoryByAddress.values.first)
        world.clientHost.onEvent = { [unowned world] connection, event in
            world.clientSide.handle(event, on: connection)
            guard case .streamReadable(let id) = event, readers.contains(connection.handle) else { return }
            world.clientSide.drain(id, of: connection)
        }
        for pair in pairs where readers.contains(pair.client.handle) {
            try world.clientSide.drain(writers.stream(of: pair.server), of: pair.client)
        }
        world.simulation.run(for: .seconds(20))
        // Those with the fewest bytes took what others left, though nobody read what they sent, and nobody waits who has room.
        for index in [5, 6] { #expect(pairs[index].server.sendBufferBytes > before[index] + 8_192) }
        let waiting = memory.waiters.first
        let first = try #require(waiting)
        #expect(memory.share - memory.total - first.sendBufferBytes < 16_384)
    }

    @Test(
        "no more connections are woken at a time than find room, and the next ones later, whether the first wrote or not"
    )
    func someAreWokenAtATime() throws {
        let world = try makeWorld()
        world.server.maxSendMemoryPerAddress = 200_000
        let writers = Writers()
        let pairs = try (0..<6).map { _ in try world.connected() }
        world.network.setBlackhole(EngineWorld.clientAddress, true)
        let last = pairs[5].server
        #expect(try last.send(pattern(100_000), on: last.open(bidirectional: false)) == 100_000)
        #expect(try pairs[..<5].map { try writers.begin(on: $0.server) } == [50_000, 25_000, 16_384, 16_384, 16_384])
        var woken: [(connection: ConnectionHandle, at: UInt64)] = []
        world.serverHost.onEvent = { [unowned world] connection, event in
            if case .streamWritable = event { woken.append((connection.handle, world.network.now.nanoseconds)) }
        }
        last.close(code: 0, reason: "", now: world.network.now)
        world.simulation.run(for: .seconds(20)) { woken.count == 5 }
        #expect(woken.count == 5 && woken.last?.connection == pairs[0].server.handle)
        let first = try #require(woken.first).at
        #expect(woken.map { $0.at > first } == [false, false, false, false, true])
        #expect(world.server.sendMemoryOffer == nil)
    }

    @Test("of a connection's streams that wait for room each is the first in turn")
    func streamsTakeTurns() throws {
        let world = try EngineWorld(maxUnacknowledgedBytesPerAddress: 0)
        let (_, server) = try world.connected()
        let bytes = pattern(200_000)
        var left: [QUICStreamID: ArraySlice<UInt8>] = [:]
        for _ in 0..<3 {
            let stream = try server.open(bidirectional: false)
            left[stream] = bytes.dropFirst(try server.send(bytes, on: stream, finish: true))
        }
        world.serverHost.onEvent = { connection, event in
            guard case .streamWritable(let stream) = event, let rest = left[stream] else { return }
            left[stream] = rest.dropFirst((try? connection.send(Array(rest), on: stream, finish: true)) ?? 0)
        }
        world.simulation.run(for: .seconds(60)) { !world.clientSide.finished.isEmpty }
        #expect(world.clientSide.finished.count >= 1)
        for stream in left.keys { #expect(world.clientSide.received[stream, default: []].count > 100_000) }
        world.simulation.run(for: .seconds(60)) { world.clientSide.finished.count == 3 }
        #expect(world.clientSide.finished.count == 3)
    }

    @Test("a stream that waits for something else than room has no turn, and gives its to no other")
    func aStreamThatStandsStillHasNoTurn() throws {
        let world = try EngineWorld { server, _ in server.transport.streamSendBuffer = 4_096 }
        let (_, server) = try world.connected()
        let streams = try (0..<3).map { _ in try server.open(bidirectional: false) }
        // More than half of its buffer isn't acknowledged.
        #expect(try server.send(pattern(5_000), on: streams[0]) == 4_096)
        var first: [QUICStreamID] = []
        for _ in 0..<4 {
            for id in streams { server.streams[id]?.owesWritable = true }
            server.reportWritableForAddress()
            var woken: [QUICStreamID] = []
            while let (_, event) = world.server.pollEvent() {
                if case .streamWritable(let id) = event { woken.append(id) }
            }
            #expect(Set(woken) == Set(streams.dropFirst()))
            first.append(contentsOf: woken.prefix(1))
        }
        #expect(first == [streams[1], streams[2], streams[1], streams[2]])
    }

    @Test("a connection that has room of its own is woken at once, however many others are to be told of theirs")
    func ownRoomIsTold() throws {
        let world = try EngineWorld(maxUnacknowledgedBytesPerAddress: 0)
        let (_, server) = try world.connected()
        let memory = try #require(world.server.sendMemoryByAddress.values.first)
        let first = try server.open(bidirectional: false)
        #expect(try server.send(pattern(16_384), on: first, finish: true) == 16_384)
        // What is acknowledged is the other's for long: nothing of this one leaves before.
        let bytes = pattern(20_000)
        let second = try server.open(bidirectional: false)
        server.setPriority(StreamPriority(urgency: 7), of: second)
        var sent = try server.send(bytes, on: second, finish: true)
        #expect(sent == 2_048)
        world.serverHost.onEvent = { connection, event in
            guard case .streamWritable(second) = event else { return }
            sent += (try? connection.send(Array(bytes[sent...]), on: second, finish: true)) ?? 0
        }
        var waited = 0
        world.simulation.run(for: .seconds(20)) {
            let owes = server.streams.all.contains { $0.owesWritable }
            if owes, server.sendBufferBytes <= 8_192 { waited += 1 }
            // As if datagrams of others left all the time.
            if !memory.waiters.isEmpty { world.server.offerLater(memory, now: world.network.now) }
            return world.clientSide.finished.contains(second)
        }
        #expect(waited == 0 && sent == bytes.count)
        #expect(world.clientSide.received[second] == bytes)
    }

    @Test(
        "of the connections that wait the one with the fewest bytes is first, whatever happens to them",
        arguments: 1...20)
    func fewestBytesFirst(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        let world = try EngineWorld()
        let connections = try (0..<12).map { _ in try world.connect() }
        var waiters = SendWaiters()
        for _ in 0..<1000 {
            let connection = connections[Int(random.next() % 12)]
            switch random.next() % 4 {
            case 0: waiters.remove(connection)
            case 1:
                // More than before is found out later.
                connection.sendBufferBytes += Int(random.next() % 100)
            default:
                connection.sendBufferBytes = Int(random.next() % 1000)
                waiters.set(connection)
            }
            let fewest = connections.filter { $0.sendWaiterIndex != nil }.map(\.sendBufferBytes).min()
            let first = waiters.first
            #expect(first?.sendBufferBytes == fewest)
            #expect(waiters.isEmpty == (fewest == nil))
        }
        for connection in connections {
            waiters.remove(connection)
            connection.sendBufferBytes = 0
        }
        #expect(waiters.isEmpty)
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
