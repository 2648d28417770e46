import LonglineServer
import LonglineWire
import NIOCore
import Testing

@testable import LonglineClient

/// Conversations, receipts, requests and replies against a real server on loopback.
@Suite("Conversations end to end", .serialized, .timeLimit(.minutes(2)))
struct ConversationTests {
    @Test("unread counts, receipts and settings are the same on every device")
    func conversations() async throws {
        let service = try await LiveService()
        let alice = try service.client("alice")
        let phone = try service.client("bob")
        let tablet = try service.client("bob", "tablet")
        for client in [alice, phone, tablet] { try await client.connect() }
        let (toAlice, toTablet) = (alice.receipts, tablet.receipts)
        var sent: [Position] = []
        for index in 0..<3 {
            sent.append(try await alice.send("\(index)", to: .user("bob")).acknowledged().position)
        }
        let received = await phone.receive(3)
        let list = try await phone.conversations().conversations
        #expect(list.map(\.destination) == [try .user("alice")] && list.map(\.unread) == [3])
        try await phone.markRead(received[1])
        var delivered = false
        for await receipt in toAlice {
            #expect(receipt.user.description == "bob" && receipt.conversation == .user(receipt.user))
            if receipt.kind == .delivered { delivered = true }
            if receipt.kind == .read {
                #expect(receipt.position == sent[1])
                break
            }
        }
        #expect(delivered, "what was read had arrived before")
        for await receipt in toTablet where receipt.kind == .read {
            #expect(receipt.conversation == .user(try UserID("alice")) && receipt.position == received[1].position)
            break
        }
        #expect(try await tablet.conversations().conversations.map(\.unread) == [1])
        // A device's place is written a moment after it was told.
        while try await alice.conversations().conversations.first?.peerDelivered != sent[2] {}
        #expect(try await alice.conversations().conversations.first?.peerRead == sent[1])

        let notices = tablet.notices
        #expect(try await phone.mute(.user("alice")).mutedUntil == FrameLimits.maximumNumber)
        for await notice in notices {
            guard case .conversationChanged(let destination, let settings) = notice else { continue }
            #expect(destination.description == "user/alice" && settings.isMuted(at: 1))
            break
        }
        #expect(try await phone.unmute(.user("alice")).mutedUntil == 0)
        #expect(try await tablet.conversations().conversations.first?.settings.isMuted(at: 1) == false)
        #expect(try await phone.block(UserID("alice")).isBlocked)
        let refused = try await tablet.send("no", to: .user("alice"))
        await #expect { _ = try await refused.acknowledged() } throws: { ($0 as? ClientError)?.refusal == .blocked }
        #expect(try await phone.unblock(UserID("alice")).isBlocked == false)
        await #expect { _ = try await phone.mute(.room("nowhere")) } throws: {
            ($0 as? ClientError)?.refusal == .unknownChannel
        }
        for client in [alice, phone, tablet] { await client.disconnect() }
        await #expect { _ = try await phone.conversations() } throws: { ($0 as? ClientError)?.code == .notConnected }
        await service.stop()
    }

    @Test("what was confirmed just before the device disconnects is told to the service, and so to the sender")
    func farewell() async throws {
        let service = try await LiveService()
        let alice = try service.client("alice")
        let bob = try service.client("bob") { $0.confirmation = .explicit }
        for client in [alice, bob] { try await client.connect() }
        let receipts = alice.receipts
        let sent = try await alice.send("hello", to: .user("bob")).acknowledged().position
        var messages = bob.messages.makeAsyncIterator()
        let message = try #require(await messages.next())
        message.confirm()
        await bob.disconnect()
        for await receipt in receipts {
            #expect(receipt.kind == .delivered && receipt.position == sent)
            break
        }
        await alice.disconnect()
        await service.stop()
    }

    @Test("the list is paged, and what was read offline is said on the next connection")
    func pagesAndReconnects() async throws {
        let service = try await LiveService()
        let alice = try service.client("alice") { $0.sharesReadReceipts = false }
        try await alice.connect()
        for index in 0..<7 {
            let other = try service.client("user\(index)")
            try await other.connect()
            _ = try await other.send("hi", to: .user("alice")).acknowledged()
            await other.disconnect()
        }
        var names: [String] = []
        var place: ConversationCursor?
        repeat {
            let page = try await alice.conversations(after: place, limit: 3)
            names += page.conversations.map(\.destination.description)
            place = page.next
        } while place != nil
        #expect(names.count == 7 && Set(names).count == 7)
        let received = await alice.receive(7)
        await alice.disconnect()
        let receipts = alice.receipts
        for message in received { try await alice.markRead(message) }
        try await alice.connect()
        var read = 0
        for await receipt in receipts where receipt.kind == .read {
            read += 1
            if read == 7 { break }
        }
        #expect(try await alice.conversations().conversations.map(\.unread) == Array(repeating: 0, count: 7))
        await alice.disconnect()
        await service.stop()
    }

    @Test("a request is answered, also over a lost connection; without an answer the deadline decides")
    func requests() async throws {
        let service = try await LiveService { $0.drainSpread = .milliseconds(500) }
        let alice = try service.client("alice")
        let bob = try service.client("bob")
        for client in [alice, bob] { try await client.connect() }
        let handler = Task {
            for await request in bob.requests where request.text != "silence" {
                _ = try await request.reply("you said \(request.text)").acknowledged()
            }
        }
        let reply = try await alice.request(to: UserID("bob"), text: "hello", deadline: .seconds(20))
        #expect(reply.text == "you said hello" && reply.sender.description == "bob")
        await #expect {
            _ = try await alice.request(to: UserID("bob"), text: "silence", deadline: .milliseconds(200))
        } throws: { ($0 as? ClientError)?.code == .timedOut }
        await #expect {
            _ = try await alice.request(to: UserID("alice"), text: "me", deadline: .seconds(20))
        } throws: { ($0 as? ClientError)?.refusal == .unknownRecipient }
        // The service goes away and comes back while the request waits.
        async let later = alice.request(to: UserID("bob"), text: "later", deadline: .seconds(60))
        await service.stop()
        try await service.start()
        #expect(try await later.text == "you said later")
        // None of it came as a message.
        _ = try await alice.send("a message", to: .user("bob")).acknowledged()
        #expect(await bob.receive(1).map(\.text) == ["a message"])
        handler.cancel()
        for client in [alice, bob] { await client.disconnect() }
        await service.stop()
    }

    @Test("a reply that comes too late is counted")
    func lateReplies() async throws {
        let harness = try ClientHarness()
        try await harness.client.connect()
        let inbox = ChannelID.user(try UserID("alice"))
        let (sender, device) = (try UserID("bob"), try DeviceID("d"))
        let entry = Entry(
            offset: 1, previous: 0, kind: .reply, sender: sender, device: device,
            producer: ProducerID(high: 9, low: 9), publishID: 1, recipient: nil,
            origin: Position(epoch: 1, offset: 1), target: 4, time: 0, expiry: 0, payload: ByteBuffer(string: "late"))
        harness.service.send(.deliver(Deliver(entry: entry, redelivered: false)), in: inbox)
        while await harness.client.statistics.lateReplies == 0 { await Task.yield() }
        #expect(await harness.client.statistics.delivered == 0)
        await harness.client.disconnect()
    }
}
