import HTTPTypes
import NIOCore
import QUICEngine
import QUICTransport
import Testing

@testable import HTTP3

@Suite("Cancellation", .timeLimit(.minutes(1)))
struct CancellationTests {
    @Test("A client that cancels a request cancels its handler, and the server sees H3_REQUEST_CANCELLED")
    func client() async throws {
        let started = Happening<Void>()
        let cancelled = Happening<HTTP3ErrorCode?>()
        try await withServer { request, body, responder in
            guard request.path == "/wait" else { return try await responder.respond(HTTPResponse(status: .ok)) }
            started.tell()
            await untilCancelled()
            do {
                _ = try await responder.respond(HTTPResponse(status: .ok))
            } catch let error as HTTP3Error {
                cancelled.tell(error.protocolCode)
            }
        } _: { world in
            let connection = try await world.connect()
            let waiting = Task { _ = try await connection.request(.to("/wait")) }
            try await started.value()
            waiting.cancel()
            await #expect(throws: CancellationError.self) { try await waiting.value }
            #expect(try await cancelled.value() == .requestCancelled)
            #expect(try await connection.request(.to("/")).status == .ok)
            #expect(world.server.statistics.cancelled == 1 && world.client.statistics.cancelled == 1)
        }
    }

    @Test(
        "A request that its client resets, or whose response it stops, cancels its handler", arguments: [true, false])
    func half(resets: Bool) async throws {
        let started = Happening<Void>()
        let over = Happening<Void>()
        try await withRawClient { _, _, responder in
            guard await responder.priority() == HTTP3Priority(urgency: 1) else {
                return try await responder.respond(HTTPResponse(status: .ok))
            }
            started.tell()
            await untilCancelled()
            over.tell()
        } _: { world, peer in
            let stream = try await peer.send(RawPeer.headers(RawPeer.get + [("priority", "u=1")]), finish: false)
            try await started.value()
            let code = HTTP3ErrorCode.requestCancelled.rawValue
            resets ? stream.reset(code: code) : stream.stopSending(code: code)
            try await over.value()
            try await peer.expectAlive()
            #expect(world.server.statistics.cancelled == 1)
        }
    }

    @Test(
        "A client that says it has rejected its own request has brought the request's end about itself",
        arguments: [true, false])
    func rejectedByClient(resets: Bool) async throws {
        let started = Happening<Void>()
        let seen = Happening<HTTP3Error>()
        try await withRawClient { _, body, responder in
            started.tell()
            do {
                while try await body.read() != nil {}
                try await responder.respond(HTTPResponse(status: .ok))
            } catch let error as HTTP3Error {
                seen.tell(error)
            }
        } _: { _, peer in
            let stream = try await peer.send(RawPeer.headers(RawPeer.get), finish: false)
            try await started.value()
            let code = HTTP3ErrorCode.requestRejected.rawValue
            resets ? stream.reset(code: code) : stream.stopSending(code: code)
            let error = try await seen.value()
            #expect(error.isCausedByPeer && !error.wasNotProcessed && error.protocolCode == .requestRejected)
        }
    }

    @Test("A handler that gives its request up before it has waited for anything is cancelled, too")
    func givenUpAtOnce() async throws {
        let cancelled = Happening<Bool>()
        try await withServer { _, _, responder in
            responder.cancel()
            await Task.yield()
            cancelled.tell(Task.isCancelled)
        } _: { world in
            let connection = try await world.connect()
            await #expect(throws: HTTP3Error.self) { try await connection.request(.to("/")) }
            #expect(try await cancelled.value())
        }
    }

    @Test("Letting go of a response cancels what is left of it")
    func letGo() async throws {
        let ended = Happening<HTTP3Error.Code?>()
        try await withServer { _, _, responder in
            let writer = try await responder.start(HTTPResponse(status: .ok))
            do {
                while true { try await writer.write(pattern(50_000)) }
            } catch {
                ended.tell((error as? HTTP3Error)?.code)
            }
        } _: { world in
            let connection = try await world.connect()
            #expect(try await connection.request(.to("/")).status == .ok)
            let code = try await ended.value()
            // Whichever the handler sees first: the stopped stream, or its own cancellation.
            #expect(code == .cancelled || code == nil)
        }
    }

    @Test("A connection that ends cancels its handlers, and fails the client's requests")
    func connectionEnds() async throws {
        let started = Happening<Void>()
        let over = Happening<Void>()
        try await withServer { _, _, _ in
            started.tell()
            await untilCancelled()
            over.tell()
        } _: { world in
            let connection = try await world.connect()
            let waiting = Task { _ = try await connection.request(.to("/")) }
            try await started.value()
            connection.close()
            try await over.value()
            _ = await expectError(.connectionClosed) { try await waiting.value }
            _ = await expectError(.connectionClosed) { _ = try await connection.request(.to("/")) }
        }
    }

