import LonglineSession
import LonglineWire
import NIOCore
import Testing

@testable import LonglineTestKit

/// What the simulation notices of messages of the app's own server.
@Suite("The watch over what the app's own server publishes")
struct ServiceWatchTests {
    private static var order: ServiceOrder { message(7) }

    private static func message(_ number: UInt64, in channel: ChannelID = Fixture.room) -> ServiceOrder {
        ServiceOrder(
            number: number, sender: Fixture.user("shop"), channel: channel, payload: ByteBuffer(integer: number))
    }

    private static func place(_ offset: Offset) -> ChannelPosition {
        ChannelPosition(channel: Fixture.room, position: Position(epoch: Fixture.epoch, offset: offset))
    }

    /// The truth when the message was entered, so many times.
    private static func entered(_ count: UInt64) -> Truth {
        var truth = Truth()
        for _ in 1...count { enter(order, in: &truth) }
        return truth
    }

    /// Enters a message behind the last entry of a log.
    /// - Parameter origin: where its record stands, for a copy.
    @discardableResult
    private static func enter(
        _ order: ServiceOrder, in truth: inout Truth, at channel: ChannelID? = nil, origin: Position? = nil
    ) -> Entry {
        let channel = channel ?? order.log
        let last = truth.logs[channel]?.head.offset ?? 0
        var entry = Fixture.entry(last + 1, after: last)
        entry.sender = order.sender
        entry.payload = order.payload
        entry.recipient = origin == nil ? order.recipient : nil
        entry.origin = origin
        _ = truth.enter(entry, at: place(last + 1).position, in: channel)
        return entry
    }

    private static func watch() -> ServiceWatch {
        var watch = ServiceWatch()
        watch.ordered(order)
        return watch
    }

    @Test("One answer, given as often as it is asked for, is right, and another is not")
    func noticesAnotherAnswer() {
        var watch = Self.watch()
        let truth = Self.entered(1)
        for _ in 1...2 { #expect(watch.answered(Self.order, .entered(Self.place(1)), truth: truth) == nil) }
        #expect(watch.answered(Self.order, .later, truth: truth) == nil)
        #expect(watch.problems(truth: truth).isEmpty)
        #expect(watch.answered(Self.order, .entered(Self.place(2)), truth: truth) != nil)
        #expect(watch.answered(Self.order, .unknown, truth: truth) != nil)
        #expect(watch.answered(Self.order, .refused(.blocked), truth: truth) != nil)
    }

    @Test("An answer that names another place is wrong at once")
    func noticesWrongPlace() {
        var watch = Self.watch()
        #expect(watch.answered(Self.order, .entered(Self.place(2)), truth: Self.entered(1)) != nil)
    }

    @Test("Twice in the log, not in it, or without an answer is a broken promise")
    func noticesWrongCount() {
        var watch = Self.watch()
        #expect(watch.problems(truth: Self.entered(1)).count == 1, "no answer")
        _ = watch.answered(Self.order, .entered(Self.place(1)), truth: Self.entered(1))
        #expect(watch.problems(truth: Self.entered(1)).isEmpty)
        #expect(watch.problems(truth: Self.entered(2)).count == 1)
        #expect(watch.problems(truth: Truth()).count == 1)
    }

    @Test("What was answered about an erased user nobody may know any more")
    func noticesKeptAnswers() {
        var watch = Self.watch()
        let truth = Self.entered(1)
        _ = watch.answered(Self.order, .entered(Self.place(1)), truth: truth)
        watch.erasureResolved(Self.order.sender)
        #expect(watch.answered(Self.order, .entered(Self.place(1)), truth: truth) == nil, "it is not over yet")
        #expect(watch.answered(Self.order, .unknown, truth: truth) == nil)
        watch.erased(Self.order.sender)
        #expect(watch.answered(Self.order, .unknown, truth: truth) == nil)
        #expect(watch.answered(Self.order, .entered(Self.place(1)), truth: truth) != nil)
    }

    @Test("Of what was asked for before the store was replaced nothing is certain, and of what came later everything")
    func excusesReplacement() {
        var watch = Self.watch()
        let first = ServiceAnswer.entered(Self.place(1))
        _ = watch.answered(Self.order, first, truth: Self.entered(1))
        watch.storeReplaced()
        #expect(watch.problems(truth: Truth()).isEmpty)
        #expect(watch.answered(Self.order, first, truth: Truth()) == nil)
        #expect(watch.answered(Self.order, .entered(Self.place(2)), truth: Truth()) == nil)
        #expect(watch.answered(Self.order, .unknown, truth: Truth()) == nil)
        #expect(watch.problems(truth: Truth()).isEmpty)

        let later = Self.message(8)
        watch.ordered(later)
        #expect(watch.problems(truth: Truth()).count == 1, "no answer")
        #expect(watch.answered(later, first, truth: Truth()) != nil, "it is not there")
        #expect(watch.answered(later, .unknown, truth: Truth()) != nil)
        #expect(watch.answered(later, .entered(Self.place(2)), truth: Truth()) != nil)
        #expect(watch.problems(truth: Truth()).count == 1, "it is gone")
    }

    @Test("A direct message has one copy, unless a block kept it back")
    func countsCopies() {
        let recipient = ChannelID.user(Fixture.user("bob"))
        let order = Self.message(7, in: recipient)
        var watch = ServiceWatch()
        watch.ordered(order)
        var bare = Truth()
        let record = Self.enter(order, in: &bare)
        let place = Self.place(1).position
        #expect(
            watch.answered(order, .entered(ChannelPosition(channel: order.log, position: place)), truth: bare) == nil)
        #expect(watch.problems(truth: bare).count == 1, "no copy")
        var copied = bare
        Self.enter(order, in: &copied, at: recipient, origin: place)
        #expect(watch.problems(truth: copied).isEmpty)
        bare.withhold(copyOf: record, at: place)
        #expect(watch.problems(truth: bare).isEmpty)
        copied.withhold(copyOf: record, at: place)
        #expect(watch.problems(truth: copied).count == 1, "a copy in spite of the block")
        Self.enter(order, in: &bare, at: Fixture.inbox, origin: place)
        #expect(watch.problems(truth: bare).count == 2, "a copy that nobody is owed, in somebody else's inbox")
    }

