import Foundation
import LonglineStore
import LonglineWire
import NIOCore
import Testing

@testable import LonglineServer

private let ann = identifier { try UserID("ann") }
private let bob = identifier { try UserID("bob") }
private let hall = identifier { try RoomID("hall") }

/// What a push says is what the log says when it is told, however long it waited.
extension WebhookTests {
    /// Ann's publishes, straight into a store.
    private struct Author {
        let store = InMemoryStore()
        var last: PublishID = 0

        func device(_ user: UserID) -> DeviceKey {
            DeviceKey(tenant: TokenIssuer.tenant, user: user, device: identifier { try DeviceID("phone") })
        }

        /// - Returns: where it stands, and where the recipient's copy does.
        mutating func publish(
            _ text: String, in room: RoomID?, as kind: PublishKind = .message, timeToLive: UInt64 = 0
        ) async throws -> (own: Position, copy: Position) {
            last += 1
            let request = AppendRequest(
                device: device(ann), producer: ProducerID(high: 1, low: 1),
                channel: room.map { .room($0) } ?? .user(ann),
                publish: Publish(
                    id: last, tag: last, after: last - 1, recipient: room == nil ? bob : nil, kind: kind,
                    timeToLive: timeToLive, payload: ByteBuffer(string: text)))
            guard case .entered(let published, _, _, let copy)? = await store.append([request]).first else {
                throw CancellationError()
            }
            return (published.position, copy?.position ?? published.position)
        }
    }

    /// What Bob is told of a message that waited, as its text was when it came.
    private func told(
        _ text: String, at position: Position, in room: RoomID?, count: UInt64 = 1, expiry: UInt64 = 0,
        _ store: InMemoryStore
    ) async throws -> News {
        var told: News?
        try await withTemporaryDirectory { folder in
            let now = WallClock.milliseconds()
            let path = folder + "/notifications.db"
            let journal = try NotificationJournal(path: path)
            let notification = PendingNotification(
                key: PendingNotification.Key(
                    tenant: TokenIssuer.tenant, user: bob, conversation: room.map { .room($0) } ?? .user(ann)),
                channel: room.map { .room($0) } ?? .user(bob), position: position, sender: ann, count: count,
                time: now, expiry: expiry, until: count > 1 ? 0 : nil, payload: ByteBuffer(string: text), since: now,
                notBefore: now)
            try await journal.apply(keep: [notification], forget: [])
            try journal.close()
            try await withWebhook(
                store: store,
                { endpoint, configuration in
                    endpoint.includesPayload = true
                    configuration.journalPath = path
                }
            ) { _, backend in told = try news(try await requests(backend, 1)[0]) }
        }
        return try #require(told)
    }

    private func text(_ news: News) -> String? {
        news.payload.flatMap { Data(base64Encoded: $0) }.map { String(decoding: $0, as: UTF8.self) }
    }

    @Test(arguments: [true, false]) func whatWasEditedBeforeItIsToldIsToldAsItIsThen(isRoom: Bool) async throws {
        var author = Author()
        let room = isRoom ? hall : nil
        for user in [ann, bob] {
            _ = try await author.store.change(hall, .join(create: true), by: author.device(user))
        }
        let before = try await author.publish("another", in: room)
        let message = try await author.publish("a typo", in: room)
        _ = try await author.publish("better", in: room, as: .edit(message.own))
        _ = try await author.publish("+1", in: room, as: .react(message.own))
        _ = try await author.publish("best", in: room, as: .edit(message.own))
        _ = try await author.publish("of another", in: room, as: .edit(before.own))
        let news = try await told("a typo", at: message.copy, in: room, author.store)
        #expect(text(news) == "best" && news.offset == message.copy.offset && news.count == 1)
    }

    @Test func anEditThatIsTooLargeLeavesThePushWithoutAText() async throws {
        var author = Author()
        let message = try await author.publish("a typo", in: nil)
        let long = String(repeating: "x", count: FrameLimits.maximumPayload + 1)
        _ = try await author.publish(long, in: nil, as: .edit(message.own))
        let news = try await told("a typo", at: message.copy, in: nil, author.store)
        #expect(news.payload == nil && news.count == 1)
    }

    @Test func anEditIsFoundHoweverMuchCameBehindTheMessage() async throws {
        var author = Author()
        let message = try await author.publish("a typo", in: nil)
        let long = String(repeating: "x", count: FrameLimits.maximumPayload + 1)
        for _ in 0..<9 { _ = try await author.publish(long, in: nil) }
        let unedited = try await told("a typo", at: message.copy, in: nil, author.store)
        #expect(text(unedited) == "a typo")
        _ = try await author.publish("better", in: nil, as: .edit(message.own))
        let news = try await told("a typo", at: message.copy, in: nil, author.store)
        #expect(text(news) == "better")
    }

    @Test(arguments: [true, false]) func whatWasTakenBackBeforeItIsToldIsNotCounted(isRoom: Bool) async throws {
        var author = Author()
        let room = isRoom ? hall : nil
        for user in [ann, bob] {
            _ = try await author.store.change(hall, .join(create: true), by: author.device(user))
        }
        _ = try await author.publish("one", in: room)
        let second = try await author.publish("two", in: room)
        let last = try await author.publish("three", in: room)
        _ = try await author.publish("", in: room, as: .retract(second.own))
        let news = try await told("three", at: last.copy, in: room, count: 3, author.store)
        #expect(news.count == 2 && text(news) == "three")
    }

    @Test(arguments: [true, false], [true, false]) func whatIsOverBeforeItIsToldIsNotCounted(isRoom: Bool, isLast: Bool)
        async throws
    {
        var author = Author()
        let room = isRoom ? hall : nil
        for user in [ann, bob] {
            _ = try await author.store.change(hall, .join(create: true), by: author.device(user))
        }
        var places: [Position] = []
        for word in ["one", "two", "three"] {
            let isBrief = word == (isLast ? "three" : "two")
            places.append(try await author.publish(word, in: room, timeToLive: isBrief ? 1 : 0).copy)
        }
        // It is over when a millisecond has passed.
        let end = WallClock.milliseconds() + 1
        while WallClock.milliseconds() <= end { await Task.yield() }
        let last = try #require(places.last)
        let news = try await told("three", at: last, in: room, count: 3, expiry: isLast ? end : 0, author.store)
        // In the place of the last one the others are told, without a text.
        #expect(news.count == 2 && text(news) == (isLast ? nil : "three"))
    }

    @Test func whoJoinedBehindSomeOfTheMessagesIsToldOfTheOthersOnly() async throws {
        var author = Author()
        _ = try await author.store.change(hall, .join(create: true), by: author.device(ann))
        for index in 0..<3 { _ = try await author.publish("before \(index)", in: hall) }
        _ = try await author.store.change(hall, .join(create: false), by: author.device(bob))
        // The offsets of other rooms' entries lie in between.
        for index in 0..<5 {
            let other = identifier { try RoomID("other-\(index)") }
            _ = try await author.store.change(other, .join(create: true), by: author.device(ann))
        }
        _ = try await author.publish("one", in: hall)
        let last = try await author.publish("two", in: hall)
        let news = try await told("two", at: last.copy, in: hall, count: 5, author.store)
        #expect(news.count == 2 && text(news) == "two")
    }
}
