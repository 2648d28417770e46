import CHTTP3Shim
import QUICEngine

/// The other side of a session of HTTP/3: puts on its streams what an input chooses, and lets it arrive in pieces.
final class HTTP3Peer {
    /// What the peer may do at any time, on either side.
    enum Step: UInt8, CaseIterable {
        case control, unidirectional, controlFrame, encoder, decoder, section, requestFrame, trailers, bytes, finish,
            reset, stop, acknowledge, allow
    }

    /// One direction of a stream: what has not arrived yet.
    final class Lane {
        let stream: StreamsInMemory.Stream
        var pending: [UInt8] = []
        var finishes = false

        init(_ stream: StreamsInMemory.Stream) { self.stream = stream }

        var isWaiting: Bool { !pending.isEmpty || finishes }
    }

    /// Pieces of the chosen size; what is left comes in larger ones, so that no input takes long.
    private static let smallPieces = 64

    let streams: StreamsInMemory
    let isServer: Bool
    private(set) var lanes: [Lane] = []
    /// Nothing but what a real encoder made refers to the dynamic table: what the session says of it must be right.
    private(set) var isFaithful = true
    /// The lines that streams of requests begin with, where they are known.
    private(set) var sections: [QUICStreamID: [HTTP3Choices.Field]] = [:]
    private let encoder: OpaquePointer
    private var ownLanes: [UInt64: Lane] = [:]
    private var opened: UInt64 = 0
    private var nextRequest: UInt64 = 0
    private var readOfDecoder = 0

    /// - Parameter tableCapacity: what the session allows this side's encoder.
    init(streams: StreamsInMemory, tableCapacity: Int, blockedStreams: Int) throws {
        guard let encoder = llh3_encoder_new(UInt64(tableCapacity), tableCapacity, blockedStreams) else {
            throw FuzzFinding("no memory")
        }
        self.streams = streams
        isServer = !streams.isServer
        self.encoder = encoder
    }

    deinit { llh3_encoder_free(encoder) }

    // MARK: Streams

    /// Streams of requests, in the order in which they came to be.
    var requests: [StreamsInMemory.Stream] { streams.all.filter(\.id.isBidirectional) }

    func lane(of stream: StreamsInMemory.Stream) -> Lane {
        if let lane = lanes.first(where: { $0.stream === stream }) { return lane }
        let lane = Lane(stream)
        lanes.append(lane)
        return lane
    }

    /// Opens a unidirectional stream with a type.
    func open(_ type: UInt64) -> Lane? {
        let id = QUICStreamID(rawValue: opened << 2 | 2 | (isServer ? 1 : 0))
        opened += 1
        guard let stream = streams.peerOpens(id) else { return nil }
        let lane = lane(of: stream)
        lane.pending = HTTP3Choices.varint(type)
        if ownLanes[type] == nil { ownLanes[type] = lane }
        return lane
    }

    /// The first stream of a type, opened if there is none.
    private func ownLane(_ type: UInt64) -> Lane? { ownLanes[type] ?? open(type) }

    /// A new request stream; clients only.
    func openRequest(_ choices: inout HTTP3Choices) -> Lane? {
        // Packets may be lost: a later stream may be the first that is seen.
        let ordinal = nextRequest + UInt64(choices.input.byte() >= 250 ? 2 : 0)
        guard !isServer, ordinal < 100, let stream = streams.peerOpens(QUICStreamID(rawValue: ordinal << 2)) else {
            return nil
        }
        nextRequest = ordinal + 1
        return lane(of: stream)
    }

    private func chosenRequest(_ choices: inout HTTP3Choices) -> Lane? {
        let all = requests
        // Mostly the latest.
        let byte = Int(choices.input.byte())
        guard !all.isEmpty else { return openRequest(&choices) }
        return lane(of: byte < 128 ? all[all.count - 1] : all[byte % all.count])
    }

    private func chosenLane(_ choices: inout HTTP3Choices) -> Lane? {
        let byte = Int(choices.input.byte())
        guard byte < 200, !lanes.isEmpty else { return chosenRequest(&choices) }
        return lanes[byte % lanes.count]
    }

    // MARK: Steps

    func take(_ step: Step, _ choices: inout HTTP3Choices) {
        switch step {
        case .control:
            guard let lane = open(0) else { return }
            if choices.input.byte() < 240 { lane.pending += HTTP3Choices.frame(0x4, choices.settings()) }
        case .unidirectional:
            let byte = choices.input.byte()
            let lane = open(byte < 128 ? UInt64(byte % 4) : byte < 200 ? choices.unknownType() : choices.number())
            lane?.pending += choices.input.bytes(Int(choices.input.byte() % 20))
            isFaithful = false
        case .controlFrame: ownLane(0)?.pending += choices.damage(choices.controlFrame())
        case .encoder:
            ownLane(2)?.pending += choices.encoderInstruction()
            isFaithful = false
        case .decoder: ownLane(3)?.pending += choices.decoderInstruction()
        case .section:
            guard let lane = chosenRequest(&choices) else { return }
            message(on: lane, &choices)
        case .requestFrame: chosenRequest(&choices)?.pending += choices.requestFrame()
        case .trailers:
            guard let lane = chosenRequest(&choices) else { return }
            append(choices.more(), to: lane, &choices)
        case .bytes:
            chosenLane(&choices)?.pending += choices.input.bytes(Int(choices.input.byte()))
            isFaithful = false
        case .finish: chosenLane(&choices)?.finishes = true
        case .reset: reset(&choices)
        case .stop:
            let sending = streams.all.filter(\.sends)
            guard !sending.isEmpty else { return }
            let stream = sending[Int(choices.input.byte()) % sending.count]
            streams.peerStops(stream, code: choices.code())
        case .acknowledge:
            let byte = Int(choices.input.byte())
            let sending = streams.all.filter(\.sends)
            for (index, stream) in sending.enumerated() where byte < 128 || index == byte % sending.count {
                streams.peerAcknowledges(stream)
            }
        case .allow:
            let byte = Int(choices.input.byte())
            streams.peerAllows(bidirectional: byte & 7, unidirectional: byte >> 3 & 3)
        }
    }

