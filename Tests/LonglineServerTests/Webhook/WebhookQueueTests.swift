import LonglineStore
import LonglineTestKit
import LonglineWire
import NIOCore
import Testing

@testable import LonglineServer

/// What waits to be told, and when.
@Suite struct WebhookQueueTests {
    private static let user = identifier { UserKey(tenant: try TenantID("acme"), user: try UserID("bob")) }

    private func news(
        _ offset: Offset, of conversation: String = "user/ann", user: UserKey = Self.user, at time: UInt64 = 100,
        channel: ChannelID? = nil, epoch: Epoch = 1, expiry: UInt64 = 0, from sender: String = "ann"
    ) -> PendingNotification {
        identifier {
            PendingNotification(
                key: PendingNotification.Key(
                    tenant: user.tenant, user: user.user, conversation: try ChannelID(conversation)),
                channel: channel ?? .user(user.user), position: Position(epoch: epoch, offset: offset),
                sender: try UserID(sender), count: 1, time: time, expiry: expiry, payload: nil, since: time,
                notBefore: time)
        }
    }

    private func taken(_ queue: inout WebhookQueue, _ now: UInt64) throws -> WebhookQueue.Taken {
        let next = queue.take(now: now)
        return try #require(next)
    }

    @Test func newsOfAConversationAreOneAndOthersAreTheirOwn() throws {
        var queue = WebhookQueue(limit: 10)
        for offset in 1...3 as ClosedRange<Offset> { queue.put(news(offset, at: 99 + offset)) }
        queue.put(news(9, of: "user/eve", at: 101))
        #expect(queue.count == 2)
        #expect(queue.take(now: 99) == nil)
        let first = try taken(&queue, 100)
        #expect(first.notification.count == 3 && first.notification.position.offset == 3)
        #expect(first.notification.since == 100 && first.notification.notBefore == 100)
        #expect(queue.take(now: 100) == nil)
        let second = try taken(&queue, 101)
        #expect(second.notification.key.conversation.description == "user/eve")
        #expect(queue.take(now: .max) == nil, "what is under way is not taken again")
        queue.told(first)
        queue.told(second)
        #expect(queue.isEmpty && queue.nextTime() == nil)
        // The same entry once more, as a store restored from a backup might say.
        queue.put(news(5))
        queue.put(news(5))
        #expect(queue.take(now: .max)?.notification.count == 1)
    }

    @Test func whatComesWhileItIsBeingToldIsToldNext() throws {
        var queue = WebhookQueue(limit: 10)
        queue.put(news(1))
        queue.put(news(2))
        let first = try taken(&queue, 100)
        queue.put(news(3, at: 200))
        #expect(queue.take(now: .max) == nil)
        queue.told(first)
        #expect(queue.take(now: 199) == nil)
        let next = try taken(&queue, 200)
        #expect(next.notification.count == 1 && next.notification.position.offset == 3)
        queue.failed(next, until: 900)
        #expect(queue.take(now: 899) == nil)
        let again = try taken(&queue, 900)
        #expect(again.notification.failures == 1 && again.notification.count == 1)
        // News don't bring a repetition forward.
        queue.failed(again, until: 2_000)
        queue.put(news(4, at: 901))
        #expect(queue.nextTime() == 2_000)
        #expect(queue.take(now: 2_000)?.notification.count == 2)
    }

    @Test func severalAreWorthTellingAsLongAsAnyOfThem() throws {
        func until(_ expiries: UInt64...) throws -> UInt64 {
            var queue = WebhookQueue(limit: 10)
            var held = HeldNotifications(limit: 10)
            for (index, expiry) in expiries.enumerated() {
                queue.put(news(Offset(index + 1), expiry: expiry))
                held.put(news(Offset(index + 1), expiry: expiry))
            }
            let until = try taken(&queue, 100).notification.until
            #expect(held.take(Self.user).first?.until == until)
            return until
        }
        #expect(try until(500) == 500 && until(500, 300) == 500 && until(300, 500) == 500)
        #expect(try until(0, 300) == 0 && until(300, 0, 500) == 0)
        // What was told already keeps nothing worth telling that came behind it, nor does what was read.
        for isRead in [false, true] {
            var queue = WebhookQueue(limit: 10)
            queue.put(news(1))
            let first = try taken(&queue, 100)
            if isRead { _ = queue.confirmed(Self.user, .user(Self.user.user), first.notification.position) }
            for offset in 2...3 as ClosedRange<Offset> { queue.put(news(offset, expiry: 900 - 100 * offset)) }
            queue.told(first)
            let next = try taken(&queue, 100)
            #expect(next.notification.count == 2 && next.notification.until == 700)
            // But what could not be told is told with them.
            queue.put(news(4, expiry: 900))
            queue.failed(next, until: 200)
            #expect(try taken(&queue, 200).notification.until == 900)
        }
    }

