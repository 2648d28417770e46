import NIOCore
import NIOPosix
import Testing

@testable import QUICEngine
@testable import QUICTransport

/// What a loop takes in while its handlers have more events before them than they come to.
@Suite("Event backlog", .timeLimit(.minutes(1)))
struct EventBacklogTests {
    @Test("While many events wait no more datagrams are taken from a socket, and what came meanwhile is taken then")
    func readsNoMore() async throws {
        try await withPair(serve: echo) { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            try await connection.roundTrip()
            let bootstrap = DatagramBootstrap(group: loop).channelOption(.autoRead, value: false)
            let sender = try await bootstrap.bind(host: "127.0.0.1", port: 0).get()
            let receiver = try await bootstrap.bind(host: "127.0.0.1", port: 0).get()
            let address = try #require(receiver.localAddress)
            try await sender.writeAndFlush(
                AddressedEnvelope(remoteAddress: address, data: ByteBuffer(string: "hello")))

            let taken = try await connection.call { state -> [UInt64] in
                let own = try #require(state.connection)
                let (driver, engine) = (own.driver, try #require(own.engine))
                let socket = try #require(
                    try receiver.pipeline.syncOperations.withUnsafeTransportIfAvailable(
                        of: NIOBSDSocket.Handle.self
                    ) { DatagramSocket(channel: receiver, descriptor: $0) })
                let port = driver.makePort(group: nil)
                let before = driver.socketCounters.messagesReceived
                for _ in 0..<LoopDriver.maxWaitingEvents {
                    driver.engine.emit(.streamWritable(QUICStreamID(rawValue: 4_000)), from: engine)
                }
                driver.read(socket, on: port, now: .now())
                let behind = driver.socketCounters.messagesReceived
                while driver.engine.pollEvent() != nil {}
                driver.read(socket, on: port, now: .now())
                return [behind - before, driver.socketCounters.messagesReceived - behind]
            }
            #expect(taken == [0, 1])
            try await sender.close()
            try await receiver.close()
        }
    }

    @Test("What other loops hand over waits while many events do, and all is taken by itself when they are fewer")
    func handedOverLater() async throws {
        let (accepted, accept) = AsyncStream.makeStream(of: QUICConnection.self)
        let serve: @Sendable (QUICConnection) async throws -> Void = {
            accept.yield($0)
            try await echo($0)
        }
        try await withPair(loops: 2, serve: serve) { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            try await connection.roundTrip()
            var iterator = accepted.makeAsyncIterator()
            let first = await iterator.next()
            let served = try #require(first)
            let before = await listener.counters().engine.garbageDatagrams
            let meanwhile = try await served.call { state -> EventLoopFuture<UInt64> in
                let own = try #require(state.connection)
                let (driver, engine) = (own.driver, try #require(own.engine))
                // Ticks that are due already make them no fewer than there may be.
                for _ in 0..<LoopDriver.maxWaitingEvents + 100_000 {
                    driver.engine.emit(.handshakeConfirmed, from: engine)
                }
                let stray = HandedDatagrams(
                    bytes: ByteBuffer(bytes: [0x40]), segmentSize: 1, path: engine.path, ecn: .notECT)
                #expect(driver.handover.offer(stray))
                let promise = own.eventLoop.makePromise(of: UInt64.self)
                // Behind the turn in which it would be taken.
                own.eventLoop.assumeIsolated().execute {
                    promise.succeed(driver.engine.counters.garbageDatagrams)
                }
                return promise.futureResult
            }
            #expect(try await meanwhile.get() == before)
            try await connection.roundTrip()
            #expect(await listener.counters().engine.garbageDatagrams == before + 1)
        }
    }
}