    @Test(
        "A handler that throws is answered for with 500, one that leaves its response unfinished with H3_INTERNAL_ERROR"
    )
    func failingHandlers() async throws {
        struct Failure: Error {}
        try await withServer { request, _, responder in
            switch request.path {
            case "/throws": throw Failure()
            case "/nothing": break
            default:
                let writer = try await responder.start(HTTPResponse(status: .ok))
                try await writer.write(ByteBuffer(string: "half"))
                if request.path == "/half-throws" { throw Failure() }
            }
        } _: { world in
            let connection = try await world.connect()
            for path in ["/throws", "/nothing"] {
                #expect(try await connection.request(.to(path)).status == .internalServerError)
            }
            for path in ["/half", "/half-throws"] {
                let error = await expectError(.streamReset) {
                    _ = try await connection.request(.to(path)).body.collect(upTo: 100)
                }
                #expect(error?.protocolCode == .internalError)
            }
        }
    }

    @Test("A server that answers before it has the body stops it without harm to the answer")
    func earlyAnswer() async throws {
        try await withServer { _, _, responder in
            try await responder.respond(HTTPResponse(status: .forbidden), body: ByteBuffer(string: "no"))
        } _: { world in
            let connection = try await world.connect()
            let answer = try await connection.withRequest(.to("/", .post)) { writer in
                while true { try await writer.write(pattern(50_000)) }
            } receive: { response in
                (response.status, try await response.body.collect(upTo: 10))
            }
            #expect(answer.0 == .forbidden && answer.1 == ByteBuffer(string: "no"))
        }
    }

    @Test("An upload that ends because it was cancelled is given up, and not finished as if it were whole")
    func cancelledUpload() async throws {
        let whole = Happening<Bool>()
        try await withServer { _, body, responder in
            let writer = try await responder.start(HTTPResponse(status: .ok))
            do {
                while try await body.read() != nil {}
                whole.tell(true)
            } catch {
                whole.tell(false)
            }
            try? await writer.finish()
        } _: { world in
            let connection = try await world.connect()
            let status = try await connection.withRequest(.to("/", .post)) { writer in
                try await writer.write(pattern(100))
                // As a sequence does that has no way to throw.
                await untilCancelled()
                return [.eTag: "sent"]
            } receive: {
                $0.status
            }
            #expect(status == .ok)
            #expect(try await whole.value() == false)
        }
    }

    @Test("A response that came whole is kept when the connection ends in the midst of the upload")
    func cutOffUpload() async throws {
        let begun = Happening<Void>()
        try await withRawServer { peer in
            try await peer.openControl()
            for try await stream in peer.connection.inboundStreams {
                peer.hold(stream)
                guard stream.id.isBidirectional else { continue }
                try await stream.answer(RawPeer.headers([(":status", "200")]) + RawPeer.data("all of it"))
                try await begun.value()
                peer.connection.close(code: HTTP3ErrorCode.noError.rawValue)
            }
        } _: { connection, _ in
            let cutOff = Happening<Void>()
            let body = try await connection.withRequest(.to("/", .post)) { writer in
                defer { cutOff.tell() }
                while true { try await writer.write(pattern(50_000)) }
            } receive: { response in
                begun.tell()
                try await cutOff.value()
                return try await response.body.collect(upTo: 100)
            }
            #expect(String(buffer: body) == "all of it")
        }
    }

    @Test("An answer that was given is not taken back when the client resets its request")
    func answeredBeforeReset() async throws {
        let resets = try await ScriptedServer.run { server in
            server.streams.ends = false
            server.streams.sendBuffer = 100
            // One of each: the stream has taken all of it, and a part.
            let ids = try [10, 1_000].map { count in
                let exchange = try server.request()
                let head = HTTPResponse(status: .contentTooLarge)
                try exchange.send(head, body: ByteBuffer(repeating: 1, count: count), trailers: nil, finish: true)
                return exchange.id
            }
            let code = HTTP3ErrorCode.requestCancelled.rawValue
            server.deliver(ids.map { .streamReset($0, code: code) })
            let kept = server.streams.resets.isEmpty
            // Nor does it stay for ever where the client takes nothing.
            let start = NIODeadline.now()
            for minute in 1...10 { server.session.checkDeadlines(start + .minutes(Int64(minute))) }
            return (kept, Set(server.streams.resets.keys) == Set(ids))
        }
        #expect(resets.0)
        #expect(resets.1)
    }

