import LonglineTestKit
import NIOCore
import NIOPosix
import QUICEngine
import Testing

@testable import QUICTransport

@Suite("Datagrams over loopback", .timeLimit(.minutes(1)))
struct DatagramTests {
    @Test("Datagrams go both ways")
    func datagrams() async throws {
        try await withPair { connection in
            for try await datagram in connection.datagrams { try await connection.sendDatagram(datagram) }
        } body: { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            #expect(try #require(await connection.maxDatagramSize()) > 1000)
            // Unreliable even on loopback: one in ten tries is enough.
            let answer = Task {
                var datagrams = connection.datagrams.makeAsyncIterator()
                return try await datagrams.next()
            }
            for _ in 0..<10 { try await connection.sendDatagram(ByteBuffer(string: "ping")) }
            #expect(try await answer.value == ByteBuffer(string: "ping"))
            let error = await #expect(throws: QUICTransportError.self) {
                try await connection.sendDatagram(ByteBuffer(repeating: 0, count: 70_000))
            }
            #expect(error?.code == .datagramRefused)
        }
    }

    @Test("Of datagrams that nobody takes the latest are kept, as many as the settings say, and the others counted")
    func datagramsThatNobodyTakes() async throws {
        let go = Mailbox<Void>(limit: 1, policy: .refuse)
        let got = Mailbox<[UInt8]>(limit: 16, policy: .refuse)
        let configuration = try serverConfiguration { $0.receivedDatagramLimit = 4 }
        try await withPair(configuration: configuration) { connection in
            _ = try await go.next()
            for try await datagram in connection.datagrams { got.put(Array(datagram.readableBytesView)) }
        } body: { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            // One at a time, so that none is dropped on the way.
            for number in 0..<10 as Range<UInt8> {
                while try await connection.deliverDatagram(ByteBuffer(bytes: [number])) != .acknowledged {}
            }
            // What the peer's QUIC stack has acknowledged may not have reached its mailbox.
            while await listener.counters().datagramsNotTaken < 6 { await Task.yield() }
            #expect(await listener.counters().datagramsNotTaken == 6)
            go.put(())
            for number in 6..<10 as Range<UInt8> { #expect(try await got.next() == [number]) }
        }
    }

    @Test("Datagrams that wait for the application count among what is held, until it takes them")
    func waitingDatagramsAreCounted() async throws {
        let go = Mailbox<Void>(limit: 2, policy: .refuse)
        let got = Mailbox<Int>(limit: 64, policy: .refuse)
        try await withPair { connection in
            _ = try await go.next()
            for try await datagram in connection.datagrams { got.put(datagram.readableBytes) }
        } body: { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            for _ in 0..<50 {
                while try await connection.deliverDatagram(ByteBuffer(repeating: 1, count: 1000)) != .acknowledged {}
            }
            while await listener.counters().bufferedBytes < 50_000 { await Task.yield() }
            go.put(())
            for _ in 0..<50 { #expect(try await got.next() == 1000) }
            while await listener.counters().bufferedBytes > 0 { await Task.yield() }
        }
    }

    @Test("A datagram that can't leave in time, that finds no room, or that is lost on the way is told as that")
    func datagramsThatFail() async throws {
        try await withPair(serve: echo) { client, listener, loop in
            let relay = try await Relay.open(to: loopback(port: listener.port))
            let connection = try await client.connect(
                host: "127.0.0.1", port: relay.port, configuration: clientConfiguration { $0.datagramQueueLimit = 2 },
                on: loop)
            try await connection.roundTrip()
            let bytes = ByteBuffer(string: "x")
            #expect(try await connection.deliverDatagram(bytes, lifetime: .zero) == .expired)
            // In one turn of the loop none leaves.
            try await withTaskExecutorPreference(connection.executor) {
                var queued: [Bool] = []
                for _ in 0..<3 { queued.append(try await connection.sendDatagram(bytes)) }
                #expect(queued == [true, true, false])
                #expect(try await connection.deliverDatagram(bytes) == .queueFull)
            }
            try await relay.shutOut(host: "127.0.0.1")
            let lost = Task(executorPreference: connection.executor) { try await connection.deliverDatagram(bytes) }
            // It is queued before the relay is asked: whatever it loses behind that has it with it, or comes after it.
            let before = try await withTaskExecutorPreference(connection.executor) {
                await Task.yield()
                return try await relay.traffic(.toServer).datagrams
            }
            while try await relay.traffic(.toServer).datagrams == before { await Task.yield() }
            try await relay.shutOut(host: nil)
            // What is acknowledged behind it shows that it is missing.
            try await connection.roundTrip()
            #expect(try await lost.value == .lost)
            await relay.close()
        }
    }

    @Test("What became of a datagram is told")
    func outcomes() async throws {
        try await withPair(serve: echo) { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            // A lost packet on loopback is possible, ten in a row are not.
            var outcomes: Set<DatagramOutcome> = []
            for number in 0..<10 {
                outcomes.insert(try await connection.deliverDatagram(ByteBuffer(bytes: [UInt8(number)])))
            }
            #expect(outcomes.contains(.acknowledged))
            let error = await #expect(throws: QUICTransportError.self) {
                _ = try await connection.deliverDatagram(ByteBuffer(repeating: 0, count: 70_000))
            }
            #expect(error?.code == .datagramRefused)
            connection.close()
            await #expect(throws: QUICTransportError.self) {
                _ = try await connection.deliverDatagram(ByteBuffer(bytes: [1]))
            }
        }
    }
}
