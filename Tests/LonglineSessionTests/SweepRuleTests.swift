import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import Testing

@testable import LonglineTestKit

/// What the simulation expects of a sweep, and of what comes behind it.
@Suite("Sweeps in the simulation")
struct SweepRuleTests {
    private static let number: UInt64 = 7
    private static var alice: UserID { Fixture.user("alice") }
    private static var bob: UserID { Fixture.user("bob") }
    private static var phone: DeviceID { Fixture.identity().device }
    private static var app: MessageChecker.App { MessageChecker.App(number: 0, user: alice, device: phone) }

    /// A store with a clock, and what it complained of.
    private final class Run {
        let wall = WallTime()
        let store: SimulatedStore
        private(set) var violations: [String] = []
        private var connects: UInt64 = 0

        init(_ faults: Set<SimulatedFault> = []) {
            wall.set(1_000_000_000_000)
            store = SimulatedStore(
                tenant: Fixture.identity().tenant, wall: wall, random: SeededRandom(seed: 1), faults: faults)
            store.violation = { [unowned self] in violations.append($0) }
        }

        func connect(_ user: UserID) {
            connects += 1
            _ = store.admit(user, SweepRuleTests.phone, producer: Fixture.producer, connectNumber: connects)
        }

        /// Alice and bob are there, bob has a message of hers, and retention takes it.
        func begin() {
            for user in [SweepRuleTests.alice, SweepRuleTests.bob] { connect(user) }
            var publish = Fixture.publish(1)
            publish.recipient = SweepRuleTests.bob
            _ = store.append(
                publish, channel: Fixture.inbox, user: SweepRuleTests.alice, device: SweepRuleTests.phone,
                producer: Fixture.producer)
            store.trim(.user(SweepRuleTests.bob), keep: Retention(entries: 0))
        }

        func passHalfYear() { wall.set(wall.milliseconds + SimulatedStore.unseen + 1) }

        func sweep() -> SweepReport {
            var report = SweepReport()
            repeat { report.add(store.sweep(from: report.next)) } while report.next != nil
            return report
        }
    }

    // MARK: What it takes

    @Test("What nobody used for half a year goes, and nothing else")
    func takesUnused() {
        let run = Run()
        run.begin()
        #expect(run.sweep() == SweepReport())
        run.passHalfYear()
        run.connect(Self.alice)
        #expect(run.sweep() == SweepReport(devices: 1, channels: 1))
        #expect(run.violations.isEmpty)
        #expect(run.store.truth.lives == [.user(Self.bob): 1])
        #expect(run.store.truth.eras == [Self.bob: [Self.phone: 1]])
    }

    @Test("A sweep that takes what is in use is noticed")
    func noticesUsed() {
        let run = Run([.sweepUsed])
        run.begin()
        run.passHalfYear()
        run.connect(Self.alice)
        run.connect(Self.bob)
        _ = run.sweep()
        #expect(!run.violations.isEmpty)
    }

    @Test("A sweep that leaves what nobody used is noticed")
    func noticesUnused() {
        let run = Run()
        run.begin()
        run.passHalfYear()
        run.connect(Self.alice)
        run.connect(Self.bob)
        let device = run.store.key(Self.bob, Self.phone)
        run.store.truth.uses[device]?.device = Use()
        _ = run.sweep()
        #expect(run.violations.count == 1)
        run.store.truth.uses[device]?.outboxes[Fixture.producer] = Use()
        _ = run.sweep()
        #expect(run.violations.count == 3)
    }

    @Test("Whose user has a device, a room or a block, an inbox stays, as does a log with an entry")
    func keepsInboxes() {
        let inbox = Fixture.inbox
        var truth = Truth()
        #expect(truth.isUnused(inbox, since: 10, hasDevices: false))
        #expect(!truth.isUnused(inbox, since: 10, hasDevices: true))
        #expect(truth.isUnused(Fixture.room, since: 10, hasDevices: false))
        truth.blocks[Self.alice] = [Self.bob]
        #expect(!truth.isUnused(inbox, since: 10, hasDevices: false))
        truth.blocks = [:]
        var joined = Fixture.entry(1, after: 0)
        (joined.kind, joined.sender, joined.publishID) = (.joined, Self.alice, 0)
        _ = truth.enter(joined, at: Position(epoch: Fixture.epoch, offset: 1), in: Fixture.room)
        #expect(!truth.isUnused(inbox, since: 10, hasDevices: false))
        #expect(!truth.isUnused(Fixture.room, since: 10, hasDevices: false), "an entry, and a member")
        truth.logs[Fixture.room]?.first = 1
        #expect(!truth.isUnused(Fixture.room, since: 10, hasDevices: false), "a member")
    }

    // MARK: What comes behind it

    /// A message of alice's in her inbox, published as it was the first time.
    private static func enter(at offset: Offset, epoch: Epoch = Fixture.epoch, in truth: inout Truth) -> String? {
        var entry = Fixture.entry(1, after: 0)
        (entry.sender, entry.payload) = (alice, ByteBuffer(integer: number))
        return truth.enter(entry, at: Position(epoch: epoch, offset: offset), in: Fixture.inbox)
    }

