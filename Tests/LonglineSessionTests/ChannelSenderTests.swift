import LonglineWire
import Testing

@testable import LonglineSession

/// Where sending starts, and how it goes on.
@Suite("Channel sender")
struct ChannelSenderTests {
    private let epoch = Fixture.epoch

    private func cursor(_ offset: Offset, epoch: Epoch = Fixture.epoch) -> Position {
        Position(epoch: epoch, offset: offset)
    }

    @Test("A device without a cursor is told where the log begins for it")
    func fresh() {
        #expect(ChannelSender(Fixture.channel(head: 9)).notice == nil)
        let trimmed = ChannelSender(Fixture.channel(head: 9, first: 4))
        #expect(trimmed.recovery == .fresh)
        #expect(trimmed.notice == .skip(Skip(previous: 0, to: 4, reason: .trimmed)))
        let joined = ChannelSender(Fixture.channel(head: 9, first: 2, after: 5))
        #expect(joined.notice == .skip(Skip(previous: 0, to: 5, reason: .notEntitled)))
    }

    @Test("A cursor within the log goes on silently; one behind it, beyond it or of another epoch is a gap")
    func recovery() {
        let within = ChannelSender(Fixture.channel(head: 9, first: 4, cursor: cursor(4)))
        #expect(within.recovery == .recovered && within.notice == nil && within.sent == 4)
        let behind = ChannelSender(Fixture.channel(head: 9, first: 4, cursor: cursor(3)))
        #expect(behind.recovery == .gap)
        #expect(behind.notice == .gap(Gap(from: cursor(3), first: 4)))
        let beyond = ChannelSender(Fixture.channel(head: 9, cursor: cursor(12)))
        #expect(beyond.notice == .gap(Gap(from: cursor(12), first: 9)))
        let other = ChannelSender(Fixture.channel(head: 9, first: 4, cursor: cursor(7, epoch: 1)))
        #expect(other.notice == .gap(Gap(from: cursor(7, epoch: 1), first: 4)))
    }

    @Test("A stay ends with the first of what ends it, in whatever order that is told")
    func firstEnd() {
        for ends in [[5, 8], [8, 5], [5, nil]] as [[Offset?]] {
            var sender = ChannelSender(Fixture.channel(head: 9, after: 2, cursor: cursor(3)))
            for end in ends {
                let isNewLog = sender.change(Fixture.channel(head: 9, after: 2, upTo: end))
                #expect(!isNewLog)
            }
            #expect(sender.upTo == 5)
        }
    }

    @Test("A cursor from before a new membership skips what lies between, unless that was trimmed away")
    func rejoined() {
        let sender = ChannelSender(Fixture.channel(head: 9, after: 6, cursor: cursor(3)))
        #expect(sender.recovery == .recovered)
        #expect(sender.notice == .skip(Skip(previous: 3, to: 6, reason: .notEntitled)))
        let trimmed = ChannelSender(Fixture.channel(head: 9, first: 7, after: 6, cursor: cursor(3)))
        #expect(trimmed.notice == .gap(Gap(from: cursor(3), first: 7)))
    }

    @Test("Entries that may have reached the device before are marked")
    func redelivered() {
        func marks(sent: Offset?) -> [Bool] {
            var sender = ChannelSender(Fixture.channel(head: 5, cursor: cursor(0), sent: sent))
            _ = sender.startRead(window: 10_000, readBytes: 1_000)
            sender.advanced(to: cursor(7))
            guard
                case .send(let frames) = sender.take(
                    Fixture.page([3, 5, 7]), window: 10_000, user: Fixture.user("alice"))
            else { return [] }
            return frames.compactMap { if case .deliver(let deliver) = $0 { deliver.redelivered } else { nil } }
        }
        #expect(marks(sent: 0) == [false, false, false])
        #expect(marks(sent: 3) == [true, false, false])
        // Unknown: everything that was in the log at the connect.
        #expect(marks(sent: nil) == [true, true, false])
    }

