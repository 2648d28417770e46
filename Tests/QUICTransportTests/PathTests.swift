import CSendFaults
import Glibc
import LonglineTestKit
import NIOCore
import NIOPosix
import QUICEngine
import Synchronization
import Testing

@testable import QUICTransport

@Suite("Changing paths over loopback", .timeLimit(.minutes(1)))
struct PathTests {
    /// Echoes 4 MiB while `disturb` runs in its midst, and checks that every byte came back.
    private func transfer(
        on connection: QUICConnection, during disturb: @escaping @Sendable () async throws -> Void
    ) async throws {
        let stream = try await connection.openStream()
        let sent = pattern(4 << 20)
        let sending = Task {
            for start in stride(from: 0, to: sent.count, by: 64 << 10) {
                try await stream.write(ByteBuffer(bytes: sent[start..<min(start + 64 << 10, sent.count)]))
            }
            try await stream.finish()
        }
        var received: [UInt8] = []
        var disturbing: Task<Void, any Error>?
        while let piece = try await stream.read() {
            received.append(contentsOf: piece.readableBytesView)
            if disturbing == nil, received.count > 256 << 10 { disturbing = Task { try await disturb() } }
        }
        try await sending.value
        try await disturbing?.value
        #expect(received == sent)
    }

    @Test("A transfer goes on over a new port and a new address, and nothing is lost", arguments: [1, 2])
    func migrate(loops: Int) async throws {
        try await withPair(loops: loops, serve: echo) { client, listener, loop in
            let connection = try await client.connect(to: listener, localAddress: loopback(), on: loop)
            let before = try #require(await connection.statistics()?.path.local)
            try await transfer(on: connection) { try await connection.migrate(to: loopback()) }
            let port = try #require(await connection.statistics()?.path.local)
            #expect(port != before && port.host == "127.0.0.1")
            try await transfer(on: connection) { try await connection.migrate(to: loopback("127.0.0.2")) }
            #expect(await connection.statistics()?.path.local.host == "127.0.0.2")
        }
    }

    @Test("A NAT that binds the client anew goes unnoticed", arguments: [1, 2])
    func rebinding(loops: Int) async throws {
        try await withPair(loops: loops, serve: echo) { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            try await transfer(on: connection) { try await connection.rebind() }
        }
    }

    @Test("A program that is started meanwhile gets no socket, neither a first one nor one that took its place")
    func closedOnExec() async throws {
        try await withPair(loops: 2, serve: echo) { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            try await connection.roundTrip()
            let bound = try #require(await connection.localAddress())
            for address in listener.localAddresses + [bound] {
                let descriptors = Self.descriptors(boundTo: address)
                #expect(descriptors.count == (address == bound ? 1 : 2))
                for descriptor in descriptors { #expect(fcntl(descriptor, F_GETFD) & FD_CLOEXEC != 0) }
            }
            try await connection.migrate(to: loopback("127.0.0.2"))
            let moved = Self.descriptors(boundTo: try #require(await connection.localAddress()))
            #expect(moved.count == 1)
            for descriptor in moved { #expect(fcntl(descriptor, F_GETFD) & FD_CLOEXEC != 0) }
        }
    }

    /// The process's sockets with this local address.
    private static func descriptors(boundTo address: SocketAddress) -> [CInt] {
        (CInt(3)..<4096).filter { descriptor in
            var storage = sockaddr_storage()
            var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
            return withUnsafeMutablePointer(to: &storage) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    getsockname(descriptor, $0, &length) == 0
                        && QUICSocketAddress(sockaddr: $0, length: Int(length)) == QUICSocketAddress(address)
                }
            }
        }
    }

    @Test("A rebinding that finds no socket fails with the reason, and the old port stays")
    func rebindingFails() async throws {
        let host = "127.0.0.88"
        try await withPair(serve: echo) { client, listener, loop in
            let connection = try await client.connect(to: listener, localAddress: loopback(host), on: loop)
            try await connection.roundTrip()
            let before = await connection.localAddress()
            bind_faults_set(host, EMFILE, 1)
            let error = await #expect(throws: QUICTransportError.self) { try await connection.rebind() }
            #expect(error?.code == .pathChangeFailed)
            #expect(error?.cause == String(cString: strerror(EMFILE)))
            try await connection.roundTrip()
            #expect(await connection.localAddress() == before)
        }
    }

    @Test("A change of path after the end says why the connection ended")
    func changeAfterTheEnd() async throws {
        try await withPair(serve: { $0.close(code: 5, reason: "enough") }) { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            let reason = try await connection.closed()
            #expect(reason == .peerApplication(code: 5, reason: "enough"))
            // As a call of connect asks that comes to it only now.
            try await connection.wait { $0.waitReady(.handshake, $1) }
            var error = await #expect(throws: QUICTransportError.self) {
                try await connection.migrate(to: loopback("127.0.0.2"))
            }
            #expect(error?.code == .connectionClosed && error?.closeReason == reason)
            error = await #expect(throws: QUICTransportError.self) { try await connection.rebind() }
            #expect(error?.code == .connectionClosed && error?.closeReason == reason)
        }
    }

