import Foundation
import LonglineWire
import NIOCore
import Testing

@testable import LonglineClient

/// Edits, retractions and reactions on their way through the client.
@Suite(.timeLimit(.minutes(1))) struct RemarkTests {
    @Test("the durable outbox keeps what a publish names")
    func storage() async throws {
        let path = NSTemporaryDirectory() + "/longline-remarks-\(UUID().uuidString)/client.sqlite"
        defer {
            try? FileManager.default.removeItem(atPath: URL(fileURLWithPath: path).deletingLastPathComponent().path)
        }
        let target = Position(epoch: .max, offset: FrameLimits.maximumNumber)
        let kinds: [PublishKind] = [
            .message, .edit(target), .retract(target), .react(target), .reply(target), .request,
        ]
        let rows = kinds.enumerated().map { index, kind in
            StoredPublish(
                id: UInt64(index + 1), tag: .max, after: UInt64(index), channel: .user(must("ann")),
                recipient: index % 2 == 0 ? nil : must("bob"), kind: kind, timeToLive: 5, queuedAt: 7,
                payload: ByteBuffer(string: "p\(index)"), send: SendID(high: .max, low: UInt64(index)),
                attempted: index % 2 == 0)
        }
        let storage = try SQLiteClientStorage(path: path)
        try await storage.apply(rows.map { .insert($0) })
        try storage.close()
        let reopened = try SQLiteClientStorage(path: path)
        #expect(try await reopened.load().outbox == rows)
        try reopened.close()
    }

    @Test("a message names itself by its room, or by the other side")
    func references() {
        func message(_ channel: ChannelID, sender: String, recipient: String? = nil) -> Message {
            Message(
                channel: channel, position: Position(epoch: 3, offset: 9), kind: .message, sender: must(sender),
                device: device, recipient: recipient.map(must), origin: nil, target: nil, time: 0,
                expiry: nil, payload: ByteBuffer(), redelivered: false, isOwn: false, gapBefore: nil, confirmer: nil)
        }
        let place = Position(epoch: 3, offset: 9)
        let inbox = ChannelID.user(must("ann"))
        #expect(message(inbox, sender: "bob").reference == MessageReference(.user(must("bob")), place))
        #expect(
            message(inbox, sender: "ann", recipient: "bob").reference == MessageReference(.user(must("bob")), place))
        #expect(message(inbox, sender: "ann").reference == MessageReference(.user(must("ann")), place))
        do {
            let hall = try RoomID("hall")
            #expect(message(.room(hall), sender: "bob").reference == MessageReference(.room(hall), place))
        } catch { Issue.record("\(error)") }
    }

    @Test("what names a message that is gone comes with its place all the same, and an edit with the whole content")
    func targetIsGone() async throws {
        let harness = try ClientHarness()
        try await harness.client.connect()
        let inbox = ChannelID.user(must("alice"))
        let start = Position(epoch: FakeService.epoch, offset: 0)
        harness.service.send(.gap(Gap(from: start, first: 5)), in: inbox)
        for (offset, kind) in [(Offset(6), EntryKind.edited), (7, .reacted), (8, .retracted)] {
            let entry = Entry(
                offset: offset, previous: offset - 1, kind: kind, sender: must("bob"), device: device,
                producer: ProducerID(high: 9, low: 9), publishID: offset, recipient: nil, origin: nil, target: 3,
                time: 0, expiry: 0, payload: ByteBuffer(string: "\(kind)"))
            harness.service.send(.deliver(Deliver(entry: entry, redelivered: false)), in: inbox)
        }
        let received = await harness.client.receive(3)
        #expect(received.map(\.kind) == [.edited, .reacted, .retracted])
        #expect(received.allSatisfy { $0.target == Position(epoch: FakeService.epoch, offset: 3) })
        #expect(received.map(\.text) == received.map { "\($0.kind)" })
        #expect(received.first?.gapBefore?.upTo.offset == 5)
        await harness.client.disconnect()
    }

    private let device: DeviceID = { do { return try DeviceID("d") } catch { fatalError("\(error)") } }()
}

private func must(_ name: String) -> UserID { do { return try UserID(name) } catch { fatalError("\(error)") } }

extension RemarkTests {
    @Test("an edit, a reaction and a retraction reach the other side, and history forgets what was retracted")
    func endToEnd() async throws {
        let service = try await LiveService()
        let alice = try service.client("alice")
        let bob = try service.client("bob")
        for client in [alice, bob] { try await client.connect() }
        let published = try await alice.send("helo", to: .user("bob")).acknowledged()
        let sent = MessageReference(try .user("bob"), published.position)
        try await alice.edit(sent, to: "hello")
        let received = await bob.receive(2)
        #expect(received.map(\.text) == ["helo", "hello"] && received.map(\.kind) == [.message, .edited])
        #expect(received[1].target == received[0].position)
        _ = try await bob.react(to: received[0].reference, with: "👍").acknowledged()
        let reaction = try #require(await alice.receive(1).first)
        #expect(reaction.kind == .reacted && reaction.text == "👍" && reaction.target == published.position)
        let refused = try await bob.retract(received[0].reference)
        await #expect { try await refused.acknowledged() } throws: { ($0 as? ClientError)?.refusal == .invalidTarget }
        _ = try await alice.retract(sent, reason: "typo").acknowledged()
        let taken = try #require(await bob.receive(1).first)
        #expect(taken.kind == .retracted && taken.target == received[0].position && taken.text == "typo")
        let page = try await bob.history(of: .user(UserID("bob")))
        #expect(page.messages.map(\.kind) == [.reacted, .retracted])
        #expect(page.absent.map(\.reason) == [.retracted])
        for client in [alice, bob] { await client.disconnect() }
        await service.stop()
    }
}