    private func reset(_ choices: inout HTTP3Choices) {
        guard let lane = chosenLane(&choices) else { return }
        // What didn't arrive before doesn't.
        lane.pending = []
        lane.finishes = false
        if ownLanes.values.contains(where: { $0 === lane }) { isFaithful = false }
        streams.peerResets(lane.stream, code: choices.code())
    }

    /// A request's or a response's header section.
    func message(on lane: Lane, _ choices: inout HTTP3Choices) {
        append(isServer ? choices.response() : choices.request(), to: lane, &choices)
    }

    private func append(_ fields: [HTTP3Choices.Field], to lane: Lane, _ choices: inout HTTP3Choices) {
        let isFirst = lane.stream.arrived.isEmpty && lane.pending.isEmpty
        let section: [UInt8]
        var fields: [HTTP3Choices.Field]? = fields
        switch (choices.input.byte(), fields) {
        case (0..<128, let lines?): section = HTTP3Choices.literal(lines)
        case (128..<230, let lines?): section = encode(lines, for: lane.stream.id)
        default:
            section = choices.references()
            fields = nil
        }
        let damaged = choices.damage(section)
        if damaged != section { fields = nil }
        if fields == nil { isFaithful = false }
        if isFirst { sections[lane.stream.id] = fields }
        lane.pending += HTTP3Choices.frame(0x1, damaged)
    }

    /// As an encoder with a dynamic table does it; its instructions go their own way.
    private func encode(_ fields: [HTTP3Choices.Field], for stream: QUICStreamID) -> [UInt8] {
        var bytes: [UInt8] = []
        var lines: [llh3_field] = []
        for (name, value) in fields {
            bytes += Array(name.utf8) + value
            lines.append(
                llh3_field(
                    name_length: UInt32(name.utf8.count), value_length: UInt32(value.count), token: -1,
                    flags: UInt32(LLH3_FIELD_TRY_INDEX)))
        }
        guard llh3_encoder_encode(encoder, Int64(stream.rawValue), bytes, lines, lines.count) == LLH3_OK else {
            return HTTP3Choices.literal(fields)
        }
        let instructions = taken(llh3_encoder_instructions)
        if !instructions.isEmpty { ownLane(2)?.pending += instructions }
        return taken(llh3_encoder_prefix) + taken(llh3_encoder_lines)
    }

    private func taken(
        _ part: (OpaquePointer, UnsafeMutablePointer<Int>) -> UnsafePointer<UInt8>?
    ) -> [UInt8] {
        var length = 0
        let bytes = part(encoder, &length)
        return Array(UnsafeBufferPointer(start: bytes, count: length))
    }

    // MARK: What arrives, and what comes back

    /// Lets what is pending arrive, a piece of each stream at a time.
    /// - Parameter arrived: hands the session its events.
    func deliver(pieces: Int, first: Int, _ arrived: () throws -> Void) throws {
        var round = 0
        while true {
            var isDone = true
            for index in lanes.indices {
                let lane = lanes[(index + first) % lanes.count]
                guard lane.isWaiting else { continue }
                let room = StreamsInMemory.window - lane.stream.unread
                let size = round < Self.smallPieces ? pieces : StreamsInMemory.window
                let part = lane.pending.prefix(min(size, room))
                guard !part.isEmpty || lane.pending.isEmpty else { continue }
                lane.pending.removeFirst(part.count)
                let ends = lane.pending.isEmpty && lane.finishes
                if ends { lane.finishes = false }
                streams.peerSends(part, finish: ends, on: lane.stream)
                isDone = false
                try arrived()
            }
            round += 1
            if isDone { return }
        }
    }

    /// Gives the encoder what the session's decoder says.
    func readDecoderStream() throws {
        guard let stream = streams.all.first(where: { !$0.id.isBidirectional && $0.sends && $0.sent.first == 3 }),
            stream.sent.count > max(1, readOfDecoder)
        else { return }
        let new = Array(stream.sent[max(1, readOfDecoder)...])
        readOfDecoder = stream.sent.count
        guard llh3_encoder_read(encoder, new, new.count) == LLH3_OK || !isFaithful else {
            throw FuzzFinding("what the session's decoder says is wrong: \(new)")
        }
    }
}
