import LonglineTestKit
import LonglineWire
import NIOCore
import NIOEmbedded
import Synchronization
import Testing

@testable import LonglineClient

/// A client whose app does anything in any order, on a service, a network and a disk that fail at any time, and in processes that
/// end at any time, where its clock may be wrong: in the end every message has one outcome, which is what the service knows and every
/// process was told, and everything that was said to the app arrived in order.
@Suite("Apps that do anything", .timeLimit(.minutes(5)))
struct RandomAppTests {
    @Test(
        "Every send ends in one final state, and what is acknowledged is entered once",
        arguments: 0..<8 as Range<UInt64>)
    func anything(part: UInt64) async throws {
        for seed in seeds(1 + part * 25..<26 + part * 25) {
            let app = try RandomApp(seed: seed)
            let problems = try await app.run()
            #expect(problems.isEmpty, "seed \(seed): \(problems)")
        }
    }
}

/// One run.
private final class RandomApp: Sendable {
    private struct Sent {
        var text: String
        var receipt: SendReceipt
    }

    /// A process of the app.
    private struct Life {
        var harness: ClientHarness
        var disk: FaultyDisk
    }

    private struct State {
        var random: SeededRandom
        var life: Life
        var lives: UInt64 = 1
        /// What a later process knew nothing of.
        var forgotten: [String] = []
        var sent: [Sent] = []
        /// What `send` threw for: it must never be entered.
        var rejected: [String] = []
        var posted: [String] = []
        var received: [String] = []
        var isOver = false
    }

    private let seed: UInt64
    private let virtual: VirtualLoop
    private let clock: DriverClock
    private let state: Mutex<State>
    private let passed: Elapsed
    private let inbox: ChannelID

    /// The time that passed on the loop.
    private final class Elapsed: Sendable {
        private let nanoseconds = Mutex<Int64>(0)
        /// What the wall clock is wrong by, in milliseconds.
        let error = Mutex<Int64>(0)
        func pass(_ time: TimeAmount) { nanoseconds.withLock { $0 += time.nanoseconds } }
        var total: Int64 { nanoseconds.withLock { $0 } }
    }

    init(seed: UInt64) throws {
        self.seed = seed
        let passed = Elapsed()
        self.passed = passed
        clock = DriverClock(
            now: { NIODeadline.uptimeNanoseconds(300_000_000_000) + .nanoseconds(passed.total) },
            wall: { UInt64(1_700_000_000_000 + passed.total / 1_000_000 + passed.error.withLock { $0 }) })
        inbox = .user(try UserID("alice"))
        virtual = VirtualLoop()
        let life = try RandomApp.life(FaultyDisk(), FakeService(), seed: seed, clock: clock, virtual)
        state = Mutex(State(random: SeededRandom(seed: seed), life: life))
    }

    private static func life(
        _ disk: FaultyDisk, _ service: FakeService, seed: UInt64, clock: DriverClock, _ virtual: VirtualLoop
    ) throws -> Life {
        let harness = try ClientHarness(
            storage: disk, seed: seed, clock: clock, service: service, loop: virtual.loop
        ) {
            $0.confirmation = .explicit
            $0.backOff = BackOffPolicy(base: .milliseconds(50), maximum: .seconds(1))
        }
        return Life(harness: harness, disk: disk)
    }

    private var harness: ClientHarness { state.withLock { $0.life.harness } }
    private var disk: FaultyDisk { state.withLock { $0.life.disk } }
    private var client: LonglineClient { harness.client }

    private func pick(_ range: ClosedRange<Int>) -> Int {
        state.withLock { Int.random(in: range, using: &$0.random) }
    }

    /// Does something while time passes.
    private func during<Value: Sendable>(_ body: @escaping @Sendable () async throws -> Value) async throws -> Value {
        let (loop, passed) = (virtual.loop, passed)
        return try await withThrowingTaskGroup(of: Value?.self) { group in
            group.addTask { try await body() }
            group.addTask {
                while !Task.isCancelled {
                    await loop.run()
                    await Task.yield()
                    passed.pass(.milliseconds(5))
                    await loop.advanceTime(by: .milliseconds(5))
                }
                return nil
            }
            defer { group.cancelAll() }
            guard let first = try await group.next(), let value = first else { throw CancellationError() }
            return value
        }
    }

    /// - Returns: what is wrong at the end.
    func run() async throws -> [String] {
        let reader = Task { await self.read() }
        for number in 0..<60 { try await step(number) }
        try await heal()
        state.withLock { $0.isOver = true }
        let problems = try await problems()
        try await during { await self.client.disconnect() }
        await reader.value
        return problems
    }

    /// Reads and confirms until the end; each connection's sequence ends with it, and so with its process.
    private func read() async {
        while !state.withLock({ $0.isOver }) {
            for await message in client.messages {
                state.withLock { $0.received.append(message.text) }
                message.confirm()
            }
            await Task.yield()
        }
    }

    // MARK: What happens

    private func step(_ number: Int) async throws {
        switch pick(0...21) {
        case 0...6: try await send(number)
        case 7: try await cancel()
        case 8: harness.service.cut()
        case 9, 10: _ = try? await during { try await self.client.start() }
        case 11: try await during { await self.client.disconnect() }
        case 12:
            let mode: SessionMode = [.foreground, .background, .lowPower][pick(0...2)]
            _ = try? await during { try await self.client.setMode(mode) }
        case 13: disturbAttempts()
        case 14: disk.fail(pick(0...2) == 0)
        case 15: disturbAnswers()
        case 16:
            let text = "post \(number)"
            state.withLock { $0.posted.append(text) }
            try harness.service.post(text, in: inbox)
        case 20: try await restart()
        case 21:
            let hours = Int64(pick(-48...48))
            passed.error.withLock { $0 = hours * 3_600_000 }
        case 17: _ = try? await during { try await self.client.rebind() }
        default: await passTime(.milliseconds(Int64(pick(0...2_000))))
        }
    }

