import LonglineStore
import LonglineTestKit
import LonglineWire
import NIOCore
import Testing

@testable import LonglineServer

@Suite struct WakeHistoryTests {
    private static func key(_ room: Int) -> ChannelKey {
        identifier { ChannelKey(tenant: try TenantID("acme"), channel: try ChannelID("room/r\(room)")) }
    }

    private func head(_ offset: Offset) -> Position { Position(epoch: 1, offset: offset) }

    /// The race it exists for: the entry commits after the store was read and before the session listens.
    @Test func tellsWhatWasWokenDuringALoad() {
        var history = WakeHistory()
        let first = history.beginLoad()
        history.record(Self.key(1), head: head(10))
        let second = history.beginLoad()
        history.record(Self.key(2), head: head(11))
        history.record(Self.key(1), head: head(12))
        let keys = [Self.key(1), Self.key(2), Self.key(3)]
        #expect(history.wakes(since: first, of: keys)?.map(\.1) == [head(12), head(11)])
        #expect(history.wakes(since: second, of: [Self.key(3)])?.isEmpty == true)
        history.endLoad(first)
        #expect(history.wakes(since: second, of: keys)?.count == 2)
        history.endLoad(second)
        #expect(history.count == 0)
    }

    @Test func anOlderWakeTakesNothingBack() {
        var history = WakeHistory()
        history.record(Self.key(1), head: head(1))
        let load = history.beginLoad()
        history.record(Self.key(1), head: head(12))
        history.record(Self.key(1), head: head(11))
        #expect(history.wakes(since: load, of: [Self.key(1)])?.map(\.1) == [head(12)])
        // Of another life of the log it is the newest.
        history.record(Self.key(1), head: Position(epoch: 2, offset: 3))
        #expect(history.wakes(since: load, of: [Self.key(1)])?.map(\.1) == [Position(epoch: 2, offset: 3)])
    }

    @Test func knowsEachDeletionOfARoomThatWasMadeAgain() {
        var history = WakeHistory()
        let early = history.beginLoad()
        history.recordDeletion(Self.key(1), end: head(10))
        let late = history.beginLoad()
        history.recordDeletion(Self.key(1), end: head(20))
        #expect(history.deletions(since: early, of: [Self.key(1)]).map(\.end) == [head(10), head(20)])
        #expect(history.deletions(since: late, of: [Self.key(1)]).map(\.end) == [head(20)])
        for offset in 0..<100 as Range<Offset> { history.recordDeletion(Self.key(1), end: head(30 + offset)) }
        #expect(history.wakes(since: early, of: [Self.key(1)]) == nil, "it is loaded again")
    }

    @Test func keepsNothingWhileNobodyLoads() {
        var history = WakeHistory()
        history.record(Self.key(1), head: head(1))
        #expect(history.count == 0)
        let load = history.beginLoad()
        #expect(history.wakes(since: load, of: [Self.key(1)])?.isEmpty == true)
    }

    @Test func saysWhenItForgot() {
        var history = WakeHistory(limit: 4)
        let early = history.beginLoad()
        for room in 0..<5 { history.record(Self.key(room), head: head(1)) }
        #expect(history.wakes(since: early, of: [Self.key(0)]) == nil)
        #expect(history.count <= 4)
        let late = history.beginLoad()
        #expect(history.wakes(since: late, of: [Self.key(0)])?.isEmpty == true)
    }
}

@Suite struct LoopTimersTests {
    private func at(_ seconds: Int64) -> NIODeadline { .uptimeNanoseconds(0) + .seconds(seconds) }

    @Test func laterDeadlinesWaitForTheEarlierEntry() {
        var timers = LoopTimers()
        timers.set(1, deadline: at(10))
        timers.set(1, deadline: at(30))
        #expect(timers.next == at(10))
        #expect(timers.due(now: at(10)) == 1)
        #expect(timers.next == nil)
        timers.set(1, deadline: at(30))
        #expect(timers.due(now: at(29)) == nil)
        #expect(timers.due(now: at(30)) == 1)
    }