    @Test func aConfirmationTakesOutWhatItCovers() throws {
        var queue = WebhookQueue(limit: 10)
        let room = try ChannelID("room/hall")
        queue.put(news(5, of: "user/ann"))
        queue.put(news(7, of: "user/eve"))
        queue.put(news(3, of: "room/hall", channel: room))
        queue.put(news(5, of: "user/ann", user: UserKey(tenant: Self.user.tenant, user: try UserID("eve"))))
        func confirm(_ channel: ChannelID, _ offset: Offset, epoch: Epoch = 1) -> Int {
            queue.confirmed(Self.user, channel, Position(epoch: epoch, offset: offset))
        }
        #expect(confirm(.user(Self.user.user), 4) == 0)
        #expect(confirm(.user(Self.user.user), 9, epoch: 2) == 0, "another life of the log")
        #expect(confirm(.user(Self.user.user), 6) == 1)
        #expect(queue.count == 3)
        #expect(confirm(room, 3) == 1)
        // One that is under way is not repeated.
        let taken = try taken(&queue, 100)
        #expect(confirm(.user(Self.user.user), 7) + confirm(.user(Self.user.user), 7) == 1)
        queue.failed(taken, until: 500)
        #expect(queue.count == 1 && queue[taken.notification.key] == nil)
        queue.forget(UserKey(tenant: Self.user.tenant, user: try UserID("eve")))
        #expect(queue.isEmpty)
    }

