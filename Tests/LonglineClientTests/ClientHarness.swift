import Foundation
import Logging
import LonglineTestKit
import LonglineWire
import NIOCore
import NIOEmbedded
import NIOPosix
import Synchronization

@testable import LonglineClient

/// A client on a fake service, with short delays and a seeded random source.
struct ClientHarness {
    let service: FakeService
    let client: LonglineClient
    let tokens: Counter

    /// - Parameter clock: nil: the system's, or that of a loop whose time only a test moves.
    init(
        storage: any ClientStorage = InMemoryClientStorage(), seed: UInt64 = 1, clock: DriverClock? = nil,
        service: FakeService = FakeService(), control: FakeControl? = nil,
        loop: any EventLoop = MultiThreadedEventLoopGroup.singleton.next(),
        _ change: (inout LonglineClient.Configuration) -> Void = { _ in }
    ) throws {
        self.service = service
        let tokens = Counter()
        self.tokens = tokens
        let ownClock =
            loop is NIOAsyncTestingEventLoop
            ? DriverClock(now: { loop.now }, wall: DriverClock.system.wall) : DriverClock.system
        var configuration = LonglineClient.Configuration(
            accessPoints: [AccessPoint(host: "one", port: 1), AccessPoint(host: "two", port: 2)], storage: storage
        ) {
            "token-\(tokens.increment())"
        }
        configuration.user = try UserID("alice")
        configuration.backOff = BackOffPolicy(base: .milliseconds(1), maximum: .milliseconds(4))
        configuration.watchesNetwork = false
        configuration.logger.logLevel = .critical
        change(&configuration)
        client = try LonglineClient(
            configuration: configuration, loop: loop, clock: clock ?? ownClock, connector: service, asker: control,
            random: { SeededRandom(seed: seed) })
    }

    /// Waits for a state; the stream holds every state from the present one on.
    func state(_ matches: @Sendable (ConnectionState) -> Bool) async -> ConnectionState? {
        for await state in client.states where matches(state) { return state }
        return nil
    }

    /// Has the link end, and waits until the client knows. It watches before that: a millisecond later there may be the next one.
    func lose(_ cause: (FakeService) -> Void = { $0.cut() }) async {
        let states = client.states
        cause(service)
        for await state in states { if case .waiting = state { return } }
    }

    /// Lets time pass until so many attempts were made, and the last of them has connected.
    func connected(on virtual: VirtualLoop, by attempts: Int) async {
        while service.state.withLock({ $0.requests.count }) < attempts || !client.state.isConnected {
            await virtual.pass(.seconds(1))
        }
    }

    /// Lets everything that was handed to the client's loop take effect, and is on disk.
    func settle() async throws {
        try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
            Task {
                try await client.run { driver in driver.afterDurable { _ in continuation.resume() } }
            }
        }
    }
}

/// What an app keeps of its own places, which stays as it is.
struct FixedCursors: CursorStore {
    let positions: [ChannelID: Position]

    init(_ positions: [ChannelID: Position]) { self.positions = positions }

    func cursors() async throws -> [ChannelID: Position] { positions }
}

/// Counts from 1.
final class Counter: Sendable {
    private let value = Mutex(0)
    func increment() -> Int {
        value.withLock {
            $0 += 1; return $0
        }
    }
    var count: Int { value.withLock { $0 } }
}