    @Test("An acknowledgement ahead of what was sent moves the sender, and a read from before it is dropped")
    func overtaken() {
        var sender = ChannelSender(Fixture.channel(head: 9, cursor: cursor(0)))
        #expect(sender.startRead(window: 1_000, readBytes: 1_000)?.after == 0)
        guard case .moved = sender.acknowledge(7) else { return #expect(Bool(false)) }
        guard case .send(let frames) = sender.take(Fixture.page([3, 7, 9]), window: 1_000, user: Fixture.user("alice"))
        else {
            return #expect(Bool(false))
        }
        #expect(frames.isEmpty)
        #expect(sender.startRead(window: 1_000, readBytes: 1_000)?.after == 7)
    }

    @Test("Of a gap whose place the device acknowledges before it leaves nothing is sent, and nothing waits for it")
    func knownGap() {
        var sender = ChannelSender(Fixture.channel(head: 9, cursor: cursor(12)))
        guard case .moved = sender.acknowledge(9) else { return #expect(Bool(false)) }
        #expect(sender.takeNotice(window: 1_000) == nil)
        #expect(sender.isIdle && sender.unacknowledgedBytes == 0)
    }

    @Test("A place between two entries is as good as the one before it")
    func placesBetween() {
        func page(_ sender: inout ChannelSender, _ page: SessionPage) -> [Frame]? {
            _ = sender.startRead(window: 10_000, readBytes: 1_000)
            guard case .send(let frames) = sender.take(page, window: 10_000, user: Fixture.user("alice")) else {
                return nil
            }
            return frames
        }
        // What follows continues from where the device says it stands, or the device would find the chain broken.
        var named = ChannelSender(Fixture.channel(head: 9, cursor: cursor(4)))
        let entry = Fixture.entry(9, after: 4)
        #expect(page(&named, Fixture.page([9], after: 3)) == [.deliver(Deliver(entry: entry, redelivered: false))])
        var skipped = ChannelSender(Fixture.channel(head: 9, cursor: cursor(4)))
        let skip = Skip(previous: 3, to: 6, reason: .expired)
        #expect(
            page(&skipped, SessionPage(epoch: Fixture.epoch, items: [.skip(skip)], head: 9, first: 0))
                == [.skip(Skip(previous: 4, to: 6, reason: .expired))])
        var confirmed = ChannelSender(Fixture.channel(head: 9, cursor: cursor(0)))
        guard case .moved = confirmed.acknowledge(4) else { return #expect(Bool(false)) }
        #expect(page(&confirmed, Fixture.page([9], after: 3))?.count == 1)
        // Where something is missing between, nothing is sent.
        var holed = ChannelSender(Fixture.channel(head: 9, cursor: cursor(4)))
        #expect(page(&holed, Fixture.page([9], after: 5)) == nil)
    }

    @Test("What is trimmed while sending is a gap")
    func trimmedUnderWay() {
        var sender = ChannelSender(Fixture.channel(head: 9, cursor: cursor(2)))
        _ = sender.startRead(window: 1_000, readBytes: 1_000)
        guard
            case .send(let frames) = sender.take(
                Fixture.page([9], after: 6, first: 6), window: 1_000, user: Fixture.user("alice"))
        else {
            return #expect(Bool(false))
        }
        #expect(frames.first == .gap(Gap(from: cursor(2), first: 6)))
        #expect(frames.count == 2 && sender.sent == 9)
    }

    @Test("What is trimmed behind a stay's end is no loss: the device is told no more than that end")
    func trimmedBeyondTheEnd() {
        let begun = ChannelSender(Fixture.channel(head: 9, first: 8, upTo: 5, cursor: cursor(2)))
        #expect(begun.notice == .gap(Gap(from: cursor(2), first: 5)) && begun.sent == 5)
        let fresh = ChannelSender(Fixture.channel(head: 9, first: 8, upTo: 5))
        #expect(fresh.notice == .skip(Skip(previous: 0, to: 5, reason: .trimmed)))

        var sender = ChannelSender(Fixture.channel(head: 9, cursor: cursor(2)))
        _ = sender.startRead(window: 1_000, readBytes: 1_000)
        // The stay ends, and another one begins, while the log is read that is trimmed meanwhile.
        #expect(sender.change(Fixture.channel(head: 9, upTo: 5)) == false)
        #expect(sender.change(Fixture.channel(head: 9, after: 7)) == false)
        guard
            case .send(let frames) = sender.take(
                Fixture.page([9], after: 6, first: 6), window: 1_000, user: Fixture.user("alice"))
        else {
            return #expect(Bool(false))
        }
        #expect(frames == [.gap(Gap(from: cursor(2), first: 5))])
        #expect(sender.notice == .skip(Skip(previous: 5, to: 7, reason: .notEntitled)))
    }

    @Test("Nothing beyond the leave entry, and the end of one stay goes before the next")
    func stays() {
        var sender = ChannelSender(Fixture.channel(head: 9, cursor: cursor(2)))
        #expect(sender.change(Fixture.channel(head: 9, upTo: 5)) == false)
        #expect(sender.change(Fixture.channel(head: 9, after: 7)) == false)
        _ = sender.startRead(window: 1_000, readBytes: 1_000)
        guard
            case .send(let frames) = sender.take(
                Fixture.page([4, 5, 8], after: 2, head: 9), window: 1_000, user: Fixture.user("alice"))
        else {
            return #expect(Bool(false))
        }
        #expect(frames.count == 2 && sender.sent == 7)
        #expect(sender.notice == .skip(Skip(previous: 5, to: 7, reason: .notEntitled)))
    }

    @Test("An answer without entries ends the reading, unless a wake came after it was read")
    func emptyPage() {
        var sender = ChannelSender(Fixture.channel(head: 9, cursor: cursor(2)))
        _ = sender.startRead(window: 1_000, readBytes: 1_000)
        sender.advanced(to: cursor(11))
        _ = sender.take(Fixture.page([], after: 2, head: 9), window: 1_000, user: Fixture.user("alice"))
        #expect(sender.hasMore)
        _ = sender.startRead(window: 1_000, readBytes: 1_000)
        _ = sender.take(Fixture.page([], after: 2, head: 11), window: 1_000, user: Fixture.user("alice"))
        #expect(!sender.hasMore)
    }
}
