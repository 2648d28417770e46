import HTTPTypes
import NIOCore
import QUICEngine
import QUICTransport
import Synchronization
import Testing

@testable import HTTP3

@Suite("Limits", .timeLimit(.minutes(1)))
struct LimitTests {
    @Test("A header section that is too large gets 431, and the connection goes on")
    func headerSection() async throws {
        var limits = HTTP3Limits()
        limits.fieldSectionSize = 2000
        try await withRawClient(limits: limits) { world, peer in
            try await peer.openControl()
            // By its frame's length, and by many small lines, which count for 32 bytes more than they have.
            let long = RawPeer.headers(RawPeer.get + [("a", String(repeating: "x", count: 5000))])
            let many = RawPeer.headers(RawPeer.get + Array(repeating: ("a", "b"), count: 60))
            for bytes in [long, many] {
                #expect(try await status(try await peer.send(bytes)) == "431")
            }
            try await peer.expectAlive()
            #expect(world.server.statistics.malformed == 2 && world.server.statistics.requests == 1)
        }
    }

    @Test("A trailer section that is too large and comes with its request gets 431", arguments: [true, false])
    func trailerSection(isWhole: Bool) async throws {
        var limits = HTTP3Limits()
        limits.fieldSectionSize = 2000
        try await withRawClient(limits: limits) { world, peer in
            try await peer.openControl()
            let long = RawPeer.headers([("a", String(repeating: "x", count: 5000))])
            let stream = try await peer.send(RawPeer.headers(RawPeer.get) + long, finish: isWhole)
            #expect(try await status(stream) == "431")
            try await peer.expectAlive()
            #expect(world.server.statistics.malformed == 1)
        }
    }

    @Test("Datagrams are dropped before anything is made of them, and the connection goes on")
    func datagrams() async throws {
        try await withRawClient { world, peer in
            try await peer.openControl()
            for _ in 0..<3 {
                #expect(try await peer.connection.deliverDatagram(ByteBuffer(string: "x")) == .acknowledged)
            }
            #expect(await world.server.counters().engine.datagramFramesDropped == 3)
            try await peer.expectAlive()
        }
    }

    @Test("A client doesn't send a section that is larger than the server takes, and doesn't take one itself")
    func clientSection() async throws {
        var limits = HTTP3Limits()
        limits.fieldSectionSize = 2000
        let long = String(repeating: "x", count: 3000)
        try await withServer(limits: limits, clientLimits: limits) { _, _, responder in
            _ = await expectError(.fieldSectionTooLarge) {
                try await responder.respond(HTTPResponse(status: .ok, headerFields: [.server: long]))
            }
            try await responder.respond(HTTPResponse(status: .ok))
        } _: { world in
            let connection = try await world.connect()
            // The server's settings come with its first answer at the latest.
            #expect(try await connection.request(.to("/")).status == .ok)
            #expect(await connection.maxFieldSectionSize() == 2000)
            _ = await expectError(.fieldSectionTooLarge) {
                _ = try await connection.request(.to("/", .get, [.userAgent: long]))
            }
            #expect(try await connection.request(.to("/")).status == .ok)
        }
        try await withRawServer(limits: limits) { peer in
            let stream = try await peer.nextRequest()
            try await stream.answer(RawPeer.headers([(":status", "200"), ("server", long)]))
            _ = try await peer.connection.closed()
        } _: { connection, _ in
            _ = await expectError(.fieldSectionTooLarge) { _ = try await connection.request(.to("/")) }
        }
    }

    @Test("A body that is too large gets 413, announced or not", arguments: [true, false])
    func body(announced: Bool) async throws {
        var limits = HTTP3Limits()
        limits.bodySize = 10_000
        try await withServer(limits: limits) { _, body, responder in
            let all = try await body.collect(upTo: 1 << 20)
            try await responder.respond(HTTPResponse(status: .ok), body: ByteBuffer(string: "\(all.readableBytes)"))
        } _: { world in
            let connection = try await world.connect()
            let fields: HTTPFields = announced ? [.contentLength: "20000"] : [:]
            let refused = try await connection.withRequest(.to("/", .post, fields)) { writer in
                for _ in 0..<20 { try await writer.write(pattern(1000)) }
                return nil
            } receive: { response in
                response.status
            }
            #expect(refused == .contentTooLarge)
            let taken = try await connection.request(.to("/", .post), body: pattern(10_000))
            #expect(String(buffer: try await taken.body.collect(upTo: 100)) == "10000")
        }
    }

