import LonglineStore
import LonglineTestKit
import LonglineWire
import NIOCore
import Testing

@testable import LonglineServer

private let acme = identifier { try TenantID("acme") }
private let ann = identifier { try UserID("ann") }
private let bob = identifier { try UserID("bob") }
private let eve = identifier { try UserID("eve") }
private let hall = ChannelKey(tenant: acme, channel: .room(identifier { try RoomID("hall") }))

/// What becomes of pushes whose message is taken back.
@Suite struct WebhookRetractionTests {
    private let settings: WebhookSettings

    init() {
        var settings = WebhookSettings(
            url: "http://h/", key: WebhookKey(id: "1", secret: Array(repeating: 1, count: 16)))
        settings.tellsCancels = true
        self.settings = settings
    }

    private func state() -> WebhookDispatcher.State {
        WebhookDispatcher.State(
            queue: WebhookQueue(limit: 10), held: HeldNotifications(limit: 10), told: HeldNotifications(limit: 10),
            outlets: WebhookOutlets([:]))
    }

    /// Of Ann's messages to Bob, or to a room that the user is in.
    private func news(_ offset: Offset, to user: UserID = bob, in room: ChannelKey? = nil) -> PendingNotification {
        PendingNotification(
            key: PendingNotification.Key(tenant: acme, user: user, conversation: room?.channel ?? .user(ann)),
            channel: room?.channel ?? .user(user), position: place(offset), sender: ann, count: 1, time: 100, expiry: 0,
            payload: ByteBuffer(string: "secret"), since: 100, notBefore: 100)
    }

    private func place(_ offset: Offset) -> Position { Position(epoch: 7, offset: offset) }

    private func take(_ state: inout WebhookDispatcher.State) throws -> WebhookQueue.Taken {
        let next = state.queue.take(now: 1_000)
        return try #require(next)
    }

    private func tell(_ state: inout WebhookDispatcher.State, _ news: PendingNotification...) throws {
        for each in news { state.queue.put(each) }
        let taken = try take(&state)
        state.note(.told(taken.notification), of: taken, settings, now: 200)
    }

    @Test(arguments: [true, false]) func thePushOfTheOnlyMessageIsTakenBack(whileItIsTold: Bool) throws {
        var state = state()
        if whileItIsTold {
            state.queue.put(news(5))
            let taken = try take(&state)
            state.retracted(place(5), of: news(5).key, now: 200)
            #expect(state.queue.take(now: 1_000) == nil, "not before the request is over")
            state.note(.told(taken.notification), of: taken, settings, now: 210)
        } else {
            try tell(&state, news(5))
            // Another one, and of another life of the inbox.
            state.retracted(place(4), of: news(5).key, now: 200)
            state.retracted(Position(epoch: 8, offset: 5), of: news(5).key, now: 200)
            #expect(state.queue.isEmpty && state.told.count == 1)
            state.retracted(place(5), of: news(5).key, now: 210)
        }
        let cancel = try take(&state)
        #expect(cancel.notification == news(5).cancel(at: 210))
        state.note(.told(cancel.notification), of: cancel, settings, now: 220)
        #expect(state.queue.isEmpty && state.told.count == 0)
    }

    @Test(arguments: [true, false]) func ofSeveralTheOthersAreToldWithoutAPayload(whileTheyAreTold: Bool) throws {
        var state = state()
        if whileTheyAreTold {
            for offset in [5, 6] as [Offset] { state.queue.put(news(offset)) }
            let taken = try take(&state)
            state.retracted(place(6), of: news(6).key, now: 200)
            state.note(.told(taken.notification), of: taken, settings, now: 210)
        } else {
            // Told one by one, they are of one push.
            for offset in [5, 6] as [Offset] { try tell(&state, news(offset)) }
            state.retracted(place(6), of: news(6).key, now: 210)
        }
        let others = try take(&state)
        #expect(others.notification.count == 1 && others.notification.payload == nil)
        #expect(others.notification.position == place(5) && !others.notification.isCancel)
        state.note(.told(others.notification), of: others, settings, now: 220)
        #expect(state.queue.isEmpty && state.told.count == 1)
    }

    /// When a push's last message was found to be taken back, and when the dispatcher hears of that.
    enum Hearing: CaseIterable { case never, whileItIsTold, afterwards }