    @Test("Sockets that break are bound again and their connections live on")
    func brokenSockets() async throws {
        try await withPair(serve: echo) { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            try await transfer(on: connection) {
                await client.breakSockets()
                await listener.breakSockets()
            }
            let (here, there) = (await client.counters(), await listener.counters())
            #expect(here.sockets.socketFailures == 1 && here.sockets.socketsRebound == 1)
            #expect(there.sockets.socketFailures == 1 && there.sockets.socketsRebound == 1)
        }
    }

    @Test("A migration to an address that isn't here fails, and the old path stays")
    func impossible() async throws {
        try await withPair(serve: echo) { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            let error = await #expect(throws: QUICTransportError.self) {
                try await connection.migrate(to: loopback("192.0.2.77"))
            }
            #expect(error?.code == .pathChangeFailed)
            let stream = try await connection.openStream()
            try await stream.send([1])
            #expect(try await stream.collect() == [1])
        }
    }

    @Test("A second migration that fails leaves the connection where the first took it")
    func supersededByOneThatFails() async throws {
        try await withPair(serve: echo) { client, listener, loop in
            let connection = try await client.connect(
                to: listener, clientConfiguration { $0.maxIdleTimeout = .seconds(5) }, on: loop)
            try await connection.roundTrip()
            // Both in one turn of the loop: the first has begun, and the second can't be.
            let (first, second) = try await connection.call { state in
                let connection = try #require(state.connection)
                let (first, second) = (loop.makePromise(of: Void.self), loop.makePromise(of: Void.self))
                connection.migrate(toLocal: try loopback("127.0.0.2"), promise: first)
                #expect(connection.localAddress?.ipAddress == "127.0.0.2")
                connection.migrate(toLocal: try loopback("192.0.2.77"), promise: second)
                return (first.futureResult, second.futureResult)
            }
            var error = await #expect(throws: QUICTransportError.self) { try await first.get() }
            #expect(error?.code == .superseded)
            error = await #expect(throws: QUICTransportError.self) { try await second.get() }
            #expect(error?.code == .pathChangeFailed)
            // One of the two sockets is left in the end.
            while try await connection.call({ $0.connection?.driver.portCount }) == 2 { await Task.yield() }
            try await connection.roundTrip()
            #expect(await connection.localAddress()?.ipAddress == "127.0.0.2")
            #expect(await client.counters().sockets.unroutableRuns == 0)
            try await connection.migrate(to: loopback("127.0.0.3"))
            try await connection.roundTrip()
            #expect(await connection.localAddress()?.ipAddress == "127.0.0.3")
        }
    }

    @Test("A close reaches the server from the path that a migration has just begun on")
    func closedWhileMigrating() async throws {
        let ends = Mailbox<QUICCloseReason>(limit: 1, policy: .refuse)
        // Who isn't told sees this.
        let configuration = try serverConfiguration { $0.maxIdleTimeout = .seconds(4) }
        try await withPair(configuration: configuration) { connection in
            for try await stream in connection.inboundStreams { try await stream.send(try await stream.collect()) }
            ends.put(try await connection.closed())
        } body: { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            try await connection.roundTrip()
            let migration = try await connection.call { state in
                let connection = try #require(state.connection)
                let promise = loop.makePromise(of: Void.self)
                connection.migrate(toLocal: try loopback("127.0.0.2"), promise: promise)
                #expect(connection.localAddress?.ipAddress == "127.0.0.2")
                connection.close(code: 7, reason: "")
                return promise.futureResult
            }
            let error = await #expect(throws: QUICTransportError.self) { try await migration.get() }
            #expect(error?.code == .connectionClosed)
            #expect(try await ends.next() == .peerApplication(code: 7, reason: ""))
        }
    }

    @Test("A server's policy keeps a client from a path, and the connection goes on where it was")
    func policy() async throws {
        var configuration = try serverConfiguration()
        configuration.endpoint.server?.pathPolicy = { new, _ in new.remote.host != "127.0.0.2" }
        try await withPair(configuration: configuration, serve: echo) { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            let error = await #expect(throws: QUICTransportError.self) {
                try await connection.migrate(to: loopback("127.0.0.2"))
            }
            #expect(error?.code == .pathChangeFailed)
            #expect(await listener.counters().engine.datagramsFromRefusedPaths > 0)
            try await connection.roundTrip()
            #expect(await connection.localAddress()?.ipAddress == "127.0.0.1")
            try await connection.migrate(to: loopback("127.0.0.3"))
            try await connection.roundTrip()
            #expect(await connection.localAddress()?.ipAddress == "127.0.0.3")
        }
    }

    @Test("A move, a delivery or an end that is waited for no more throws at once, and the connection goes on")
    func cancellation() async throws {
        try await withPair(serve: echo) { client, listener, loop in
            let relay = try await Relay.open(to: loopback(port: listener.port))
            let connection = try await client.connect(
                host: "127.0.0.1", port: relay.port, configuration: clientConfiguration(), on: loop)
            try await connection.roundTrip()
            try await relay.shutOut(host: "127.0.0.1")
            let waiting = [
                Task { try await connection.migrate(to: loopback()) },
                Task { _ = try await connection.deliverDatagram(ByteBuffer(string: "x")) },
                Task { _ = try await connection.closed() },
            ]
            while try await connection.call({ $0.waiterCount }) == 0 { await Task.yield() }
            for task in waiting { task.cancel() }
            for task in waiting { await #expect(throws: CancellationError.self) { try await task.value } }
            #expect(try await connection.call { $0.waiterCount } == 0)
            // One that was cancelled before it began.
            let rebinding = Task {
                withUnsafeCurrentTask { $0?.cancel() }
                try await connection.rebind()
            }
            await #expect(throws: CancellationError.self) { try await rebinding.value }
            try await relay.shutOut(host: nil)
            try await connection.roundTrip()
            await relay.close()
        }
    }

    @Test("A change of path before the handshake completed starts the attempt again")
    func beforeHandshake() async throws {
        try await withPair(serve: echo) { client, listener, loop in
            let done = Mailbox<Result<QUICSocketAddress, QUICTransportError>>(limit: 1, policy: .refuse)
            let port = listener.port
            // The loop-level API: the change comes before the first packet could be answered.
            try await loop.submit {
                let recorder = HandshakeRecorder { path in done.put(.success(path.local)) }
                let connection = client.connect(
                    host: "127.0.0.1", port: port, configuration: clientConfiguration(), on: loop, handler: recorder)
                connection.migrate(toLocal: try loopback("127.0.0.2"), promise: nil)
            }.get()
            #expect(try await done.next()?.get().host == "127.0.0.2")
        }
    }
}

/// Reports the path that a handshake completed on, and keeps the connection until then.
private final class HandshakeRecorder: QUICConnectionHandler {
    private let completed: (QUICPath) -> Void

    init(completed: @escaping (QUICPath) -> Void) { self.completed = completed }

    func handle(_ event: QUICConnectionEvent, on connection: QUICLoopConnection) {
        if case .handshakeCompleted = event, let path = connection.path { completed(path) }
    }

    func batchEnded(on connection: QUICLoopConnection) {}
}
