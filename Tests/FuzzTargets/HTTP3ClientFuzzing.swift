import HTTP3
import HTTPTypes
import NIOCore
import NIOEmbedded
import QUICEngine
import QUICTransport

/// A server says what it likes to an ``HTTP3ClientConnection``, whose tasks send requests and read responses in all ways that there
/// are.
///
/// Nothing traps; what is held is bounded; tasks see only responses that RFC 9114 allows, and bodies that are what was sent; each is
/// told an end; and the connection goes on, so that another request is answered, or is closed with a code of HTTP/3.
final class HTTP3ClientFuzzing {
    private enum Step: UInt8, CaseIterable {
        case request, handshake, early, time, cancel, shutdown, close, serverRequest
    }

    private static let maximumTasks = 60

    private var choices: HTTP3Choices
    private let world: HTTP3World
    private let client: HTTP3ClientConnection
    private var tasks: [Task<Void, Never>] = []
    private var isEarly = false

    static func run(_ choices: HTTP3Choices) throws {
        try HTTP3World.run { loop in
            let fuzzing = try HTTP3ClientFuzzing(choices, loop: loop)
            try fuzzing.run()
            return fuzzing.world.connection
        }
    }

    private init(_ choices: HTTP3Choices, loop: EmbeddedEventLoop) throws {
        var choices = choices
        let setup = HTTP3World.Setup(&choices)
        self.choices = choices
        world = try HTTP3World(setup, isServer: false, loop: loop)
        var options = HTTP3ClientOptions()
        options.limits = setup.limits
        options.limits.waitingRequests = 10
        let made = try HTTP3Client.speak(on: world.connection, options: options)
        client = made.connection
        world.connection.serve(by: made.handler)
    }

    private func run() throws {
        while !choices.input.isEmpty, world.connection.closeReason == nil {
            let byte = choices.input.byte()
            let peerSteps = UInt8(HTTP3Peer.Step.allCases.count)
            let number = (byte & 0x3f) % (peerSteps + UInt8(Step.allCases.count))
            if let step = HTTP3Peer.Step(rawValue: number) {
                world.peer.take(step, &choices)
            } else if let step = Step(rawValue: number - peerSteps) {
                take(step)
            }
            if byte & 0x80 == 0 { try world.arrive(first: Int(byte)) }
            if byte & 0x40 == 0 { world.loop.run() }
            try world.check(held: client.heldBytes)
        }
        try world.arrive(first: 0)
        world.loop.run()
        try world.check(held: client.heldBytes)
        try checkLife()
        world.deliver(.closed(.idleTimeout))
        world.loop.run()
        try world.checkEnd()
    }

    private func take(_ step: Step) {
        switch step {
        case .request: start(Behaviour(rawValue: choices.input.byte() % 10) ?? .get)
        case .handshake: world.handshake()
        case .early:
            guard !isEarly, !world.streams.isHandshakeComplete else { return }
            isEarly = true
            world.deliver(.earlyDataPossible)
        case .time: world.loop.advanceTime(by: .milliseconds(Int64(1) << Int64(choices.input.byte() % 12)))
        case .cancel:
            guard !tasks.isEmpty else { return }
            tasks[Int(choices.input.byte()) % tasks.count].cancel()
        case .shutdown:
            let client = client
            addTask { _ in await client.shutdownGracefully() }
        case .close: if choices.input.byte() > 128 { client.close() }
        case .serverRequest: if choices.input.byte() > 200 { _ = world.streams.peerOpens(QUICStreamID(rawValue: 1)) }
        }
    }

    private func addTask(_ body: @escaping @Sendable (Int) async throws -> Void) {
        guard tasks.count < Self.maximumTasks else { return }
        let watch = world.watch
        let number = watch.begin()
        tasks.append(
            Task(executorPreference: world.connection.executor) {
                do {
                    try await body(number)
                } catch is HTTP3Error {
                    // A connection or a stream may end at any time, with whatever code the peer likes.
                } catch is CancellationError {
                    // So may a task.
                } catch {
                    watch.note("\(error)")
                }
                watch.over(number)
            })
    }

    private func start(_ behaviour: Behaviour) {
        let requester = Requester(
            client: client, watch: world.watch, limit: world.setup.limits.fieldSectionSize, number: tasks.count)
        addTask { number in
            var requester = requester
            requester.number = number
            try await requester.perform(behaviour)
        }
    }