    /// The process ends without a word, and the next one begins with what is on the disk.
    private func restart() async throws {
        let (old, lives) = state.withLock { state in
            state.lives += 1
            return (state.life, state.lives)
        }
        let stored = await old.disk.die()
        old.harness.service.silence()
        try await during { await old.harness.client.disconnect() }
        // Where it was never connected its reader waits still.
        old.harness.client.core.outlets.messages.finish()
        // Its random numbers are others: a process must not rely on what the one before drew.
        let life = try Self.life(
            FaultyDisk(stored), old.harness.service, seed: seed &+ lives << 32, clock: clock, virtual)
        state.withLock { $0.life = life }
        for (index, message) in state.withLock({ $0.sent }).enumerated() where !message.receipt.state.isFinal {
            let receipt = try await during { try await life.harness.client.receipt(for: message.receipt.send) }
            state.withLock { state in
                if let receipt { state.sent[index].receipt = receipt } else { state.forgotten.append(message.text) }
            }
        }
    }

    private func passTime(_ time: TimeAmount) async {
        passed.pass(time)
        await virtual.loop.advanceTime(by: time)
        for _ in 0..<10 {
            await virtual.loop.run()
            await Task.yield()
        }
    }

    private func send(_ number: Int) async throws {
        let text = (pick(0...4) == 0 ? "no " : "yes ") + "\(number)"
        do {
            let receipt = try await during { try await self.client.send(text, to: .user("bob")) }
            state.withLock { $0.sent.append(Sent(text: text, receipt: receipt)) }
        } catch is ClientError {
            state.withLock { $0.rejected.append(text) }
        }
    }

    private func cancel() async throws {
        let index = pick(0...100)
        guard let receipt = state.withLock({ $0.sent.isEmpty ? nil : $0.sent[index % $0.sent.count].receipt }) else {
            return
        }
        // A write that fails leaves open what became of it; its state tells in the end.
        _ = try? await during { try await self.client.cancel(receipt.send) }
    }

    private func disturbAttempts() {
        let answers: [FakeService.Answer] = [
            .fail(ClientError(.connectFailed, message: "no network")), .handshakeFailure, .silence,
            .close(Close(code: .overloaded)), .close(Close(code: .ticketRejected)), .close(Close(code: .shuttingDown)),
        ]
        let next = (0..<pick(1...3)).map { _ in answers[pick(0...answers.count - 1)] }
        harness.service.state.withLock { $0.answers += next }
    }

    private func disturbAnswers() {
        let code: RefusalCode = [.forbidden, .overloaded, .storageFull, .unknownRecipient][pick(0...3)]
        let (refuses, cuts) = (pick(0...1) == 0, pick(0...1) == 0)
        let left = pick(1...3)
        harness.service.state.withLock { state in
            state.refusedPrefix = refuses ? "no" : nil
            state.refusedCode = code
            if cuts { state.cutIn = left }
            state.migrationFails = left == 1
        }
    }

    // MARK: The end

    private func heal() async throws {
        disk.fail(false)
        harness.service.state.withLock { state in
            state.answers = []
            state.refusedPrefix = nil
            state.cutIn = nil
            state.migrationFails = false
        }
        try await during { try await self.client.start() }
        // What the disk did not take is written now, and not when the client tries again by itself.
        try await during { try await self.harness.settle() }
        let (receipts, posted) = state.withLock { state in
            (state.sent.filter { !state.forgotten.contains($0.text) }.map(\.receipt), state.posted)
        }
        try await during {
            while !receipts.allSatisfy({ $0.state.isFinal })
                || !Set(posted).isSubset(of: self.state.withLock { Set($0.received) })
            {
                try await Task.sleep(for: .milliseconds(1))
            }
        }
        _ = try await during { try await self.client.outbox() }
    }

    private func problems() async throws -> [String] {
        var problems = state.withLock { $0.forgotten.map { "\($0) is unknown to a later process" } }
        let (sent, rejected, posted, received) = state.withLock { ($0.sent, $0.rejected, $0.posted, $0.received) }
        let entered = harness.service.state.withLock { $0.entered.map { String(buffer: $0.publish.payload) } }
        for message in sent {
            let count = entered.count { $0 == message.text }
            switch message.receipt.state {
            case .acknowledged: if count != 1 { problems.append("\(message.text) is entered \(count) times") }
            case .cancelled, .refused: if count != 0 { problems.append("\(message.text) is entered all the same") }
            case .queued, .sent, .expired, .outcomeUnknown:
                problems.append("\(message.text) ends as \(message.receipt.state)")
            }
            let status = try await during { try await self.client.status(of: message.receipt.send) }
            if let status, status.state != message.receipt.state {
                problems.append("\(message.text) is \(status.state) for a later reader, not \(message.receipt.state)")
            }
        }
        for text in rejected where entered.contains(text) { problems.append("\(text) is entered, and send threw") }
        let order = sent.map(\.text).filter(entered.contains)
        if entered != order { problems.append("entered: \(entered), sent: \(order)") }
        if !(try await during { try await self.client.outbox() }).isEmpty { problems.append("the outbox is not empty") }
        var seen: Set<String> = []
        let first = received.filter { seen.insert($0).inserted }
        if first != posted { problems.append("posted: \(posted), received: \(first)") }
        return problems
    }
}