    @Test("A table entry that is referred to again and again makes no section of any size")
    func bomb() async throws {
        try await withRawClient { world, peer in
            try await peer.openControl()
            // One entry of nearly the table's size, and a section of 1,000 references to it: 4 MB in 1 KB.
            let value = String(repeating: "v", count: 4000)
            var instructions = RawPeer.integer(4096, prefix: 5, flags: 0x20)
            instructions += RawPeer.integer(1, prefix: 5, flags: 0x40) + Array("n".utf8)
            instructions += RawPeer.integer(value.utf8.count, prefix: 7, flags: 0) + Array(value.utf8)
            try await peer.open(StreamType.qpackEncoder, instructions)
            // Required insert count 1 is written as 2, and the base is the count.
            let section: [UInt8] = [2, 0] + Array(repeating: 0x80, count: 1000)
            let stream = try await peer.send(RawPeer.frame(FrameType.headers, section))
            #expect(try await status(stream) == "431")
            try await peer.expectAlive()
            #expect(world.server.statistics.protocolErrors == 0)
        }
    }

    @Test("Sections that wait for table entries are answered when those come; more than allowed end the connection")
    func blocked() async throws {
        var limits = HTTP3Limits()
        limits.blockedStreams = 2
        try await withRawClient(limits: limits) { _, peer in
            try await peer.openControl()
            let encoder = try await peer.open(StreamType.qpackEncoder, RawPeer.integer(4096, prefix: 5, flags: 0x20))
            let section: [UInt8] = [2, 0] + Array(RawPeer.section(RawPeer.get)[2...]) + [0x80]
            let first = try await peer.send(RawPeer.frame(FrameType.headers, section))
            let second = try await peer.send(RawPeer.frame(FrameType.headers, section))
            // Requests that need no table pass by.
            try await peer.expectAlive()
            try await encoder.write(ByteBuffer(bytes: [0x41, 0x61, 0x01, 0x62]))
            #expect(try await first.collect().first == 1)
            #expect(try await second.collect().first == 1)
            for _ in 0..<3 {
                _ = try await peer.send(RawPeer.frame(FrameType.headers, [3, 0, 0x80]))
            }
            try await peer.expectClose(.qpackDecompressionFailed)
        }
    }

    @Test("Requests of a client that gives them all up at once don't pile up handlers")
    func rapidReset() async throws {
        var limits = HTTP3Limits()
        limits.concurrentHandlers = 10
        let started = Happening<Void>()
        let release = Happening<Void>()
        try await withRawClient(limits: limits) { _, _, responder in
            started.tell()
            // Deaf to its cancellation.
            await Task { try? await release.value() }.value
            try await responder.respond(HTTPResponse(status: .ok))
        } _: { world, peer in
            for _ in 0..<10 {
                let stream = try await peer.send(RawPeer.headers(RawPeer.get))
                try await started.value()
                stream.stopSending(code: HTTP3ErrorCode.requestCancelled.rawValue)
            }
            for _ in 0..<10 {
                let stream = try await peer.send(RawPeer.headers(RawPeer.get))
                try await stream.expectReset(.requestRejected)
            }
            #expect(world.server.statistics.rejected == 10)
            for _ in 0..<10 { release.tell() }
        }
    }

    @Test("A header section that never becomes whole ends its stream with H3_REQUEST_INCOMPLETE")
    func slowHead() async throws {
        let asked = Happening<OnLoop<Exchange>>()
        try await withRawClient { _, _, responder in
            asked.tell(responder.exchange)
            try await responder.respond(HTTPResponse(status: .ok))
        } _: { world, peer in
            let stream = try await peer.send([1, 40, 0], finish: false)
            // It has come when a request behind it is answered.
            try await peer.expectAlive()
            try await world.passHours(asked.value())
            try await stream.expectReset(.requestIncomplete)
            try await peer.expectAlive()
            #expect(world.server.statistics.timeouts == 1)
        }
    }

