import LonglineServer
import LonglineTestKit
import LonglineWire
import NIOCore
import Testing

@_spi(Testing) @testable import LonglineClient

/// Large messages between real clients and a real server over QUIC on loopback.
@Suite("Large messages", .serialized, .timeLimit(.minutes(2)))
struct LargeMessageTests {
    /// Bytes that tell their place.
    private func bytes(_ count: Int) -> ByteBuffer {
        ByteBuffer(bytes: (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 / 7) })
    }

    @Test("a message of 3 MB arrives whole, in its place, while another channel goes on")
    func threeMegabytes() async throws {
        let service = try await LiveService { $0.maximumPayload = 16 << 20 }
        let alice = try service.client("alice")
        let bob = try service.client("bob")
        for client in [alice, bob] {
            try await client.connect()
            try await client.join(RoomID("files"))
        }
        let payload = bytes(3_000_000)
        let before = try await alice.send("before", to: .room("files"))
        let large = try await alice.send(payload, to: .room("files"))
        let after = try await alice.send("after", to: .room("files"))
        let chat = try await alice.send("hello", to: .user("bob"))
        _ = try await chat.acknowledged()
        for receipt in [before, large, after] { _ = try await receipt.acknowledged() }
        var files: [Message] = []
        var inbox: [Message] = []
        for await message in bob.messages where message.kind == .message {
            if case .user = message.channel { inbox.append(message) } else { files.append(message) }
            if files.count == 3, inbox.count == 1 { break }
        }
        #expect(inbox.map(\.text) == ["hello"])
        try #require(files.map { $0.payload.readableBytes } == [6, 3_000_000, 5])
        #expect(files[1].payload == payload)
        for client in [alice, bob] { await client.disconnect() }
        await service.stop()
    }

    @Test("what is over the service's limit is refused, and what comes behind it arrives")
    func tooLarge() async throws {
        let service = try await LiveService()
        let alice = try service.client("alice")
        let bob = try service.client("bob")
        for client in [alice, bob] { try await client.connect() }
        let large = try await alice.send(bytes((1 << 20) + 1), to: .user("bob"))
        let fits = try await alice.send(bytes(1 << 20), to: .user("bob"))
        let error = await #expect(throws: ClientError.self) { try await large.acknowledged() }
        #expect(error?.refusal == .payloadTooLarge)
        _ = try await fits.acknowledged()
        #expect(await bob.receive(1).first?.payload == bytes(1 << 20))
        await #expect(throws: ClientError.self) {
            try await alice.send(ByteBuffer(repeating: 0, count: FrameLimits.maximumWholePayload + 1), to: .user("bob"))
        }
        for client in [alice, bob] { await client.disconnect() }
        await service.stop()
    }

    @Test("a large message survives the service's and the device's restart, and is there in history")
    func restarts() async throws {
        let service = try await LiveService()
        let directory = try TemporaryFolder()
        let storage = try SQLiteClientStorage(path: directory.path + "/client.sqlite")
        let alice = try service.client("alice") { $0.storage = storage }
        try await alice.connect()
        await service.stop()
        let receipt = try await alice.send(bytes(900_000), to: .user("bob"))
        await alice.disconnect()
        try await service.start()
        let again = try service.client("alice") { $0.storage = storage }
        try await again.connect()
        _ = try await again.send("last", to: .user("bob")).acknowledged()
        #expect(!receipt.isAnswered, "its client is gone")
        let bob = try service.client("bob")
        try await bob.connect()
        let received = await bob.receive(2)
        #expect(received.map { $0.payload.readableBytes } == [900_000, 4])
        let inbox = try #require(received.first?.channel)
        let page = try await bob.history(of: inbox, before: received[1].position, limit: 10)
        #expect(page.messages.map(\.payload) == [bytes(900_000)])
        for client in [again, bob] { await client.disconnect() }
        await service.stop()
    }

    @Test("what is said to all may be large, and history has it from either end")
    func broadcast() async throws {
        let service = try await LiveService()
        let speaker = try service.client("ann", scope: "publish:all/news receive")
        let listener = try service.client("bob")
        for client in [speaker, listener] { try await client.connect() }
        let payloads = [bytes(10), bytes(500_000), bytes(200_000), bytes(20)]
        for payload in payloads { _ = try await speaker.send(payload, to: .all("news")).acknowledged() }
        #expect(await listener.receive(4).map(\.payload) == payloads)
        let news = try ChannelID("all/news")
        var older: [ByteBuffer] = []
        var page = try await listener.history(of: news)
        older = page.messages.map(\.payload)
        while page.hasMore {
            page = try await listener.history(of: news, before: page.next)
            older = page.messages.map(\.payload) + older
        }
        #expect(older == payloads)
        var newer: [ByteBuffer] = []
        var place = Position(epoch: 0, offset: 0)
        repeat {
            page = try await listener.history(of: news, after: place)
            newer += page.messages.map(\.payload)
            place = page.next
        } while page.hasMore
        #expect(newer == payloads)
        for client in [speaker, listener] { await client.disconnect() }
        await service.stop()
    }

    @Test("a large message is edited to another, and taken back with all of its bytes")
    func remarks() async throws {
        let service = try await LiveService()
        let alice = try service.client("alice")
        let bob = try service.client("bob")
        for client in [alice, bob] { try await client.connect() }
        let published = try await alice.send(bytes(400_000), to: .user("bob")).acknowledged()
        let sent = MessageReference(try .user("bob"), published.position)
        _ = try await alice.edit(sent, to: bytes(300_000)).acknowledged()
        let received = await bob.receive(2)
        #expect(received.map(\.payload) == [bytes(400_000), bytes(300_000)])
        #expect(received.map(\.kind) == [.message, .edited])
        _ = try await alice.retract(sent).acknowledged()
        #expect(await bob.receive(1).map(\.kind) == [.retracted])
        let page = try await bob.history(of: .user(UserID("bob")))
        #expect(page.messages.map(\.kind) == [.retracted])
        for client in [alice, bob] { await client.disconnect() }
        await service.stop()
    }
}

extension SendReceipt {
    /// Whether the service has answered, and this client told of it.
    fileprivate var isAnswered: Bool { tracker.outcome.isResolved }
}
