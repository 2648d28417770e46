import Logging
import LonglineWire
import NIOCore
import Synchronization

/// Moves a server's clients away, some a second.
///
/// ```
///   idle ──begin──▶ draining: nobody is let in, some are ended each turn ──▶ drained: nobody is let in
///                     └── begin again: another rate, another place to go
/// ```
final class NodeDrain: Sendable {
    private struct State {
        var rate: Int?
        /// What clients are told.
        var close: Close?
        var task: Task<Void, Never>?
        var isStopped = false
    }

    /// When turns are.
    struct Clock: Sendable {
        /// A clock that never goes back.
        var now: @Sendable () -> ContinuousClock.Instant = { .now }
        /// Waits, or throws when the drain is over.
        var sleep: @Sendable (Duration) async throws -> Void = { try await Task.sleep(for: $0) }
        /// Waits for as long as a loop may take to come to what it is asked, or throws when it has come.
        var patience: @Sendable () async throws -> Void = { try await Task.sleep(for: .seconds(1)) }
    }

    private let state = Mutex(State())
    private let clock: Clock
    /// How often some are ended.
    static let turn = Duration.milliseconds(100)

    init(_ clock: Clock = Clock()) { self.clock = clock }

    /// Clients moved away each second; nil while nothing is drained.
    var rate: Int? { state.withLock { $0.rate } }

    /// Begins, or goes on at another rate and with another close.
    func begin(rate: Int, close: Close, runtime: ServerRuntime) {
        let (isStopped, isNew) = state.withLock { state in
            guard !state.isStopped else { return (true, false) }
            defer { (state.rate, state.close) = (rate, close) }
            return (false, state.rate == nil)
        }
        guard !isStopped else { return }
        for loop in runtime.loops { loop.execute { $0.refuseLinks(close) } }
        guard isNew else { return }
        let task = Task { await self.run(runtime) }
        let endsNow = state.withLock { state in
            state.task = task
            return state.isStopped
        }
        if endsNow { task.cancel() }
    }

    /// Ends nobody any more: the server stops, and ends all.
    func stop() {
        let task = state.withLock { state in
            state.isStopped = true
            return state.task
        }
        task?.cancel()
    }

    private func run(_ runtime: ServerRuntime) async {
        let start = clock.now()
        var pace = DrainPace()
        let loops = runtime.loops.map { DrainedLoop($0) }
        while !Task.isCancelled {
            guard
                let (rate, close) = state.withLock({ state in state.rate.flatMap { r in state.close.map { (r, $0) } } })
            else { return }
            var due = pace.due(after: clock.now() - start, rate: rate)
            var (left, isWhole) = (0, true)
            for loop in loops where due > 0 {
                guard let visit = await loop.end(atMost: due, close, clock) else {
                    isWhole = false
                    continue
                }
                due -= visit.ended
                left += visit.left
                pace.ended(visit.ended)
            }
            if due > 0, isWhole, left == 0 { return }
            guard (try? await clock.sleep(Self.turn)) != nil else { return }
        }
    }
}

/// An event loop whose clients are ended. One that is stuck holds up no other.
private final class DrainedLoop: Sendable {
    struct Visit: Sendable {
        let ended: Int
        /// Connections that are left.
        let left: Int
    }

    private let loop: LoopReference
    /// It hasn't come to what it was asked: it is not waited for again before it comes back.
    private let isLate = Atomic(false)

    init(_ loop: LoopReference) { self.loop = loop }

    /// - Returns: nil: it is late, and ends nobody.
    func end(atMost limit: Int, _ close: Close, _ clock: NodeDrain.Clock) async -> Visit? {
        guard !isLate.load(ordering: .relaxed) else { return nil }
        let visit = await loop.submit(before: clock.patience) { loop in
            Visit(ended: loop.end(atMost: limit, close), left: loop.connections)
        }
        if visit == nil {
            isLate.store(true, ordering: .relaxed)
            loop.execute { _ in self.isLate.store(false, ordering: .relaxed) }
        }
        return visit
    }
}

extension ServerRuntime {
    /// Connections that are left. Where a loop doesn't say in time, those are in it that were turned away, too.
    func remaining(_ clock: NodeDrain.Clock) async -> Int {
        await withTaskGroup(of: Int?.self) { group in
            for loop in loops {
                group.addTask { await loop.submit(before: clock.patience) { $0.connections } }
            }
            var sum = 0
            for await part in group {
                guard let part else { return core.linkCount }
                sum += part
            }
            return sum
        }
    }
}

/// How many are to be ended by when. What could not be ended in time is not made up for.
struct DrainPace {
    private var credit = 0.0
    private var last = Duration.zero

    /// - Parameters:
    ///   - time: since the start.
    ///   - rate: clients a second.
    /// - Returns: how many may be ended now, at most those of a second.
    mutating func due(after time: Duration, rate: Int) -> Int {
        let passed = time - last
        last = time
        let seconds = Double(passed.components.seconds) + Double(passed.components.attoseconds) / 1e18
        credit = min(credit + seconds * Double(rate), Double(rate))
        return Int(credit)
    }

    mutating func ended(_ count: Int) { credit -= Double(count) }
}

extension LonglineServer {
    /// How many clients a second may be moved away.
    public static let drainRates = 1...10_000

    /// How far a drain is.
    public struct DrainProgress: Hashable, Sendable {
        /// Clients moved away each second.
        public var rate: Int
        /// Connections that are left.
        public var remaining: Int
    }

    /// Takes nobody new in from now on, and moves clients away, `rate` a second, while the server runs on.
    ///
    /// Each is told to connect again (1001, or 2000 where an access point is named); who comes here again is told the same. It
    /// lasts until the server ends. Asked again, it goes on at the new rate, and to the new access point.
    /// - Parameters:
    ///   - rate: clients a second: ``drainRates``.
    ///   - accessPoint: `host:port` that clients are sent to; nil: they choose another one themselves.
    /// - Throws: ``ServerError/Code/notRunning``, ``ServerError/Code/invalidConfiguration``.
    @discardableResult
    public func drain(rate: Int, to accessPoint: String? = nil) async throws(ServerError) -> DrainProgress {
        guard Self.drainRates.contains(rate) else {
            throw ServerError(
                .invalidConfiguration, message: "a drain's rate is 1 to \(Self.drainRates.upperBound) clients a second")
        }
        guard accessPoint?.utf8.count ?? 1 <= FrameLimits.maximumAccessPoint, accessPoint != "" else {
            throw ServerError(
                .invalidConfiguration,
                message: "an access point has 1 to \(FrameLimits.maximumAccessPoint) bytes, as host:port")
        }
        let runtime = try requireRuntime()
        let close = Close(
            code: accessPoint == nil ? .shuttingDown : .redirect, reason: "this node is drained",
            accessPoint: accessPoint ?? "")
        nodeDrain.begin(rate: rate, close: close, runtime: runtime)
        configuration.logger.notice("draining", metadata: ["rate": "\(rate)"])
        return DrainProgress(rate: rate, remaining: await runtime.remaining(NodeDrain.Clock()))
    }

    /// Whether clients are moved away.
    public var isDraining: Bool { nodeDrain.rate != nil }
}
