import LonglineTestKit
import LonglineWire
import NIOCore
import Testing

@testable import LonglineClient

@Suite("Outbox")
struct OutboxTests {
    private static let producer = ProducerID(high: 1, low: 2)

    private func room(_ name: String) throws -> ChannelID { .room(try RoomID(name)) }

    private func add(_ outbox: inout Outbox, _ channel: ChannelID, _ text: String = "x") throws -> StoredPublish {
        try outbox.add(
            channel: channel, recipient: nil, timeToLive: 0, queuedAt: 0, tag: 9, payload: ByteBuffer(string: text),
            send: SendID(high: 0, low: outbox.lastID), attempted: false)
    }

    @Test("IDs grow over all channels, and each names the one before it in its channel")
    func chains() throws {
        var outbox = Outbox(producer: Self.producer)
        let (a, b) = (try room("a"), try room("b"))
        let rows = try [a, b, a, b, a].map { try add(&outbox, $0) }
        #expect(rows.map(\.id) == [1, 2, 3, 4, 5])
        #expect(rows.map(\.after) == [0, 0, 1, 2, 3])
    }

    @Test("an answered row frees its place but stays the end of its chain")
    func acknowledged() throws {
        var outbox = Outbox(producer: Self.producer)
        let a = try room("a")
        _ = try add(&outbox, a)
        #expect(outbox.acknowledge(1)?.id == 1)
        #expect(outbox.acknowledge(1) == nil)
        #expect(try add(&outbox, a).after == 1)
    }

    @Test("a given-up row leaves the chain, wherever it stood")
    func givenUp() throws {
        var outbox = Outbox(producer: Self.producer)
        let (a, b) = (try room("a"), try room("b"))
        for channel in [a, b, a, a] { _ = try add(&outbox, channel) }
        let givenUp = outbox.giveUp(3)
        let middle = try #require(givenUp)
        #expect(middle.rechained?.id == 4 && middle.rechained?.after == 1 && middle.chain == nil)
        let last = outbox.giveUp(4)
        let end = try #require(last)
        #expect(end.rechained == nil && end.chain == 1)
        #expect(try add(&outbox, a).after == 1)
        #expect(try add(&outbox, b).after == 2)
    }