    @Test("Nor is one that its stream has not taken yet, whose handler waits for that")
    func largeAnswerBeforeReset() async throws {
        let bytes = pattern(3 << 20)
        try await withRawClient { request, _, responder in
            try await responder.respond(HTTPResponse(status: .ok), body: bytes)
        } _: { world, peer in
            let stream = try await peer.send(RawPeer.headers(RawPeer.get), finish: false)
            let first = try #require(try await stream.read())
            stream.reset(code: HTTP3ErrorCode.requestCancelled.rawValue)
            let rest = try await stream.collect()
            #expect(first.readableBytes + rest.count > bytes.readableBytes)
            #expect(rest.suffix(1000) == Array(bytes.readableBytesView.suffix(1000))[...])
        }
    }

    @Test("A server gives an exchange up with a code of its choice")
    func serverCancels() async throws {
        try await withServer { _, _, responder in
            responder.cancel(code: .excessiveLoad)
        } _: { world in
            let connection = try await world.connect()
            let error = await expectError(.streamReset) { _ = try await connection.request(.to("/")) }
            #expect(error?.protocolCode == .excessiveLoad)
        }
    }
}

@Suite("GOAWAY", .timeLimit(.minutes(1)))
struct DrainTests {
    @Test(
        "A server's end waits for the client to have GOAWAY and what it needs to read its answers, unless it makes place",
        arguments: [false, true])
    func farewell(givesWay: Bool) async throws {
        let (before, after) = try await ScriptedServer.run { server in
            server.streams.opens = true
            server.session.isHandshakeComplete = true
            let exchange = try server.request()
            try exchange.send(HTTPResponse(status: .ok), body: nil, trailers: nil, finish: true)
            server.streams.acknowledge(.max, on: exchange.id)
            server.deliver([.streamClosed(exchange.id)])
            if givesWay { server.session.giveWay() } else { server.session.drain() }
            // As if the two round trips were over.
            server.session.finalGoaway?.cancel()
            server.session.finalGoaway = nil
            server.session.closeIfDrained()
            let before = server.streams.closeCode
            for stream in server.streams.opened { server.streams.acknowledge(.max, on: stream) }
            server.session.closeIfDrained()
            return (before, server.streams.closeCode)
        }
        #expect((before == nil) == !givesWay)
        #expect(after == HTTP3ErrorCode.noError.rawValue)
    }

    @Test("A server that shuts down finishes what is under way, and takes no more")
    func server() async throws {
        let started = Happening<Void>()
        let finish = Happening<Void>()
        try await withServer { _, _, responder in
            started.tell()
            try await finish.value()
            try await responder.respond(HTTPResponse(status: .ok), body: pattern(100_000))
        } _: { world in
            let connection = try await world.connect()
            async let response = connection.request(.to("/"))
            try await started.value()
            async let stopped: Void = world.server.shutdownGracefully(grace: .seconds(30))
            // The notice comes over the network; until then requests are taken, and answered.
            while await connection.isUsable() { await Task.yield() }
            let error = await expectError(.goingAway) { _ = try await connection.request(.to("/")) }
            #expect(error?.wasNotProcessed == true)
            finish.tell()
            #expect(try await response.body.collect(upTo: 1 << 20) == pattern(100_000))
            await stopped
            // Whichever side is first to see that nothing is left.
            let reason = try await connection.closed()
            #expect(HTTP3ErrorCode(reason) == .noError)
        }
    }

    @Test("A client that shuts down finishes what is under way")
    func client() async throws {
        let started = Happening<Void>()
        let finish = Happening<Void>()
        try await withServer { _, _, responder in
            started.tell()
            try await finish.value()
            try await responder.respond(HTTPResponse(status: .ok), body: pattern(100_000))
        } _: { world in
            let connection = try await world.connect()
            async let response = connection.request(.to("/"))
            try await started.value()
            async let stopped: Void = connection.shutdownGracefully()
            while await connection.isUsable() { await Task.yield() }
            _ = await expectError(.goingAway) { _ = try await connection.request(.to("/")) }
            finish.tell()
            #expect(try await response.body.collect(upTo: 1 << 20) == pattern(100_000))
            await stopped
        }
    }

