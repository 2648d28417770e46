import CGnuTLS
import LonglineTestKit
import NIOCore
import NIOPosix
import Synchronization
import Testing

@testable import QUICEngine
@testable import QUICTransport

/// A cache that says when it got a ticket.
private final class WatchedSessionCache: SessionCache {
    private let inner = InMemorySessionCache()
    private let stored = Mutex<SessionTicket?>(nil)
    /// Of any server.
    var latest: SessionTicket? { stored.withLock { $0 } }
    let tickets = Mailbox<SessionTicket>(limit: 16, policy: .dropOldest)

    func session(for key: SessionCacheKey) -> CachedSession? { inner.session(for: key) }
    func takeAddressToken(for key: SessionCacheKey) -> [UInt8]? { inner.takeAddressToken(for: key) }
    func store(ticket: SessionTicket, for key: SessionCacheKey) {
        inner.store(ticket: ticket, for: key)
        stored.withLock { $0 = ticket }
        tickets.put(ticket)
    }
    func store(addressToken: [UInt8], for key: SessionCacheKey) { inner.store(addressToken: addressToken, for: key) }
    func remove(_ key: SessionCacheKey) { inner.remove(key) }
}

@Suite("Coming back", .timeLimit(.minutes(1)))
struct ResumptionTests {
    /// Connects once and waits until the cache holds a ticket.
    private func prime(
        _ cache: WatchedSessionCache, _ client: QUICClient, _ listener: QUICListener, port: Int? = nil,
        on loop: any EventLoop
    ) async throws {
        let connection = try await client.connect(
            host: "127.0.0.1", port: port ?? listener.port, configuration: clientConfiguration(), on: loop)
        let stream = try await connection.openStream()
        try await stream.send([0])
        _ = try await stream.collect()
        _ = try await cache.tickets.next()
        connection.close(code: 0)
        _ = try await connection.closed()
    }

    @Test("A returning client sends before the handshake and is answered")
    func earlyData() async throws {
        let cache = WatchedSessionCache()
        try await withPair(sessionCache: cache, yieldsEarly: true, serve: echo) { client, listener, loop in
            try await prime(cache, client, listener, on: loop)
            let connection = try await client.connect(to: listener, returnsEarly: true, on: loop)
            let stream = try await connection.openStream()
            try await stream.send(Array("early".utf8))
            let info = try await connection.handshake()
            #expect(info.resumed)
            #expect(info.earlyData == .accepted)
            #expect(try await stream.collect() == Array("early".utf8))
            // The echo may come ahead of the server's handshake, which counts when it has the client's last flight.
            try await connection.roundTrip()
            #expect(await listener.counters().engine.earlyDataAccepted == 1)
        }
    }

