import LonglineServer
import LonglineWire
import Testing

@testable import LonglineClient

/// More rooms than a server lets a client have lanes, over QUIC on loopback.
@Suite("Many rooms, end to end", .serialized, .timeLimit(.minutes(3)))
struct ManyRoomsTests {
    private static let count = 600

    private func joinAll(_ client: LonglineClient) async throws {
        for start in stride(from: 0, to: Self.count, by: 8) {
            try await withThrowingTaskGroup(of: Void.self) { group in
                for number in start..<min(start + 8, Self.count) {
                    group.addTask { try await client.join(RoomID("r\(number)")) }
                }
                try await group.waitForAll()
            }
        }
    }

    private func sendToAll(_ client: LonglineClient, _ text: String) async throws {
        var receipts: [SendReceipt] = []
        for number in 0..<Self.count { receipts.append(try await client.send(text, to: .room("r\(number)"))) }
        for receipt in receipts { _ = try await receipt.acknowledged() }
    }

    @Test("a device in 600 rooms gets a message of each while it confirms none, reads history, and confirms them all")
    func sixHundredRooms() async throws {
        let service = try await LiveService {
            $0.roomsPerUser = 1_000
            $0.roomRequestsPerSecond = 1_000_000
            $0.roomRequestBurst = 10_000
        }
        let alice = try service.client("alice")
        let bob = try service.client("bob") { $0.confirmation = .explicit }
        for client in [alice, bob] {
            try await client.connect()
            try await joinAll(client)
        }
        await bob.disconnect()
        // A client's lanes: each message waits for its answer, all at once.
        try await sendToAll(alice, "one")
        try await bob.connect()
        var messages: [ChannelID: Message] = [:]
        for await message in bob.messages where message.kind == .message {
            #expect(messages.updateValue(message, forKey: message.channel) == nil)
            if messages.count == Self.count { break }
        }
        #expect(Set(messages.values.map(\.text)) == ["one"])
        let last = ChannelID.room(try RoomID("r\(Self.count - 1)"))
        #expect(try await bob.history(of: last, limit: 1).messages.map(\.text) == ["one"])
        // What the app is done with reaches the service on a lane of each room.
        for message in messages.values { message.confirm() }
        try await sendToAll(alice, "two")
        var later: Set<ChannelID> = []
        for await message in bob.messages where message.kind == .message {
            #expect(message.text == "two")
            message.confirm()
            later.insert(message.channel)
            if later.count == Self.count { break }
        }
        await bob.disconnect()
        try await bob.connect()
        _ = try await alice.send("three", to: .room("r0")).acknowledged()
        var third: [String] = []
        for await message in bob.messages where message.kind == .message {
            third.append(message.text)
            if message.text == "three" { break }
        }
        #expect(third == ["three"], "what was confirmed does not come again")
        for client in [alice, bob] { await client.disconnect() }
        await service.stop()
    }
}
