import Foundation
import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import Testing

@testable import LonglineServer

private let ann = identifier { try UserID("ann") }
private let bob = identifier { try UserID("bob") }
private let hall = identifier { try RoomID("hall") }
private let vault = identifier { try RoomID("vault") }

/// A session is no sign that a message arrived.
extension WebhookTests {
    private func acknowledge(_ device: TestDevice, _ server: TestServer, _ channel: ChannelID) async throws {
        let deliver = try await device.delivered(channel)
        let key = ChannelKey(tenant: TokenIssuer.tenant, channel: channel)
        let epoch = try #require(try await server.store.head(of: key)).position.epoch
        try await device.acknowledge(channel, epoch: epoch, offset: deliver.entry.offset)
    }

    @Test func whatADeadSessionNeverConfirmedIsToldWhenItEnds() async throws {
        try await withWebhook { server, backend in
            let phone = try await server.connected("ann")
            let dead = try await server.connected("bob")
            let alive = try await server.connected("bob", "tablet")
            try await phone.message("one", to: bob)
            try await acknowledge(alive, server, .user(bob))
            _ = try await statistics(server) { $0.held == 0 }
            for text in ["two", "three"] { try await phone.message(text, to: bob) }
            #expect(try await statistics(server) { $0.held == 1 }.waiting == 0)
            try await alive.drop()
            // The other one still seems to be there.
            #expect(try await statistics(server) { $0.held == 1 }.waiting == 0)
            try await dead.drop()
            let news = try news(try await requests(backend, 1)[0])
            #expect(news.user == "bob" && news.conversation == "user/ann" && news.count == 2)
            _ = try await statistics(server) { $0.sent == 1 && $0.held == 0 && $0.waiting == 0 }
        }
    }

    /// The loop that answers the publish may come behind the one that delivers it.
    @Test(arguments: [true, false]) func whatWasConfirmedBeforeItWasNotedIsNotTold(isWritten: Bool) async throws {
        let store = FaultyStore()
        try await withWebhook(store: store) { server, backend in
            let core = server.runtime.core
            let webhooks = try #require(core.webhooks)
            let phone = try await server.connected("ann")
            let other = try await server.connected("bob")
            guard case .published(let published) = try await phone.message("one", to: bob) else {
                return #expect(Bool(false), "not entered")
            }
            let inbox = ChannelKey(tenant: TokenIssuer.tenant, channel: .user(bob))
            let head = try #require(try await store.head(of: inbox)).position
            let place = ChannelPosition(channel: inbox.channel, position: head)
            let user = UserKey(tenant: inbox.tenant, user: bob)
            if !isWritten { store.set { $0.isFull = true } }
            try await acknowledge(other, server, inbox.channel)
            if isWritten {
                while try await store.confirmed(by: bob, in: inbox) != head { await Task.yield() }
            } else {
                while !core.cursors.covers(place, of: user) { await Task.yield() }
            }
            let request = AppendRequest(
                device: DeviceKey(tenant: inbox.tenant, user: ann, device: phone.device),
                producer: ProducerID(high: 1, low: 1), channel: .user(ann),
                publish: Publish(
                    id: 1, tag: 1, after: 0, recipient: bob, timeToLive: 0, payload: ByteBuffer(string: "one")))
            webhooks.entered(
                request, published, expiry: 0, copy: InboxCopy(channel: inbox.channel, position: head))
            #expect(webhooks.statistics.held == 1)
            try await other.drop()
            let statistics = try await statistics(server) { $0.held == 0 && $0.sent + $0.cancelled > 0 }
            #expect(statistics.cancelled == 1 && statistics.waiting == 0 && backend.requests.isEmpty)
            store.set { $0.isFull = false }
        }
    }

    @Test func anAppThatGoesToTheBackgroundIsToldWhatItDidNotConfirm() async throws {
        try await withWebhook({ endpoint, _ in endpoint.notifiesBackground = true }) { server, backend in
            let phone = try await server.connected("ann")
            let away = try await server.connected("bob")
            try await phone.message("one", to: bob)
            _ = try await statistics(server) { $0.held == 1 }
            try await away.send([(.mode(.background), .control)])
            #expect(try news(try await requests(backend, 1)[0]).user == "bob")
        }
    }

