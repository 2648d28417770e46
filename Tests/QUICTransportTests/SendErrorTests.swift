import CSendFaults
import Glibc
import Logging
import NIOCore
import NIOPosix
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
            #expect($0.sendErrors == 1)
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

    // MARK: Runs of a lone port

    private static let segmentSize = 100
    /// The last one is smaller.
    private static let datagramsPerRun = 5

    /// The datagrams of some runs, in order.
    private func datagrams(ofRuns runs: Range<Int>) -> [[UInt8]] {
        runs.flatMap { run in
            (0..<Self.datagramsPerRun).map { index in
                let isLast = index == Self.datagramsPerRun - 1
                return [UInt8](
                    repeating: UInt8(run * Self.datagramsPerRun + index),
                    count: isLast ? Self.segmentSize / 2 : Self.segmentSize)
            }
        }
    }

    /// Has a port that no connection uses send runs, so many before each flush, over errors of its first calls.
    /// - Parameter expected: how many datagrams arrive.
    /// - Returns: what arrived, how many of the errors were met, and what the port counted.
    private func send(
        runs: [Int], over errors: [CInt], expecting expected: Int
    ) async throws -> (arrived: [[UInt8]], hits: CInt, counters: QUICSocketCounters) {
        var sent = 0
        let messages = runs.map { count -> [ByteBuffer] in
            defer { sent += count }
            return (sent..<sent + count).map { ByteBuffer(bytes: datagrams(ofRuns: $0..<$0 + 1).joined()) }
        }
        let all = try await send(messages, segmentSize: Self.segmentSize, over: errors, expecting: expected)
        return (all.arrived, all.hits, all.counters)
    }

    /// The same with one datagram that is lost.
    func send(
        datagramOf size: Int, over errors: [CInt]
    ) async throws -> (arrived: [[UInt8]], hits: CInt, counters: QUICSocketCounters) {
        let all = try await send(
            [[ByteBuffer(repeating: 1, count: size)]], segmentSize: size, over: errors, expecting: 0)
        return (all.arrived, all.hits, all.counters)
    }

    /// The same with messages of datagrams of 1,200 bytes, the last of which may be smaller.
    /// - Returns: whether the port has it that packets of the size that QUIC needs are refused.
    func refusesLeast(afterMessagesOf sizes: [Int], over errors: [CInt]) async throws -> Bool {
        try await send(
            sizes.map { [ByteBuffer(repeating: 1, count: $0)] }, segmentSize: 1200, over: errors, expecting: 0
        ).refusesLeast
    }

    private func send(
        _ messages: [[ByteBuffer]], segmentSize: Int, over errors: [CInt], expecting expected: Int
    ) async throws -> (arrived: [[UInt8]], hits: CInt, counters: QUICSocketCounters, refusesLeast: Bool) {
        let (receiver, remote) = try openReceiver()
        defer { close(receiver) }
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let loop = group.next()
        let handle = try await LoopHandle.make(
            on: loop, configuration: EndpointConfiguration(), sockets: QUICSocketOptions(),
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }, metrics: nil, accept: nil)
        let port = try await loop.submit {
            NIOLoopBound(handle.value.makePort(group: nil), eventLoop: loop)
        }.get()
        let local = try loopback()
        try await loop.flatSubmit { port.value.bind(to: local) }.get()
        let number = try await loop.submit { port.value.identity.port }.get()
        send_faults_set_each(number, errors, CInt(errors.count))
        for next in messages {
            try await loop.submit {
                for run in next { port.value.send(run, to: remote, ecn: .ect0, segmentSize: segmentSize) }
                port.value.flush()
            }.get()
            // One whose channel ended is bound again at once.
            while try await loop.submit({ port.value.state == .down }).get() {}
        }
        let hits = send_faults_clear()
        let (counters, refusesLeast) = try await loop.submit {
            let refusesLeast = port.value.refusesLeast
            port.value.close()
            handle.value.closePorts()
            return (handle.value.socketCounters, refusesLeast)
        }.get()
        try await group.shutdownGracefully()
        return (receive(expected, from: receiver), hits, counters, refusesLeast)
    }

    /// What has arrived. Also on loopback that may take a moment: while there are fewer than expected it waits for each.
    private func receive(_ expected: Int, from receiver: CInt) -> [[UInt8]] {
        var arrived: [[UInt8]] = []
        var buffer = [UInt8](repeating: 0, count: 2 * Self.segmentSize)
        while true {
            let length = recv(receiver, &buffer, buffer.count, 0)
            if length >= 0 {
                arrived.append(Array(buffer[..<length]))
                continue
            }
            var waiting = pollfd(fd: receiver, events: Int16(POLLIN), revents: 0)
            guard arrived.count < expected, poll(&waiting, 1, 1_000) > 0 else { return arrived }
        }
    }

    private func openReceiver() throws -> (descriptor: CInt, address: QUICSocketAddress) {
        let descriptor = socket(AF_INET, CInt(SOCK_DGRAM.rawValue | SOCK_NONBLOCK.rawValue), 0)
        let isBound = QUICSocketAddress(ipv4: (127, 0, 0, 1), port: 0).withSockaddr { bind(descriptor, $0, $1) == 0 }
        var bytes = [UInt8](repeating: 0, count: 128)
        let address = bytes.withUnsafeMutableBytes { bytes -> QUICSocketAddress? in
            var length = socklen_t(bytes.count)
            guard isBound, let any = bytes.bindMemory(to: sockaddr.self).baseAddress,
                getsockname(descriptor, any, &length) == 0
            else { return nil }
            return QUICSocketAddress(sockaddr: any, length: Int(length))
        }
        return (descriptor, try #require(address))
    }

    @Test(
        "What of a refused run a full socket has no room for leaves behind the rest, and no run with it",
        arguments: [EIO, EINVAL, EMSGSIZE], [0, 1, 3])
    func fullBehindRefusedRun(error: CInt, sentBefore: Int) async throws {
        let (arrived, hits, counters) = try await send(
            runs: [2], over: [error] + [CInt](repeating: 0, count: sentBefore) + [EAGAIN],
            expecting: 2 * Self.datagramsPerRun)
        #expect(hits == 2)
        #expect(arrived == datagrams(ofRuns: 0..<2))
        #expect(counters.segmentedMessagesSent == 1)
        #expect(counters.sendErrors == 0 && counters.socketFailures == 0)
    }

    @Test(
        "What the kernel refuses behind a full buffer counts as what it refuses at once",
        arguments: [[EHOSTUNREACH], [EAGAIN, EHOSTUNREACH]])
    func countedAlike(errors: [CInt]) async throws {
        let (arrived, hits, counters) = try await send(runs: [1, 1], over: errors, expecting: Self.datagramsPerRun)
        #expect(hits == errors.count)
        #expect(arrived == datagrams(ofRuns: 1..<2))
        #expect(counters.sendErrors == 1 && counters.socketFailures == 0)
    }

    @Test(
        "A run that the kernel refuses behind a full buffer shuts nobody out, and none is joined any more",
        arguments: [EIO, EINVAL])
    func refusedRunBehindFullBuffer(error: CInt) async throws {
        let (arrived, hits, counters) = try await send(
            runs: [1, 1], over: [EAGAIN, error, EAGAIN], expecting: Self.datagramsPerRun)
        #expect(hits == 3)
        #expect(arrived == datagrams(ofRuns: 1..<2))
        #expect(counters.segmentedMessagesSent == 1 && counters.blockedRuns == 0)
        #expect(counters.sendErrors == 1 && counters.socketFailures == 1)
    }

    @Test("An error by which reading ends the channel is none of what was to be sent, which fails with it")
    func readErrorEndsWrites() {
        let (read, written) = (PortHandler(), PortHandler())
        read.lastError = IOError(errnoCode: ENETDOWN, reason: "recvmsg")
        #expect(!read.isMet(IOError(errnoCode: ENETDOWN, reason: "recvmsg")))
        // One that ended nothing is no reason to miss the next.
        written.lastError = IOError(errnoCode: ECONNREFUSED, reason: "recvmsg")
        #expect(written.isMet(IOError(errnoCode: EPERM, reason: "sendmsg")))
        #expect(!written.isMet(IOError(errnoCode: EPERM, reason: "sendmsg")))
    }

    @Test("Runs are joined again once a full socket has taken what was left of one that was refused")
    func joinedAgain() async throws {
        let (arrived, hits, counters) = try await send(
            runs: [2, 1], over: [EIO, EAGAIN], expecting: 3 * Self.datagramsPerRun)
        #expect(hits == 2)
        #expect(arrived == datagrams(ofRuns: 0..<3))
        #expect(counters.segmentedMessagesSent == 2)
    }

    @Test(
        "Where one datagram of a run is too large the others of its size aren't tried",
        arguments: [EMSGSIZE, EINVAL])
    func tooLargeOnce(error: CInt) async throws {
        let (arrived, hits, counters) = try await send(
            runs: [1, 1], over: [error, EMSGSIZE], expecting: Self.datagramsPerRun + 1)
        #expect(hits == 2)
        #expect(arrived == Array(datagrams(ofRuns: 0..<2).dropFirst(Self.datagramsPerRun - 1)))
        #expect(counters.messagesSent == 4, "a run, its first and its last datagram, and another run")
        #expect(counters.sendErrors == 0)
    }
}