    /// A connection that wasn't closed has another request answered.
    private func checkLife() throws {
        world.handshake()
        world.loop.run()
        guard world.streams.ownClose == nil, world.connection.closeReason == nil else { return }
        let (before, number) = (world.peer.requests.count, world.watch.messages.count)
        start(.get)
        world.loop.run()
        // It may be larger than the peer's settings allow.
        guard world.peer.requests.count > before, let stream = world.peer.requests.last, stream.resetCode == nil,
            world.watch.messages.count > number
        else { return }
        let lane = world.peer.lane(of: stream)
        lane.pending = HTTP3Choices.frame(1, HTTP3Choices.literal([(":status", Array("200".utf8))]))
        lane.finishes = true
        try world.arrive(first: 0)
        world.loop.run()
        try world.check(held: client.heldBytes)
        guard world.watch.messages[number].isEnded || world.streams.ownClose != nil else {
            throw FuzzFinding("a connection is neither closed nor takes a response")
        }
    }
}

extension HTTP3ClientFuzzing {
    /// What tasks ask for, and how they take the answer.
    enum Behaviour: UInt8 {
        case get, post, postMuch, parts, head, both, dropped, priority, readOnce, stops
    }

    /// One task's request.
    struct Requester {
        let client: HTTP3ClientConnection
        let watch: HTTP3Watch
        let limit: Int
        var number: Int

        func perform(_ behaviour: Behaviour) async throws {
            let get = request(.get)
            let (watch, limit) = (watch, limit)
            let interim: @Sendable (HTTPResponse) -> Void = {
                do { try HTTP3Rules.check($0, limit: limit, informational: true) } catch { watch.note("\(error)") }
            }
            switch behaviour {
            case .get: try await readAll(try await client.request(get, onInformational: interim), .get)
            case .post:
                let body = ByteBuffer(repeating: 1, count: 10)
                try await readAll(try await client.request(request(.post), body: body, trailers: [.date: "x"]), .post)
            case .postMuch:
                let body = ByteBuffer(repeating: 1, count: 100_000)
                try await readAll(try await client.request(request(.post), body: body), .post)
            case .parts: try await parts(interim)
            case .head: try await readAll(try await client.request(request(.head)), .head)
            case .both:
                try await client.withRequest(request(.post)) { writer in
                    for _ in 0..<3 { try await writer.write(ByteBuffer(repeating: 1, count: 3000)) }
                    return [.date: "x"]
                } receive: { response in
                    try await readAll(response, .post)
                }
            case .dropped: _ = try await client.start(get)
            case .priority:
                let exchange = try await client.start(get, priority: HTTP3Priority(urgency: 1))
                exchange.setPriority(HTTP3Priority(urgency: 5, isIncremental: true))
                try await exchange.writer.finish()
                try await readAll(try await exchange.response(), .get)
            case .readOnce:
                let response = try await client.request(get)
                begin(response, .get)
                if let piece = try await response.body.read() { watch.received(piece, number) }
            case .stops:
                let response = try await client.request(get)
                begin(response, .get)
                response.body.stop()
            }
        }

        private func request(_ method: HTTPRequest.Method) -> HTTPRequest {
            HTTPRequest(
                method: method, scheme: "https", authority: "a", path: "/\(number)", headerFields: [.userAgent: "fuzz"])
        }

        private func parts(_ interim: @escaping @Sendable (HTTPResponse) -> Void) async throws {
            let exchange = try await client.start(request(.put), onInformational: interim)
            do {
                for _ in 0..<3 { try await exchange.writer.write(ByteBuffer(repeating: 1, count: 1500)) }
                try await exchange.writer.finish(trailers: [.date: "x"])
            } catch let error as HTTP3Error where error.code == .bodyRefused {
                // The response says why.
            }
            try await readAll(try await exchange.response(), .put)
        }

        private func begin(_ response: HTTP3ClientResponse, _ method: HTTPRequest.Method) {
            do { try HTTP3Rules.check(response.head, limit: limit, informational: false) } catch {
                watch.note("\(error)")
            }
            watch.change(number) {
                $0.stream = response.body.streamID
                $0.section = HTTP3Rules.section(response.head)
                $0.contentLength = response.head.headerFields[.contentLength].flatMap { UInt64($0) }
                $0.hasNoBody = method == .head || response.status.code == 204 || response.status.code == 304
            }
        }

        private func readAll(_ response: HTTP3ClientResponse, _ method: HTTPRequest.Method) async throws {
            begin(response, method)
            while let piece = try await response.body.read() { watch.received(piece, number) }
            watch.change(number) { $0.isEnded = true }
            if try await response.body.read() != nil { watch.note("bytes behind a body's end") }
            if let trailers = await response.body.trailers() {
                do { try HTTP3Rules.checkFields(trailers) } catch { watch.note("\(error)") }
            }
        }
    }
}