    @Test("A body that stops coming gets 408; one that nobody waits for may take its time")
    func slowBody() async throws {
        let isFirst = Mutex(true)
        let asked = Happening<OnLoop<Exchange>>()
        try await withRawClient { _, body, responder in
            asked.tell(responder.exchange)
            // The one behind it may come in pieces.
            if isFirst.withLock({ first in
                defer { first = false }; return first
            }) {
                while try await body.read() != nil {}
            }
            try await responder.respond(HTTPResponse(status: .ok))
        } _: { world, peer in
            let stream = try await peer.send(RawPeer.headers(RawPeer.get) + [0, 40, 1], finish: false)
            let exchange = try await asked.value()
            try await world.passHours(exchange) { exchange, time in
                // What has come was read, and more is waited for.
                guard exchange.readerProgress == 1, exchange.readerSince != nil else { return false }
                exchange.session.checkDeadlines(time)
                return true
            }
            #expect(try await status(stream) == "408")
            try await peer.expectAlive()
            #expect(world.server.statistics.timeouts == 1)
        }
    }

    @Test("A client that takes nothing of its response is given up")
    func slowReader() async throws {
        let ended = Happening<HTTP3Error.Code?>()
        let writing = Happening<OnLoop<Exchange>>()
        try await withServer { _, _, responder in
            let writer = try await responder.start(HTTPResponse(status: .ok))
            writing.tell(responder.exchange)
            do {
                while true { try await writer.write(pattern(100_000)) }
            } catch {
                ended.tell((error as? HTTP3Error)?.code)
            }
        } _: { world in
            let connection = try await world.connect()
            let response = try await connection.request(.to("/"))
            try await world.passHours(writing.value())
            #expect(try await ended.value() == .timeout)
            _ = await expectError(.cancelled) { _ = try await response.body.collect(upTo: 100 << 20) }
        }
    }

    @Test("A client that takes nothing of a response that was written as a whole is given up")
    func slowReaderOfAWhole() async throws {
        let written = Happening<OnLoop<Exchange>>()
        try await withServer { request, _, responder in
            let length = request.path == "/large" ? 10_000 : 1
            try await responder.respond(HTTPResponse(status: .ok), body: ByteBuffer(repeating: 1, count: length))
            written.tell(responder.exchange)
        } _: { world in
            let client = QUICClient()
            let peer = try await world.connectRaw(
                client, clientConfiguration { $0.streamWindow = 1_000 })
            let large = RawPeer.get.map { $0.0 == ":path" ? (":path", "/large") : $0 }
            let stream = try await peer.send(RawPeer.headers(large))
            try await world.passHours(written.value())
            try await stream.expectReset(.requestCancelled)
            try await peer.expectAlive()
            #expect(world.server.statistics.timeouts == 1)
            await client.shutdownGracefully(timeout: .seconds(1))
        }
    }

    @Test("A client that takes a streamed response too slowly is given up, though it takes something all the time")
    func slowStream() async throws {
        var limits = HTTP3Limits()
        // More than there is: no client is fast enough.
        limits.writeProgress = 1 << 40
        let ended = Happening<HTTP3Error.Code?>()
        let writing = Happening<OnLoop<Exchange>>()
        try await withServer(limits: limits) { _, _, responder in
            let writer = try await responder.start(HTTPResponse(status: .ok))
            writing.tell(responder.exchange)
            do {
                while true { try await writer.write(pattern(100_000)) }
            } catch {
                ended.tell((error as? HTTP3Error)?.code)
            }
        } _: { world in
            let connection = try await world.connect()
            let response = try await connection.request(.to("/"))
            async let reading = expectError(.cancelled) { while try await response.body.read() != nil {} }
            try await world.passHours(writing.value())
            _ = await reading
            #expect(try await ended.value() == .timeout)
        }
    }

