import LonglineTestKit
import NIOCore
import Testing

@testable import LonglineSession
@testable import LonglineWire

@Suite("Compressed batches")
struct BatchTests {
    private let now = Fixture.start
    private let one = LaneID(rawValue: 1)
    private static let nowhere = Position(epoch: 0, offset: 0)

    private func server(
        compresses: Bool = true, asks: Encodings? = Encodings([.deflate])
    ) -> ServerSession {
        var configuration = ServerSessionConfiguration()
        configuration.compresses = compresses
        var session = ServerSession(configuration: configuration, observedAddress: "", now: now)
        session.handshakeCompleted(now: now)
        session.received(.connect(Fixture.connect()), lane: .control, early: false, now: now)
        session.authenticated(
            SessionGrant(
                identity: Fixture.identity(), session: 1, resumed: false, cursorVersion: 1,
                channels: [Fixture.channel(head: 500)], ticket: nil), time: 0, now: now)
        if let asks { session.received(.encodings(asks), lane: .control, early: false, now: now) }
        _ = session.drain()
        return session
    }

    private func entry(_ offset: Offset, _ text: String, by sender: String = "bob") -> Entry {
        var entry = Fixture.entry(offset, after: offset - 1)
        entry.payload = ByteBuffer(string: text)
        entry.sender = Fixture.user(sender)
        return entry
    }

    private func talk(_ count: Int, from first: Offset = 1, by senders: [String] = ["bob"]) -> [Entry] {
        (0..<count).map { index in
            let offset = first + UInt64(index)
            let text = "message \(offset) about the weather of tomorrow"
            return entry(offset, text, by: senders[index % senders.count])
        }
    }

    private func delivers(_ entries: [Entry]) -> [Frame] {
        entries.map { .deliver(Deliver(entry: $0, redelivered: false)) }
    }

    private func frames(_ entries: [Entry], _ session: inout ServerSession) -> [Frame] {
        let page = SessionPage(epoch: Fixture.epoch, items: entries.map { .entry($0) }, head: 500, first: 0)
        session.pageRead(Fixture.inbox, page: page, now: now)
        return session.drain().frames.filter { frame in if case .lane = frame { false } else { true } }
    }

    private func client(accepts: Bool = true, plain: Set<ChannelID> = []) -> ClientSession {
        var configuration = ClientSessionConfiguration()
        configuration.acceptsBatches = accepts
        configuration.plainChannels = plain
        var session = ClientSession(
            configuration: configuration, producer: Fixture.producer, cursors: [:], cursorVersion: 0)
        session.linkOpened(
            credential: .token("token"), connectNumber: 1, supportsPathChange: false, outbox: [], now: now)
        session.received(.connected(Fixture.connected()), lane: .control, now: now)
        session.received(.lane(LaneHeader(channel: Fixture.inbox, epoch: Fixture.epoch)), lane: one, now: now)
        return session
    }

    private func given(_ actions: [ClientAction]) -> [Entry] {
        actions.compactMap { action in if case .deliver(_, _, let deliver) = action { deliver.entry } else { nil } }
    }

    // MARK: What pays

    @Test("A catch-up goes as a batch, half as large, and the client takes out what was put in, in order")
    func catchUp() throws {
        var session = server()
        let entries = talk(200, by: ["bob", "carol", "dave"])
        let sent = frames(entries, &session)
        let plain = try delivers(entries).reduce(0) { $0 + (try FrameEncoder.encodedSize($1)) }
        let size = try sent.reduce(0) { $0 + (try FrameEncoder.encodedSize($1)) }
        #expect(sent.allSatisfy { if case .batch = $0 { true } else { false } })
        #expect(size < plain / 2, "\(size) of \(plain)")
        var client = client()
        #expect(client.drain().frames.contains(.encodings(Encodings([.deflate]))))
        for frame in sent { client.received(frame, lane: one, now: now) }
        #expect(given(client.drain()) == entries)
        // The window knows of the entries, and not of the batch.
        client.confirm(channel: Fixture.inbox, position: Position(epoch: Fixture.epoch, offset: 200), now: now)
        #expect(client.drain().endCode == nil)
    }

