import Foundation
import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import NIOHTTP1
import Synchronization
import Testing

@testable import LonglineServer

private let ann = identifier { try UserID("ann") }
private let bob = identifier { try UserID("bob") }
private let eve = identifier { try UserID("eve") }
private let hall = identifier { try RoomID("hall") }

/// What was told is taken back once it was seen elsewhere, for endpoints that want to know.
extension WebhookTests {
    private struct Cancel: Decodable {
        var cancel: Bool?
        var id: String
        var collapse: String
        var user: String
        var conversation: String
        var offset: UInt64
        var count: UInt64?
    }

    private func cancel(_ request: Backend.Request) throws -> Cancel {
        try JSONDecoder().decode(Cancel.self, from: Data(request.body.utf8))
    }

    private func place(_ server: TestServer, _ deliver: Deliver) async throws -> Position {
        let inbox = ChannelKey(tenant: TokenIssuer.tenant, channel: .user(bob))
        return Position(
            epoch: try #require(try await server.store.head(of: inbox)).position.epoch, offset: deliver.entry.offset)
    }

    /// Bob is told of a message of Ann's, comes back and confirms it.
    private func toldThenConfirmed(_ server: TestServer) async throws -> (phone: TestDevice, back: TestDevice) {
        let phone = try await server.connected("ann")
        try await phone.message("one", to: bob)
        _ = try await statistics(server) { $0.sent == 1 }
        let back = try await server.connected("bob")
        let place = try await place(server, try await back.delivered(.user(bob)))
        try await back.acknowledge(.user(bob), epoch: place.epoch, offset: place.offset)
        return (phone, back)
    }

    @Test(arguments: [true, false]) func whatWasToldIsTakenBackOnceADeviceHasItOrItsUserReadIt(isRead: Bool)
        async throws
    {
        try await withWebhook({ endpoint, _ in endpoint.tellsCancels = true }) { server, backend in
            let phone = try await server.connected("ann")
            let other = try await server.connected("eve")
            try await phone.message("one", to: bob)
            let told = try news(try await requests(backend, 1)[0])
            _ = try await statistics(server) { $0.sent == 1 }
            let tablet = try await server.connected("bob", "tablet")
            let place = try await place(server, try await tablet.delivered(.user(bob)))
            if isRead {
                let mark = ReadMark(conversation: .user(ann), position: place, isPrivate: true)
                try await tablet.send([(.read(mark), .control)])
            } else {
                try await tablet.acknowledge(.user(bob), epoch: place.epoch, offset: place.offset)
            }
            let request = try await requests(backend, 2)[1]
            let cancel = try cancel(request)
            #expect(cancel.cancel == true && cancel.user == "bob" && cancel.conversation == "user/ann")
            #expect(cancel.collapse == told.collapse && cancel.offset == told.offset && cancel.id != told.id)
            #expect(cancel.count == nil && request.headers.contains(name: "longline-signature"))
            let statistics = try await statistics(server) { $0.cancelsSent == 1 }
            #expect(statistics.sent == 1 && statistics.waiting == 0 && statistics.cancelled == 0)
            // Once, and nothing of others.
            try await tablet.acknowledge(.user(bob), epoch: place.epoch, offset: place.offset)
            try await tablet.drop()
            try await other.message("two", to: bob)
            #expect(try news(try await requests(backend, 3)[2]).sender == "eve")
        }
    }

    @Test func whatWasNotToldIsNotTakenBackAndNothingIsUnlessTheEndpointWantsIt() async throws {
        let isUp = Mutex(false)
        try await withWebhook(
            answer: { _ in
                Backend.Response(status: isUp.withLock { $0 } ? .noContent : .serviceUnavailable, body: "")
            },
            { endpoint, _ in
                endpoint.tellsCancels = true
                endpoint.breakAfter = 100_000
            }
        ) { server, backend in
            let phone = try await server.connected("ann")
            try await phone.message("one", to: bob)
            _ = try await requests(backend, 1)
            let back = try await server.connected("bob")
            let place = try await place(server, try await back.delivered(.user(bob)))
            try await back.acknowledge(.user(bob), epoch: place.epoch, offset: place.offset)
            _ = try await statistics(server) { $0.cancelled == 1 && $0.waiting == 0 }
            isUp.withLock { $0 = true }
            try await back.drop()
            try await phone.message("two", to: bob)
            _ = try await statistics(server) { $0.sent == 1 }
            #expect(try backend.requests.allSatisfy { try cancel($0).cancel == nil })
        }
        try await withWebhook { server, backend in
            let (phone, back) = try await toldThenConfirmed(server)
            try await back.drop()
            try await phone.message("two", to: bob)
            #expect(try news(try await requests(backend, 2)[1]).count == 1)
        }
    }

    @Test(arguments: [true, false]) func whatWaitsToBeTakenBackIsToldOnlyIfTheEndpointWantsItStill(wants: Bool)
        async throws
    {
        try await withTemporaryDirectory { folder in
            let path = folder + "/notifications.db"
            let now = WallClock.milliseconds()
            let told = PendingNotification(
                key: PendingNotification.Key(tenant: TokenIssuer.tenant, user: bob, conversation: .user(ann)),
                channel: .user(bob), position: Position(epoch: 1, offset: 1), sender: ann, count: 1, time: 1, expiry: 0,
                payload: nil, since: now, notBefore: now)
            let journal = try NotificationJournal(path: path)
            try await journal.apply(keep: [told.cancel(at: now)], forget: [])
            try journal.close()
            try await withWebhook({ endpoint, configuration in
                endpoint.tellsCancels = wants
                configuration.journalPath = path
            }) { server, backend in
                let statistics = try await statistics(server) { $0.waiting == 0 && $0.cancelsSent + $0.expired == 1 }
                #expect(statistics.cancelsSent == (wants ? 1 : 0))
                #expect(try backend.requests.map { try cancel($0).cancel } == (wants ? [true] : []))
            }
        }
    }

    /// Bob is away, and is told of each of Ann's messages.
    /// - Returns: Ann's device, and where the messages are.
    private func tellOneByOne(
        _ messages: Int, isRoom: Bool, _ server: TestServer
    ) async throws -> (phone: TestDevice, places: [Position]) {
        let phone = try await server.connected("ann")
        if isRoom {
            let away = try await server.connected("bob")
            for (number, device) in [phone, away].enumerated() {
                _ = try await device.request(hall, number: UInt64(number))
            }
            try await away.drop()
            while server.runtime.core.registry.isOnline(UserKey(tenant: TokenIssuer.tenant, user: bob)) {
                await Task.yield()
            }
        }
        var places: [Position] = []
        for number in 1...messages {
            let text = "secret \(number)"
            let outcome = try await isRoom ? phone.publish(text, to: .room(hall)) : phone.message(text, to: bob)
            if case .published(let published) = outcome { places.append(published.position) }
            _ = try await statistics(server) { $0.sent == UInt64(number) }
        }
        return (phone, places)
    }

    @Test(arguments: [true, false]) func aPushIsTakenBackOnceAllThatItCountsIsRetracted(isRoom: Bool) async throws {
        try await withWebhook({ endpoint, _ in endpoint.tellsCancels = true }) { server, backend in
            let (phone, places) = try await tellOneByOne(2, isRoom: isRoom, server)
            let told = try news(try await requests(backend, 2)[1])
            for place in places { try await retract(place, by: phone, in: isRoom ? hall : nil) }
            let cancel = try cancel(try await requests(backend, 3)[2])
            #expect(cancel.cancel == true && cancel.collapse == told.collapse && cancel.offset == told.offset)
            let statistics = try await statistics(server) { $0.cancelsSent == 1 && $0.waiting == 0 }
            #expect(statistics.sent == 2 && backend.requests.count == 3)
        }
    }

    @Test(arguments: [1, 2], [true, false]) func whatWasToldIsTakenBackOnceItIsRetracted(messages: Int, isRoom: Bool)
        async throws
    {
        try await withWebhook({ endpoint, _ in
            endpoint.tellsCancels = true
            endpoint.includesPayload = true
        }) { server, backend in
            let (phone, places) = try await tellOneByOne(messages, isRoom: isRoom, server)
            let told = try news(try await requests(backend, messages)[messages - 1])
            #expect(told.payload != nil)
            try await retract(try #require(places.last), by: phone, in: isRoom ? hall : nil)
            let request = try await requests(backend, messages + 1)[messages]
            if messages == 1 {
                let cancel = try cancel(request)
                #expect(cancel.cancel == true && cancel.collapse == told.collapse && cancel.offset == told.offset)
                _ = try await statistics(server) { $0.cancelsSent == 1 && $0.waiting == 0 }
            } else {
                // What is left takes the push's place, and shows nothing.
                let others = try news(request)
                #expect(others.count == 1 && others.payload == nil)
                #expect(others.collapse == told.collapse && others.id != told.id)
                #expect(try await statistics(server) { $0.sent == 3 && $0.waiting == 0 }.cancelsSent == 0)
            }
            #expect(backend.requests.count == messages + 1)
        }
    }

    @Test func takingBackIsRepeatedUntilItIsTold() async throws {
        let failures = Mutex(2)
        try await withWebhook(
            answer: { request in
                let fails = failures.withLock { left in
                    guard request.body.contains("\"cancel\":true") else { return false }
                    defer { left -= 1 }
                    return left > 0
                }
                return Backend.Response(status: fails ? .internalServerError : .ok, body: "")
            }, { endpoint, _ in endpoint.tellsCancels = true }
        ) { server, backend in
            _ = try await toldThenConfirmed(server)
            let statistics = try await statistics(server) { $0.cancelsSent == 1 }
            #expect(statistics.failures == 2 && statistics.waiting == 0)
            #expect(Set(try backend.requests.dropFirst().map { try cancel($0).id }).count == 1)
        }
    }
}

/// Where a cancel stands among news.
@Suite struct WebhookCancelQueueTests {
    private let user = UserKey(tenant: TokenIssuer.tenant, user: bob)

    private func news(_ offset: Offset, from sender: UserID = ann) -> PendingNotification {
        PendingNotification(
            key: PendingNotification.Key(tenant: user.tenant, user: bob, conversation: .user(sender)),
            channel: .user(bob), position: Position(epoch: 7, offset: offset), sender: sender, count: 1, time: 100,
            expiry: 0, payload: nil, since: 100, notBefore: 100)
    }

    private func next(_ queue: inout WebhookQueue) throws -> WebhookQueue.Taken {
        let next = queue.take(now: 300)
        return try #require(next)
    }

    @Test func newsTakeThePlaceOfACancelThatWaits() throws {
        var queue = WebhookQueue(limit: 10)
        queue.cancel(news(5).cancel(at: 200))
        // What the device has is no reason to take the cancel out.
        #expect(queue.confirmed(user, .user(bob), Position(epoch: 7, offset: 9)) == 0 && queue.count == 1)
        queue.put(news(10))
        let taken = try next(&queue)
        #expect(taken.notification == news(10))
        // And where news wait, there is nothing to take back: their push takes the other's place.
        queue.cancel(news(5).cancel(at: 300))
        queue.told(taken)
        #expect(queue.isEmpty)
    }

    @Test func newsThatComeWhileACancelIsUnderWayAreToldBehindIt() throws {
        var queue = WebhookQueue(limit: 10)
        queue.cancel(news(5).cancel(at: 200))
        let cancel = try next(&queue)
        #expect(cancel.notification.isCancel)
        queue.put(news(10))
        #expect(queue.take(now: 300) == nil)
        queue.told(cancel)
        #expect(queue.take(now: 300)?.notification.count == 1)
    }

    /// How what news come to that take the place of a push.
    enum End: CaseIterable {
        case read, givenUp, readUnderWay, droppedUnderWay, toldAndNoNews
    }

    @Test(arguments: End.allCases) func whatIsToBeTakenBackIsSoWhenTheNewsInItsPlaceAreNotTold(_ end: End) throws {
        for comesFirst in [true, false] {
            var queue = WebhookQueue(limit: 1)
            // Either waits already when the other comes.
            if comesFirst { queue.cancel(news(5).cancel(at: 200)) }
            queue.put(news(6))
            var taken: WebhookQueue.Taken?
            if end != .read { taken = try next(&queue) }
            func read() -> Int { queue.confirmed(user, .user(bob), Position(epoch: 7, offset: 6)) }
            if end == .readUnderWay { #expect(read() == 1) }
            if end == .droppedUnderWay { queue.put(news(1, from: eve)) }
            if !comesFirst { queue.cancel(news(5).cancel(at: 200)) }
            switch end {
            case .read: #expect(read() == 1)
            case .givenUp: queue.giveUp(try #require(taken))
            case .readUnderWay: queue.failed(try #require(taken), until: 400)
            case .droppedUnderWay: queue.postpone(try #require(taken), until: 400)
            case .toldAndNoNews: queue.told(try #require(taken))
            }
            let left = queue.take(now: end == .read || end == .givenUp ? 300 : 400)
            if end == .toldAndNoNews {
                #expect(left == nil && queue.isEmpty)
            } else if end == .droppedUnderWay {
                // Where there is no room, taking back gives way to news.
                #expect(left?.notification.position.offset == 1)
            } else {
                #expect(left?.notification.isCancel == true && left?.notification.position.offset == 5)
                #expect(queue.takeChanges().keep.map(\.position.offset) == [5])
            }
        }
    }

    @Test func whatIsReadWhileItIsBeingToldIsNotTakenForWhatWasToldBefore() throws {
        var queue = WebhookQueue(limit: 10)
        queue.put(news(6))
        let taken = try next(&queue)
        #expect(queue.confirmed(user, .user(bob), Position(epoch: 7, offset: 6)) == 1)
        queue.cancel(news(5).cancel(at: 200))
        #expect(queue.isEmpty && queue.wasRead(taken))
        queue.told(taken)
        #expect(queue.isEmpty)
        queue.cancel(taken.notification.cancel(at: 210))
        #expect(try next(&queue).notification.position.offset == 6)
    }

    @Test func newsBehindWhatIsReadWhileItIsBeingToldTakeItBackUnlessTheyAreTold() throws {
        for isRead in [true, false] {
            var queue = WebhookQueue(limit: 10)
            queue.put(news(6))
            let taken = try next(&queue)
            if isRead { #expect(queue.confirmed(user, .user(bob), Position(epoch: 7, offset: 6)) == 1) }
            queue.put(news(7))
            if !isRead { #expect(queue.confirmed(user, .user(bob), Position(epoch: 7, offset: 6)) == 0) }
            #expect(queue.wasRead(taken))
            queue.told(taken)
            queue.cancel(taken.notification.cancel(at: 210))
            let later = try next(&queue)
            #expect(later.notification.position.offset == 7 && later.notification.count == 1)
            queue.giveUp(later)
            #expect(try next(&queue).notification.position.offset == 6)
        }
    }

    @Test func nothingIsOwedToWhomIsForgotten() throws {
        var queue = WebhookQueue(limit: 10)
        queue.put(news(6))
        let taken = try next(&queue)
        queue.cancel(news(5).cancel(at: 200))
        #expect(queue.confirmed(user, .user(bob), Position(epoch: 7, offset: 6)) == 1)
        queue.forget(user)
        #expect(queue.wasForgotten(taken) && !queue.wasRead(taken))
        queue.failed(taken, until: 300)
        #expect(queue.isEmpty && queue.takeChanges().keep.isEmpty)
    }

    @Test func whatADeviceGotWhileItWasBeingToldIsKnown() throws {
        var queue = WebhookQueue(limit: 10)
        queue.put(news(5))
        queue.put(news(6, from: eve))
        let taken = try next(&queue)
        #expect(!queue.wasRead(taken))
        #expect(queue.confirmed(user, .user(bob), Position(epoch: 7, offset: 5), of: .user(ann)) == 1)
        #expect(queue.wasRead(taken))
        queue.told(taken)
        #expect(queue.count == 1)
        // An account that is erased meanwhile is not one that read it.
        let other = try next(&queue)
        queue.forget(user)
        #expect(!queue.wasRead(other))
    }
}