    @Test(
        "A client that takes too little of a response that was written as a whole is given up, its handler running or not",
        arguments: [true, false])
    func slowWhole(handlerStays: Bool) async throws {
        var limits = HTTP3Limits()
        limits.writeProgress = 1 << 20
        let start = NIODeadline.now()
        let later = start + limits.writeTimeout + .minutes(1)
        let held = Mutex<OnLoop<Exchange>?>(nil)
        let (written, go, isGivenUp) = (Happening<Void>(), Happening<Void>(), Happening<Bool>())
        try await withServer(limits: limits) { request, _, responder in
            if request.path == "/whole" {
                try await responder.respond(HTTPResponse(status: .ok), body: ByteBuffer(repeating: 1, count: 10_000))
                held.withLock { $0 = responder.exchange }
                written.tell()
                if handlerStays { try await go.value() }
                return
            }
            if let exchange = held.withLock({ $0 })?.here {
                exchange.checkDeadline(request.path == "/later" ? later : start)
                if case .failed = exchange.sending { isGivenUp.tell(true) } else { isGivenUp.tell(false) }
            }
            try await responder.respond(HTTPResponse(status: .ok))
        } _: { world in
            let client = QUICClient()
            let peer = try await world.connectRaw(client, clientConfiguration { $0.streamWindow = 1_000 })
            func get(_ path: String) async throws -> QUICStream {
                try await peer.send(RawPeer.headers(RawPeer.get.map { $0.0 == ":path" ? (":path", path) : $0 }))
            }
            let whole = try await get("/whole")
            try await written.value()
            #expect(try await status(try await get("/now")) == "200")
            #expect(try await isGivenUp.value() == false)
            // More than the first window: some was taken since.
            var taken = 0
            while taken <= 1_000, let bytes = try await whole.read() { taken += bytes.readableBytes }
            #expect(try await status(try await get("/later")) == "200")
            #expect(try await isGivenUp.value())
            #expect(world.server.statistics.timeouts == 1)
            go.tell()
            await client.shutdownGracefully(timeout: .seconds(1))
        }
    }

    @Test("A client that takes no response is told that the server failed, and not that its request did")
    func smallSections() async throws {
        try await withRawClient { _, _, responder in
            try await responder.respond(
                HTTPResponse(status: .ok, headerFields: [.server: String(repeating: "s", count: 200)]))
        } _: { _, peer in
            // SETTINGS_MAX_FIELD_SECTION_SIZE.
            let settings = RawPeer.varint(0x6) + RawPeer.varint(100)
            try await peer.open(StreamType.control, RawPeer.frame(FrameType.settings, settings))
            try await peer.expectAlive()
            let stream = try await peer.send(RawPeer.headers(RawPeer.get))
            #expect(try await status(stream) == "500")
        }
    }

    @Test("A connection without a request is told and closed after its time, however alive its client keeps it")
    func idle() async throws {
        var limits = HTTP3Limits()
        limits.idleTimeout = .seconds(2)
        try await withServer(limits: limits) { _, _, responder in
            try await responder.respond(HTTPResponse(status: .ok))
        } _: { world in
            let client = QUICClient()
            let peer = try await world.connectRaw(
                client, clientConfiguration { $0.keepAliveInterval = .milliseconds(20) })
            try await peer.expectAlive()
            try await peer.expectClose(.noError)
            await client.shutdownGracefully(timeout: .seconds(1))
        }
    }

