import Foundation
import LonglineSession
import LonglineWire
import NIOCore
import Testing

/// What every bad value gets: the table of docs/protocol.md, row by row, against the codec and the sessions.
@Suite("Bad input")
struct BadInputTests {
    private let now = Fixture.start
    private let lane = LaneID(rawValue: 1)

    private static var specification: [Substring] {
        get throws {
            let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
                .deletingLastPathComponent()
            return try String(contentsOf: root.appendingPathComponent("docs/protocol.md"), encoding: .utf8)
                .split(separator: "\n")
        }
    }

    @Test("The specification's table says what is tested here, and nothing else")
    func table() throws {
        let head: Substring = "| frame | field | what is wrong, and the close code |"
        let lines = try Self.specification.drop { $0 != head }.dropFirst(2)
        let specified = lines.prefix { $0.hasPrefix("|") }.map(String.init)
        let tested = FrameFields.tested.flatMap(\.rows)
        #expect(specified.count > 150)
        for row in Set(tested).subtracting(specified) { Issue.record("docs/protocol.md lacks: \(row)") }
        for row in Set(specified).subtracting(tested) { Issue.record("not tested: \(row)") }
        #expect(specified.count == Set(specified).count && tested.count == Set(tested).count, "a row is there twice")
    }

    @Test("Every frame of the specification has its fields here, and the codec knows no other")
    func types() throws {
        var specified: [UInt64: String] = [:]
        for line in try Self.specification where line.hasPrefix("| 0x") {
            let cells = line.split(separator: "|").map { $0.trimmingCharacters(in: .whitespaces) }
            specified[try #require(UInt64(cells[0].dropFirst(2), radix: 16))] = cells[1]
        }
        #expect(specified.count > 40)
        let here = Dictionary(FrameFields.all.map { ($0.type, $0.name) }, uniquingKeysWith: { first, _ in first })
        #expect(here == specified)
        // Without a body a known frame is malformed, or one of those without fields.
        for type in UInt64(0)..<0x200 where type % 0x40 != 0x2a {
            let code = answer(
                to: ByteBuffer(bytes: FrameFields.varint(type) + [0]), isFromClient: type != 0x03)
            let fields = FrameFields.all.first { $0.type == type }?.fields
            let expected: CloseCode? =
                fields.map { $0.isEmpty ? nil : .malformedFrame } ?? (type % 2 == 0 ? nil : .unknownFrame)
            #expect(code == expected, "type \(type)")
        }
    }

    // MARK: Sessions

    private func server(_ channels: [SessionChannel] = [Fixture.channel()]) -> ServerSession {
        var session = ServerSession(
            configuration: ServerSessionConfiguration(), observedAddress: "192.0.2.1:1", now: now)
        session.handshakeCompleted(now: now)
        session.received(.connect(Fixture.connect()), lane: .control, early: false, now: now)
        session.authenticated(
            SessionGrant(
                identity: Fixture.identity(), session: 1, resumed: false, cursorVersion: 1, channels: channels,
                ticket: nil), time: 0, now: now)
        _ = session.drain()
        return session
    }

    private func client() -> ClientSession {
        var session = ClientSession(
            configuration: ClientSessionConfiguration(), producer: Fixture.producer, cursors: [:], cursorVersion: 0)
        session.linkOpened(
            credential: .token("token"), connectNumber: 1, supportsPathChange: false, outbox: [], now: now)
        session.received(.connected(Fixture.connected()), lane: .control, now: now)
        session.received(.lane(LaneHeader(channel: Fixture.inbox, epoch: Fixture.epoch)), lane: lane, now: now)
        _ = session.drain()
        return session
    }

    /// The close code that bytes get from a server or a client, and whether nothing else came of them.
    private func answer(to bytes: ByteBuffer, isFromClient: Bool) -> CloseCode? {
        var decoder = FrameDecoder()
        decoder.append(bytes)
        let failure: FrameError
        do throws(FrameError) {
            while try decoder.next() != nil {}
            try decoder.finish()
            return nil
        } catch {
            failure = error
        }
        if isFromClient {
            var session = server()
            session.receivedInvalid(failure.close, lane: .control, now: now)
            let actions = session.drain()
            #expect(actions.frames.count == 1 && actions.count == 2 && session.isClosed)
            return actions.closeCode
        }
        var session = client()
        session.receivedInvalid(failure.close, lane: .control, now: now)
        let actions = session.drain()
        #expect(actions.frames.count == 1)
        return actions.endCode
    }

    // MARK: Fields

    @Test("Every bad value of every field gets its close code", arguments: FrameFields.tested.indices)
    func fields(index: Int) throws {
        let frame = FrameFields.tested[index]
        let name = frame.name
        #expect(answer(to: frame.frame(frame.body()), isFromClient: frame.isFromClient) == nil, "\(name) as it is")
        for (index, field) in frame.fields.enumerated() {
            for bad in field.bad {
                // What is cut off ends the body there, too.
                var body = frame.body(replacing: index, with: bad.bytes)
                if bad.what == "cut off" || bad.what == "fewer than counted" {
                    let before = frame.fields.prefix(index).flatMap(\.good)
                    body = before + (bad.what == "cut off" ? field.good.dropLast() : bad.bytes)
                }
                let code = answer(to: frame.frame(body), isFromClient: frame.isFromClient)
                #expect(code == bad.code, "\(name), \(field.name): \(bad.what)")
            }
        }
    }

    @Test("A frame that goes on, is too large or of an unknown type gets its close code")
    func frames() {
        for frame in FrameFields.all {
            #expect(answer(to: frame.frame(frame.body() + [0]), isFromClient: frame.isFromClient) == .malformedFrame)
            let large = ByteBuffer(bytes: FrameFields.varint(frame.type) + FrameFields.varint(16_385))
            #expect(answer(to: large, isFromClient: frame.isFromClient) == .frameTooLarge)
        }
        let unknown = ByteBuffer(bytes: [0x7f, 0x7f, 0])
        #expect(answer(to: unknown, isFromClient: true) == .unknownFrame)
    }

    /// A frame of each type with good fields.
    private func decoded(_ frame: FrameFields) throws -> Frame {
        var decoder = FrameDecoder()
        decoder.append(frame.frame(frame.body()))
        return try #require(try decoder.next())
    }

    @Test("A frame out of its place closes with 5002")
    func places() throws {
        let anyLane = ["LANE", "PUBLISH", "PUBLISHED", "REFUSED", "DELIVER", "SKIP", "GAP", "ACK", "PART", "BATCH"]
        for fields in FrameFields.all {
            let frame = try decoded(fields)
            let belongsOnLane = anyLane.contains(fields.name)
            for isControl in [true, false] {
                let place = isControl ? LaneID.control : LaneID(rawValue: 2)
                var server = server()
                server.received(
                    .lane(LaneHeader(channel: Fixture.inbox, epoch: 0)), lane: LaneID(rawValue: 2), early: false,
                    now: now)
                server.received(frame, lane: place, early: false, now: now)
                let fitsServer = fields.isFromClient && belongsOnLane != isControl
                // A part has its place behind what it is a part of.
                let isSecond = ["CONNECT", "CURSORS", "LANE", "PART"].contains(fields.name)
                let code = server.drain().closeCode
                let isFine = fitsServer && !isSecond
                #expect(isFine ? code == nil || code == .normal : code == .unexpectedFrame, "\(fields.name) \(place)")

                var client = client()
                client.received(frame, lane: isControl ? .control : lane, now: now)
                // A page of history has a lane of its own, which begins with it.
                let fitsClient =
                    (!fields.isFromClient || fields.name == "CLOSE") && belongsOnLane != isControl
                    && fields.name != "HISTORY_PAGE"
                let end = client.drain().endCode
                if !fitsClient || ["AHEAD", "CONNECTED", "LANE", "PART", "BATCH"].contains(fields.name) {
                    #expect(end == .unexpectedFrame, "\(fields.name) at a client, \(place)")
                } else {
                    #expect(end != .unexpectedFrame, "\(fields.name) at a client, \(place)")
                }
            }
        }
    }

    @Test("A lane of epoch 0 brings answers and nothing else")
    func answerLane() {
        let entry = Frame.deliver(Deliver(entry: Fixture.entry(1, after: 0), redelivered: false))
        let skip = Frame.skip(Skip(previous: 0, to: 1, reason: .expired))
        let gap = Frame.gap(Gap(from: Position(epoch: Fixture.epoch, offset: 1), first: 0))
        let batch = Frame.batch(Batch(groups: []))
        let part = Frame.part(Part(offset: 0, bytes: ByteBuffer(bytes: [1])))
        for frame in [entry, skip, gap, batch, part] {
            var session = client()
            let lane = LaneID(rawValue: 2)
            session.received(.lane(LaneHeader(channel: Fixture.room, epoch: 0)), lane: lane, now: now)
            session.received(.refused(Refused(id: 1, code: .unknownChannel)), lane: lane, now: now)
            #expect(session.drain().endCode == nil)
            session.received(frame, lane: lane, now: now)
            let actions = session.drain()
            #expect(actions.endCode == .unexpectedFrame, "\(frame.name)")
            #expect(actions.delivered.isEmpty && actions.gaps.isEmpty, "\(frame.name)")
        }
    }

    @Test("Before CONNECT is accepted nothing but CLOSE and cursors is read on lane 0, and other lanes wait")
    func times() throws {
        for fields in FrameFields.all where !["CONNECT", "CURSORS", "CLOSE"].contains(fields.name) {
            let frame = try decoded(fields)
            for isControl in [true, false] {
                var session = ServerSession(
                    configuration: ServerSessionConfiguration(), observedAddress: "", now: now)
                session.received(frame, lane: isControl ? .control : lane, early: false, now: now)
                #expect(session.drain().closeCode == (isControl ? .unexpectedFrame : nil), "\(fields.name)")
            }
        }
    }

    // MARK: Values that the session judges

    private func refusal(of publish: Publish, in channel: ChannelID, known: [ChannelID]) -> RefusalCode? {
        var session = server(known.map { Fixture.channel($0) })
        session.received(.lane(LaneHeader(channel: channel, epoch: 0)), lane: lane, early: false, now: now)
        session.received(.publish(publish), lane: lane, early: false, now: now)
        let actions = session.drain()
        #expect(actions.closeCode == nil && !session.isClosed)
        #expect(actions.appends.isEmpty)
        for frame in actions.frames { if case .refused(let refused) = frame { return refused.code } }
        return actions.lookUps[publish.id]
    }

    @Test("A publish that can't be gets its refusal, and the session goes on")
    func publishes() {
        let known = [Fixture.inbox, Fixture.room]
        #expect(refusal(of: Fixture.publish(0), in: Fixture.inbox, known: known) == .invalidID)
        #expect(refusal(of: Fixture.publish(3, after: 3), in: Fixture.inbox, known: known) == .invalidID)
        let large = Fixture.publish(1, bytes: FrameLimits.maximumPayload + 1)
        #expect(refusal(of: large, in: Fixture.inbox, known: known) == .payloadTooLarge)
        var direct = Fixture.publish(1)
        direct.recipient = Fixture.user("bob")
        #expect(refusal(of: direct, in: Fixture.room, known: known) == .unknownRecipient)
        #expect(refusal(of: Fixture.publish(1), in: .user(Fixture.user("bob")), known: known) == .unknownChannel)
    }

    @Test("An acknowledgement of what is not there, or of another epoch, changes nothing")
    func acknowledgements() {
        for (offset, epoch) in [(Offset(1_000), Fixture.epoch), (1, 3), (0, 0), (FrameLimits.maximumNumber, 0)] {
            var session = server([Fixture.channel(head: 5)])
            session.received(
                .lane(LaneHeader(channel: Fixture.inbox, epoch: epoch)), lane: lane, early: false, now: now)
            session.received(.acknowledge(Acknowledge(offset: offset)), lane: lane, early: false, now: now)
            let actions = session.drain()
            #expect(!session.isClosed)
            #expect(!actions.contains { if case .storeCursor = $0 { true } else { false } })
        }
    }

    @Test("A request number in use, a second refresh and a lane used again close with their codes")
    func repeated() {
        let join = Frame.join(RoomRequest(request: 1, room: Fixture.name("r")))
        let refresh = Frame.refresh(Refresh(token: "t"))
        for (frame, code) in [(join, CloseCode.unexpectedFrame), (refresh, .limitExceeded)] {
            var session = server()
            session.received(frame, lane: .control, early: false, now: now)
            session.received(frame, lane: .control, early: false, now: now)
            #expect(session.drain().closeCode == code)
        }
        var session = server()
        session.received(.lane(LaneHeader(channel: Fixture.inbox, epoch: 0)), lane: lane, early: false, now: now)
        session.laneFinished(lane, now: now)
        session.received(.lane(LaneHeader(channel: Fixture.inbox, epoch: 0)), lane: lane, early: false, now: now)
        #expect(session.drain().closeCode == .unexpectedFrame)
    }

    @Test("Who breaks the protocol takes nothing from the session beside it", arguments: FrameFields.all.map(\.name))
    func neighbour(name: String) throws {
        let frame = try #require(FrameFields.all.first { $0.name == name })
        var hostile = server([Fixture.channel(Fixture.room)])
        var neighbour = server([Fixture.channel(Fixture.room)])
        hostile.received(.lane(LaneHeader(channel: Fixture.room, epoch: 0)), lane: lane, early: false, now: now)
        hostile.received(.publish(Fixture.publish(1)), lane: lane, early: false, now: now)
        #expect(hostile.drain().appends == [1])
        var decoder = FrameDecoder()
        decoder.append(frame.frame(frame.body() + [0]))
        let failure = #expect(throws: FrameError.self) { try decoder.next() }
        hostile.receivedInvalid(try #require(failure).close, lane: lane, now: now)
        #expect(hostile.drain().closeCode == .malformedFrame)
        // What it published before is entered, and reaches the other; its own answer has nowhere to go.
        let position = Position(epoch: Fixture.epoch, offset: 4)
        hostile.appended(
            channel: Fixture.room, id: 1, outcome: .published(Published(id: 1, position: position, time: 1)), now: now)
        #expect(hostile.drain().isEmpty)
        neighbour.logAdvanced(Fixture.room, head: position, now: now)
        #expect(neighbour.drain().reads == [0])
        neighbour.pageRead(Fixture.room, page: Fixture.page([4]), now: now)
        #expect(neighbour.drain().delivered == [4])
    }

    @Test("What is said about bad input holds nothing that was sent")
    func secrets() {
        let secret = "se-cret"
        for frame in FrameFields.all {
            for (index, field) in frame.fields.enumerated() where field.good == [1, 0x61] {
                let bytes = FrameFields.varint(UInt64(secret.utf8.count)) + Array(secret.utf8)
                var decoder = FrameDecoder()
                decoder.append(frame.frame(frame.body(replacing: index, with: bytes) + [0]))
                let failure = #expect(throws: FrameError.self) { while try decoder.next() != nil {} }
                #expect(failure?.description.contains(secret) == false, "\(frame.name), \(field.name)")
            }
        }
    }

    @Test("What is said about a name that is none doesn't repeat the byte that it can't have")
    func forbiddenByte() throws {
        let join = try #require(FrameFields.all.first { $0.name == "JOIN" })
        let room = try #require(join.fields.firstIndex { $0.name == "room" })
        var decoder = FrameDecoder()
        decoder.append(join.frame(join.body(replacing: room, with: [1, 0x21])))
        let thrown = #expect(throws: FrameError.self) { try decoder.next() }
        let failure = try #require(thrown)
        #expect(failure.cause == .forbiddenByte(0x21))
        for text in [failure.description, failure.close.reason] { #expect(!text.contains("33"), "\(text)") }
    }

    @Test("What is said about a value without a meaning doesn't repeat it")
    func unknownValues() {
        let value = UInt8(59)
        var tested = 0
        for frame in FrameFields.tested {
            for (index, field) in frame.fields.enumerated() {
                let isChoice = field.bad.contains { bad in
                    bad.what.hasPrefix("over ") && bad.bytes.count == 1 && bad.code == .malformedFrame
                }
                guard isChoice || field.name == "flags" else { continue }
                var decoder = FrameDecoder()
                decoder.append(frame.frame(frame.body(replacing: index, with: [value])))
                let failure = #expect(throws: FrameError.self) { while try decoder.next() != nil {} }
                #expect(failure?.close.reason.contains("\(value)") == false, "\(frame.name), \(field.name)")
                tested += 1
            }
        }
        #expect(tested > 10)
    }
}
