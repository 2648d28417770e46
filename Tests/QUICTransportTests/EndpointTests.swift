import Glibc
import Logging
import LonglineTestKit
import NIOCore
import NIOPosix
import QUICEngine
import Synchronization
import Testing

@testable import QUICTransport

@Suite("Endpoints over loopback", .timeLimit(.minutes(1)))
struct EndpointTests {
    @Test("The close code and reason are seen on both sides")
    func closeReason() async throws {
        let seen = Mailbox<QUICCloseReason>(limit: 1, policy: .refuse)
        try await withPair { connection in
            try? await echo(connection)
            seen.put(try await connection.closed())
        } body: { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            try await connection.roundTrip()
            connection.close(code: 1234, reason: "done here")
            let here = try await connection.closed()
            #expect(here == .localApplication(code: 1234, reason: "done here"))
            let there = try await seen.next()
            #expect(there == .peerApplication(code: 1234, reason: "done here"))
            await #expect(throws: QUICTransportError.self) { _ = try await connection.openStream() }
        }
    }

    @Test("An address that a wildcard names once more is served all the same", arguments: [true, false])
    func namedTwice(wildcardIsFirst: Bool) async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 2)
        let first = try await QUICListener.bind(
            addresses: [loopback()], configuration: serverConfiguration(), group: group)
        let port = first.port
        await first.shutdownGracefully()
        let addresses = [try loopback(port: port), try loopback("0.0.0.0", port: port)]
        let listener = try await QUICListener.bind(
            addresses: wildcardIsFirst ? addresses.reversed() : addresses, configuration: serverConfiguration(),
            group: group)
        #expect(listener.localAddresses.filter { $0.ipAddress == "127.0.0.1" }.count == 1)
        try await meet(listener, group.next())
        await listener.shutdownGracefully()
        try await group.shutdownGracefully()
    }

    /// A function of its own: the handles must be gone before their loop is.
    private func meet(_ listener: QUICListener, _ loop: any EventLoop) async throws {
        let client = QUICClient()
        let connection = try await client.connect(to: listener, on: loop)
        connection.close()
        _ = try await connection.closed()
        await client.shutdownGracefully(timeout: .seconds(1))
    }

    @Test("A graceful shutdown tells every client why")
    func gracefulShutdown() async throws {
        try await withPair(serve: echo) { client, listener, loop in
            var connections: [QUICConnection] = []
            for _ in 0..<5 { connections.append(try await client.connect(to: listener, on: loop)) }
            // Before its handshake is complete a server may not say the code: then it says APPLICATION_ERROR.
            for connection in connections { try await connection.roundTrip() }
            await listener.shutdownGracefully(code: 1001, reason: "restart")
            for connection in connections {
                let reason = try await connection.closed()
                #expect(reason == .peerApplication(code: 1001, reason: "restart"))
            }
        }
    }

    @Test("Connections that nobody took hear of a shutdown what the others hear")
    func shutdownWithABacklog() async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let listener = try await QUICListener.bind(
            addresses: [loopback()], configuration: serverConfiguration(), group: group)
        let client = QUICClient()
        try await shutDown(listener, group.next(), client)
        await client.shutdownGracefully(timeout: .seconds(1))
        try await group.shutdownGracefully()
    }

    /// A function of its own: the handles must be gone before their loop is.
    private func shutDown(_ listener: QUICListener, _ loop: any EventLoop, _ client: QUICClient) async throws {
        var waiting: [QUICConnection] = []
        for _ in 0..<3 { waiting.append(try await client.connect(to: listener, on: loop)) }
        while await listener.counters().engine.handshakesCompleted < 3 { await Task.yield() }
        await listener.shutdownGracefully(code: 1001, reason: "restart")
        for connection in waiting {
            #expect(try await connection.closed() == .peerApplication(code: 1001, reason: "restart"))
        }
    }

    @Test("A handshake that ends after the listener stopped accepting is told that, and not of a full backlog")
    func handshakeUnderWay() async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let listener = try await QUICListener.bind(
            addresses: [loopback()], configuration: serverConfiguration(), group: group, refusalCode: 55)
        let client = QUICClient()
        try await finishLate(listener, group.next(), client)
        await client.shutdownGracefully(timeout: .seconds(1))
        await listener.shutdownGracefully(timeout: .seconds(1))
        try await group.shutdownGracefully()
    }

    private func finishLate(_ listener: QUICListener, _ loop: any EventLoop, _ client: QUICClient) async throws {
        // What the server answers is lost until it has stopped.
        let isShut = Mutex(true)
        let relay = try await Relay.open(to: loopback(port: listener.port)) { direction, _, _ in
            direction == .toClient && isShut.withLock { $0 } ? .lose : .pass
        }
        let connecting = Task {
            try await client.connect(
                host: "127.0.0.1", port: relay.port,
                configuration: clientConfiguration { $0.initialRTT = .milliseconds(50) }, on: loop)
        }
        while await listener.counters().engine.connectionsAccepted == 0 { try await Task.sleep(for: .milliseconds(2)) }
        await listener.stopAccepting()
        #expect(await listener.counters().engine.handshakesCompleted == 0, "it is under way")
        isShut.withLock { $0 = false }
        let reason = try await connecting.value.closed()
        #expect(reason == .peerApplication(code: 55, reason: "no more connections are taken"))
        await relay.close()
    }

    @Test("A drain lets connections end by themselves and takes no new ones")
    func drain() async throws {
        try await withPair(loops: 2, serve: echo) { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            let stream = try await connection.openStream()
            try await stream.write(ByteBuffer(string: "before"))
            #expect(try await stream.read() == ByteBuffer(string: "before"))
            let down = Task { await listener.shutdownGracefully(code: 9, grace: .minutes(10)) }
            var refused: QUICTransportError?
            while refused == nil {
                do {
                    try await client.connect(to: listener, on: loop).close()
                } catch let error as QUICTransportError {
                    // One whose handshake the shutdown met is closed with its code. CONNECTION_REFUSED comes to who asks later.
                    if case .peerTransport(code: 2, _) = error.closeReason { refused = error }
                }
            }
            // It lives on until it has done what it came for.
            try await stream.send(pattern(300_000))
            #expect(try await stream.collect() == pattern(300_000))
            connection.close(code: 3)
            #expect(try await connection.closed() == .localApplication(code: 3, reason: ""))
            await down.value
        }
    }

    @Test("When the time of a drain is over, what is left is closed")
    func drainEnds() async throws {
        try await withPair(serve: echo) { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            try await connection.roundTrip()
            await listener.stopAccepting()
            try await connection.roundTrip()
            await listener.shutdownGracefully(code: 9, reason: "time is up", grace: .milliseconds(50))
            #expect(try await connection.closed() == .peerApplication(code: 9, reason: "time is up"))
        }
    }

    @Test("Certificates by name are reloaded, too")
    func reloadByName() async throws {
        try await withPair(serve: echo) { client, listener, loop in
            var configuration = clientConfiguration()
            configuration.serverName = "api.example.org"
            for names in [["api.example.org"], ["*.example.org"]] {
                let other = try DevelopmentCertificate.generate(names: names, now: wallClock())
                try listener.reloadCertificate(
                    certificate.credentials, certificatesByName: [names[0]: other.credentials])
                configuration.verification = .certificateAuthority(pem: other.certificatePEM)
                let connection = try await client.connect(to: listener, configuration, on: loop)
                #expect(try await connection.handshake().peerCertificates.count == 1)
                try await client.connect(to: listener, on: loop).roundTrip()
            }
            // A name that can't be one changes nothing.
            #expect(throws: QUICError.self) {
                try listener.reloadCertificate(
                    certificate.credentials, certificatesByName: ["a.*.org": certificate.credentials])
            }
            try await client.connect(to: listener, configuration, on: loop).roundTrip()
        }
    }

    @Test("Connections are served on every loop")
    func twoLoops() async throws {
        try await withPair(loops: 2, serve: echo) { client, listener, loop in
            try await withThrowingTaskGroup(of: Bool.self) { group in
                for number in 0..<24 {
                    group.addTask {
                        let connection = try await client.connect(to: listener, on: loop)
                        let stream = try await connection.openStream()
                        let sent = pattern(50_000, seed: UInt64(number))
                        try await stream.send(sent)
                        return try await stream.collect() == sent
                    }
                }
                for try await same in group { #expect(same) }
            }
            #expect(await listener.counters().engine.handshakesCompleted == 24)
        }
    }

    @Test("A certificate that isn't trusted fails the connect, and says so")
    func untrustedCertificate() async throws {
        try await withPair(serve: echo) { client, listener, loop in
            var configuration = clientConfiguration()
            configuration.verification = .pinnedPublicKey(sha256: [[UInt8](repeating: 0, count: 32)])
            let error = await #expect(throws: QUICTransportError.self) {
                _ = try await client.connect(to: listener, configuration, on: loop)
            }
            #expect(error?.code == .connectFailed)
            guard case .handshakeFailed = error?.closeReason else {
                Issue.record("not a handshake failure: \(String(describing: error))")
                return
            }
        }
    }

    @Test("A pinned key is enough")
    func pinnedKey() async throws {
        try await withPair(serve: echo) { client, listener, loop in
            var configuration = clientConfiguration()
            configuration.verification = .pinnedPublicKey(sha256: [certificate.publicKeySHA256])
            let connection = try await client.connect(to: listener, configuration, on: loop)
            #expect(try await connection.handshake().applicationProtocol == protocolName)
        }
    }

    @Test("New connections get the reloaded certificate, those that live go on")
    func reload() async throws {
        try await withPair(serve: echo) { client, listener, loop in
            let before = try await client.connect(to: listener, on: loop)
            let other = try DevelopmentCertificate.generate(names: ["localhost"], now: wallClock())
            try listener.reloadCertificate(other.credentials)
            var configuration = clientConfiguration()
            configuration.verification = .pinnedPublicKey(sha256: [other.publicKeySHA256])
            _ = try await client.connect(to: listener, configuration, on: loop)
            let stream = try await before.openStream()
            try await stream.send([1, 2, 3])
            #expect(try await stream.collect() == [1, 2, 3])
            #expect(throws: QUICError.self) {
                try listener.reloadCertificate(TLSServerCredentials(certificateChainPEM: "x", privateKeyPEM: "y"))
            }
        }
    }

    @Test("A preferred address that nothing is bound to is refused by name, unless something outside translates it")
    func unboundPreferredAddress() async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let lines = RecordedLines()
        var configuration = try serverConfiguration()
        configuration.logger = lines.logger
        configuration.endpoint.server?.preferredAddresses = [QUICSocketAddress(ipv4: (192, 0, 2, 17), port: 4433)]
        let refused = configuration
        let error = await #expect(throws: QUICTransportError.self) {
            _ = try await QUICListener.bind(addresses: [try loopback()], configuration: refused, group: group)
        }
        #expect(error?.code == .preferredAddressNotBound)
        #expect(error?.message.contains("192.0.2.17:4433") == true)
        #expect(error?.advice.contains("preferredAddressesAreTranslated") == true)

        configuration.preferredAddressesAreTranslated = true
        let listener = try await QUICListener.bind(addresses: [loopback()], configuration: configuration, group: group)
        let warning = lines.lines.first { $0.message.contains("preferred address") }
        #expect(warning?.level == .warning && warning?.metadata["address"] == "192.0.2.17:4433")
        await listener.shutdownGracefully()
        try await group.shutdownGracefully()
    }

    @Test("Clients go to the preferred address that the server is bound to")
    func preferredAddress() async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        var configuration = try serverConfiguration()
        // A port that was free a moment ago.
        let probe = try await DatagramBootstrap(group: group).bind(host: "127.0.0.3", port: 0).get()
        let port = try #require(probe.localAddress?.port)
        try await probe.close()
        let preferred = QUICSocketAddress(ipv4: (127, 0, 0, 3), port: UInt16(port))
        configuration.endpoint.server?.preferredAddresses = [preferred]
        let listener = try await QUICListener.bind(
            addresses: [loopback(), loopback("127.0.0.3", port: port)], configuration: configuration, group: group)
        let serving = Task { for try await connection in listener.connections { try? await echo(connection) } }
        let client = QUICClient()
        try await follow(preferred, from: listener, client, on: group.next())
        await client.shutdownGracefully(timeout: .seconds(1))
        await listener.shutdownGracefully(timeout: .seconds(1))
        _ = try? await serving.value
        try await group.shutdownGracefully()
    }

    /// A function of its own: the handle must be gone before its loop is.
    private func follow(
        _ preferred: QUICSocketAddress, from listener: QUICListener, _ client: QUICClient, on loop: any EventLoop
    ) async throws {
        let connection = try await client.connect(to: listener, on: loop)
        while await connection.statistics()?.path.remote != preferred { try await connection.roundTrip() }
        try await connection.roundTrip()
        connection.close()
        _ = try await connection.closed()
    }

    @Test("Nobody there: the connect fails when its time is over")
    func nobodyThere() async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let client = QUICClient()
        let silent = try await DatagramBootstrap(group: group).bind(host: "127.0.0.1", port: 0).get()
        let error = await #expect(throws: QUICTransportError.self) {
            _ = try await client.connect(
                host: "127.0.0.1", port: silent.localAddress?.port ?? 0,
                configuration: clientConfiguration { $0.handshakeTimeout = .milliseconds(200) }, on: group.next())
        }
        #expect(error?.code == .connectFailed)
        #expect(error?.closeReason == .handshakeTimeout)
        let unresolved = await #expect(throws: QUICTransportError.self) {
            _ = try await client.connect(
                host: String(repeating: "x", count: 64), port: 1, configuration: clientConfiguration(), on: group.next()
            )
        }
        #expect(unresolved?.code == .connectFailed)
        await client.shutdownGracefully()
        try await group.shutdownGracefully()
    }

    @Test("A cancelled connect gives up")
    func cancelledConnect() async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let client = QUICClient()
        let silent = try await DatagramBootstrap(group: group).bind(host: "127.0.0.1", port: 0).get()
        let loop = group.next()
        let connecting = Task {
            _ = try await client.connect(
                host: "127.0.0.1", port: silent.localAddress?.port ?? 0, configuration: clientConfiguration(), on: loop)
        }
        connecting.cancel()
        await #expect(throws: CancellationError.self) { try await connecting.value }
        await client.shutdownGracefully()
        #expect(await client.counters().connections == 0)
        try await group.shutdownGracefully()
    }

    @Test("Garbage costs a counter, and connections beside it live")
    func garbage() async throws {
        try await withPair(serve: echo) { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            let socket = try await DatagramBootstrap(group: loop).bind(host: "127.0.0.1", port: 0).get()
            let target = try loopback(port: listener.port)
            for length in [1, 20, 100, 1200] {
                try await socket.writeAndFlush(
                    AddressedEnvelope(remoteAddress: target, data: ByteBuffer(bytes: pattern(length))))
            }
            let stream = try await connection.openStream()
            try await stream.send([4, 5])
            #expect(try await stream.collect() == [4, 5])
            try await socket.close()
        }
    }

    @Test("Without GSO and GRO everything works the same")
    func withoutOffload() async throws {
        var configuration = try serverConfiguration()
        configuration.sockets.segmentationOffload = false
        configuration.sockets.receiveOffload = false
        var sockets = QUICSocketOptions.client
        sockets.segmentationOffload = false
        sockets.receiveOffload = false
        try await withPair(configuration: configuration, sockets: sockets, serve: echo) { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            let stream = try await connection.openStream()
            let sent = pattern(1 << 20)
            async let received = stream.collect()
            try await stream.send(sent)
            #expect(try await received == sent)
            let counters = await listener.counters()
            #expect(counters.sockets.segmentedMessagesSent == 0)
            #expect(counters.sockets.joinedMessagesReceived == 0)
        }
    }

    @Test("A backlog that nobody empties refuses with a code")
    func backlog() async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let listener = try await QUICListener.bind(
            addresses: [loopback()], configuration: serverConfiguration(), group: group, backlog: 1, refusalCode: 3)
        let client = QUICClient()
        try await fillBacklog(of: listener, client, on: group.next())
        await client.shutdownGracefully()
        await listener.shutdownGracefully()
        try await group.shutdownGracefully()
    }

    /// A function of its own: the handles must be gone before their loops are.
    private func fillBacklog(of listener: QUICListener, _ client: QUICClient, on loop: any EventLoop) async throws {
        let first = try await client.connect(to: listener, on: loop)
        // The first is in the backlog once the server knows that its handshake is complete.
        while await listener.counters().engine.handshakesCompleted == 0 { await Task.yield() }
        let refusal = QUICCloseReason.peerApplication(code: 3, reason: "the backlog is full")
        do {
            let second = try await client.connect(to: listener, on: loop)
            let reason = try await second.closed()
            #expect(reason == refusal)
        } catch let error as QUICTransportError {
            // The close can come with the handshake's end.
            #expect(error.closeReason == refusal)
        }
        #expect(await first.statistics() != nil)
    }

    @Test("A key log gets a connection's secrets, one line each, and only where it was asked for")
    func keyLog() async throws {
        let path = "/tmp/longline-keys-\(UInt64.random(in: 0...UInt64.max)).log"
        defer { unlink(path) }
        let file = try KeyLogFile(path: path)
        try await withPair(serve: echo) { client, listener, loop in
            _ = try await client.connect(to: listener, on: loop)
            #expect(try text(of: path).isEmpty)
            var configuration = clientConfiguration()
            configuration.keyLog = { file.append($0) }
            _ = try await client.connect(to: listener, configuration, on: loop)
        }
        let lines = try text(of: path).split(separator: "\n")
        for label in ["CLIENT_HANDSHAKE_TRAFFIC_SECRET ", "SERVER_TRAFFIC_SECRET_0 "] {
            #expect(lines.contains { $0.hasPrefix(label) })
        }
    }

    private func text(of path: String) throws -> String {
        let file = try #require(fopen(path, "r"))
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: 64 << 10)
        let count = fread(&bytes, 1, bytes.count, file)
        return String(decoding: bytes[..<count], as: UTF8.self)
    }
}
