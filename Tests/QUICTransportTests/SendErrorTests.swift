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

    /// Two connections go on over a fault that `set` arranges for a port, first the client's own and then the server's.
    private func goOn(
        over set: (UInt16) -> Void, hits: CInt, _ check: (QUICSocketCounters) -> Void
    ) async throws {
        try await withPair(serve: echo) { client, listener, loop in
            let connections = [
                try await client.connect(to: listener, on: loop), try await client.connect(to: listener, on: loop),
            ]
            for connection in connections { try await roundTrips(2, on: connection) }
            let here = try #require(await connections[0].statistics()?.path.local.port)
            for port in [here, UInt16(listener.port)] {
                set(port)
                for connection in connections { try await roundTrips(3, on: connection) }
                #expect(send_faults_clear() == hits)
            }
            check(await client.counters().sockets)
            check(await listener.counters().sockets)
            // A client's address stays what it was.
            #expect(await connections[0].statistics()?.path.local.port == here)
        }
    }

    @Test(
        "A message that the kernel refuses to send is lost, and neither its socket nor a connection with it",
        arguments: [EPERM, ENETUNREACH, ENOBUFS, EINVAL, EIO, ENETDOWN, EHOSTUNREACH, EACCES, ECONNREFUSED])
    func lostMessage(error: CInt) async throws {
        try await goOn(over: { send_faults_set($0, 0, error, 1) }, hits: 1) {
            #expect($0.sendErrors == 1)
            #expect($0.socketFailures == 0)
        }
    }

    @Test("A message that is too large for the path is lost without a word")
    func tooLarge() async throws {
        try await goOn(over: { send_faults_set($0, 0, EMSGSIZE, 1) }, hits: 1) {
            #expect($0.sendErrors == 0)
            #expect($0.socketFailures == 0)
        }
    }

    @Test(
        "A socket that a send error ends while its buffer is full is bound again, with its connections",
        arguments: [EPERM, ENETUNREACH, ENOBUFS, EINVAL, EIO, ENETDOWN])
    func endsBehindFullBuffer(error: CInt) async throws {
        try await goOn(over: { send_faults_set_behind_full($0, 0, error) }, hits: 2) {
            #expect($0.socketFailures == 1)
            #expect($0.socketsRebound == 1)
        }
    }

    @Test("A socket that is gone is bound again, with its connections", arguments: [EBADF, ENOTSOCK, EPIPE])
    func gone(error: CInt) async throws {
        try await goOn(over: { send_faults_set($0, 0, error, 1) }, hits: 1) {
            #expect($0.socketFailures == 1)
            #expect($0.socketsRebound == 1)
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
            #expect(sockets.sendErrors > 0)
            #expect(sockets.socketFailures == 0)
            // Once the kernel lets it, all is well again.
            try await roundTrips(1, on: bad)
        }
    }

    @Test("A client that the kernel refuses to answer ends no socket while the buffer is full, and is heard")
    func oneRemoteBehindFullBuffer() async throws {
        try await withPair(serve: echo) { client, listener, loop in
            let (bad, good) = (
                try await client.connect(to: listener, on: loop), try await client.connect(to: listener, on: loop)
            )
            try await roundTrips(1, on: bad)
            let port = try #require(await bad.statistics()?.path.local.port)
            send_faults_set(0, port, EPERM, .max)
            let stream = try await bad.openStream()
            try await stream.send([1])
            while await listener.counters().sockets.sendErrors == 0 { try await roundTrips(1, on: good) }
            // What the channel would send to that client is dropped instead.
            send_faults_set_behind_full(0, port, EPERM)
            while await listener.counters().sockets.blockedRuns == 0 { try await roundTrips(1, on: good) }
            send_faults_clear()
            try await roundTrips(1, on: bad)
            let sockets = await listener.counters().sockets
            #expect(sockets.socketFailures == 0 && sockets.unanswerableDropped == 0)
        }
    }

    @Test("Where the kernel refuses runs, datagrams leave one by one", arguments: [EIO, EINVAL])
    func noSegmentation(error: CInt) async throws {
        try await withPair(serve: echo) { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            try await roundTrips(1, on: connection)
            send_faults_set_runs(UInt16(listener.port), error, .max)
            let before = await listener.counters().sockets
            let stream = try await connection.openStream()
            let sent = pattern(1 << 20)
            async let received = stream.collect()
            try await stream.send(sent)
            #expect(try await received == sent)
            #expect(send_faults_clear() == 1, "one run was refused, and none tried again")
            let after = await listener.counters().sockets
            #expect(after.segmentedMessagesSent == before.segmentedMessagesSent + 1)
            #expect(after.datagramsSent > before.datagramsSent + 700)
            #expect(after.sendErrors == 0 && after.socketFailures == 0, "nothing was lost")
        }
    }

    @Test("What of a run that is too large leaves alone isn't lost with it, and runs are tried again")
    func runTooLarge() async throws {
        try await withPair(serve: echo) { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            try await roundTrips(1, on: connection)
            send_faults_set_runs(UInt16(listener.port), EMSGSIZE, .max)
            let before = await listener.counters().sockets
            let stream = try await connection.openStream()
            let sent = pattern(1 << 20)
            async let received = stream.collect()
            try await stream.send(sent)
            #expect(try await received == sent)
            #expect(send_faults_clear() > 1, "runs are tried again")
            let after = await listener.counters().sockets
            #expect(after.messagesSent > before.messagesSent + 700, "each datagram left alone")
            #expect(after.sendErrors == 0 && after.socketFailures == 0)
        }
    }

    @Test("A run that fails for another reason ends no joining")
    func runThatFails() async throws {
        try await withPair(serve: echo) { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            try await roundTrips(1, on: connection)
            send_faults_set_runs(UInt16(listener.port), ENOBUFS, 3)
            for _ in 0..<2 {
                let stream = try await connection.openStream()
                let sent = pattern(1 << 20)
                async let received = stream.collect()
                try await stream.send(sent)
                #expect(try await received == sent)
            }
            #expect(send_faults_clear() == 3)
            let sockets = await listener.counters().sockets
            #expect(sockets.sendErrors == 3)
            #expect(sockets.segmentedMessagesSent > 10)
        }
    }
}