    @Test("A client that shuts down lets requests go that wait for a stream, whatever those under way do")
    func clientWaiting() async throws {
        let (began, goesOn) = (Happening<Void>(), Happening<Void>())
        var limits = HTTP3Limits()
        limits.waitingRequests = 1
        let configuration = try serverConfiguration { $0.maxBidirectionalStreams = 1 }
        try await withServer(clientLimits: limits, configuration: configuration) { _, _, responder in
            began.tell()
            try await goesOn.value()
            try await responder.respond(HTTPResponse(status: .ok))
        } _: { world in
            let connection = try await world.connect()
            async let first = connection.request(.to("/")).status
            try await began.value()
            try await withThrowingTaskGroup(of: HTTP3Error.Code?.self) { group in
                for _ in 0..<2 {
                    group.addTask {
                        do {
                            _ = try await connection.request(.to("/"))
                            return nil
                        } catch let error as HTTP3Error {
                            return error.wasNotProcessed ? error.code : nil
                        }
                    }
                }
                // There is one place to wait in: the other has it.
                let surplus: HTTP3Error.Code? = try await group.next() ?? nil
                #expect(surplus == .tooManyRequests)
                async let stopped: Void = connection.shutdownGracefully()
                let waiting: HTTP3Error.Code? = try await group.next() ?? nil
                #expect(waiting == .goingAway)
                goesOn.tell()
                await stopped
            }
            #expect(try await first == .ok)
        }
    }

    @Test("A client that shuts down says so with a GOAWAY, which names no push")
    func clientGoaway() async throws {
        let seen = Happening<UInt64>()
        let go = Happening<Void>()
        try await withRawServer { peer in
            try await peer.openControl()
            try await withThrowingDiscardingTaskGroup { group in
                for try await stream in peer.connection.inboundStreams {
                    peer.hold(stream)
                    group.addTask {
                        if stream.id.isBidirectional {
                            _ = try await stream.read()
                            go.tell()
                        } else if let id = try await self.goaway(stream) {
                            seen.tell(id)
                        }
                    }
                }
            }
        } _: { connection, _ in
            let response = Task { _ = try await connection.request(.to("/")) }
            try await go.value()
            async let stopped: Void = connection.shutdownGracefully()
            #expect(try await seen.value() == 0)
            response.cancel()
            _ = try? await response.value
            await stopped
        }
    }

    /// What the first GOAWAY of a client's control stream names; nil: it is another stream.
    private func goaway(_ stream: QUICStream) async throws -> UInt64? {
        var reader = ControlStreamReader(isServer: true)
        var isFirst = true
        while let bytes = try await stream.read() {
            if isFirst, bytes.readableBytesView.first != UInt8(StreamType.control) { return nil }
            var found: UInt64?
            try bytes.withUnsafeReadableBytes { memory in
                var offset = isFirst ? 1 : 0
                isFirst = false
                while let frame = try reader.next(memory, &offset) {
                    if case .goaway(let id) = frame { found = id }
                }
            }
            if let found { return found }
        }
        return nil
    }

    @Test("Requests behind the last that a server takes are rejected with H3_REQUEST_REJECTED")
    func rejected() async throws {
        let started = Happening<Void>()
        let finish = Happening<Void>()
        try await withRawClient { _, _, responder in
            started.tell()
            try await finish.value()
            try await responder.respond(HTTPResponse(status: .ok))
        } _: { world, peer in
            try await peer.openControl()
            let first = try await peer.send(RawPeer.headers(RawPeer.get))
            try await started.value()
            async let stopped: Void = world.server.shutdownGracefully(grace: .seconds(30))
            #expect(try await goaways(peer) == [(1 << 62) - 4, 4])
            let late = try await peer.connection.openStream()
            // The refusal may come before the end has left.
            try await late.write(ByteBuffer(bytes: RawPeer.headers(RawPeer.get)))
            try await late.expectReset(.requestRejected)
            finish.tell()
            #expect(try await first.collect().first == 1)
            try await peer.expectClose(.noError)
            await stopped
        }
    }

    /// The two GOAWAY frames of the server's control stream.
    private func goaways(_ peer: RawPeer) async throws -> [UInt64] {
        for try await stream in peer.connection.inboundStreams {
            peer.hold(stream)
            var reader = ControlStreamReader(isServer: false)
            var found: [UInt64] = []
            var isFirst = true
            while found.count < 2, let bytes = try await stream.read() {
                try bytes.withUnsafeReadableBytes { memory in
                    var offset = isFirst ? 1 : 0
                    isFirst = false
                    while let frame = try reader.next(memory, &offset) {
                        if case .goaway(let id) = frame { found.append(id) }
                    }
                }
            }
            return found
        }
        return []
    }
}