    @Test("A few messages are live traffic and go as they are")
    func live() {
        var session = server()
        let few = talk(7)
        #expect(frames(few, &session) == delivers(few))
    }

    @Test("What does not shrink goes as it is, and is not tried again for a while")
    func incompressible() {
        var batching = FrameBatching()
        var random = SeededRandom(seed: 1)
        func noise(_ count: Int) -> [Frame] {
            delivers(
                (1...UInt64(count)).map { offset in
                    var entry = entry(offset, "")
                    entry.payload = ByteBuffer(bytes: (0..<800).map { _ in UInt8.random(in: 0...255, using: &random) })
                    return entry
                })
        }
        let text = delivers(talk(20))
        for _ in 0..<3 {
            let noise = noise(15)
            #expect(batching.compress(noise, least: 8) == noise)
        }
        for _ in 0..<64 { #expect(batching.compress(text, least: 8).count == 20) }
        #expect(batching.compress(text, least: 8).count == 1)
    }

    @Test("What shrinks too little for one frame goes in halves")
    func halves() throws {
        var random = SeededRandom(seed: 2)
        // Digits and letters at random: to three quarters, and so over a frame of them.
        let alphabet = Array("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
        let entries = (1...60 as ClosedRange<UInt64>).map { offset in
            entry(offset, String((0..<480).map { _ in alphabet.randomElement(using: &random) ?? "a" }))
        }
        let run = delivers(entries)
        #expect(Batch(of: run) == nil)
        var batching = FrameBatching()
        let sent = batching.compress(run, least: 8)
        #expect(sent.count == 2)
        var taken: [Frame] = []
        for case .batch(let batch) in sent { taken += try batch.frames() }
        #expect(taken == run)
    }

    @Test("Absences go with what they stand between, and are not counted as entries")
    func absences() throws {
        var session = server()
        var items: [SessionPage.Item] = [.skip(Skip(previous: 0, to: 4, reason: .trimmed))]
        let (before, behind) = (talk(10, from: 5, by: ["bob", "carol"]), talk(10, from: 18, by: ["bob", "carol"]))
        items += before.map { .entry($0) }
        items.append(.skip(Skip(previous: 14, to: 17, reason: .expired)))
        items += behind.map { .entry($0) }
        session.pageRead(
            Fixture.inbox, page: SessionPage(epoch: Fixture.epoch, items: items, head: 500, first: 0), now: now)
        let sent = session.drain().frames.filter { if case .batch = $0 { true } else { false } }
        #expect(sent.count == 1)
        #expect(session.takeBatchedEntries() == 20)
        #expect(session.takeBatchedEntries() == 0)
        var client = client()
        _ = client.drain()
        for frame in sent { client.received(frame, lane: one, now: now) }
        let actions = client.drain()
        #expect(given(actions) == before + behind)
        #expect(actions.endCode == nil)
    }

    // MARK: The rules

    @Test("Nothing is compressed for who did not ask, where the server does not, or in another way than was asked for")
    func notAsked() {
        let asked: [(Bool, Encodings?)] = [
            (true, nil), (false, Encodings([.deflate])), (true, Encodings([])),
            (true, Encodings([BatchEncoding(rawValue: 2)])),
        ]
        for (compresses, asks) in asked {
            var session = server(compresses: compresses, asks: asks)
            let entries = talk(50)
            #expect(frames(entries, &session) == delivers(entries))
        }
        let few = (1...65).map { ChannelID.room(Fixture.name("r\($0)")) }
        var silent = self.client(plain: Set(few))
        #expect(!silent.drain().frames.contains { if case .encodings = $0 { true } else { false } })
        // The last word counts.
        var session = server()
        session.received(.encodings(Encodings([])), lane: .control, early: false, now: now)
        #expect(frames(talk(50), &session).count == 50)
        var client = client(accepts: false)
        #expect(!client.drain().frames.contains { if case .encodings = $0 { true } else { false } })
    }

    @Test("Nothing is compressed of a channel that the app excepts")
    func plainChannels() {
        var session = server(asks: Encodings([.deflate], plain: [Fixture.inbox]))
        let entries = talk(50)
        #expect(frames(entries, &session) == delivers(entries))
        var client = client(plain: [Fixture.inbox])
        #expect(client.drain().frames.contains(.encodings(Encodings([.deflate], plain: [Fixture.inbox]))))
    }

    @Test("What two users wrote is compressed apart: the length of one's says nothing about the other's")
    func apart() throws {
        /// The compressed size of bob's messages, beside what mallory wrote.
        func size(beside guess: String) throws -> Int {
            let secret = (1...10).map { entry(2 * $0 - 1, "the code of door \($0) is 8461-\($0 * 7919)") }
            let guesses = (1...10).map { entry(2 * $0, "\(guess) \($0)", by: "mallory") }
            let mixed = (secret + guesses).sorted { $0.offset < $1.offset }
            let batch = try #require(Batch(of: delivers(mixed)))
            #expect(batch.groups.map(\.count) == [10, 10])
            for (group, sender) in zip(batch.groups, ["bob", "mallory"]) {
                let alone = Batch(groups: [group])
                #expect(
                    try alone.frames().allSatisfy {
                        if case .deliver(let deliver) = $0 {
                            deliver.entry.sender == Fixture.user(sender)
                        } else {
                            false
                        }
                    })
            }
            return batch.groups[0].bytes.readableBytes
        }
        #expect(try size(beside: "the code of door 1 is 8461-7919") == size(beside: "qjxkwvbzpmfughoiydt rlscen"))
    }

    @Test("A batch holds nothing but whole entries and absences of one lane")
    func contents() throws {
        var large = entry(3, "x")
        large.following = 5
        for frame in [
            .deliver(Deliver(entry: large, redelivered: false)),
            .published(Published(id: 1, position: Self.nowhere, time: 0)),
            .gap(Gap(from: Self.nowhere, first: 2)), .ticket(Ticket(ticket: ByteBuffer(string: "secret"), expiry: 1)),
        ] as [Frame] {
            #expect(Batch(of: delivers(talk(20)) + [frame]) == nil, "\(frame.name)")
        }
        var session = server()
        let sent = frames(talk(20) + [entry(21, "x").head(0)] + talk(3, from: 22), &session)
        #expect(sent.map(\.name) == ["BATCH", "DELIVER"], "an entry in parts holds up what is behind it")
    }

    // MARK: Bad input

    private func batch() throws -> Batch { try #require(Batch(of: delivers(talk(20)))) }

    private func group(_ frames: [Frame], count: Int? = nil) throws -> Batch.Group {
        var bytes = ByteBuffer()
        for frame in frames { try FrameEncoder.encode(frame, into: &bytes) }
        return Batch.Group(compressing: bytes, count: count ?? frames.count)
    }

    @Test("A batch that is none closes with 5000, and nothing of it is given")
    func damaged() throws {
        let good = try batch()
        #expect(try good.frames() == delivers(talk(20)))
        func changed(_ change: (inout Batch.Group) -> Void) -> Batch {
            var batch = good
            change(&batch.groups[0])
            return batch
        }
        let gaps = try group((0..<20).map { _ in .gap(Gap(from: Self.nowhere, first: 2)) })
        let bad: [String: Batch] = [
            "shorter": changed { $0.length -= 1 }, "longer": changed { $0.length += 1 },
            "fewer": changed { $0.count -= 1 }, "more": changed { $0.count += 1 },
            "cut": changed { $0.bytes.moveWriterIndex(to: $0.bytes.writerIndex - 3) },
            "bytes behind": changed { $0.bytes.writeInteger(UInt8(0)) },
            "noise": changed { $0.bytes = ByteBuffer(repeating: 0xff, count: 40) },
            "not compressed": changed { $0.encoding = .identity },
            "encoding": changed { $0.encoding = BatchEncoding(rawValue: 9) },
            "gaps": Batch(groups: [gaps]),
            "two senders": Batch(groups: [try group(delivers(talk(20, by: ["bob", "carol"])))]),
            "one frame behind": Batch(groups: [try group(delivers(talk(21)), count: 20)]),
            "a batch": Batch(groups: [try group([.batch(good)])]),
            "a second group that is none": Batch(groups: good.groups + [try group(delivers(talk(3)), count: 2)]),
        ]
        for (name, batch) in bad {
            var session = client()
            _ = session.drain()
            session.received(.batch(batch), lane: one, now: now)
            let actions = session.drain()
            #expect(actions.endCode == .malformedFrame, "\(name)")
            #expect(actions.delivered.isEmpty, "\(name)")
        }
    }

    @Test("A batch that was not asked for, or inside another's payload, closes with 5002")
    func outOfPlace() throws {
        for var session in [client(accepts: false), client(plain: [Fixture.inbox])] {
            _ = session.drain()
            session.received(.batch(try batch()), lane: one, now: now)
            #expect(session.drain().endCode == .unexpectedFrame)
        }
        for batch in [try batch(), Batch(groups: [])] {
            var session = client()
            var large = entry(1, "x")
            large.following = 5
            session.received(.deliver(Deliver(entry: large, redelivered: false)), lane: one, now: now)
            session.received(.batch(batch), lane: one, now: now)
            #expect(session.drain().endCode == .unexpectedFrame)
        }
    }

    @Test("A bomb is stopped at the length it announced, and that is bounded before anything is decompressed")
    func bomb() throws {
        let zeros = Batch.Group(compressing: ByteBuffer(repeating: 0, count: 1_000_000), count: 1)
        #expect(zeros.bytes.readableBytes < 2_000)
        var small = zeros
        small.length = 100
        #expect(throws: FrameError.self) { try Batch(groups: [small]).frames() }
        // As announced it can't even be written, nor read.
        #expect(throws: FrameError.self) { try FrameEncoder.encodedSize(.batch(Batch(groups: [zeros]))) }
        #expect(Batch(of: delivers([entry(1, String(repeating: "x", count: 15_000))] + talk(2_000, from: 2))) == nil)
    }

    @Test("A chain that breaks inside a batch ends the link at the break")
    func brokenChain() throws {
        var session = client()
        _ = session.drain()
        let broken = try #require(Batch(of: delivers(talk(10) + talk(10, from: 30))))
        session.received(.batch(broken), lane: one, now: now)
        let actions = session.drain()
        #expect(actions.delivered == Array(1...10))
        #expect(actions.endCode == .internalError)
    }

    @Test("What is held before CONNECTED weighs what it holds before compression")
    func held() throws {
        var configuration = ClientSessionConfiguration()
        configuration.acceptsBatches = true
        configuration.maximumHeldBytes = 20_000
        var session = ClientSession(
            configuration: configuration, producer: Fixture.producer, cursors: [:], cursorVersion: 0)
        session.linkOpened(
            credential: .token("token"), connectNumber: 1, supportsPathChange: false, outbox: [], now: now)
        let batch = try #require(Batch(of: delivers(talk(150))))
        #expect(batch.length > 10_000 && batch.length < 20_000)
        session.received(.batch(batch), lane: one, now: now)
        #expect(session.drain().endCode == nil)
        session.received(.batch(batch), lane: one, now: now)
        #expect(session.drain().endCode == .internalError)
        // A group weighs as a frame does, and so does a channel that is excepted.
        let empty = Batch.Group(encoding: .identity, count: 0, length: 0, bytes: ByteBuffer())
        #expect(FrameCost.of(.batch(Batch(groups: Array(repeating: empty, count: 256)))) == 256 * 128)
        #expect(FrameCost.of(.encodings(Encodings([.deflate], plain: [Fixture.inbox, Fixture.room]))) == 3 * 128)
    }

    @Test("A client that asks in its first flight, before it is accepted, gets batches")
    func early() {
        var session = ServerSession(
            configuration: ServerSessionConfiguration(), observedAddress: "", now: now)
        session.received(.connect(Fixture.connect()), lane: .control, early: true, now: now)
        session.received(.encodings(Encodings([.deflate])), lane: .control, early: true, now: now)
        session.handshakeCompleted(now: now)
        session.authenticated(
            SessionGrant(
                identity: Fixture.identity(), session: 1, resumed: false, cursorVersion: 1,
                channels: [Fixture.channel(head: 500)], ticket: nil), time: 0, now: now)
        _ = session.drain()
        #expect(frames(talk(50), &session).map(\.name) == ["BATCH"])
    }
}
