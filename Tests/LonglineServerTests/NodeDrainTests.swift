import Dispatch
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineServer

@Suite("A drain", .timeLimit(.minutes(1))) struct NodeDrainTests {
    /// Time that passes by whole turns, when a test says so.
    private final class Turns: Sendable {
        private struct State {
            var now = ContinuousClock.now
            var sleeper: CheckedContinuation<Void, Never>?
        }

        private let state = Mutex(State())
        private let asleep: AsyncStream<Void>
        private let fellAsleep: AsyncStream<Void>.Continuation

        init() { (asleep, fellAsleep) = AsyncStream.makeStream() }

        var clock: NodeDrain.Clock {
            NodeDrain.Clock(now: { self.state.withLock { $0.now } }, sleep: { await self.sleep($0) })
        }

        private func sleep(_ time: Duration) async {
            await withCheckedContinuation { continuation in
                state.withLock { state in
                    state.now += time
                    state.sleeper = continuation
                }
                fellAsleep.yield()
            }
        }

        /// Waits until the drain waits for its next turn.
        func settled() async { for await _ in asleep { return } }

        /// Lets the next turn begin.
        func begin() {
            let sleeper = state.withLock { state in
                defer { state.sleeper = nil }
                return state.sleeper
            }
            sleeper?.resume()
        }
    }

    @Test("ends as many clients a second as it is told, also when it is told another rate")
    func pace() async throws {
        try await TestServer().use { server in
            var devices: [TestDevice] = []
            for index in 0..<10 {
                let device = try await server.device("user-\(index)", loop: index)
                _ = try await device.connect()
                devices.append(device)
            }
            let turns = Turns()
            let drain = NodeDrain(turns.clock)
            func ended() async -> UInt64 { await server.runtime.statistics().closes[.shuttingDown] ?? 0 }
            func endedByTurn(_ count: Int) async -> [UInt64] {
                var numbers: [UInt64] = []
                for _ in 0..<count {
                    turns.begin()
                    await turns.settled()
                    numbers.append(await ended())
                }
                return numbers
            }
            let close = Close(code: .shuttingDown, reason: "")
            drain.begin(rate: 5, close: close, runtime: server.runtime)
            await turns.settled()
            #expect(await ended() == 0)
            #expect(await endedByTurn(6) == [0, 1, 1, 2, 2, 3])
            drain.begin(rate: 20, close: close, runtime: server.runtime)
            #expect(await endedByTurn(3) == [5, 7, 9])
            drain.stop()
            turns.begin()
        }
    }

    @Test("told to move clients to another place, does so from then on, also with who comes")
    func anotherPlace() async throws {
        try await TestServer().use { server in
            for index in 0..<4 { _ = try await server.device("user-\(index)", loop: index).connect() }
            let turns = Turns()
            let drain = NodeDrain(turns.clock)
            drain.begin(rate: 10, close: Close(code: .shuttingDown, reason: ""), runtime: server.runtime)
            await turns.settled()
            turns.begin()
            await turns.settled()
            var closes = await server.runtime.statistics().closes
            #expect(closes[.shuttingDown] == 1 && closes[.redirect] == nil)
            let there = Close(code: .redirect, reason: "", accessPoint: "other.example:4433")
            drain.begin(rate: 10, close: there, runtime: server.runtime)
            turns.begin()
            await turns.settled()
            closes = await server.runtime.statistics().closes
            #expect(closes[.shuttingDown] == 1 && closes[.redirect] == 1)
            let late = try await server.device("late")
            _ = try? await late.connect()
            #expect(try await late.closed() == .redirect)
            #expect(await server.runtime.statistics().connections == 2, "who is turned away is not waited for")
            drain.stop()
            turns.begin()
        }
    }

    @Test("is held up by no event loop that is stuck, and ends its clients when it is back")
    func stuckLoop() async throws {
        try await TestServer().use { server in
            let behind = try await server.connected("behind", loop: 0)
            let other = try await server.connected("other", loop: 1)
            let release = DispatchSemaphore(value: 0)
            defer { release.signal() }
            server.runtime.loops[0].eventLoop.execute { release.wait() }
            let clock = NodeDrain.Clock(
                sleep: { _ in try await Task.sleep(for: .milliseconds(1)) },
                patience: { try await Task.sleep(for: .milliseconds(20)) })
            #expect(await server.runtime.remaining(clock) == 2)
            let drain = NodeDrain(clock)
            drain.begin(rate: 10_000, close: Close(code: .shuttingDown, reason: ""), runtime: server.runtime)
            #expect(try await other.closed() == .shuttingDown)
            release.signal()
            #expect(try await behind.closed() == .shuttingDown)
            drain.stop()
        }
    }
}