    @Test(arguments: Hearing.allCases) func whatWasToldWithoutItsLastIsNotToldAgain(_ hearing: Hearing) throws {
        var state = state()
        for offset in [4, 5, 7] as [Offset] { state.queue.put(news(offset)) }
        let taken = try take(&state)
        let sent = try #require(taken.notification.withoutLast)
        if hearing == .whileItIsTold { state.retracted(place(7), of: news(7).key, now: 200) }
        state.note(.told(sent), of: taken, settings, now: 210)
        if hearing == .afterwards { state.retracted(place(7), of: news(7).key, now: 220) }
        #expect(state.queue.isEmpty && state.told.count == 1)
        // Behind it they count as many as they are.
        try tell(&state, news(9))
        state.retracted(place(9), of: news(9).key, now: 230)
        let others = try take(&state)
        #expect(others.notification.count == 2 && !others.notification.isCancel)
        state.note(.told(others.notification), of: others, settings, now: 240)
        // What a device has of them is all that was shown.
        let done = state.told.confirmed(UserKey(tenant: acme, user: bob), .user(bob), place(8))
        #expect(done.map(\.count) == [2])
    }

    private func id(_ news: PendingNotification) throws -> Substring {
        let body = String(decoding: try WebhookRequest.body(news), as: UTF8.self)
        let start = try #require(body.firstRange(of: #""id":""#)).upperBound
        return body[start...].prefix(32)
    }

    /// In a room the message before may stand right there. A gateway that knows its request would leave the retracted one's push.
    @Test func theOthersAreAnotherRequestThanThatOfTheMessageBefore() throws {
        var state = state()
        var last = news(6, in: hall)
        last.time += 1
        try tell(&state, news(5, in: hall))
        try tell(&state, last)
        state.retracted(place(6), in: hall, now: 210)
        var others = try take(&state).notification
        #expect(others.count == 1 && others.position == place(5))
        let first = try id(others)
        #expect(try id(news(5, in: hall)) != first)
        others.failures += 1
        #expect(try id(others) == first, "it is repeated")
    }

    /// Who blocks somebody, or is blocked, takes back without a word: there is no new push.
    @Test(arguments: [true, false]) func outOfTouchNothingIsToldInThePlaceOfThePush(whileItIsTold: Bool) throws {
        var state = state()
        if whileItIsTold {
            for offset in [5, 6] as [Offset] { state.queue.put(news(offset)) }
            let taken = try take(&state)
            state.retracted(place(6), of: news(6).key, isOutOfTouch: true, now: 200)
            state.note(.told(taken.notification), of: taken, settings, now: 210)
        } else {
            try tell(&state, news(5), news(6))
            state.retracted(place(6), of: news(6).key, isOutOfTouch: true, now: 210)
        }
        let cancel = try take(&state)
        #expect(cancel.notification.isCancel && cancel.notification.position == place(6))
        state.note(.told(cancel.notification), of: cancel, settings, now: 220)
        #expect(state.queue.isEmpty && state.told.count == 0)
    }

    @Test func aPushIsTakenBackWhereTheOthersAreNotTold() throws {
        var state = state()
        try tell(&state, news(5), news(6))
        state.retracted(place(6), of: news(6).key, now: 210)
        let others = try take(&state)
        state.note(.muted, of: others, settings, now: 220)
        let cancel = try take(&state)
        #expect(cancel.notification.isCancel && cancel.notification.position == place(6))
    }

    @Test(arguments: [true, false]) func newsThatWaitTakeThePlaceOfThePush(areTold: Bool) throws {
        var state = state()
        try tell(&state, news(5))
        state.queue.put(news(8))
        state.retracted(place(5), of: news(5).key, now: 210)
        let later = try take(&state)
        #expect(later.notification == news(8))
        state.note(areTold ? .told(later.notification) : .muted, of: later, settings, now: 220)
        #expect(areTold == state.queue.isEmpty)
        if !areTold { #expect(try take(&state).notification == news(5).cancel(at: 210)) }
    }

    @Test func whatIsTakenBackInARoomIsSoForAllWhoWereToldOfItLast() throws {
        var state = state()
        try tell(&state, news(5, to: bob, in: hall))
        try tell(&state, news(5, to: eve, in: hall))
        try tell(&state, news(6, to: eve))
        // One is being told, and one of something that came later.
        state.queue.put(news(5, to: ann, in: hall))
        let taken = try take(&state)
        try tell(&state, news(7, to: eve, in: hall))
        state.retracted(place(5), in: hall, now: 210)
        state.note(.told(taken.notification), of: taken, settings, now: 220)
        let cancels = [try take(&state), try take(&state)].map(\.notification)
        #expect(cancels.allSatisfy { $0.isCancel && $0.position == place(5) && $0.channel == hall.channel })
        #expect(Set(cancels.map(\.key.user)) == [ann, bob])
        #expect(state.queue.take(now: 1_000) == nil)
        #expect(state.told.users(of: hall) == [eve])
        state.forget(UserKey(tenant: acme, user: eve))
        #expect(state.told.users(of: hall).isEmpty && state.told.count == 0)
    }
}
