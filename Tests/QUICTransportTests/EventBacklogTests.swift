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
                for _ in 0..<4096 {
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
}
