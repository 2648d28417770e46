import LonglineWire
import Synchronization
import Testing

@testable import LonglineClient

@Suite("Messages that the app leaves unread", .timeLimit(.minutes(1)))
struct UnreadTests {
    @Test("too much of it keeps the client away until the app has read, says so, and loses nothing")
    func tooMuch() async throws {
        let harness = try ClientHarness()
        let client = harness.client
        let room = ChannelID.room(try RoomID("r"))
        // Each message weighs its payload and 128.
        try await client.core.ask { $0.unreadLimit = 2_000 }
        try await client.connect()
        let states = client.states
        for index in 0..<40 { try harness.service.post("\(index)", in: room) }
        for await state in states {
            if case .waiting(_, let reason) = state, reason.contains("wait for the app to read") { break }
        }
        let attempts = try await client.core.ask { $0.attempts }
        while try await client.core.ask({ $0.attempts }) < attempts + 5 { await Task.yield() }
        #expect(harness.service.state.withLock { $0.requests.count } == 1)
        #expect(client.core.outlets.messages.count == 16)
        var texts: [String] = []
        for await message in client.messages {
            texts.append(message.text)
            if texts.count == 40 { break }
        }
        #expect(texts == (0..<40).map(String.init))
        await client.disconnect()
    }
}