    @Test(
        "After two connects in a row without an answer one does without its ticket, which is dropped only if that is answered"
    )
    func silentTicket() async throws {
        let cache = WatchedSessionCache()
        try await withPair(sessionCache: cache, yieldsEarly: true, serve: echo) { client, listener, loop in
            try await prime(cache, client, listener, on: loop)
            // The same server as far as the cache knows.
            let deaf = try await DeafSocket.open("127.0.0.2", port: listener.port, on: loop)
            let key = SessionCacheKey(serverName: "localhost", port: listener.port, applicationProtocol: protocolName)
            func connectInVain() async {
                let configuration = clientConfiguration { $0.handshakeTimeout = .milliseconds(100) }
                let error = await #expect(throws: QUICTransportError.self) {
                    _ = try await client.connect(
                        host: "127.0.0.2", port: listener.port, configuration: configuration, on: loop)
                }
                #expect(error?.closeReason == .handshakeTimeout)
            }
            await connectInVain()
            let answered = try await client.connect(to: listener, on: loop)
            #expect(try await answered.handshake().resumed)
            try await answered.roundTrip()
            answered.close()
            _ = try await answered.closed()
            await connectInVain()
            #expect(cache.session(for: key)?.ticket != nil)
            await connectInVain()
            let kept = try #require(cache.session(for: key)?.ticket)
            // It was the network: one that does without isn't answered either, and the next one resumes.
            await connectInVain()
            #expect(cache.session(for: key)?.ticket == kept)
            let resumed = try await client.connect(to: listener, on: loop)
            #expect(try await resumed.handshake().resumed)
            try await resumed.roundTrip()
            resumed.close()
            _ = try await resumed.closed()
            // Here what does without is answered: not the first such attempt, which sends nothing.
            await connectInVain()
            await connectInVain()
            await #expect(throws: QUICTransportError.self) {
                _ = try await client.connect(to: listener, localAddress: loopback("::1"), on: loop)
            }
            let suspect = try #require(cache.session(for: key)?.ticket)
            let last = try await client.connect(to: listener, on: loop)
            #expect(try await !last.handshake().resumed)
            while cache.session(for: key)?.ticket == nil { try await last.roundTrip() }
            #expect(cache.session(for: key)?.ticket != suspect)
            try await deaf.close()
        }
    }

    @Test("A client that was here before is spared the address check")
    func addressToken() async throws {
        let cache = InMemorySessionCache()
        var configuration = try serverConfiguration()
        configuration.endpoint.server?.retryThreshold = 0
        try await withPair(configuration: configuration, sessionCache: cache, serve: echo) { client, listener, loop in
            let key = SessionCacheKey(serverName: "localhost", port: listener.port, applicationProtocol: protocolName)
            let first = try await client.connect(to: listener, on: loop)
            #expect(await listener.counters().engine.retriesSent == 1)
            while cache.session(for: key)?.addressToken == nil { try await first.roundTrip() }
            first.close()
            try await client.connect(to: listener, on: loop).roundTrip()
            #expect(await listener.counters().engine.retriesSent == 1)
            // Without what the cache knows it is a stranger.
            cache.remove(key)
            try await client.connect(to: listener, on: loop).roundTrip()
            #expect(await listener.counters().engine.retriesSent == 2)
        }
    }

    @Test("An address token is used once: the next connection is a stranger, and so is an attempt that moved")
    func addressTokenOnce() async throws {
        let cache = InMemorySessionCache()
        var configuration = try serverConfiguration()
        configuration.endpoint.server?.retryThreshold = 0
        try await withPair(configuration: configuration, sessionCache: cache, serve: echo) { client, listener, loop in
            let relay = try await Relay.open(to: loopback(port: listener.port))
            func connect() async throws -> QUICConnection {
                try await client.connect(
                    host: "127.0.0.1", port: relay.port, configuration: clientConfiguration(), returnsEarly: true,
                    on: loop)
            }
            let key = SessionCacheKey(serverName: "localhost", port: relay.port, applicationProtocol: protocolName)
            let first = try await connect()
            while true {
                try await first.roundTrip()
                if let known = cache.session(for: key), known.addressToken != nil, known.ticket != nil { break }
            }
            first.close()
            _ = try await first.closed()
            #expect(await listener.counters().engine.retriesSent == 1)

            try await relay.shutOut(host: "127.0.0.1")
            let second = try await connect()
            #expect(cache.session(for: key)?.addressToken == nil)
            #expect(cache.session(for: key)?.ticket != nil, "which may be used until it is replaced")
            try await second.migrate(to: loopback("127.0.0.2"))
            try await second.roundTrip()
            #expect(await listener.counters().engine.retriesSent == 2)
            await relay.close()
        }
    }

    /// Has no way of its own to take a token out.
    private final class PlainSessionCache: SessionCache {
        private let inner = InMemorySessionCache()
        func session(for key: SessionCacheKey) -> CachedSession? { inner.session(for: key) }
        func store(ticket: SessionTicket, for key: SessionCacheKey) { inner.store(ticket: ticket, for: key) }
        func store(addressToken: [UInt8], for key: SessionCacheKey) {
            inner.store(addressToken: addressToken, for: key)
        }
        func remove(_ key: SessionCacheKey) { inner.remove(key) }
    }

    @Test("A token is taken out of any cache, and the ticket stays", arguments: [true, false])
    func tokenIsTaken(isPlain: Bool) throws {
        let cache: any SessionCache = isPlain ? PlainSessionCache() : InMemorySessionCache()
        let key = SessionCacheKey(serverName: "s", port: 1, applicationProtocol: "p")
        #expect(cache.takeAddressToken(for: key) == nil && cache.session(for: key) == nil)
        let ticket = SessionTicket(
            session: [1], transportParameters: [], serverName: "s", applicationProtocol: "p", expiresAt: .max,
            holder: [])
        cache.store(ticket: ticket, for: key)
        cache.store(addressToken: [7], for: key)
        #expect(cache.takeAddressToken(for: key) == [7])
        #expect(cache.takeAddressToken(for: key) == nil)
        #expect(cache.session(for: key)?.ticket == ticket)
    }

    @Test("What came as 0-RTT can be told from what came later, on streams and as datagrams")
    func earlyDataIsTold() async throws {
        let cache = WatchedSessionCache()
        let (streams, datagrams) = (
            Mailbox<[Bool]>(limit: 4, policy: .refuse), Mailbox<QUICDatagram>(limit: 4, policy: .refuse)
        )
        try await withPair(sessionCache: cache, yieldsEarly: true) { connection in
            guard let stream = try await connection.nextInboundStream() else { return }
            var early: [Bool] = []
            while let bytes = try await stream.read() {
                early.append(stream.lastReadWasEarly)
                try await stream.write(bytes)
            }
            try await stream.finish()
            streams.put(early)
            for _ in 0..<2 {
                if let datagram = try await connection.nextDatagram() { datagrams.put(datagram) }
            }
            _ = try await connection.closed()
        } body: { client, listener, loop in
            // While what the server answers is lost, all that is written is early.
            let isShut = Mutex(false)
            let relay = try await Relay.open(to: loopback(port: listener.port)) { direction, _, _ in
                direction == .toClient && isShut.withLock { $0 } ? .lose : .pass
            }
            try await prime(cache, client, listener, port: relay.port, on: loop)
            #expect(try await streams.next()?.contains(true) == false)
            isShut.withLock { $0 = true }
            let connection = try await client.connect(
                host: "127.0.0.1", port: relay.port, configuration: clientConfiguration(), returnsEarly: true, on: loop)
            let stream = try await connection.openStream()
            try await stream.write(ByteBuffer(string: "early"))
            try await connection.sendDatagram(ByteBuffer(string: "early"))
            isShut.withLock { $0 = false }
            #expect(try await connection.handshake().earlyData == .accepted)
            #expect(try await stream.read() == ByteBuffer(string: "early"))
            try await stream.send(Array("late".utf8))
            #expect(try await stream.collect() == Array("late".utf8))
            #expect(try await streams.next() == [true, false])
            #expect(try await connection.deliverDatagram(ByteBuffer(string: "late")) == .acknowledged)
            var told: [QUICDatagram] = []
            for _ in 0..<2 { told.append(try #require(try await datagrams.next())) }
            #expect(told.map(\.isEarly) == [true, false])
            #expect(told.map { String(buffer: $0.bytes) } == ["early", "late"])
            await relay.close()
        }
    }

    @Test("A server rotates its ticket masters, says so, and opens the tickets of the one before")
    func rotation() async throws {
        let cache = WatchedSessionCache()
        var random = SystemRandomNumberGenerator()
        // Its master is two hours old.
        let ring = TicketKeyRing(random: &random, now: wallClock() - 7200)
        var secrets = ServerSecrets()
        secrets.tickets = ring
        let saved = Mailbox<Int>(limit: 4, policy: .refuse)
        var configuration = try serverConfiguration(secrets)
        configuration.ticketRotation = .hours(3)
        configuration.onTicketRotation = { saved.put($0.current.count) }
        try await withPair(configuration: configuration, sessionCache: cache, serve: echo) { client, listener, loop in
            try await prime(cache, client, listener, on: loop)
            #expect(ring.current.count == 1, "not yet")
        }
        configuration.ticketRotation = .hours(1)
        try await withPair(configuration: configuration, sessionCache: cache, serve: echo) { client, listener, loop in
            #expect(try await saved.next() == 2)
            var returning = clientConfiguration()
            returning.sessionTicket = cache.latest
            let connection = try await client.connect(to: listener, returning, on: loop)
            #expect(try await connection.handshake().resumed)
            try await connection.roundTrip()
            #expect(ring.current.count == 2)
        }
        configuration.ticketRotation = nil
        try await withPair(configuration: configuration, serve: echo) { client, listener, loop in
            try await client.connect(to: listener, on: loop).roundTrip()
            #expect(ring.current.count == 2)
        }
    }

    @Test("After a restart with the same ticket keys a client resumes, and what it sent early arrives")
    func restart() async throws {
        let cache = WatchedSessionCache()
        let secrets = ServerSecrets()
        let port = Mutex(0)
        try await withPair(configuration: serverConfiguration(secrets), sessionCache: cache, serve: echo) {
            client, listener, loop in
            try await prime(cache, client, listener, on: loop)
            port.withLock { $0 = listener.port }
        }
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let listener = try await QUICListener.bind(
            addresses: [loopback(port: port.withLock { $0 })], configuration: serverConfiguration(secrets), group: group
        )
        let serving = Task {
            for try await connection in listener.connections { try? await echo(connection) }
        }
        let client = QUICClient(sessionCache: cache)
        try await comeBack(to: listener, client, on: group.next())
        await client.shutdownGracefully()
        await listener.shutdownGracefully()
        serving.cancel()
        try await group.shutdownGracefully()
    }

    /// A function of its own: the handles must be gone before their loops are.
    private func comeBack(to listener: QUICListener, _ client: QUICClient, on loop: any EventLoop) async throws {
        let connection = try await client.connect(to: listener, returnsEarly: true, on: loop)
        let stream = try await connection.openStream()
        try await stream.send(Array("again".utf8))
        #expect(try await stream.collect() == Array("again".utf8))
        #expect(try await connection.handshake().resumed)
    }

    @Test("0-RTT data survives a change of path before the handshake")
    func earlyDataOnNewPath() async throws {
        let cache = WatchedSessionCache()
        try await withPair(sessionCache: cache, yieldsEarly: true, serve: echo) { client, listener, loop in
            try await prime(cache, client, listener, on: loop)
            let answer = Mailbox<[UInt8]>(limit: 1, policy: .refuse)
            let port = listener.port
            try await loop.submit {
                _ = client.connect(
                    host: "127.0.0.1", port: port, configuration: clientConfiguration(), on: loop,
                    handler: EarlyMover { answer.put($0) })
            }.get()
            #expect(try await answer.next() == Array("moved early".utf8))
        }
    }

    private func identity(_ name: String) throws -> DevelopmentCertificate {
        try DevelopmentCertificate.generate(names: [name], now: wallClock())
    }

    private func configuration(asking authority: String) throws -> QUICServerConfiguration {
        var configuration = try serverConfiguration()
        configuration.endpoint.server?.tls = try TLSServerContext(
            credentials: certificate.credentials, applicationProtocols: [protocolName],
            ticketKeys: ServerSecrets().tickets, clientAuthentication: .required(authorityPEM: authority))
        return configuration
    }

    /// Connects, and closes again once a ticket is there.
    /// - Returns: whether it came back with the one before.
    private func visit(
        _ cache: WatchedSessionCache, _ client: QUICClient, _ listener: QUICListener, as identity: TLSClientIdentity,
        on loop: any EventLoop
    ) async throws -> Bool {
        var configuration = clientConfiguration()
        configuration.identity = identity
        let connection = try await client.connect(to: listener, configuration, on: loop)
        try await connection.roundTrip()
        _ = try await cache.tickets.next()
        let resumed = try await connection.handshake().resumed
        connection.close(code: 0)
        _ = try await connection.closed()
        return resumed
    }

    @Test("A client that has another certificate leaves its cached ticket alone")
    func otherCertificate() async throws {
        let (first, second) = (try identity("first"), try identity("second"))
        let cache = WatchedSessionCache()
        let seen = Mailbox<[[UInt8]]>(limit: 10, policy: .refuse)
        try await withPair(
            configuration: configuration(asking: first.certificatePEM + "\n" + second.certificatePEM),
            sessionCache: cache,
            serve: { connection in
                seen.put(try await connection.handshake().peerCertificates)
                try await echo(connection)
            },
            body: { client, listener, loop in
                var resumed: [Bool] = []
                for identity in [first, first, second, second] {
                    resumed.append(try await visit(cache, client, listener, as: identity.credentials, on: loop))
                }
                #expect(resumed == [false, true, false, true])
                var certificates: [[[UInt8]]] = []
                for _ in 0..<4 { certificates.append(try #require(await seen.next())) }
                #expect(certificates[0] == certificates[1] && certificates[2] == certificates[3])
                #expect(certificates[0] != certificates[2])
            })
    }

    @Test("A cached ticket with which the server refuses the client is dropped: the next connection is a stranger's")
    func refusedTicket() async throws {
        let identity = try identity("client-7")
        let cache = WatchedSessionCache()
        let configuration = try configuration(asking: identity.certificatePEM)
        let trust = try #require(configuration.endpoint.server?.tls.current.standard.pointer)
        try await withPair(configuration: configuration, sessionCache: cache, serve: echo) { client, listener, loop in
            #expect(try await !visit(cache, client, listener, as: identity.credentials, on: loop))
            let key = SessionCacheKey(
                serverName: "localhost", port: listener.port, applicationProtocol: protocolName)
            #expect(cache.session(for: key)?.ticket != nil)

            // As when the certificate has expired; with other authorities in the configuration no ticket would open.
            var nobody: gnutls_x509_trust_list_t?
            #expect(gnutls_x509_trust_list_init(&nobody, 0) == 0)
            gnutls_certificate_set_trust_list(trust, nobody, 0)
            var comingBack = clientConfiguration()
            comingBack.identity = identity.credentials
            // With one of its own the cache's is not used, and has to stay.
            comingBack.addressToken = [0]
            let reason = try await client.refusal(by: listener, comingBack, on: loop)
            guard case .peerTransport(let code, _) = reason, (0x100...0x1ff).contains(code) else {
                Issue.record("\(reason)")
                return
            }
            #expect(cache.session(for: key)?.ticket == nil)
            #expect(cache.session(for: key)?.addressToken != nil, "which nothing is wrong with")

            var bytes = Array(identity.certificatePEM.utf8)
            let added = bytes.withUnsafeMutableBufferPointer { buffer in
                var datum = gnutls_datum_t(data: buffer.baseAddress, size: UInt32(buffer.count))
                return gnutls_certificate_set_x509_trust_mem(trust, &datum, GNUTLS_X509_FMT_PEM)
            }
            #expect(added == 1)
            #expect(try await !visit(cache, client, listener, as: identity.credentials, on: loop))
            #expect(try await visit(cache, client, listener, as: identity.credentials, on: loop))
        }
    }

    @Test("A connect that couldn't send anything leaves the cached ticket where it is")
    func nothingSent() async throws {
        let cache = WatchedSessionCache()
        try await withPair(sessionCache: cache, serve: echo) { client, listener, loop in
            try await prime(cache, client, listener, on: loop)
            let error = await #expect(throws: QUICTransportError.self) {
                // Of another family than the server's only address.
                _ = try await client.connect(to: listener, localAddress: loopback("::1"), on: loop)
            }
            guard case .handshakeFailed(let reason) = error?.closeReason else {
                Issue.record("\(error.map { "\($0)" } ?? "no error")")
                return
            }
            #expect(reason.code == .unreachable)
            let connection = try await client.connect(to: listener, on: loop)
            #expect(try await connection.handshake().resumed)
        }
    }

    @Test("A replaced ticket replaces, and a full cache forgets the oldest server")
    func cache() throws {
        let cache = InMemorySessionCache(capacity: 2)
        let keys = (1...3).map { SessionCacheKey(serverName: "s\($0)", port: 1, applicationProtocol: "p") }
        for (index, key) in keys.enumerated() { cache.store(addressToken: [UInt8(index)], for: key) }
        #expect(cache.session(for: keys[0]) == nil)
        #expect(cache.session(for: keys[2])?.addressToken == [2])
        // A server that gave something new is none of long ago.
        cache.store(addressToken: [7], for: keys[1])
        cache.store(addressToken: [0], for: keys[0])
        #expect(keys.map { cache.session(for: $0)?.addressToken } == [[0], [7], nil])
        cache.remove(keys[1])
        #expect(cache.session(for: keys[1]) == nil)
        let none = InMemorySessionCache(capacity: 0)
        none.store(addressToken: [1], for: keys[0])
        #expect(none.session(for: keys[0]) == nil && none.takeAddressToken(for: keys[0]) == nil)
    }
}

/// Sends early data, moves to another address at once, and collects the echo.
private final class EarlyMover: QUICConnectionHandler {
    private let done: ([UInt8]) -> Void
    private var stream: QUICStreamID?
    private var answer: [UInt8] = []
    private var earlyDataEvents = 0

    init(done: @escaping ([UInt8]) -> Void) { self.done = done }

    func handle(_ event: QUICConnectionEvent, on connection: QUICLoopConnection) {
        do {
            switch event {
            case .earlyDataPossible:
                earlyDataEvents += 1
                #expect(earlyDataEvents == 1, "the new attempt's early data is not the application's business")
                let opened = try #require(try connection.openStream(bidirectional: true))
                stream = opened
                var bytes = ByteBuffer(string: "moved early")
                try connection.write(&bytes, to: opened, finish: true)
                connection.migrate(toLocal: try loopback("127.0.0.2"), promise: nil)
            case .handshakeCompleted:
                #expect(connection.path?.local.host == "127.0.0.2")
            case .streamReadable(let readable) where readable == stream:
                let read = try connection.read(readable, maximumBytes: 1000)
                answer.append(contentsOf: read.bytes.readableBytesView)
                if read.finished { done(answer) }
            default: break
            }
        } catch {
            Issue.record(error)
        }
    }

    func batchEnded(on connection: QUICLoopConnection) {}
}