    @Test func aConfirmationLooksAtNothingThatItDoesNotCover() throws {
        let count: Offset = 500
        let inbox = ChannelID.user(Self.user.user)
        var queue = WebhookQueue(limit: 10_000)
        var held = HeldNotifications(limit: 10_000)
        func put(_ news: PendingNotification) {
            queue.put(news)
            held.put(news)
        }
        func confirm(_ channel: ChannelID, _ offset: Offset, epoch: Epoch = 1) -> [Int] {
            let place = Position(epoch: epoch, offset: offset)
            return [
                queue.confirmed(Self.user, channel, place), held.confirmed(Self.user, channel, place).count,
            ]
        }
        let rooms = try (1...count).map { try ChannelID("room/r\($0)") }
        for room in rooms { put(news(7, of: room.description, channel: room)) }
        for index in 1...count {
            // Each of several, in an order of their own, and the last of them count.
            put(news(count + 1 - index, of: "user/u\(index)"))
            put(news(2 * count + index, of: "user/u\(index)"))
            put(news(index, of: "user/old\(index)", epoch: 2))
        }
        for room in rooms { #expect(confirm(room, 6) == [0, 0]) }
        for room in rooms { #expect(confirm(room, 7) == [1, 1]) }
        #expect(confirm(inbox, 2 * count) == [0, 0])
        for index in 1...count { #expect(confirm(inbox, 2 * count + index) == [1, 1]) }
        #expect(confirm(inbox, .max) == [0, 0] && queue.count == Int(count) && held.count == Int(count))
        #expect(confirm(inbox, count - 1, epoch: 2) == [Int(count) - 1, Int(count) - 1])
        #expect(confirm(inbox, .max, epoch: 2) == [1, 1])
        #expect(queue.isEmpty && held.count == 0)
        #expect(queue.looks < 6 * count && held.looks < 6 * count)
    }

    @Test func newsOfWhatIsReadWhileItIsBeingToldWaitForThatRequest() throws {
        for how in ["read", "forgotten", "dropped"] {
            var queue = WebhookQueue(limit: 1)
            queue.put(news(1))
            #expect(queue.takeChanges().keep.map(\.position.offset) == [1])
            let first = try taken(&queue, 100)
            switch how {
            case "read": #expect(queue.confirmed(Self.user, .user(Self.user.user), first.notification.position) == 1)
            case "forgotten": queue.forget(Self.user)
            default: queue.put(news(2, of: "user/eve", at: 5_000))
            }
            #expect(queue[first.notification.key] == nil)
            #expect(queue.takeChanges().forget == [first.notification.key])
            if how == "dropped" { #expect(queue.dropped == 1) }
            queue.put(news(3, at: 200))
            #expect(queue.take(now: 4_999) == nil, "\(how): the first request is still under way")
            #expect(queue.takeChanges().keep.map(\.position.offset) == [3])
            queue.told(first)
            let next = try taken(&queue, 200)
            #expect(next.notification.count == 1 && next.notification.failures == 0)
            queue.told(next)
            #expect(queue[next.notification.key] == nil)
        }
        // Whose request fails meanwhile is no repetition of it; what is void and over leaves nothing.
        var queue = WebhookQueue(limit: 1)
        for round in 1...200 as ClosedRange<Offset> {
            queue.put(news(round))
            let taken = try taken(&queue, 100)
            #expect(queue.confirmed(Self.user, .user(Self.user.user), taken.notification.position) == 1)
            #expect(queue.isEmpty)
            if round % 2 == 0 { queue.failed(taken, until: 300) } else { queue.postpone(taken, until: 300) }
            #expect(queue.isEmpty && queue.nextTime() == nil)
        }
    }

    @Test func whatIsHeldIsBoundedAndLeavesWithItsUser() throws {
        var held = HeldNotifications(limit: 3)
        let eve = UserKey(tenant: Self.user.tenant, user: try UserID("eve"))
        for offset in 1...3 as ClosedRange<Offset> { held.put(news(offset)) }
        held.put(news(2))
        held.put(news(4, of: "user/joe"))
        held.put(news(4, user: eve))
        #expect(held.count == 3 && held.dropped == 0)
        held.confirmed(eve, .user(eve.user), Position(epoch: 2, offset: 9))
        held.confirmed(eve, .user(eve.user), Position(epoch: 1, offset: 3))
        #expect(held.count == 3)
        held.confirmed(eve, .user(eve.user), Position(epoch: 1, offset: 4))
        #expect(held.count == 2)
        let taken = held.take(Self.user)
        #expect(taken.map(\.position.offset) == [3, 4] && taken.map(\.count) == [3, 1])
        #expect(held.count == 0 && held.take(Self.user).isEmpty)
        for index in 1...5 as ClosedRange<Offset> { held.put(news(index, of: "user/u\(index)")) }
        #expect(held.count == 3 && held.dropped == 2)
        #expect(held.take(Self.user).map(\.position.offset) == [3, 4, 5])
    }

    @Test func theOldestGoesAtTheLimit() throws {
        var queue = WebhookQueue(limit: 3)
        for index in 1...5 as ClosedRange<Offset> { queue.put(news(index, of: "user/u\(index)")) }
        #expect(queue.count == 3 && queue.dropped == 2)
        // Changes leave no trace that grows.
        for round in 1...5_000 as ClosedRange<Offset> { queue.put(news(5 + round, of: "user/u5")) }
        #expect(queue.count == 3 && queue.dropped == 2)
        var left: [String] = []
        while let taken = queue.take(now: .max) {
            left.append(taken.notification.key.conversation.description)
            queue.told(taken)
        }
        #expect(left == ["user/u3", "user/u4", "user/u5"])
    }

    @Test func whoHasTheMostGivesWay() throws {
        let other = UserKey(tenant: identifier { try TenantID("other") }, user: Self.user.user)
        let first = [
            news(1, of: "user/joe", from: "joe"), news(1, of: "user/kim", from: "kim"),
            news(1, of: "user/joe", user: other, from: "joe"), news(1, of: "user/eve", user: other, from: "eve"),
        ]
        let flood = (1...50).map { news(Offset($0), of: "room/r\($0)", from: "eve") }
        var queue = WebhookQueue(limit: 10)
        var held = HeldNotifications(limit: 10)
        for news in first + flood {
            queue.put(news)
            held.put(news)
        }
        #expect(queue.count == 10 && queue.dropped == 44 && held.count == 10 && held.dropped == 44)
        let left = Set((first + flood.suffix(6)).map(\.key))
        for key in left { #expect(queue[key] != nil, "\(key)") }
        #expect(Set((held.take(Self.user) + held.take(other)).map(\.key)) == left)
    }

    @Test func theOldestOfWhoHasTheMostIsFoundInAnyOrder() throws {
        let tenants = try ["a", "b", "c"].map { try TenantID($0) }
        let senders = try ["eve", "joe", "kim", "lea"].map { try UserID($0) }
        var shares = NotificationShares()
        var waiting: [(key: PendingNotification.Key, sender: UserID, order: UInt64)] = []
        var random = SeededRandom(seed: 7)
        for order in 1...4_000 as ClosedRange<UInt64> {
            if waiting.count < 30, Int.random(in: 0..<5, using: &random) < 3 || waiting.isEmpty {
                let key = PendingNotification.Key(
                    tenant: try #require(tenants.randomElement(using: &random)), user: Self.user.user,
                    conversation: try ChannelID("room/r\(order)"))
                let sender = try #require(senders.randomElement(using: &random))
                shares.add(key, from: sender, order: order)
                waiting.append((key, sender, order))
            } else {
                shares.remove(order: waiting.remove(at: Int.random(in: 0..<waiting.count, using: &random)).order)
            }
            let found = shares.first
            guard let first = waiting.first(where: { $0.key == found }) else {
                #expect(found == nil && waiting.isEmpty)
                continue
            }
            let ofTenant = waiting.filter { $0.key.tenant == first.key.tenant }
            let ofSender = ofTenant.filter { $0.sender == first.sender }
            for tenant in tenants { #expect(waiting.count { $0.key.tenant == tenant } <= ofTenant.count) }
            for sender in senders { #expect(ofTenant.count { $0.sender == sender } <= ofSender.count) }
            #expect(ofSender.first?.order == first.order)
        }
    }

    @Test func theDiskLearnsTheDifference() throws {
        var queue = WebhookQueue(limit: 10)
        queue.restore([news(1, of: "user/a"), news(2, of: "user/b")])
        #expect(queue.takeChanges().keep.isEmpty)
        let a = try taken(&queue, 100)
        queue.told(a)
        queue.put(news(3, of: "user/b"))
        queue.put(news(4, of: "user/c"))
        let changes = queue.takeChanges()
        #expect(changes.forget == [a.notification.key])
        #expect(Set(changes.keep.map(\.position.offset)) == [3, 4])
        #expect(queue.takeChanges().keep.isEmpty)
        queue.restoreChanges(changes.keep.map(\.key) + changes.forget)
        let again = queue.takeChanges()
        #expect(again.forget == changes.forget && Set(again.keep) == Set(changes.keep))
    }

    @Test func withoutAJournalNothingIsNotedForIt() throws {
        var queue = WebhookQueue(limit: 10, hasJournal: false)
        for index in 1...10_000 as ClosedRange<Offset> {
            queue.put(news(1, user: UserKey(tenant: Self.user.tenant, user: try UserID("u\(index)"))))
            let taken = try taken(&queue, 100)
            if index % 2 == 0 { queue.told(taken) } else { queue.failed(taken, until: 100) }
        }
        #expect(queue.changed.isEmpty && !queue.isEmpty)
    }

    @Test func whatTheDiskNeverHadIsForgottenAlthoughNothingCanBeWritten() throws {
        var queue = WebhookQueue(limit: 10)
        queue.restore([news(1, of: "user/a"), news(2, of: "user/b")])
        // One on the disk is told, the other one gets news.
        queue.told(try taken(&queue, 100))
        queue.put(news(3, of: "user/b"))
        for index in 1...1_000 as ClosedRange<Offset> {
            queue.put(news(3 + index, of: "user/u\(index)"))
            // Gone before, during and after the write that fails.
            let key = PendingNotification.Key(
                tenant: Self.user.tenant, user: Self.user.user, conversation: try ChannelID("user/u\(index)"))
            func read() {
                let place = Position(epoch: 1, offset: 3 + index)
                #expect(queue.confirmed(Self.user, .user(Self.user.user), place, of: key.conversation) == 1)
            }
            if index % 3 == 0 { read() }
            let changes = queue.takeChanges()
            if index % 3 == 1 { read() }
            queue.notWritten(changes)
            if index % 3 == 2 { read() }
            #expect(queue.count == 1 && queue.changed.count == 2)
        }
        let changes = queue.takeChanges()
        #expect(changes.forget.map(\.conversation.description) == ["user/a"])
        #expect(changes.keep.map(\.position.offset) == [3] && changes.fresh.isEmpty)
    }

    @Test func whatComesAgainBeforeItWasForgottenOnTheDiskIsForgottenThereLater() throws {
        var queue = WebhookQueue(limit: 10)
        queue.restore([news(1)])
        queue.told(try taken(&queue, 100))
        queue.put(news(2))
        queue.told(try taken(&queue, 100))
        #expect(queue.takeChanges().forget == [news(1).key])
    }

    @Test func changesAreTakenInSlices() {
        var queue = WebhookQueue(limit: 100)
        for index in 1...25 as ClosedRange<Offset> { queue.put(news(index, of: "user/u\(index)")) }
        let slices = (0..<4).map { _ in queue.takeChanges(limit: 10).keep.map(\.position.offset) }
        #expect(slices.map(\.count) == [10, 10, 5, 0] && Set(slices.joined()) == Set(1...25))
    }

    @Test func whatHasNoRoomAnyMoreLeavesTheDisk() {
        var queue = WebhookQueue(limit: 2)
        queue.restore((1...5).map { news(Offset($0), of: "user/u\($0)") })
        let changes = queue.takeChanges()
        #expect(queue.count == 2 && changes.keep.isEmpty)
        #expect(Set(changes.forget.map(\.conversation.description)) == ["user/u1", "user/u2", "user/u3"])
    }

    @Test func aDeadEndpointIsLeftAlone() {
        var breaker = CircuitBreaker(after: 2, time: 1_000)
        func admits(_ now: UInt64) -> Bool { breaker.admits(now: now) }
        #expect(admits(0))
        breaker.failed(now: 10)
        #expect(admits(11) && !breaker.isOpen)
        breaker.failed(now: 20)
        #expect(breaker.isOpen)
        #expect(!admits(1_019) && breaker.opening == 1_020)
        // One request tries, and no other meanwhile.
        #expect(admits(1_020))
        #expect(!admits(1_021) && breaker.opening == nil)
        breaker.failed(now: 1_030)
        #expect(!admits(2_029))
        #expect(admits(2_030))
        breaker.withdrew()
        #expect(admits(2_031))
        breaker.succeeded()
        #expect(admits(2_032) && admits(2_032) && !breaker.isOpen)
    }

    @Test func datesOfHTTPFieldsAreRead() {
        for (text, seconds) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0), ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777),
            ("Tue, 29 Feb 2000 23:59:59 GMT", 951_868_799), ("Wed, 01 Mar 2000 00:00:00 GMT", 951_868_800),
            ("Fri, 31 Dec 9999 23:59:59 GMT", 253_402_300_799),
        ] as [(String, UInt64)] { #expect(HTTPDate.seconds(text) == seconds) }
        for text in [
            "", "3600", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994", "Sun, 06 Nov 1969 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT", "Sun, 06 Nov 1994 08:49 GMT", "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, +6 Nov 1994 08:49:37 GMT", "Sun, 06 Foo 1994 08:49:37 GMT", "Sun, 00 Nov 1994 08:49:37 GMT",
        ] { #expect(HTTPDate.seconds(text) == nil, "\(text)") }
    }

    @Test func waitsGrowWithinTheirBounds() throws {
        var settings = WebhookSettings(
            url: "http://h/", key: WebhookKey(id: "1", secret: Array(repeating: 1, count: 16)))
        settings.backOff = .seconds(1)
        settings.maximumBackOff = .seconds(60)
        for failures in 0..<200 {
            let wait = settings.wait(failures: failures)
            #expect(wait >= 500 && wait <= min(60_000, 1_000 << UInt64(min(failures, 20))))
        }
        #expect((0..<50).contains { _ in settings.wait(failures: 10) > 30_000 })
        for secret in [15, 0] {
            settings.key.secret = Array(repeating: 1, count: secret)
            #expect(throws: ServerError.self) { try settings.validate() }
        }
    }
}