    @Test("A message that stands in another log is noticed")
    func noticesWrongLog() {
        var watch = Self.watch()
        var truth = Truth()
        Self.enter(Self.order, in: &truth, at: Fixture.inbox)
        let place = ChannelPosition(channel: Fixture.inbox, position: Self.place(1).position)
        #expect(watch.answered(Self.order, .entered(place), truth: truth) != nil)
        #expect(watch.problems(truth: truth).count == 1)
    }

    @Test("A message that is not what was published is noticed")
    func noticesChangedPayload() {
        var watch = Self.watch()
        var changed = Self.order.payload
        changed.writeInteger(UInt8(1))
        var truth = Truth()
        Self.enter(
            ServiceOrder(number: 7, sender: Self.order.sender, channel: Fixture.room, payload: changed), in: &truth)
        #expect(watch.answered(Self.order, .entered(Self.place(1)), truth: truth) == nil)
        #expect(watch.problems(truth: truth).count == 1)
    }

    /// Messages of one sender, and the truth behind the entries of all of them but for the first, by growing numbers from 1 on.
    private static func overtaken(by count: Int) -> (watch: ServiceWatch, truth: Truth) {
        var watch = Self.watch()
        var truth = Truth()
        for number in 8..<8 + UInt64(count) {
            watch.ordered(message(number))
            enter(message(number), in: &truth)
        }
        return (watch, truth)
    }

    @Test("Nobody knows what became of a message once the ledger has forgotten it, and not before")
    func excusesForgottenLedger() {
        var watch = Self.watch()
        var truth = Self.entered(1)
        watch.asked(Self.order, as: 1)
        let others = (8..<8 + UInt64(SimulatedStore.remembered)).map { Self.message($0) }
        // What a device of the same user publishes is in another ledger.
        for number in 1_000..<1_000 + UInt64(SimulatedStore.remembered) { Self.enter(Self.message(number), in: &truth) }
        for other in others.dropLast() {
            watch.ordered(other)
            Self.enter(other, in: &truth)
        }
        var early = watch
        #expect(early.answered(Self.order, .unknown, truth: truth) != nil)
        for other in others.suffix(1) {
            watch.ordered(other)
            Self.enter(other, in: &truth)
        }
        #expect(watch.answered(Self.order, .unknown, truth: truth) == nil)
    }

    @Test("The ledger forgets the lowest numbers first, whether it entered the message or not")
    func excusesLowestNumbersAlone() {
        // One more than is remembered, of which the first one's number is 1.
        let (unnumbered, truth) = Self.overtaken(by: SimulatedStore.remembered + 1)
        var unasked = unnumbered
        #expect(unasked.answered(Self.order, .unknown, truth: truth) != nil, "the ledger was not asked for it")
        var later = unnumbered
        later.asked(Self.order, as: 2)
        #expect(later.answered(Self.order, .unknown, truth: truth) != nil, "the ledger remembers back to its number")
        var first = unnumbered
        first.asked(Self.order, as: 1)
        #expect(first.answered(Self.order, .unknown, truth: truth) == nil)
    }

    @Test("Nobody asks any more for a message whose key is forgotten, and for a later one somebody does")
    func excusesExpiredKeys() {
        var watch = Self.watch()
        watch.keysExpired()
        #expect(watch.problems(truth: Truth()).isEmpty)
        #expect(watch.problems(truth: Self.entered(1)).isEmpty)
        #expect(watch.problems(truth: Self.entered(2)).count == 1, "it is entered once all the same")
        watch.ordered(Self.message(8))
        #expect(watch.problems(truth: Truth()).count == 1, "no answer")
    }

    @Test("A message to a room that is gone is refused, and to one that is there it is not")
    func excusesSweptRooms() {
        var gone = Self.watch()
        #expect(gone.answered(Self.order, .refused(.unknownChannel), truth: Truth()) == nil)
        var there = Self.watch()
        var truth = Truth()
        Self.enter(Self.message(8), in: &truth)
        #expect(there.answered(Self.order, .refused(.unknownChannel), truth: truth) != nil)
    }
}
