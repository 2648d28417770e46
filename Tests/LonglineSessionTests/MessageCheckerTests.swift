import LonglineSession
import LonglineWire
import NIOCore
import Testing

@testable import LonglineTestKit

/// What the simulation's checker has to find by itself: most of what no model of a server or client can be made to do.
@Suite("The checker of the simulation")
struct MessageCheckerTests {
    private static let number: UInt64 = 7
    private static let place = Position(epoch: Fixture.epoch, offset: 1)
    private static var app: MessageChecker.App {
        MessageChecker.App(number: 0, user: Fixture.user("alice"), device: Fixture.identity().device)
    }

    private static var publish: Publish {
        var publish = Fixture.publish(1)
        publish.payload = ByteBuffer(integer: number)
        return publish
    }

    /// A checker that knows of one publish into alice's inbox.
    private static func checker() -> MessageChecker {
        var checker = MessageChecker()
        checker.published(
            OutboxRow(channel: Fixture.inbox, publish: publish, queuedAt: Fixture.start), by: app, at: Fixture.start)
        return checker
    }

    /// The truth when that publish was entered.
    private static func entered() -> Truth {
        var entry = Fixture.entry(1, after: 0)
        entry.sender = app.user
        entry.payload = publish.payload
        var truth = Truth()
        _ = truth.enter(entry, at: place, in: Fixture.inbox)
        return truth
    }

    @Test("One answer, given as often as it is asked for, is no violation")
    func takesOneAnswer() {
        var checker = Self.checker()
        let truth = Self.entered()
        checker.acknowledged(Self.number, at: Self.place, in: Fixture.inbox, truth: truth)
        checker.acknowledged(Self.number, at: Self.place, in: Fixture.inbox, truth: truth)
        checker.finish(apps: [], cursors: [:], truth: truth)
        #expect(checker.violations.isEmpty)
    }

    @Test("An acknowledgement to an account that was erased since is right where its inbox had the message")
    func looksIntoErasedInbox() {
        var checker = Self.checker()
        var truth = Self.entered()
        checker.erasing(Self.app.user, apps: [Self.app])
        truth.forget(Self.app.user, [Self.app.device])
        checker.acknowledged(Self.number, at: Self.place, in: Fixture.inbox, truth: truth)
        #expect(checker.violations.isEmpty)
        var other = Self.place
        other.offset += 1
        checker.acknowledged(Self.number, at: other, in: Fixture.inbox, truth: truth)
        #expect(checker.violations.count == 1)
        other = Self.place
        other.epoch += 1
        checker.acknowledged(Self.number, at: other, in: Fixture.inbox, truth: truth)
        #expect(checker.violations.count == 2)
    }

    @Test("A refusal behind an acknowledgement is one")
    func noticesRefusalOfAcknowledged() {
        var checker = Self.checker()
        let truth = Self.entered()
        checker.acknowledged(Self.number, at: Self.place, in: Fixture.inbox, truth: truth)
        checker.refused(Self.number, .outcomeUnknown)
        #expect(checker.violations.isEmpty, "which denies nothing")
        checker.refused(Self.number, .forbidden)
        #expect(checker.violations.count == 1)
    }

    @Test("An acknowledgement behind a refusal is one")
    func noticesAcknowledgementOfRefused() {
        var checker = Self.checker()
        let truth = Self.entered()
        checker.refused(Self.number, .forbidden)
        checker.acknowledged(Self.number, at: Self.place, in: Fixture.inbox, truth: truth)
        #expect(checker.violations.count == 1)
        checker.finish(apps: [], cursors: [:], truth: truth)
        #expect(checker.violations.count == 2, "it was refused, and is there")
    }

    @Test("What an outbox renumbered may be entered again by a state from before that, and nothing else")
    func knowsRenumbering() {
        var truth = Self.entered()
        var again = Fixture.entry(2, after: 1)
        again.sender = Self.app.user
        again.producer = ProducerID(high: 1, low: 3)
        again.payload = Self.publish.payload
        _ = truth.enter(again, at: Position(epoch: Fixture.epoch, offset: 2), in: Fixture.inbox)
        for isRenumbered in [false, true] {
            var checker = Self.checker()
            if isRenumbered { checker.renumbered([Self.number], from: Fixture.producer, to: again.producer) }
            checker.forgot(Self.app, kept: [Self.number], under: Fixture.producer)
            checker.restarted(Self.app, cursors: [:], isOlder: true)
            checker.finish(apps: [], cursors: [:], truth: truth)
            #expect(checker.violations.count == (isRenumbered ? 0 : 1))
        }
    }

