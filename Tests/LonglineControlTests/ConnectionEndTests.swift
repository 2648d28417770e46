import NIOCore
import NIOEmbedded
import Testing

@testable import LonglineControl

@Suite("How connections over HTTPS end", .timeLimit(.minutes(1))) struct ConnectionEndTests {
    /// What a client does and then leaves undone.
    enum Client: CaseIterable {
        case silent, halfHello, halfRequest, preface, halfHeaders, closedWindow, unread

        var version: String? {
            switch self {
            case .silent, .halfHello: nil
            case .halfRequest, .unread: "http/1.1"
            case .preface, .halfHeaders, .closedWindow: "h2"
            }
        }

        func begin(_ connection: RawConnection) async throws {
            switch self {
            case .silent: break
            case .halfHello: try await connection.send([0x16, 3, 1, 2, 0, 1])
            case .halfRequest: try await connection.send("GET / HTTP/1.1\r\nHost: x\r\nX: ")
            case .preface: try await connection.send(RawConnection.preface())
            case .halfHeaders:
                try await connection.send(RawConnection.preface() + RawConnection.frame(1, stream: 1, [0x82]))
            case .closedWindow:
                try await connection.send(RawConnection.preface(window: 0) + RawConnection.get("/openapi.yaml"))
            case .unread:
                try await connection.send("GET /openapi.yaml HTTP/1.1\r\nHost: x\r\n\r\n")
                #expect(await connection.receives("HTTP/1.1 200"))
                try await connection.channel.setOption(.autoRead, value: false).get()
                // More than the buffers of both sides hold.
                let request = "GET /openapi.yaml HTTP/1.1\r\nHost: x\r\n\r\n"
                connection.channel.writeAndFlush(
                    ByteBuffer(string: String(repeating: request, count: 2_000)), promise: nil)
            }
        }
    }

    @Test("a listener ends in time, whatever its clients leave undone", arguments: Client.allCases)
    func shutdown(client: Client) async throws {
        var connection: RawConnection?
        try await withControl({ $0.limits.closeTimeout = .milliseconds(200) }) { service in
            let first = try await RawConnection(service, client.version)
            try await client.begin(first)
            connection = first
            // Who comes later is served: the one before is accepted.
            let second = try await RawConnection(service, "http/1.1")
            try await second.send("GET /.well-known/jwks.json HTTP/1.1\r\nHost: x\r\n\r\n")
            #expect(await second.receives("HTTP/1.1 200"))
        }
        _ = try? await connection?.channel.setOption(.autoRead, value: true).get()
        _ = await connection?.end()
    }

    @Test("a request over HTTP/2 whose body comes while the listener ends is answered to the end")
    func lastAnswer() async throws {
        let service = try await ControlService()
        let key = try await service.appKey()
        let connection = try await RawConnection(service, "h2")
        func text(_ text: String) -> [UInt8] { [UInt8(text.utf8.count)] + Array(text.utf8) }
        // POST over https, then :authority, :path, authorization and content-type as they are (RFC 7541, section 6.2.2).
        var head: [UInt8] = [0x83, 0x87, 0x01] + text("x")
        head += [0x04] + text("/v1/tokens")
        head += [0x0F, 8] + text("Bearer \(key)")
        head += [0x0F, 16] + text("application/json")
        try await connection.send(RawConnection.preface() + RawConnection.frame(1, flags: 4, stream: 1, head))
        // Once this is answered the head has come.
        try await connection.send(RawConnection.frame(6, Array("received".utf8)))
        while let frame = await connection.nextFrame(), frame.type != 6 {}
        let stopping = Task { try await service.stop() }
        var farewells = 0
        var answer: [UInt8] = []
        var isWhole = false
        while let frame = await connection.nextFrame() {
            switch frame.type {
            case 0:
                answer += frame.payload
                isWhole = frame.flags & 1 == 1
            case 6 where frame.flags & 1 == 0:
                // Behind the answer to this comes the second GOAWAY, which names the last stream.
                try await connection.send(RawConnection.frame(6, flags: 1, frame.payload))
            case 7:
                farewells += 1
                guard farewells == 2 else { break }
                let body = Array(#"{"user":"ann","device":"phone"}"#.utf8)
                try await connection.send(RawConnection.frame(0, flags: 1, stream: 1, body))
            default: break
            }
        }
        try await stopping.value
        #expect(farewells == 2 && isWhole)
        #expect(String(decoding: answer, as: UTF8.self).contains("\"token_id\""))
    }

    @Test("connections without TLS give their places back, and those with it stay")
    func handshakes() async throws {
        try await withControl({
            $0.limits.connections = 3
            $0.limits.handshakeTimeout = .seconds(2)
        }) { service in
            let good = try await RawConnection(service, "http/1.1")
            try await good.send("GET /.well-known/jwks.json HTTP/1.1\r\nHost: x\r\n\r\n")
            #expect(await good.receives("HTTP/1.1 200"))
            let idle = [try await RawConnection(service, nil), try await RawConnection(service, nil)]
            try await Client.halfHello.begin(idle[1])
            // There is no place for this one yet.
            let late = try await RawConnection(service, "http/1.1")
            try await late.send("GET /.well-known/jwks.json HTTP/1.1\r\nHost: x\r\n\r\n")
            #expect(await late.receives("HTTP/1.1 200"))
            for connection in idle { _ = await connection.end() }
            try await good.send("GET /.well-known/jwks.json HTTP/1.1\r\nHost: x\r\n\r\n")
            #expect(await good.receives("HTTP/1.1 200"))
        }
    }

    @Test(
        "a client that says nothing more is closed, also if it does not answer that it will be",
        arguments: [Client.halfRequest, .preface, .halfHeaders])
    func idle(client: Client) async throws {
        try await withControl({
            $0.limits.idleTimeout = .milliseconds(200)
            $0.limits.closeTimeout = .milliseconds(200)
        }) { service in
            let connection = try await RawConnection(service, client.version)
            try await client.begin(connection)
            _ = await connection.end()
        }
    }

    @Test("an answer over HTTP/2 that is not taken is given up, and then the connection")
    func closedWindow() async throws {
        try await withControl({
            $0.limits.idleTimeout = .milliseconds(200)
            $0.limits.closeTimeout = .milliseconds(200)
        }) { service in
            let connection = try await RawConnection(service, "h2")
            try await Client.closedWindow.begin(connection)
            let received = await connection.end()
            // RST_STREAM of the first stream.
            #expect(received.contains("\u{0}\u{0}\u{4}\u{3}\u{0}\u{0}\u{0}\u{0}\u{1}"))
        }
    }

    @Test("a body over HTTP/2 that goes on behind its answer ends its stream, and the client keeps the answer")
    func bodyBehindAnswer() async throws {
        try await withControl { service in
            let connection = try await RawConnection(service, "h2")
            try await connection.send(RawConnection.preface())
            // POST and https, without Huffman's code; the body is to come.
            let path = "/v1/tokens"
            let head: [UInt8] = [0x83, 0x87, 0x01, 1, 0x78, 0x04, UInt8(path.utf8.count)] + Array(path.utf8)
            try await connection.send(RawConnection.frame(1, flags: 4, stream: 1, head))
            // DATA with END_STREAM, whatever its length: it ends the answer, as nobody has shown a key.
            #expect(await connection.receives("\u{0}\u{1}\u{0}\u{0}\u{0}\u{1}"))
            for count in [16_384, 16_384, 16_384, RequestWatch.leftover - 3 * 16_384] {
                let allowed = [UInt8](repeating: 0x20, count: count)
                try await connection.send(RawConnection.frame(0, stream: 1, allowed))
            }
            // WINDOW_UPDATE of the stream: it was read, and there is room for more.
            #expect(await connection.receives("\u{0}\u{0}\u{4}\u{8}\u{0}\u{0}\u{0}\u{0}\u{1}"))
            try await connection.send(RawConnection.frame(0, stream: 1, [0x20]))
            // RST_STREAM with NO_ERROR.
            #expect(
                await connection.receives(
                    "\u{0}\u{0}\u{4}\u{3}\u{0}\u{0}\u{0}\u{0}\u{1}\u{0}\u{0}\u{0}\u{0}"))
            try await connection.send(RawConnection.get("/.well-known/jwks.json", stream: 3))
            #expect(await connection.receives("\"keys\""))
        }
    }

    @Test(
        "a connection of HTTP/1 ends with the answer to its last request, however its client says that it is",
        arguments: [
            ("HTTP/1.1", "Connection: close\r\n"), ("HTTP/1.1", "connection:Close\r\n"),
            ("HTTP/1.1", "Connection: close, TE\r\n"), ("HTTP/1.1", "Connection: TE ,\tCLOSE\r\n"),
            ("HTTP/1.1", "Connection: TE\r\nConnection: close\r\n"), ("HTTP/1.0", ""),
            ("HTTP/1.0", "Connection: TE\r\n"), ("HTTP/1.0", "Connection: close, keep-alive\r\n"),
            ("HTTP/1.0", "Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n"),
            ("HTTP/1.1", "Connection: keep-alive, Upgrade\r\nUpgrade: h2c\r\n"),
        ])
    func lastRequest(version: String, fields: String) async throws {
        try await withControl { service in
            let connection = try await RawConnection(service, "http/1.1")
            try await connection.send("GET /.well-known/jwks.json \(version)\r\nHost: x\r\n\(fields)\r\n")
            let answer = await connection.end()
            #expect(answer.hasPrefix("HTTP/1.1 200"))
            #expect(answer.lowercased().contains("\r\nconnection: close\r\n"))
        }
    }

    @Test("and with the answer to a CONNECT")
    func tunnel() async throws {
        try await withControl { service in
            let connection = try await RawConnection(service, "http/1.1")
            try await connection.send("CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n")
            let answer = await connection.end()
            #expect(answer.hasPrefix("HTTP/1.1 4") && answer.lowercased().contains("\r\nconnection: close\r\n"))
        }
    }

    @Test("and where a body that was announced does not come in its time")
    func lateBody() async throws {
        try await withControl({ $0.limits.bodyTimeout = .milliseconds(200) }) { service in
            let key = try await service.appKey()
            let connection = try await RawConnection(service, "http/1.1")
            try await connection.send(
                "POST /v1/tokens HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \(key)\r\n"
                    + "Content-Type: application/json\r\nContent-Length: 30\r\n\r\n{")
            let answer = await connection.end()
            #expect(answer.hasPrefix("HTTP/1.1 408") && answer.lowercased().contains("\r\nconnection: close\r\n"))
        }
    }

    @Test(
        "and goes on where its client does not",
        arguments: [
            ("HTTP/1.1", ""), ("HTTP/1.1", "Connection: keep-alive, closed\r\n"), ("HTTP/1.1", "Upgrade: h2c\r\n"),
            ("HTTP/1.0", "Connection: Keep-Alive\r\n"),
        ])
    func furtherRequest(version: String, fields: String) async throws {
        try await withControl { service in
            let connection = try await RawConnection(service, "http/1.1")
            for _ in 0..<2 {
                try await connection.send("GET /.well-known/jwks.json \(version)\r\nHost: x\r\n\(fields)\r\n")
                #expect(await connection.receives("HTTP/1.1 200"))
            }
        }
    }

    @Test("a client that keeps its connection alive by PINGs is served on")
    func pings() async throws {
        try await withControl { service in
            let connection = try await RawConnection(service, "h2")
            try await connection.send(RawConnection.preface())
            for number in 1_001...1_020 {
                try await connection.send(RawConnection.frame(6, Array("ping\(number)".utf8)))
                #expect(await connection.receives("\u{0}\u{0}\u{8}\u{6}\u{1}\u{0}\u{0}\u{0}\u{0}ping\(number)"))
            }
            try await connection.send(RawConnection.get("/.well-known/jwks.json"))
            #expect(await connection.receives("\"keys\""))
        }
    }

    @Test("a flood of PINGs ends the connection, and the client is told why")
    func pingFlood() async throws {
        try await withControl { service in
            let connection = try await RawConnection(service, "h2")
            try await connection.send(RawConnection.preface())
            let ping = RawConnection.frame(6, [UInt8](repeating: 1, count: 8))
            try await connection.send(Array(repeatElement(ping, count: 400).joined()))
            let received = await connection.end()
            // GOAWAY with ENHANCE_YOUR_CALM; the last stream is 0.
            #expect(
                received.contains(
                    "\u{0}\u{0}\u{8}\u{7}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{b}"))
        }
    }

    // MARK: The guard, in virtual time

    /// A socket that takes nothing until it is told to.
    private final class Socket: ChannelOutboundHandler {
        typealias OutboundIn = ByteBuffer
        var waiting: [EventLoopPromise<Void>] = []

        func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
            if let promise { waiting.append(promise) }
        }
    }

    private func makeGuarded() throws -> (channel: EmbeddedChannel, socket: Socket, guarded: ConnectionGuard) {
        var limits = ControlLimits()
        (limits.handshakeTimeout, limits.idleTimeout, limits.closeTimeout) = (.seconds(10), .seconds(60), .seconds(5))
        let (socket, guarded) = (Socket(), ConnectionGuard(ConnectionGuard.Timeouts(limits)))
        let channel = EmbeddedChannel()
        try channel.pipeline.syncOperations.addHandlers([socket, guarded])
        try channel.connect(to: SocketAddress(ipAddress: "127.0.0.1", port: 1)).wait()
        return (channel, socket, guarded)
    }

    @Test("a handshake has its time, and so has silence after it")
    func silence() throws {
        let (channel, _, guarded) = try makeGuarded()
        channel.embeddedEventLoop.advanceTime(by: .seconds(9))
        guarded.handshakeCompleted()
        channel.embeddedEventLoop.advanceTime(by: .seconds(64))
        #expect(channel.isActive)
        guarded.requestBegan()
        channel.embeddedEventLoop.advanceTime(by: .hours(1))
        #expect(channel.isActive, "a request is under way")
        guarded.requestEnded()
        channel.embeddedEventLoop.advanceTime(by: .seconds(64))
        #expect(channel.isActive)
        channel.embeddedEventLoop.advanceTime(by: .seconds(1))
        #expect(!channel.isActive)
        let other = try makeGuarded()
        other.channel.embeddedEventLoop.advanceTime(by: .seconds(10))
        #expect(!other.channel.isActive)
    }

    @Test("a slow reader is waited for, part by part, and one that takes nothing is not")
    func writes() throws {
        let (channel, socket, guarded) = try makeGuarded()
        guarded.handshakeCompleted()
        guarded.requestBegan()
        channel.writeAndFlush(ByteBuffer(repeating: 1, count: 3 * ConnectionGuard.part), promise: nil)
        #expect(socket.waiting.count == 3)
        for part in socket.waiting.dropLast() {
            channel.embeddedEventLoop.advanceTime(by: .seconds(59))
            part.succeed()
        }
        channel.embeddedEventLoop.advanceTime(by: .seconds(59))
        #expect(channel.isActive)
        channel.embeddedEventLoop.advanceTime(by: .seconds(1))
        #expect(!channel.isActive)
        socket.waiting.last?.succeed()
    }

    // MARK: Places

    /// Connections of a listener, each with its guard.
    private func connect(_ count: Int, to connections: OpenConnections) throws -> [(EmbeddedChannel, ConnectionGuard)] {
        try (0..<count).map { _ in
            let channel = EmbeddedChannel()
            let id = ObjectIdentifier(channel)
            let guarded = ConnectionGuard(ConnectionGuard.Timeouts(ControlLimits())) { isWorking in
                connections.changed(id, isWorking: isWorking)
            }
            try channel.pipeline.syncOperations.addHandler(guarded)
            try channel.connect(to: SocketAddress(ipAddress: "127.0.0.1", port: 1)).wait()
            connections.add(channel)
            guarded.handshakeCompleted()
            return (channel, guarded)
        }
    }

    @Test("where few places are left, who comes takes that of for whom nothing has been done for longest")
    func crowd() throws {
        let connections = OpenConnections(limit: 8)
        let first = try connect(7, to: connections)
        first[0].1.workBegan()
        first[1].1.workBegan()
        first[1].1.workEnded()
        func up() -> [Int] {
            for (channel, _) in first { channel.embeddedEventLoop.run() }
            return first.indices.filter { first[$0].0.isActive }
        }
        #expect(up() == Array(0..<7))
        // The first has a request, and the second had one later than the third came.
        var later = try connect(1, to: connections)
        #expect(up() == [0, 1, 3, 4, 5, 6])
        // A request that comes before the connection is told to end is answered.
        later += try connect(1, to: connections)
        first[3].1.workBegan()
        #expect(up() == [0, 1, 3, 4, 5, 6])
        first[3].1.workEnded()
        later += try connect(3, to: connections)
        #expect(up() == [0, 1, 3])
        later += try connect(1, to: connections)
        #expect(up() == [0, 3])
        later += try connect(1, to: connections)
        later[0].0.embeddedEventLoop.run()
        #expect(up() == [0, 3] && !later[0].0.isActive && later[1].0.isActive)
        first[0].1.workEnded()
        connections.endAll()
        #expect(up() == [])
    }

    @Test("clients that take no answer keep nobody waiting")
    func crowdOfClosedWindows() async throws {
        try await withControl({
            $0.limits.connections = 8
            $0.limits.idleTimeout = .seconds(3_600)
            $0.limits.closeTimeout = .milliseconds(200)
        }) { service in
            var held: [RawConnection] = []
            for _ in 0..<8 {
                let connection = try await RawConnection(service, "h2")
                try await Client.closedWindow.begin(connection)
                // HEADERS of the first stream, without its end.
                #expect(await connection.receives("\u{1}\u{4}\u{0}\u{0}\u{0}\u{1}"))
                held.append(connection)
            }
            for _ in 0..<4 {
                let late = try await RawConnection(service, "http/1.1")
                try await late.send("GET /.well-known/jwks.json HTTP/1.1\r\nHost: x\r\n\r\n")
                #expect(await late.receives("HTTP/1.1 200"))
                held.append(late)
            }
            for connection in held.prefix(4) { _ = await connection.end() }
        }
    }
}
