import LonglineWire
import NIOCore
import Testing

@testable import LonglineSession

/// Which publish leaves when, and with which `after`.
@Suite("Publish queue")
struct PublishQueueTests {
    private let now = Fixture.start

    private func queue(_ ids: [PublishID]) -> PublishQueue {
        var queue = PublishQueue()
        var previous: PublishID = 0
        for id in ids {
            queue.append(Fixture.row(id, after: previous))
            previous = id
        }
        return queue
    }

    private func take(_ queue: inout PublishQueue, window: Int = 1 << 20, limit: Int = 100, at time: NIODeadline? = nil)
        -> [PublishID]
    {
        queue.timePassed(now: time ?? now)
        return takeAll(&queue, window: window, limit: limit, at: time ?? now).map(\.id)
    }

    private func takeAll(_ queue: inout PublishQueue, window: Int = 1 << 20, limit: Int = 100, at time: NIODeadline)
        -> [Publish]
    {
        var taken: [Publish] = []
        while let publish = queue.take(window: window, limit: limit, onlyUnresolved: false, now: time) {
            taken.append(publish)
        }
        return taken
    }

    private func refuse(_ queue: inout PublishQueue, _ id: PublishID, _ code: RefusalCode, last: PublishID = 0)
        -> PublishQueue.Refusal
    {
        queue.refused(Refused(id: id, code: code, lastID: last), retryDelay: .seconds(1), now: now)
    }

    @Test("Rows leave in order, within window and count; one may always leave")
    func window() {
        var queue = queue([1, 2, 3, 4])
        #expect(take(&queue, window: 276) == [1, 2])
        #expect(take(&queue, limit: 3) == [3])
        #expect(queue.published(1) == true)
        #expect(take(&queue, limit: 3) == [4])
        queue = self.queue([1, 2])
        #expect(take(&queue, window: 1) == [1])
    }

    @Test("A refusal for now stops the channel until every answer has come; then all leave in order")
    func drains() {
        var queue = queue([1, 2, 3])
        #expect(take(&queue) == [1, 2, 3])
        #expect(refuse(&queue, 1, .overloaded) == .retry)
        #expect(take(&queue).isEmpty)
        #expect(refuse(&queue, 2, .outOfOrder) == .retry)
        #expect(refuse(&queue, 3, .outOfOrder) == .retry)
        #expect(take(&queue).isEmpty)
        #expect(take(&queue, at: now + .seconds(2)) == [1, 2, 3])
    }

    @Test("A row given up is stepped over by the next one, also by one that comes later")
    func givesUp() {
        var queue = queue([4, 5, 6])
        #expect(take(&queue) == [4, 5, 6])
        #expect(queue.published(4) == true)
        #expect(refuse(&queue, 5, .payloadTooLarge) == .givenUp)
        #expect(refuse(&queue, 6, .outOfOrder, last: 4) == .retry)
        queue.removed(5)
        #expect(takeAll(&queue, at: now).map(\.after) == [4])
        #expect(refuse(&queue, 6, .payloadTooLarge) == .givenUp)
        queue.removed(6)
        queue.append(Fixture.row(7, after: 6))
        #expect(takeAll(&queue, at: now).map(\.after) == [4])
    }

    @Test("Nothing leaves behind a row given up that a later process would find, on this link or the next")
    func waitsForRemoval() {
        var queue = queue([4, 5, 6, 7])
        #expect(take(&queue, limit: 2) == [4, 5])
        #expect(refuse(&queue, 4, .payloadTooLarge) == .givenUp)
        #expect(refuse(&queue, 5, .outOfOrder) == .retry)
        #expect(take(&queue, limit: 1) == [])
        queue.linkClosed()
        queue.reset([Fixture.row(5), Fixture.row(6, after: 5), Fixture.row(7, after: 6)], maySent: false)
        #expect(take(&queue, limit: 1) == [])
        queue.removed(4)
        #expect(take(&queue, limit: 1) == [5])
        #expect(refuse(&queue, 5, .payloadTooLarge) == .givenUp)
        queue.removed(4)
        #expect(take(&queue) == [])
        queue.removed(5)
        #expect(take(&queue) == [6, 7])
    }

    @Test("A row that was not sent yet steps over the one given up before it")
    func stepsOver() {
        var queue = queue([4, 5, 6])
        #expect(take(&queue, limit: 2) == [4, 5])
        #expect(queue.published(4) == true)
        #expect(refuse(&queue, 5, .payloadTooLarge) == .givenUp)
        queue.removed(5)
        #expect(takeAll(&queue, at: now).map(\.after) == [4])
    }

    @Test("Rows given up in an earlier process are stepped over by the ledger's last ID")
    func rewinds() {
        var queue = PublishQueue()
        queue.reset([Fixture.row(9, after: 8)], maySent: true)
        #expect(take(&queue) == [9])
        #expect(refuse(&queue, 9, .outOfOrder, last: 4) == .retry)
        #expect(takeAll(&queue, at: now).map(\.after) == [4])
        // Without progress it does not go on at full speed.
        #expect(refuse(&queue, 9, .outOfOrder, last: 4) == .retry)
        #expect(take(&queue).isEmpty)
        #expect(take(&queue, at: now + .seconds(1)) == [9])
    }

    @Test("Rows that a restored server acknowledged and lacks are stepped over, and their successors follow in order")
    func restored() {
        var queue = queue([4, 5, 6, 7])
        #expect(take(&queue) == [4, 5, 6, 7])
        #expect(queue.published(4) == true)
        #expect(queue.published(5) == true)
        queue.linkClosed()
        #expect(takeAll(&queue, at: now).map(\.after) == [5, 6])
        #expect(refuse(&queue, 6, .outOfOrder, last: 2) == .retry)
        #expect(refuse(&queue, 7, .outOfOrder, last: 2) == .retry)
        #expect(takeAll(&queue, at: now).map(\.after) == [2, 6])
    }

    @Test("What was in flight when the link went is sent again, in order")
    func linkClosed() {
        var queue = queue([1, 2, 3])
        #expect(take(&queue, limit: 2) == [1, 2])
        #expect(queue.published(2) == true)
        queue.linkClosed()
        #expect(take(&queue) == [1, 3])
    }

    @Test("Time to live is what is left, and never 0")
    func timeToLive() {
        var queue = PublishQueue()
        for (id, lifetime) in [(UInt64(1), UInt64(500)), (2, 100), (3, 0)] {
            queue.append(Fixture.row(id, after: id - 1, timeToLive: lifetime))
        }
        #expect(takeAll(&queue, at: now + .milliseconds(200)).map(\.timeToLive) == [300, 1, 0])
    }

    @Test("Rows whose ID is used up wait, and only rows that may have been sent are still sent")
    func spent() {
        var queue = queue([1, 2])
        #expect(take(&queue, limit: 1) == [1])
        #expect(refuse(&queue, 1, .idReused) == .spent)
        #expect(!queue.hasUnresolved)
        #expect(queue.take(window: 9_999, limit: 9, onlyUnresolved: true, now: now) == nil)
        queue.reset([Fixture.row(1), Fixture.row(2, after: 1)], maySent: true)
        #expect(queue.hasUnresolved)
    }

    @Test("A row out of order is not taken")
    func order() {
        var queue = queue([5])
        #expect(queue.append(Fixture.row(5)) == false)
        #expect(queue.append(Fixture.row(3)) == false)
    }
}