    @Test func ofARoomsNewsWhatWasConfirmedBeforeItsMembersWereLookedUpIsNotHeld() async throws {
        try await withWebhook { server, backend in
            let phone = try await server.connected("ann")
            let other = try await server.connected("bob")
            for (number, device) in [phone, other].enumerated() {
                for (index, room) in [hall, vault].enumerated() {
                    _ = try await device.request(room, number: UInt64(number * 2 + index))
                }
            }
            try await phone.publish("read", to: .room(hall))
            try await acknowledge(other, server, .room(hall))
            try await phone.publish("not read", to: .room(vault))
            _ = try await statistics(server) { $0.held == 1 }
            try await other.drop()
            let news = try news(try await requests(backend, 1)[0])
            #expect(news.user == "bob" && news.conversation == "room/vault")
            #expect(try await statistics(server) { $0.sent == 1 }.held == 0)
        }
    }

    @Test func whoWroteTheLastOfARoomsNewsIsToldOfTheMessageBeforeIt() async throws {
        try await withWebhook({ endpoint, _ in endpoint.includesPayload = true }) { server, backend in
            let phone = try await server.connected("ann")
            let other = try await server.connected("bob")
            for (number, device) in [phone, other].enumerated() {
                _ = try await device.request(hall, number: UInt64(number))
            }
            try await phone.publish("a question", to: .room(hall))
            try await other.publish("an answer", to: .room(hall))
            _ = try await statistics(server) { $0.held == 2 }
            // It had sent its own message, and vanished before it confirmed the one before.
            try await other.drop()
            let news = try news(try await requests(backend, 1)[0])
            #expect(news.user == "bob" && news.sender == "ann" && news.count == 1)
            #expect(news.payload == Data("a question".utf8).base64EncodedString())
        }
    }

    /// Members are looked up some time after a message, and told later still.
    @Test func whoJoinedBehindAMessageIsNotToldOfIt() async throws {
        try await withTemporaryDirectory { folder in
            let store = InMemoryStore()
            let eve = try UserID("eve")
            func device(_ user: UserID) throws -> DeviceKey {
                DeviceKey(tenant: TokenIssuer.tenant, user: user, device: try DeviceID("phone"))
            }
            for user in [ann, eve] { _ = try await store.change(hall, .join(create: true), by: device(user)) }
            let request = AppendRequest(
                device: try device(ann), producer: ProducerID(high: 1, low: 1), channel: .room(hall),
                publish: Publish(
                    id: 1, tag: 1, after: 0, recipient: nil, timeToLive: 0, payload: ByteBuffer(string: "of bob")))
            guard case .entered(let published, _, _, _)? = await store.append([request]).first else {
                return #expect(Bool(false), "not entered")
            }
            _ = try await store.change(hall, .join(create: false), by: device(bob))
            let now = WallClock.milliseconds()
            let path = folder + "/notifications.db"
            let journal = try NotificationJournal(path: path)
            try await journal.apply(
                keep: [bob, eve].map { user in
                    PendingNotification(
                        key: PendingNotification.Key(
                            tenant: TokenIssuer.tenant, user: user, conversation: .room(hall)),
                        channel: .room(hall), position: published.position, sender: ann, count: 2,
                        time: published.time, expiry: 0, payload: nil, since: now, notBefore: now)
                }, forget: [])
            try journal.close()
            try await withWebhook(store: store, { _, configuration in configuration.journalPath = path }) {
                server, backend in
                let statistics = try await statistics(server) { $0.waiting == 0 && $0.sent == 1 }
                #expect(statistics.cancelled == 1)
                #expect(try backend.requests.map { try news($0).user } == ["eve"])
            }
        }
    }

    /// - Parameter room: where the message stands; nil: it went to Bob.
    func retract(_ position: Position, by device: TestDevice, in room: RoomID? = nil) async throws {
        var frames =
            room.map { device.publishFrames("", to: .room($0)) }
            ?? device.publishFrames("", to: .user(device.user), recipient: bob)
        guard case .publish(var publish)? = frames.last?.0, let lane = frames.popLast()?.1 else { return }
        publish.kind = .retract(position)
        try await device.send(frames + [(.publish(publish), lane)])
        _ = try await device.next { if case .published(let published) = $0 { published } else { nil } }
    }
}