    @Test("Restored to that state, an outbox enters it once, whatever producers it draws then")
    func noticesDoublesOfRenumbered() {
        var truth = Self.entered()
        var again = Fixture.entry(2, after: 1)
        again.sender = Self.app.user
        again.producer = ProducerID(high: 1, low: 3)
        again.payload = Self.publish.payload
        _ = truth.enter(again, at: Position(epoch: Fixture.epoch, offset: 2), in: Fixture.inbox)
        var checker = Self.checker()
        checker.renumbered([Self.number], from: Fixture.producer, to: ProducerID(high: 1, low: 2))
        checker.forgot(Self.app, kept: [Self.number], under: Fixture.producer)
        checker.restarted(Self.app, cursors: [:], isOlder: true)
        checker.renumbered([Self.number], from: Fixture.producer, to: again.producer)
        checker.finish(apps: [], cursors: [:], truth: truth)
        #expect(checker.violations.count == 1)
    }

    @Test("A message that a backup brings back has to be answered, though it was given up before")
    func noticesRestoredWithoutAnswer() {
        for isBack in [false, true] {
            var checker = Self.checker()
            checker.forgot(Self.app, kept: [], under: ProducerID(high: 1, low: 3))
            checker.restarted(Self.app, cursors: [:], isOlder: true)
            if isBack {
                checker.forgot(Self.app, kept: [Self.number], under: Fixture.producer)
                checker.restarted(Self.app, cursors: [:], isOlder: true)
            }
            checker.finish(apps: [Self.app], cursors: [:], truth: Truth())
            #expect(checker.violations.count == (isBack ? 1 : 0))
        }
    }

    @Test("What went with the store may be refused by the next one, until that acknowledges it")
    func knowsLostStores() {
        var checker = Self.checker()
        let truth = Self.entered()
        checker.acknowledged(Self.number, at: Self.place, in: Fixture.inbox, truth: truth)
        checker.lost([Self.number], truth: Truth())
        var other = checker
        other.refused(Self.number, .forbidden)
        #expect(other.violations.isEmpty)
        checker.acknowledged(Self.number, at: Self.place, in: Fixture.inbox, truth: truth)
        checker.refused(Self.number, .forbidden)
        #expect(checker.violations.count == 1)
    }

    @Test("Nothing of one user leaves, stands in a log or names a place as another's")
    func noticesWhatIsAnothers() {
        let bob = MessageChecker.App(number: 1, user: Fixture.user("bob"), device: Self.app.device)
        var checker = Self.checker()
        checker.sent(Self.publish, isStored: true, by: Self.app, at: Fixture.start)
        checker.connects([ChannelPosition(channel: Fixture.inbox, position: Self.place)], by: Self.app)
        #expect(checker.violations.isEmpty)
        checker.sent(Self.publish, isStored: true, by: bob, at: Fixture.start)
        #expect(checker.violations.count == 1)
        checker.connects([ChannelPosition(channel: Fixture.inbox, position: Self.place)], by: bob)
        #expect(checker.violations.count == 2)
        var entry = Fixture.entry(1, after: 0)
        (entry.sender, entry.payload) = (bob.user, Self.publish.payload)
        var truth = Truth()
        _ = truth.enter(entry, at: Self.place, in: Fixture.inbox)
        checker.finish(apps: [], cursors: [:], truth: truth)
        #expect(checker.violations.count == 3)
    }

    @Test("Who shares a device's name has neither its cursors nor its beginning")
    func tellsUsersOfOneDeviceApart() {
        let bob = MessageChecker.App(number: 1, user: Fixture.user("bob"), device: Self.app.device)
        var checker = Self.checker()
        checker.acknowledges(Self.place, in: Fixture.room, by: Self.app)
        checker.storesCursor(Self.place, in: Fixture.room, of: Self.app.name)
        #expect(checker.violations.isEmpty)
        checker.storesCursor(Self.place, in: Fixture.room, of: bob.name)
        #expect(checker.violations.count == 1)
    }
}
