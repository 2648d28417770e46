import CSendFaults
import Glibc
import NIOCore
import QUICEngine
import Testing

@testable import QUICTransport

/// What the kernel answers when a firewall, a route that went away, or a full queue is in the way of a packet.
@Suite("Send errors", .serialized, .timeLimit(.minutes(1)))
struct SendErrorTests {
    private func roundTrips(_ count: Int, on connection: QUICConnection) async throws {
        for _ in 0..<count { try await connection.roundTrip() }
    }

    @Test(
        "A socket that dies of a send error is bound again, with its connections",
        arguments: [
            EPERM, ENETUNREACH, ENOBUFS, EINVAL, EIO, ENETDOWN,
        ])
    func fatal(error: CInt) async throws {
        try await withPair(serve: echo) { client, listener, loop in
            let connections = [
                try await client.connect(to: listener, on: loop), try await client.connect(to: listener, on: loop),
            ]
            for connection in connections { try await roundTrips(2, on: connection) }
            let here = try #require(await connections[0].statistics()?.path.local.port)
            for port in [here, UInt16(listener.port)] {
                send_faults_set(port, 0, error, 1)
                for connection in connections { try await roundTrips(3, on: connection) }
                #expect(send_faults_clear() == 1)
            }
            let (client, server) = (await client.counters().sockets, await listener.counters().sockets)
            #expect(client.socketFailures == 1 && client.socketsRebound == 1)
            #expect(server.socketFailures == 1 && server.socketsRebound == 1)
            // A client's address stays what it was.
            #expect(await connections[0].statistics()?.path.local.port == here)
        }
    }

    @Test("An error that concerns one packet ends no socket", arguments: [EMSGSIZE, EHOSTUNREACH])
    func harmless(error: CInt) async throws {
        try await withPair(serve: echo) { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            try await roundTrips(2, on: connection)
            send_faults_set(UInt16(listener.port), 0, error, 3)
            try await roundTrips(5, on: connection)
            #expect(send_faults_clear() > 0)
            #expect(await listener.counters().sockets.socketFailures == 0)
        }
    }

    @Test("What a full socket buffer holds up leaves when there is room, and ends no socket")
    func fullBuffer() async throws {
        try await withPair(serve: echo) { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            try await roundTrips(2, on: connection)
            let here = try #require(await connection.statistics()?.path.local.port)
            for port in [here, UInt16(listener.port)] {
                // The first attempt is the port's own, the others are the channel's.
                for count: CInt in [1, 2, 5] {
                    send_faults_set(port, 0, EAGAIN, count)
                    try await roundTrips(10, on: connection)
                    #expect(send_faults_clear() == count)
                }
            }
            let stream = try await connection.openStream()
            let sent = pattern(1 << 20)
            async let received = stream.collect()
            send_faults_set(UInt16(listener.port), 0, EAGAIN, 20)
            try await stream.send(sent)
            #expect(try await received == sent)
            #expect(send_faults_clear() == 20)
            let (own, other) = (await client.counters().sockets, await listener.counters().sockets)
            #expect(own.socketFailures == 0 && other.socketFailures == 0)
            #expect(own.datagramsSent > 0 && own.messagesSent <= own.datagramsSent)
        }
    }

    @Test("A client that the kernel refuses to answer disturbs no other")
    func oneRemote() async throws {
        try await withPair(serve: echo) { client, listener, loop in
            let (bad, good) = (
                try await client.connect(to: listener, on: loop), try await client.connect(to: listener, on: loop)
            )
            try await roundTrips(1, on: bad)
            let port = try #require(await bad.statistics()?.path.local.port)
            send_faults_set(0, port, EPERM, .max)
            let stream = try await bad.openStream()
            try await stream.send([1])
            try await roundTrips(50, on: good)
            send_faults_clear()
            let sockets = await listener.counters().sockets
            // The first failure tells that writes must be watched, the second one which remote is the cause.
            #expect((1...2).contains(sockets.socketFailures), "\(sockets.socketFailures)")
        }
    }

    @Test("Where the kernel refuses runs, datagrams leave one by one")
    func noSegmentation() async throws {
        try await withPair(serve: echo) { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            try await roundTrips(1, on: connection)
            send_faults_set(UInt16(listener.port), 0, EIO, 1)
            try await roundTrips(3, on: connection)
            #expect(send_faults_clear() == 1)
            let before = await listener.counters().sockets
            let stream = try await connection.openStream()
            let sent = pattern(1 << 20)
            async let received = stream.collect()
            try await stream.send(sent)
            #expect(try await received == sent)
            let after = await listener.counters().sockets
            #expect(after.segmentedMessagesSent == before.segmentedMessagesSent)
            #expect(after.datagramsSent > before.datagramsSent + 700)
        }
    }
}
