import LonglineSession
import LonglineWire
import NIOCore
import NIOPosix
import Synchronization
import Testing

@testable import LonglineClient

/// Signals as an app sends and hears them, against a service in memory.
@Suite("Signals of an app", .timeLimit(.minutes(1)))
struct SignalTests {
    private func arrived(
        _ text: String, kind: SignalKind = .app(1), deadline: UInt64 = 60_000, from user: String = "zoe"
    ) throws -> Frame {
        .signal(
            Signal(
                channel: .user(try UserID("alice")), kind: kind, deadline: deadline,
                sender: SignalSender(user: try UserID(user), device: try DeviceID("d")),
                payload: ByteBuffer(string: text)))
    }

    @Test("without a connection a signal is dropped, with one it leaves, and never again")
    func sending() async throws {
        let harness = try ClientHarness()
        #expect(try await !harness.client.signal(.typing, to: .user("bob")))
        try await harness.client.connect()
        #expect(try await harness.client.signal(.typing, to: .user("bob")))
        #expect(
            try await harness.client.signal(
                .app(3), ByteBuffer(string: "x"), to: .room("tea"), lifetime: .seconds(3_600)))
        await #expect(throws: ClientError.self) {
            try await harness.client.signal(.typing, ByteBuffer(repeating: 1, count: 1_001), to: .user("bob"))
        }
        await harness.lose()
        try await harness.client.connect()
        #expect(try await harness.client.signal(.readPosition, to: .user("bob")))
        try await harness.settle()
        let sent = harness.service.state.withLock { state in
            state.frames.compactMap { if case .signal(let signal) = $0 { signal } else { nil } }
        }
        #expect(sent.map(\.kind) == [.typing, .app(3), .readPosition])
        #expect(sent.map(\.channel.description) == ["user/bob", "room/tea", "user/bob"])
        #expect(sent.allSatisfy { $0.sender == nil && $0.deadline > 0 && $0.deadline <= 60_000 })
        let statistics = await harness.client.statistics
        #expect(statistics.signalsSent == 3 && statistics.signalsDropped == 1)
        await harness.client.disconnect()
    }

    @Test(
        "each reader hears the signals of others; one that lags finds the newest of each kind and none that is too late"
    )
    func hearing() async throws {
        let harness = try ClientHarness()
        let (quick, slow) = (harness.client.signals, harness.client.signals)
        try await harness.client.connect()
        for text in ["1", "2", "3"] { harness.service.send(try arrived(text)) }
        harness.service.send(try arrived("short", kind: .app(2), deadline: 1))
        harness.service.send(try arrived("last", kind: .typing))
        try await harness.settle()
        for stream in [quick, slow] {
            var seen: [String] = []
            for await signal in stream {
                if signal.kind == .app(2) { continue }
                seen.append(String(buffer: signal.payload))
                #expect(signal.sender.description == "zoe" && signal.channel.description == "user/alice")
                #expect(signal.lifetime > .seconds(50) && signal.lifetime <= .seconds(60))
                if seen.last == "last" { break }
            }
            #expect(seen == ["3", "last"])
        }
        #expect(await harness.client.statistics.signalsReceived == 5)
        await harness.client.disconnect()
    }

    @Test("a reader is cancelled by its task, and ends when the client logs out")
    func ends() async throws {
        let harness = try ClientHarness()
        try await harness.client.connect()
        let (first, second) = (harness.client.signals, harness.client.signals)
        let cancelled = Task { for await _ in first {} }
        let ended = Task { for await _ in second {} }
        cancelled.cancel()
        await cancelled.value
        try await harness.client.logout()
        await ended.value
        for await _ in harness.client.signals { Issue.record("a signal after the end") }
    }

    @Test(
        "one of two tasks that read the same sequence is cancelled: the other one ends, and doesn't spin",
        .timeLimit(.minutes(1)))
    func cancelledBesideAnother() async {
        let broadcast = LatestBroadcast<Int, Int>(limit: 4)
        let stream = broadcast.stream()
        let (starts, start) = AsyncStream.makeStream(of: Void.self)
        let readers = (0..<2).map { _ in
            Task {
                start.yield()
                for await _ in stream {}
            }
        }
        var started = starts.makeAsyncIterator()
        for _ in readers { await started.next() }
        readers[0].cancel()
        for reader in readers { await reader.value }
    }

    @Test("the end wakes everyone who waits for the same sequence", .timeLimit(.minutes(1)))
    func endOfSeveral() async {
        let broadcast = LatestBroadcast<Int, Int>(limit: 4)
        let stream = broadcast.stream()
        let (starts, start) = AsyncStream.makeStream(of: Void.self)
        let readers = (0..<2).map { _ in
            Task {
                start.yield()
                for await _ in stream {}
            }
        }
        var started = starts.makeAsyncIterator()
        for _ in readers { await started.next() }
        broadcast.finish()
        for reader in readers { await reader.value }
    }

    @Test("what is too late by the reader's clock is passed over")
    func late() async throws {
        let broadcast = LatestBroadcast<Int, Int>(limit: 4)
        let limit = Mutex(0)
        let stream = broadcast.stream { value in limit.withLock { value > $0 } }
        for value in 1...9 { broadcast.send(value, for: value) }
        limit.withLock { $0 = 7 }
        broadcast.finish()
        var seen: [Int] = []
        for await value in stream { seen.append(value) }
        #expect(seen == [8, 9], "four waited, and two of them were current")
    }
}