    @Test("rows given up in any order leave a chain that names only rows that count", arguments: 1...20)
    func randomChains(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        var outbox = Outbox(producer: Self.producer)
        let channels = try [room("a"), room("b"), room("c")]
        var kept: [ChannelID: [PublishID]] = [:]
        for _ in 0..<400 {
            let channel = channels[Int.random(in: 0..<3, using: &random)]
            switch Int.random(in: 0..<4, using: &random) {
            case 0, 1: kept[channel, default: []].append(try add(&outbox, channel).id)
            case 2:
                if let row = outbox.inOrder.first(where: { $0.channel == channel }) { _ = outbox.acknowledge(row.id) }
            default:
                if let row = outbox.rows.values.filter({ $0.channel == channel }).randomElement(using: &random) {
                    #expect(outbox.giveUp(row.id) != nil)
                    kept[channel]?.removeAll { $0 == row.id }
                }
            }
        }
        for row in outbox.inOrder {
            let before = kept[row.channel]?.last { $0 < row.id } ?? 0
            #expect(row.after == before, "seed \(seed), row \(row.id)")
        }
        for channel in channels { #expect(outbox.chains[channel] ?? 0 == kept[channel]?.last ?? 0, "seed \(seed)") }
    }

    /// What giving up does by the rule, found by looking at every row.
    private func scanned(_ id: PublishID, in outbox: Outbox) -> Outbox.GivenUp? {
        guard let row = outbox.rows[id] else { return nil }
        var behind = outbox.inOrder.first { $0.channel == row.channel && $0.after == id }
        behind?.after = row.after
        return Outbox.GivenUp(
            row: row, rechained: behind, chain: outbox.chains[row.channel] == id ? row.after : nil)
    }

    @Test("giving up finds the row behind, after anything that can happen before", arguments: 1...30)
    func successors(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        var outbox = Outbox(producer: Self.producer)
        let channels = try [room("a"), room("b"), room("c")]
        for step in 0..<600 {
            let any = outbox.inOrder.randomElement(using: &random)?.id
            switch Int.random(in: 0..<20, using: &random) {
            case 0..<9: _ = try add(&outbox, channels[Int.random(in: 0..<3, using: &random)])
            case 9..<13: if let any { _ = outbox.acknowledge(any) }
            case 13..<18:
                guard let any else { continue }
                let expected = scanned(any, in: outbox)
                let givenUp = outbox.giveUp(any)
                #expect(givenUp == expected, "seed \(seed), step \(step)")
            case 18: _ = outbox.renew(producer: ProducerID(high: random.next(), low: 1), random: &random)
            default:
                // The process starts again.
                outbox = Outbox(
                    producer: outbox.producer, lastID: outbox.lastID, chains: outbox.chains,
                    rows: outbox.inOrder.shuffled(using: &random))
            }
        }
        while let any = outbox.inOrder.randomElement(using: &random)?.id {
            let expected = scanned(any, in: outbox)
            let givenUp = outbox.giveUp(any)
            #expect(givenUp == expected, "seed \(seed), at the end")
        }
    }

    @Test("a new producer numbers what waits from 1, in its order, with other tags")
    func renewed() throws {
        var random = SeededRandom(seed: 3)
        var outbox = Outbox(producer: Self.producer)
        let (a, b) = (try room("a"), try room("b"))
        for (index, channel) in [a, b, a, b, a].enumerated() { _ = try add(&outbox, channel, "\(index)") }
        _ = outbox.acknowledge(1)
        let renumbered = outbox.renew(producer: ProducerID(high: 3, low: 4), random: &random)
        #expect(renumbered == [2: 1, 3: 2, 4: 3, 5: 4])
        let rows = outbox.inOrder
        #expect(rows.map(\.id) == [1, 2, 3, 4])
        #expect(rows.map(\.after) == [0, 0, 1, 2])
        #expect(rows.map { String(buffer: $0.payload) } == ["1", "2", "3", "4"])
        #expect(rows.allSatisfy { $0.tag != 9 })
        let next = try add(&outbox, b)
        #expect(next.after == 3)
    }

    @Test("the limits are told apart by name")
    func limits() throws {
        var outbox = Outbox(
            producer: Self.producer, limits: OutboxLimits(messages: 3, bytes: 100, messagesPerChannel: 2))
        let (a, b) = (try room("a"), try room("b"))
        _ = try add(&outbox, a)
        _ = try add(&outbox, a)
        #expect(throws: ClientError.self) { try add(&outbox, a) }
        func code(_ body: () throws -> Void) -> ClientError.Code? {
            do { try body() } catch { return (error as? ClientError)?.code }
            return nil
        }
        #expect(code { _ = try add(&outbox, a) } == .channelFull)
        #expect(code { _ = try add(&outbox, b, String(repeating: "x", count: 99)) } == .outboxFull)
        let large = String(repeating: "x", count: FrameLimits.maximumWholePayload + 1)
        #expect(code { _ = try add(&outbox, b, large) } == .payloadTooLarge)
        _ = try add(&outbox, b)
        #expect(code { _ = try add(&outbox, b) } == .outboxFull)
        _ = outbox.acknowledge(1)
        _ = try add(&outbox, b)
    }

    @Test("a row is never numbered again, even when the counter was lost")
    func restored() throws {
        let row = StoredPublish(
            id: 7, tag: 1, after: 3, channel: try room("a"), recipient: nil, timeToLive: 0, queuedAt: 0,
            payload: ByteBuffer(), send: SendID(high: 1, low: 2), attempted: true)
        var outbox = Outbox(producer: Self.producer, lastID: 2, rows: [row])
        #expect(try add(&outbox, try room("a")).id == 8)
    }
}

@Suite("Hand-over queue")
struct HandOverQueueTests {
    @Test("what waits is bounded in number and in bytes, and the oldest goes first; one alone always waits")
    func bounds() async {
        let queue = HandOverQueue<Int>(limit: 3, bytes: 10, size: { $0 })
        #expect(queue.append(4) == 0)
        #expect(queue.append(5) == 0)
        #expect(queue.append(6) == 2)
        #expect(queue.append(1) == 0)
        #expect(queue.append(1) == 0)
        #expect(queue.append(1) == 1, "no more than three")
        #expect(queue.append(20) == 3)
        #expect(await queue.next(since: 0) == 20)
        #expect(queue.append(10) == 0, "what was read weighs nothing any more")
        #expect(queue.count == 1)
    }

    @Test("who waits until less is left is told once, and at once where it is")
    func fall() async {
        let (queue, told) = (HandOverQueue<Int>(size: { $0 }), Counter())
        queue.onFall { _ = told.increment() }
        for weight in [4, 3, 2, 1] { queue.append(weight) }
        #expect(await queue.next(since: 0) == 4)
        #expect(told.count == 0, "nobody waits for it")
        queue.awaitFall(to: 3)
        #expect(told.count == 0)
        #expect(await queue.next(since: 0) == 3)
        #expect(told.count == 1)
        #expect(await queue.next(since: 0) == 2)
        #expect(told.count == 1)
        queue.awaitFall(to: 1)
        #expect(told.count == 2)
    }

    @Test("a reader that was busy at its end has ended when it comes back, and what waits is for those who begin later")
    func lateReader() async {
        let queue = HandOverQueue<Int>()
        let first = queue.ends
        for element in 1...3 { queue.append(element) }
        queue.finish()
        queue.finish()
        #expect(await queue.next(since: first) == 1, "it had arrived")
        let second = queue.ends
        queue.reopen()
        #expect(await queue.next(since: first) == nil)
        #expect(await queue.next(since: second) == 2, "who begins after the end goes on, whenever that was")
        queue.finish()
        #expect(await queue.next(since: first) == nil, "two ends ago")
        #expect(await queue.next(since: second) == 3)
        #expect(await queue.next(since: second) == nil)
    }
}

@Suite("Confirmation ledger")
struct ConfirmationLedgerTests {
    private let channel: ChannelID

