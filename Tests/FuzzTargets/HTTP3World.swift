import HTTP3
import Logging
import NIOCore
import NIOEmbedded
import QUICEngine
import QUICTransport

/// A session of HTTP/3 on streams in memory, its event loop, and the peer.
final class HTTP3World {
    /// How an input begins: what the session allows, and what its peer does.
    struct Setup {
        var limits = HTTP3Limits()
        /// Bytes in which what is pending arrives.
        var pieces: Int
        var sendBuffer: Int
        var bidirectional: Int
        var unidirectional: Int

        init(_ choices: inout HTTP3Choices) {
            let byte = choices.input.byte()
            limits.fieldSectionSize = [32 << 10, 1 << 10, 64 << 10, 4 << 10][Int(byte & 3)]
            limits.tableCapacity = [4096, 0, 100, 64 << 10][Int(byte >> 2 & 3)]
            limits.blockedStreams = [100, 0, 1, 2][Int(byte >> 4 & 3)]
            limits.bodySize = byte & 0x40 == 0 ? nil : 500
            limits.encoderTableCapacity = byte & 0x80 == 0 ? 4096 : 0
            let more = choices.input.byte()
            limits.concurrentHandlers = more & 1 == 0 ? 256 : 1
            if more & 2 != 0 {
                // Time passes only in steps: whoever has waited at all has waited for too long.
                limits.requestHeadTimeout = .nanoseconds(-1)
                limits.bodyTimeout = .nanoseconds(-1)
                limits.writeTimeout = .nanoseconds(-1)
            }
            sendBuffer = [64 << 10, 2000, 100, 1 << 20][Int(more >> 2 & 3)]
            pieces = [64 << 10, 1, 7, 100][Int(more >> 4 & 3)]
            unidirectional = more & 0x40 == 0 ? 3 : 1
            bidirectional = more & 0x80 == 0 ? 100 : 1
        }
    }

    let setup: Setup
    let loop: EmbeddedEventLoop
    let streams: StreamsInMemory
    let peer: HTTP3Peer
    let connection: QUICLoopConnection
    let watch = HTTP3Watch()
    private let heldLimit: Int

    init(_ setup: Setup, isServer: Bool, loop: EmbeddedEventLoop) throws {
        self.setup = setup
        self.loop = loop
        streams = StreamsInMemory(
            isServer: isServer, sendBuffer: setup.sendBuffer, bidirectional: setup.bidirectional,
            unidirectional: setup.unidirectional)
        peer = try HTTP3Peer(
            streams: streams, tableCapacity: setup.limits.tableCapacity, blockedStreams: setup.limits.blockedStreams)
        connection = try QUICLoopConnection.standing(on: streams, isServer: isServer, eventLoop: loop)
        // A section and what its frame may have beyond it for each stream, and what may wait on three streams.
        heldLimit = 100 * (setup.limits.fieldSectionSize + 64) + 3 * (64 << 10) + StreamsInMemory.window
    }

    /// Hands the session what happened on the streams.
    func deliver() {
        while connection.closeReason == nil {
            let events = streams.takeEvents()
            guard !events.isEmpty else { return }
            connection.deliver(events)
        }
    }

    func deliver(_ event: QUICConnectionEvent) {
        deliver()
        guard connection.closeReason == nil else { return }
        connection.deliver([event])
    }

    func handshake() {
        guard !streams.isHandshakeComplete else { return }
        streams.isHandshakeComplete = true
        deliver(.handshakeCompleted(HandshakeInfo(applicationProtocol: "h3")))
    }

    /// Lets pending bytes arrive.
    /// - Parameter first: the stream whose bytes come first.
    func arrive(first: Int) throws {
        try peer.deliver(pieces: setup.pieces, first: first) { deliver() }
        deliver()
    }

    /// What must hold at any time.
    /// - Parameter held: what the session says it holds.
    func check(held: Int) throws {
        if let finding = streams.finding ?? watch.finding { throw finding }
        guard held <= heldLimit else { throw FuzzFinding("\(held) bytes are held") }
        if connection.closeReason == nil { try peer.readDecoderStream() }
        if case .localApplication(let code, _) = connection.closeReason, code != streams.ownClose {
            throw FuzzFinding("closed with \(code)")
        }
    }

    /// The connection is over: no task is left, and what they got is what was sent.
    func checkEnd() throws {
        if let finding = streams.finding ?? watch.finding { throw finding }
        guard connection.closeReason != nil else { throw FuzzFinding("the connection is not over") }
        for message in watch.messages {
            guard message.isOver else { throw FuzzFinding("a task waits for ever: \(message)") }
            guard let id = message.stream, let stream = streams.all.first(where: { $0.id == id }) else { continue }
            try HTTP3Rules.checkBody(message, stream)
            guard peer.isFaithful, let sent = peer.sections[id], !isInterim(sent) else { continue }
            try HTTP3Rules.checkSame(message, sent)
        }
        for stream in streams.all { try HTTP3Rules.checkOutput(stream) }
    }

    /// Another response follows, and is the one that a task gets.
    private func isInterim(_ section: [HTTP3Choices.Field]) -> Bool {
        section.contains { $0.name == ":status" && $0.value.first == UInt8(ascii: "1") }
    }

    /// Runs an input, and sees to it that nothing stays behind it: no object, no timer.
    static func run(_ body: (EmbeddedEventLoop) throws -> QUICLoopConnection) throws {
        let loop = EmbeddedEventLoop()
        weak var left: QUICLoopConnection?
        let outcome = Result {
            left = try body(loop)
        }
        // The transport's report is due within a second. What is left of a run that failed must not hide why it did.
        loop.advanceTime(by: .seconds(3))
        do { try outcome.get() } catch {
            try? loop.syncShutdownGracefully()
            throw error
        }
        guard left == nil else {
            try? loop.syncShutdownGracefully()
            throw FuzzFinding("the connection outlives its end")
        }
    }
}