    private static func checker() -> MessageChecker {
        var publish = Fixture.publish(1)
        publish.payload = ByteBuffer(integer: number)
        var checker = MessageChecker()
        checker.published(
            OutboxRow(channel: Fixture.inbox, publish: publish, queuedAt: Fixture.start), by: app, at: Fixture.start)
        return checker
    }

    @Test("Once its ledger was swept a message is entered again, and only once", arguments: [false, true])
    func entersAgain(_ isSwept: Bool) {
        let device = DeviceKey(tenant: Fixture.identity().tenant, user: Self.alice, device: Self.phone)
        var truth = Truth()
        #expect(Self.enter(at: 1, in: &truth) == nil)
        if isSwept { truth.end(device) }
        #expect(Self.enter(at: 2, in: &truth) == nil)
        var checker = Self.checker()
        checker.finish(apps: [], cursors: [:], truth: truth)
        #expect(checker.violations.count == (isSwept ? 0 : 3), "twice, and out of order by its ID and its number")
        #expect(Self.enter(at: 3, in: &truth) == nil)
        checker = Self.checker()
        checker.finish(apps: [], cursors: [:], truth: truth)
        #expect(!checker.violations.isEmpty)
    }

    @Test("What was entered before its ledger was swept may be refused afterwards", arguments: [false, true])
    func refusesAfterwards(_ isSwept: Bool) {
        let device = DeviceKey(tenant: Fixture.identity().tenant, user: Self.alice, device: Self.phone)
        var truth = Truth()
        #expect(Self.enter(at: 1, in: &truth) == nil)
        if isSwept { truth.sweep(Fixture.producer, of: device) }
        var checker = Self.checker()
        checker.refused(Self.number, .forbidden, in: truth.era(of: Self.alice, Self.phone, in: Fixture.inbox))
        checker.finish(apps: [], cursors: [:], truth: truth)
        #expect(checker.violations.count == (isSwept ? 0 : 1))
    }

    @Test("What was refused behind a sweep may be there again once the store is restored to a time before it")
    func refusedBeforeARestore() {
        let device = DeviceKey(tenant: Fixture.identity().tenant, user: Self.alice, device: Self.phone)
        var backup = Truth()
        #expect(Self.enter(at: 1, in: &backup) == nil)
        var truth = backup
        truth.sweep(Fixture.producer, of: device)
        for (refusing, isBehind) in [(truth, true), (backup, false)] {
            var checker = Self.checker()
            checker.refused(Self.number, .forbidden, in: refusing.era(of: Self.alice, Self.phone, in: Fixture.inbox))
            checker.finish(apps: [], cursors: [:], truth: backup)
            #expect(checker.violations.isEmpty == isBehind)
        }
    }

    @Test("What an outbox still holds may be refused once its ledger may be gone, and has to be answered")
    func judgesAnew() {
        var truth = Truth()
        #expect(Self.enter(at: 1, in: &truth) == nil)
        for isAnew in [false, true] {
            var checker = Self.checker()
            checker.acknowledged(Self.number, at: Self.place(1), in: Fixture.inbox, truth: truth)
            if isAnew { checker.mayBeJudgedAnew([Self.number]) }
            var unanswered = checker
            unanswered.finish(apps: [Self.app], cursors: [:], truth: truth)
            #expect(unanswered.violations.contains { $0.contains("answer") } == isAnew)
            checker.refused(Self.number, .forbidden)
            #expect(checker.violations.isEmpty == isAnew)
        }
    }

    @Test("Made again a log has another life, and nobody is given what the old one held")
    func beginsAnew() {
        var truth = Truth()
        #expect(Self.enter(at: 1, in: &truth) == nil)
        let old = truth.logs[Fixture.inbox]?.entries ?? []
        var before = Self.checker()
        before.restarted(Self.app, cursors: [Fixture.inbox: Self.place(1)], isOlder: true)
        #expect(!before.hasSweptPlace(Self.app, truth: truth))
        truth.sweep(Fixture.inbox)
        #expect(before.hasSweptPlace(Self.app, truth: truth))
        #expect(truth.recovery(of: Self.place(1), in: Fixture.inbox, epoch: 78, Self.alice, Self.phone) == .gap)
        var other = truth
        #expect(Self.enter(at: 2, in: &other) != nil, "it goes on in the life that is over")
        #expect(Self.enter(at: 2, epoch: 78, in: &truth) == nil)
        var checker = Self.checker()
        checker.finish(apps: [], cursors: [:], truth: truth)
        #expect(checker.violations.isEmpty)
        for entry in old {
            checker.delivered(
                Deliver(entry: entry, redelivered: true), epoch: Fixture.epoch, in: Fixture.inbox, to: Self.app,
                truth: truth)
        }
        #expect(checker.violations.count == 1)
    }

    private static func place(_ offset: Offset) -> Position { Position(epoch: Fixture.epoch, offset: offset) }
}
