import LonglineSession
import LonglineWire
import NIOCore
import Testing

@testable import LonglineTestKit

/// What the simulation notices of messages of the app's own server.
@Suite("The watch over what the app's own server publishes")
struct ServiceWatchTests {
    private static var order: ServiceOrder {
        ServiceOrder(
            number: 7, sender: Fixture.user("shop"), channel: Fixture.room, payload: ByteBuffer(integer: UInt64(7)))
    }

    private static func place(_ offset: Offset) -> ChannelPosition {
        ChannelPosition(channel: Fixture.room, position: Position(epoch: Fixture.epoch, offset: offset))
    }

    /// The truth when the message was entered, so many times.
    private static func entered(_ count: UInt64) -> Truth {
        var truth = Truth()
        for offset in 1...count {
            var entry = Fixture.entry(offset, after: offset - 1)
            entry.sender = order.sender
            entry.payload = order.payload
            _ = truth.enter(entry, at: place(offset).position, in: Fixture.room)
        }
        return truth
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
}
