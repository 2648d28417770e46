import LonglineStore
import LonglineTestKit
import LonglineWire
import NIOCore
import Testing

@testable import LonglineServer

private let acme = identifier { try TenantID("acme") }
private let other = identifier { try TenantID("other") }

/// What may leave to the endpoints, and that what may not costs nothing.
@Suite struct WebhookOutletsTests {
    private var outlets: WebhookOutlets
    private var queue: WebhookQueue

    /// `acme` has an endpoint of its own, which takes two requests at a time and is left alone after two failures.
    init() {
        var settings = WebhookSettings(
            url: "http://h/", key: WebhookKey(id: "1", secret: Array(repeating: 1, count: 16)))
        settings.maximumInFlight = 2
        settings.breakAfter = 2
        settings.breakTime = .seconds(30)
        outlets = WebhookOutlets([acme: settings, nil: settings])
        queue = WebhookQueue(limit: 100_000, named: outlets.named)
    }

    private mutating func put(_ count: Int, of tenant: TenantID = acme, at time: UInt64 = 100) {
        for index in 0..<count {
            queue.put(
                identifier {
                    PendingNotification(
                        key: PendingNotification.Key(
                            tenant: tenant, user: try UserID("u\(index)"), conversation: .user(try UserID("ann"))),
                        channel: .user(try UserID("u\(index)")), position: Position(epoch: 1, offset: 1),
                        sender: try UserID("ann"), count: 1, time: time, expiry: 0, payload: nil, since: time,
                        notBefore: time)
                })
        }
        _ = queue.takeChanges()
    }

    private mutating func take(_ now: UInt64) -> [WebhookQueue.Taken] { outlets.take(from: &queue, now: now) }

    private mutating func fail(_ taken: WebhookQueue.Taken, _ now: UInt64) {
        outlets.ended(.failed, of: taken.notification.key.tenant, now: now)
        queue.failed(taken, until: now + 1)
    }

    /// What nothing may leave of is not touched: not moved, not put off, not written to the disk anew.
    private mutating func looksAndTouchesNothing(_ now: UInt64) -> Bool {
        let moves = queue.moves
        let changed = queue.changed
        return take(now).isEmpty && queue.moves == moves && queue.changed == changed
    }

    @Test mutating func whatWaitsForAFullEndpointIsNotTouched() throws {
        put(5_000)
        let first = take(100)
        try #require(first.count == 2)
        for now in [100, 150, 5_000] as [UInt64] { #expect(looksAndTouchesNothing(now)) }
        #expect(outlets.nextTime(queue) == nil, "the end of a request is what there is to wait for")
        outlets.ended(.answered, of: acme, now: 200)
        queue.told(first[0])
        #expect(outlets.nextTime(queue) == 100)
        let moves = queue.moves
        #expect(take(200).map(\.notification.notBefore) == [100])
        #expect(queue.moves - moves < 32, "one of 5,000 left: the heap is 13 levels high")
        #expect(looksAndTouchesNothing(200))
    }

    @Test mutating func whatWaitsForAnEndpointThatIsDownIsNotTouched() throws {
        put(5_000)
        for taken in take(100) { fail(taken, 100) }
        #expect(outlets.down == 1 && outlets.nextTime(queue) == 30_100)
        for now in [100, 200, 30_099] as [UInt64] { #expect(looksAndTouchesNothing(now)) }
        // One tries, and the others wait for what becomes of it.
        let trying = take(30_100)
        try #require(trying.count == 1)
        for now in [30_100, 99_000] as [UInt64] { #expect(looksAndTouchesNothing(now)) }
        #expect(outlets.nextTime(queue) == nil)
        fail(trying[0], 31_000)
        #expect(looksAndTouchesNothing(60_999) && outlets.nextTime(queue) == 61_000)
        let again = take(61_000)
        try #require(again.count == 1)
        outlets.ended(.answered, of: acme, now: 61_100)
        queue.told(again[0])
        #expect(take(61_100).count == 2 && outlets.down == 0)
    }

    @Test mutating func oneEndpointHoldsUpNoOther() throws {
        put(1_000)
        put(3, of: other)
        for taken in take(100) where taken.notification.key.tenant == acme { fail(taken, 100) }
        #expect(outlets.down == 1, "the other one's are under way still")
        let moves = queue.moves
        outlets.ended(.answered, of: other, now: 200)
        #expect(outlets.nextTime(queue) == 100)
        #expect(take(200).map(\.notification.key.tenant) == [other])
        #expect(queue.moves - moves < 8)
    }

    @Test mutating func whatIsPutOffIsNotWrittenAnew() throws {
        put(3)
        let taken = take(100)
        for taken in taken {
            outlets.ended(.withdrawn, of: acme, now: 100)
            queue.postpone(taken, until: 700)
        }
        #expect(queue.changed.isEmpty)
        #expect(take(100).count == 1)
        outlets.ended(.withdrawn, of: acme, now: 100)
        #expect(take(699).isEmpty && outlets.nextTime(queue) == 700)
        #expect(take(700).map(\.notification.key) == taken.map(\.notification.key))
    }

    @Test func timesLeaveInTheirOrderWhateverIsTakenOut() {
        var random = SeededRandom(seed: 7)
        var times = DueTimes<Int>()
        var expected: [Int: UInt64] = [:]
        func first() -> (key: Int, value: UInt64)? { expected.min { ($0.value, $0.key) < ($1.value, $1.key) } }
        for round in 0..<4_000 {
            let key = Int.random(in: 0..<300, using: &random)
            switch Int.random(in: 0..<4, using: &random) {
            case 0:
                times.remove(order: UInt64(key))
                expected[key] = nil
            case 1 where round % 3 == 0:
                times.removeFirst()
                if let key = first()?.key { expected[key] = nil }
            default:
                let time = UInt64.random(in: 0..<50, using: &random)
                times.insert(key, time: time, order: UInt64(key))
                expected[key] = time
            }
            guard times.first?.key == first()?.key, times.first?.time == first()?.value else {
                return #expect(Bool(false), "round \(round)")
            }
        }
        #expect(times.isEmpty == expected.isEmpty)
    }
}
