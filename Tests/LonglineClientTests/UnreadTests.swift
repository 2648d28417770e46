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
            if case .waiting(_, let cause) = state, cause.message.contains("wait for the app to read") { break }
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

    @Test("the client comes back as soon as the app has read half of it, and no sooner")
    func half() async throws {
        let harness = try ClientHarness {
            $0.backOff = BackOffPolicy(base: .seconds(3_600), maximum: .seconds(3_600))
        }
        let client = harness.client
        let room = ChannelID.room(try RoomID("r"))
        try await client.core.ask { $0.unreadLimit = 2_000 }
        try await client.connect()
        let states = client.states
        for index in 0..<16 { try harness.service.post("\(index)", in: room) }
        for await state in states {
            if case .waiting(_, let cause) = state, cause.message.contains("wait for the app to read") { break }
        }
        var reader = client.messages.makeAsyncIterator()
        // Ten of 129 bytes and six of 130: what is left weighs 1,038, and then 909.
        for _ in 0..<8 { _ = await reader.next() }
        try await client.start()
        guard case .waiting = client.state else { return #expect(Bool(false), "\(client.state)") }
        #expect(harness.service.state.withLock { $0.requests.count } == 1)
        _ = await reader.next()
        for await state in client.states where state.isConnected { break }
        #expect(harness.service.state.withLock { $0.requests.count } == 2)
        await client.disconnect()
    }
}
