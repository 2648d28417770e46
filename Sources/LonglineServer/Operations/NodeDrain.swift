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
        while !Task.isCancelled {
            guard
                let (rate, close) = state.withLock({ state in state.rate.flatMap { r in state.close.map { (r, $0) } } })
            else { return }
            var due = pace.due(after: clock.now() - start, rate: rate)
            for loop in runtime.loops where due > 0 {
                let limit = due
                let ended = (try? await loop.submit { $0.end(atMost: limit, close) }) ?? 0
                due -= ended
                pace.ended(ended)
            }
            if due > 0, await runtime.statistics().connections == 0 { return }
            guard (try? await clock.sleep(Self.turn)) != nil else { return }
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
        return DrainProgress(rate: rate, remaining: await runtime.statistics().connections)
    }

    /// Whether clients are moved away.
    public var isDraining: Bool { nodeDrain.rate != nil }
}