    @Test func aSessionThatWantsToBeCalledSoonerAgainAndAgainLeavesFewEntries() {
        var timers = LoopTimers()
        for turn in 0..<10_000 as Range<Int64> {
            let now = NIODeadline.uptimeNanoseconds(0) + .milliseconds(turn)
            timers.set(1, deadline: now + .seconds(600))
            timers.set(1, deadline: now + .milliseconds(1))
            #expect(timers.due(now: now + .milliseconds(1)) == 1)
        }
        #expect(timers.count < 100)
        timers.set(1, deadline: at(20_000))
        #expect(timers.due(now: at(19_999)) == nil)
        #expect(timers.due(now: at(20_000)) == 1)
    }

    @Test func anEarlierDeadlineComesFirstAndOnce() {
        var timers = LoopTimers()
        timers.set(1, deadline: at(30))
        timers.set(1, deadline: at(10))
        #expect(timers.due(now: at(40)) == 1)
        #expect(timers.due(now: at(40)) == nil)
    }

    /// Against a table of what each session wants: nobody is called late, nobody is forgotten.
    @Test(arguments: 0..<20 as Range<UInt64>)
    func neverLate(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        var timers = LoopTimers()
        var wanted: [UInt64: NIODeadline] = [:]
        for second in 1...500 as ClosedRange<Int64> {
            let host = UInt64.random(in: 0..<20, using: &random)
            switch Int.random(in: 0..<6, using: &random) {
            case 0:
                timers.remove(host)
                wanted[host] = nil
            default:
                let deadline = at(second + Int64.random(in: 0..<60, using: &random))
                timers.set(host, deadline: deadline)
                wanted[host] = deadline
            }
            var called: Set<UInt64> = []
            while let due = timers.due(now: at(second)) {
                #expect(called.insert(due).inserted, "seed \(seed)")
                if let deadline = wanted[due], deadline <= at(second) { wanted[due] = nil }
                timers.set(due, deadline: wanted[due])
            }
            #expect(wanted.values.allSatisfy { $0 > at(second) }, "seed \(seed)")
        }
    }
}

@Suite struct SubscriptionTableTests {
    private final class Subscriber {
        var wakes = 0
    }

    @Test(arguments: 0..<20 as Range<UInt64>)
    func agreesWithAPlainTable(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        let subscribers = (0..<5).map { _ in Subscriber() }
        let channels = (0..<3).map { index in
            identifier { ChannelKey(tenant: try TenantID("acme"), channel: try ChannelID("room/r\(index)")) }
        }
        var table = SubscriptionTable<Subscriber>()
        var plain: Set<[Int]> = []
        for _ in 0..<300 {
            let (channel, subscriber) = (Int.random(in: 0..<3, using: &random), Int.random(in: 0..<5, using: &random))
            if Bool.random(using: &random) {
                table.insert(subscribers[subscriber], for: channels[channel])
                plain.insert([channel, subscriber])
            } else {
                table.remove(subscribers[subscriber], for: channels[channel])
                plain.remove([channel, subscriber])
            }
            #expect(table.count == plain.count, "seed \(seed)")
            for subscriber in subscribers { subscriber.wakes = 0 }
            table.forEach(of: channels[channel]) { $0.wakes += 1 }
            let expected = (0..<5).map { plain.contains([channel, $0]) ? 1 : 0 }
            #expect(subscribers.map(\.wakes) == expected, "seed \(seed)")
        }
    }
}

@Suite struct TokenBucketTests {
    @Test func burstThenRate() {
        let start = NIODeadline.uptimeNanoseconds(0)
        var bucket = TokenBucket(perSecond: 2, burst: 3, now: start)
        func take(after delay: TimeAmount, _ count: Int) -> [Bool] {
            (0..<count).map { _ in bucket.take(now: start + delay) }
        }
        #expect(take(after: .zero, 4) == [true, true, true, false])
        #expect(take(after: .milliseconds(500), 1) == [true])
        #expect(take(after: .milliseconds(600), 1) == [false])
        // A long silence earns the burst, not more.
        #expect(take(after: .hours(1), 4) == [true, true, true, false])
    }
}
