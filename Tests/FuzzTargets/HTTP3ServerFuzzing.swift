import HTTP3
import HTTPTypes
import NIOCore
import NIOEmbedded
import QUICEngine
import QUICTransport

/// A client says what it likes to an ``HTTP3ServerSession``, whose handlers read and answer in all ways that there are.
///
/// Nothing traps; what is held is bounded; handlers see only requests that RFC 9114 allows, and bodies that are what was sent; each
/// is told an end; and the connection goes on, so that another request is taken, or is closed with a code of HTTP/3.
final class HTTP3ServerFuzzing {
    private enum Step: UInt8, CaseIterable { case request, handshake, time, drain }

    private var choices: HTTP3Choices
    private let world: HTTP3World
    private let service: HTTP3Service
    private let session: HTTP3ServerSession
    private var isDraining = false

    static func run(_ choices: HTTP3Choices) throws {
        try HTTP3World.run { loop in
            let fuzzing = try HTTP3ServerFuzzing(choices, loop: loop)
            try fuzzing.run()
            return fuzzing.world.connection
        }
    }

    private init(_ choices: HTTP3Choices, loop: EmbeddedEventLoop) throws {
        var choices = choices
        let setup = HTTP3World.Setup(&choices)
        let behaviours = (0..<4).map { _ in Behaviour(rawValue: choices.input.byte() % 10) ?? .echo }
        self.choices = choices
        world = try HTTP3World(setup, isServer: true, loop: loop)
        var options = HTTP3ServerOptions()
        options.limits = setup.limits
        service = HTTP3Service(options: options)
        let watch = world.watch
        let limit = setup.limits.fieldSectionSize
        session = HTTP3ServerSession(world.connection, service: service) { request, body, responder in
            let number = watch.begin()
            defer { watch.over(number) }
            do {
                try HTTP3Rules.check(request, limit: limit)
            } catch {
                watch.note("\(error)")
            }
            watch.change(number) {
                $0.stream = responder.streamID
                $0.section = HTTP3Rules.section(request)
                $0.contentLength = request.headerFields[.contentLength].flatMap { UInt64($0) }
            }
            let behaviour = behaviours[Int(responder.streamID.ordinal % 4)]
            try await Handler(number: number, watch: watch, body: body, responder: responder).serve(behaviour)
        }
        world.connection.serve(by: session)
    }

    private func run() throws {
        world.deliver(.accepted)
        while !choices.input.isEmpty, world.connection.closeReason == nil {
            let byte = choices.input.byte()
            let peerSteps = UInt8(HTTP3Peer.Step.allCases.count)
            let number = byte & 0x3f % (peerSteps + UInt8(Step.allCases.count))
            if let step = HTTP3Peer.Step(rawValue: number) {
                world.peer.take(step, &choices)
            } else if let step = Step(rawValue: number - peerSteps) {
                take(step)
            }
            // Some things wait for others, to come together.
            if byte & 0x80 == 0 { try world.arrive(first: Int(byte)) }
            if byte & 0x40 == 0 { world.loop.run() }
            try world.check(held: session.heldBytes)
        }
        try world.arrive(first: 0)
        world.loop.run()
        try world.check(held: session.heldBytes)
        try checkLife()
        let requests = service.statistics.requests
        world.deliver(.closed(.idleTimeout))
        world.loop.run()
        try world.checkEnd()
        guard service.statistics.requests == requests else {
            throw FuzzFinding("a closed session goes on")
        }
    }

    private func take(_ step: Step) {
        switch step {
        case .request:
            guard let lane = world.peer.openRequest(&choices) else { return }
            world.peer.message(on: lane, &choices)
        case .handshake: world.handshake()
        case .time: world.loop.advanceTime(by: .milliseconds(Int64(1) << Int64(choices.input.byte() % 12)))
        case .drain:
            isDraining = true
            session.drain()
        }
    }

    /// A connection that wasn't closed takes another request.
    private func checkLife() throws {
        guard world.streams.ownClose == nil, world.connection.closeReason == nil, !isDraining else { return }
        world.handshake()
        let before = service.statistics.requests
        guard let lane = world.peer.openRequest(&choices) else { return }
        let fields: [HTTP3Choices.Field] = [
            (":method", Array("GET".utf8)), (":scheme", Array("https".utf8)), (":authority", Array("a".utf8)),
            (":path", Array("/".utf8)),
        ]
        lane.pending = HTTP3Choices.frame(1, HTTP3Choices.literal(fields))
        lane.finishes = true
        try world.arrive(first: 0)
        world.loop.run()
        try world.check(held: session.heldBytes)
        guard service.statistics.requests == before + 1 || world.streams.ownClose != nil else {
            throw FuzzFinding("a connection neither takes a request nor is closed")
        }
    }
}

extension HTTP3ServerFuzzing {
    /// What handlers do, each in its own way.
    enum Behaviour: UInt8 {
        case readAll, answerOnly, readOnce, echo, interim, fails, stops, cancels, waits, unfinished
    }

    /// One request's handler.
    struct Handler {
        let number: Int
        let watch: HTTP3Watch
        let body: HTTP3Body
        let responder: HTTP3Responder

        func serve(_ behaviour: Behaviour) async throws {
            let ok = HTTPResponse(status: .ok, headerFields: [.server: "fuzz"])
            switch behaviour {
            case .readAll:
                try await readAll()
                try await responder.respond(ok, body: ByteBuffer(repeating: 1, count: 20))
            case .answerOnly: try await responder.respond(ok, body: ByteBuffer(repeating: 1, count: 5000))
            case .readOnce:
                if let piece = try await body.read() { watch.received(piece, number) }
                try await responder.respond(ok)
            case .echo: try await echo(ok)
            case .interim:
                let hints = HTTPResponse(status: HTTPResponse.Status(code: 103))
                try await responder.sendInformational(hints)
                responder.setPriority(HTTP3Priority(urgency: 1))
                try await readAll()
                try await responder.sendInformational(hints)
                try await responder.respond(ok, body: ByteBuffer(repeating: 1, count: 100_000), trailers: [.date: "x"])
            case .fails:
                try await readAll()
                throw FuzzFinding("on purpose")
            case .stops:
                body.stop()
                try await responder.respond(ok)
            case .cancels:
                if let piece = try await body.read() { watch.received(piece, number) }
                responder.cancel()
            case .waits:
                try await readAll()
                let (silence, held) = AsyncStream<Void>.makeStream()
                for await _ in silence {}
                withExtendedLifetime(held) {}
            case .unfinished:
                let writer = try await responder.start(ok)
                try await writer.write(ByteBuffer(repeating: 1, count: 10))
            }
        }

        private func echo(_ head: HTTPResponse) async throws {
            let writer = try await responder.start(head)
            while let piece = try await body.read() {
                watch.received(piece, number)
                try await writer.write(piece)
            }
            try await ended()
            try await writer.finish(trailers: [.date: "x"])
        }

        private func readAll() async throws {
            while let piece = try await body.read() { watch.received(piece, number) }
            try await ended()
        }

        /// The end is told again, and trailers obey the rules for fields.
        private func ended() async throws {
            watch.change(number) { $0.isEnded = true }
            if try await body.read() != nil { watch.note("bytes behind a body's end") }
            if let trailers = await body.trailers() {
                do { try HTTP3Rules.checkFields(trailers) } catch { watch.note("\(error)") }
            }
        }
    }
}