    init() throws { channel = .room(try RoomID("a")) }

    private func at(_ offset: Offset, epoch: Epoch = 1) -> Position { Position(epoch: epoch, offset: offset) }

    @Test("a place the app doesn't see waits for the messages before it")
    func hidden() {
        var ledger = ConfirmationLedger()
        #expect(ledger.passed(at(1), in: channel) == at(1))
        let first = ledger.delivered(at(2), in: channel)
        #expect(ledger.passed(at(3), in: channel) == nil)
        #expect(ledger.passed(at(4), in: channel) == nil)
        let second = ledger.delivered(at(5), in: channel)
        #expect(ledger.confirmed(.message(first), in: channel) == at(4))
        #expect(ledger.count == 1)
        #expect(ledger.confirmed(.message(second), in: channel) == at(5))
        #expect(ledger.count == 0)
    }

    @Test("a confirmation covers what came before it, and repeating it does nothing")
    func cumulative() {
        var ledger = ConfirmationLedger()
        let messages = (1...4).map { ledger.delivered(at($0), in: channel) }
        #expect(ledger.confirmed(.message(messages[2]), in: channel) == at(3))
        #expect(ledger.confirmed(.message(messages[2]), in: channel) == nil)
        #expect(ledger.confirmed(.message(messages[0]), in: channel) == nil)
        #expect(ledger.confirmed(.gap(MessageGap(from: at(3), upTo: at(4))), in: channel) == nil)
        #expect(ledger.confirmed(.message(messages[3]), in: channel) == at(4))
    }

    @Test("what is lost with a log's end is confirmed by nothing, and confirms nothing that stands there since")
    func lostEnd() {
        var ledger = ConfirmationLedger()
        let old = (1...3).map { ledger.delivered(at($0), in: channel) }
        #expect(!ledger.owesGap(in: channel))
        let gap = MessageGap(from: at(3), upTo: at(2))
        ledger.lost(gap, in: channel)
        let new = ledger.delivered(at(3), in: channel)
        #expect(ledger.confirmed(.message(old[2]), in: channel) == nil)
        #expect(ledger.confirmed(.message(old[1]), in: channel) == at(2))
        #expect(ledger.owesGap(in: channel))
        #expect(ledger.confirmed(.gap(gap), in: channel) == at(2))
        #expect(!ledger.owesGap(in: channel))
        #expect(ledger.confirmed(.gap(gap), in: channel) == nil)
        #expect(ledger.confirmed(.message(new), in: channel) == at(3))
        #expect(ledger.count == 0)
    }

    @Test("nothing of a log that was made anew is confirmed by what was there before it")
    func anotherEpoch() {
        var ledger = ConfirmationLedger()
        let old = ledger.delivered(at(1), in: channel)
        ledger.lost(MessageGap(from: at(1), upTo: at(0, epoch: 2)), in: channel)
        let new = ledger.delivered(at(1, epoch: 2), in: channel)
        #expect(ledger.confirmed(.message(old), in: channel) == nil)
        #expect(ledger.confirmed(.message(new), in: channel) == at(1, epoch: 2))
    }

    @Test("a gap is not confirmed by an older one at the same place")
    func gapsAtOnePlace() {
        var ledger = ConfirmationLedger()
        let gaps = [MessageGap(from: at(5), upTo: at(2)), MessageGap(from: at(3), upTo: at(2))]
        for gap in gaps { ledger.lost(gap, in: channel) }
        #expect(ledger.confirmed(.gap(gaps[0]), in: channel) == at(2))
        #expect(ledger.owesGap(in: channel))
        #expect(ledger.confirmed(.gap(gaps[1]), in: channel) == at(2))
        #expect(!ledger.owesGap(in: channel))
    }

    @Test("places the app doesn't see are confirmed by themselves where another process confirmed all before them")
    func hiddenBehindConfirmed() throws {
        var ledger = ConfirmationLedger()
        let other = ChannelID.room(try RoomID("b"))
        ledger.lost(MessageGap(from: at(0), upTo: at(1)), in: channel)
        for offset in [Offset(2), 3] { #expect(ledger.passed(at(offset), in: channel) == nil) }
        let message = ledger.delivered(at(4), in: channel)
        #expect(ledger.passed(at(5), in: channel) == nil)
        _ = ledger.delivered(at(1), in: other)
        #expect(ledger.passed(at(2), in: other) == nil)
        let reached = ledger.keep { position, channel in channel == other || position.offset > 1 }
        #expect(reached == [channel: at(3)])
        #expect(ledger.count == 4)
        #expect(ledger.confirmed(.message(message), in: channel) == at(5))
    }
}