    @Test("The time without a request begins anew with each that ends, whatever other streams there are")
    func idleAnew() async throws {
        struct Look: Sendable {
            let idleSince: NIODeadline
            let streams: Int
        }
        var limits = HTTP3Limits()
        limits.idleTimeout = .hours(1)
        let (started, release) = (Happening<Void>(), Happening<Void>())
        let looks = Happening<Look>()
        try await withRawClient(limits: limits) { request, _, responder in
            if request.path == "/stays" {
                started.tell()
                try await release.value()
            } else if let session = responder.exchange.here?.session {
                looks.tell(Look(idleSince: session.idleSince, streams: session.exchanges.count))
            }
            try await responder.respond(HTTPResponse(status: .ok))
        } _: { _, peer in
            let fields = RawPeer.get.map { $0.0 == ":path" ? (":path", "/stays") : $0 }
            let stays = try await peer.send(RawPeer.headers(fields))
            try await started.value()
            try await peer.expectAlive()
            let first = try await looks.value()
            var last = first
            repeat {
                try await peer.expectAlive()
                last = try await looks.value()
                // Those before it are gone once there are but it and the one that stays.
            } while last.streams > 2
            #expect(last.idleSince > first.idleSince)
            release.tell()
            #expect(try await status(stays) == "200")
        }
    }

    @Test("A request that takes longer than a connection may be idle keeps it, and the idle time begins behind it")
    func busy() async throws {
        var limits = HTTP3Limits()
        limits.idleTimeout = .hours(1)
        try await ScriptedServer.run(limits) { server in
            let session = server.session
            let exchange = try server.request()
            let start = NIODeadline.now()
            for hour in Int64(1)...3 {
                session.checkIdleness(start + .hours(hour))
                #expect(session.state == .open)
            }
            try exchange.send(HTTPResponse(status: .ok), body: nil, trailers: nil, finish: true)
            server.deliver([.streamClosed(exchange.id)])
            let answered = NIODeadline.now()
            session.checkIdleness(answered + .minutes(59))
            #expect(session.state == .open)
            session.checkIdleness(answered + .hours(1))
            #expect(session.state != .open)
        }
    }

    @Test("A transport that allows one stream lets a client have as many requests open as HTTP/3 allows, and no more")
    func openRequests() async throws {
        var limits = HTTP3Limits()
        limits.openRequests = 10
        let release = Happening<Void>()
        let started = Happening<Void>()
        let configuration = try serverConfiguration { $0.maxBidirectionalStreams = 1 }
        try await withServer(limits: limits, configuration: configuration) { _, _, responder in
            started.tell()
            try await release.value()
            try await responder.respond(HTTPResponse(status: .ok))
        } _: { world in
            let connection = try await world.connect()
            try await withThrowingTaskGroup(of: Int.self) { group in
                for _ in 0..<11 { group.addTask { try await connection.request(.to("/")).status.code } }
                for _ in 0..<10 { try await started.value() }
                #expect(world.server.statistics.requests == 10)
                for _ in 0..<11 { release.tell() }
                for try await status in group { #expect(status == 200) }
            }
            #expect(world.server.statistics.requests == 11)
        }
    }

    @Test("A client keeps so many requests that wait for a stream, and fails the next one at once")
    func waitingRequests() async throws {
        var limits = HTTP3Limits()
        limits.waitingRequests = 2
        let (began, goesOn) = (Happening<Void>(), Happening<Void>())
        let configuration = try serverConfiguration { $0.maxBidirectionalStreams = 1 }
        try await withServer(clientLimits: limits, configuration: configuration) { _, _, responder in
            began.tell()
            try await goesOn.value()
            try await responder.respond(HTTPResponse(status: .ok))
        } _: { world in
            let connection = try await world.connect()
            let first = Task { try await connection.request(.to("/")).status }
            try await began.value()
            // Two of three wait, whichever; the third is refused.
            let outcomes = try await withThrowingTaskGroup(of: HTTP3Error.Code?.self) { group in
                for _ in 0..<3 {
                    group.addTask {
                        do {
                            let status = try await connection.request(.to("/")).status
                            #expect(status == .ok)
                            return nil
                        } catch let error as HTTP3Error {
                            return error.code
                        }
                    }
                }
                // The first to end is the one without a place.
                var outcomes = [try await group.next() ?? nil]
                for _ in 0..<3 { goesOn.tell() }
                for try await outcome in group { outcomes.append(outcome) }
                return outcomes
            }
            #expect(outcomes == [.tooManyRequests, nil, nil])
            #expect(try await first.value == .ok)
        }
    }
}
