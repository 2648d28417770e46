public import LonglineWire
import NIOCore
import Synchronization

/// A message that is durable in the outbox, and will be published once, however often the connection is lost.
public struct SendReceipt: Sendable {
    /// Names the message, also to a later process of the app: ``LonglineClient/LonglineClient/receipt(for:)``.
    public let send: SendID
    /// The channel it goes to.
    public let channel: ChannelID
    let tracker: SendTracker

    /// How far the message is.
    public var state: SendState { tracker.state }

    /// The message's states: first the present one, then every change. Ends after the final one, or with the client.
    public var states: AsyncStream<SendState> { tracker.states() }

    /// Waits until the service has the message on its disk.
    ///
    /// - Returns: its place in the channel. For a direct message that is the sender's own record.
    /// - Throws: ``ClientError`` of code ``ClientError/Code/refused``, ``ClientError/Code/outcomeUnknown`` or
    ///   ``ClientError/Code/cancelled``; `CancellationError` when the task is cancelled. The message stays in the outbox then.
    public func acknowledged() async throws -> Published { try await tracker.outcome.value() }

    /// As ``acknowledged()``, for no longer than `deadline`.
    /// - Throws: as ``acknowledged()``, and ``ClientError/Code/timedOut``: the message then stays in the outbox, and is
    ///   published once it can be, unless ``LonglineClient/LonglineClient/cancel(_:)`` takes it back in time.
    public func acknowledged(within deadline: Duration) async throws -> Published {
        let outcome = tracker.outcome
        return try await withThrowingTaskGroup(of: Published?.self) { group in
            group.addTask { try await outcome.value() }
            group.addTask {
                try await Task.sleep(for: deadline.sleepable)
                return nil
            }
            defer { group.cancelAll() }
            guard let first = try await group.next(), let published = first else {
                throw ClientError(
                    .timedOut, message: "no answer in \(deadline)", advice: "the message stays in the outbox",
                    send: send)
            }
            return published
        }
    }
}

/// Follows one message, for any number of readers in any thread.
final class SendTracker: Sendable {
    fileprivate struct State {
        var state: SendState
        var readers: [UInt64: AsyncStream<SendState>.Continuation] = [:]
        var nextReader: UInt64 = 0
        /// Others of the same message, which nobody else changes.
        var others: [SendTracker] = []
        var isOver = false
        /// Why nothing follows, where it is over without a final state.
        var failure: ClientError?
    }

    let outcome = Outcome<Published>()
    private let tracked: Mutex<State>

    init(_ state: SendState = .queued) { tracked = Mutex(State(state: state)) }

    var state: SendState { tracked.withLock { $0.state } }

    /// Takes the next state; a final one is the last.
    func change(to state: SendState) {
        let (readers, others) = tracked.withLock { tracked -> ([AsyncStream<SendState>.Continuation], [SendTracker]) in
            guard !tracked.isOver, tracked.state != state else { return ([], []) }
            tracked.state = state
            for reader in tracked.readers.values { reader.yield(state) }
            guard state.isFinal else { return ([], tracked.others) }
            return tracked.end()
        }
        for reader in readers { reader.finish() }
        for other in others { other.change(to: state) }
        if case .acknowledged(let published) = state {
            outcome.resolve(.success(published))
        } else if state.isFinal {
            outcome.resolve(.failure(ClientError(finished: state)))
        }
    }

    /// Nothing follows, whatever the state is.
    func end(_ error: ClientError) {
        let (readers, others) = tracked.withLock { tracked -> ([AsyncStream<SendState>.Continuation], [SendTracker]) in
            if !tracked.isOver { tracked.failure = error }
            return tracked.end()
        }
        for reader in readers { reader.finish() }
        outcome.resolve(.failure(error))
        for other in others { other.end(error) }
    }

    /// From now on another one of the same message, which nobody else changes any more, is told what this one is.
    func tell(_ other: SendTracker) {
        guard other !== self else { return }
        let (state, failure) = tracked.withLock { tracked -> (SendState, ClientError?) in
            if !tracked.isOver { tracked.others.append(other) }
            return (tracked.state, tracked.failure)
        }
        other.change(to: state)
        if let failure { other.end(failure) }
    }

    func states() -> AsyncStream<SendState> {
        // Fewer states than the buffer holds: none is ever lost.
        AsyncStream(bufferingPolicy: .bufferingNewest(8)) { continuation in
            let id = tracked.withLock { tracked in
                tracked.nextReader += 1
                continuation.yield(tracked.state)
                if tracked.isOver {
                    continuation.finish()
                } else {
                    tracked.readers[tracked.nextReader] = continuation
                }
                return tracked.nextReader
            }
            continuation.onTermination = { [weak self] _ in
                _ = self?.tracked.withLock { $0.readers.removeValue(forKey: id) }
            }
        }
    }
}

extension SendTracker.State {
    fileprivate mutating func end() -> ([AsyncStream<SendState>.Continuation], [SendTracker]) {
        isOver = true
        defer { (readers, others) = ([:], []) }
        return (Array(readers.values), others)
    }
}

extension ClientError {
    /// What somebody who waits for the acknowledgement of a message is told when it ends otherwise.
    init(finished state: SendState) {
        switch state {
        case .outcomeUnknown:
            self.init(
                .outcomeUnknown, message: "the service forgot whether it entered the message",
                advice: "look whether the message is there before sending it again", refusal: .outcomeUnknown)
        case .expired: self.init(refused: .expired)
        case .refused(let code): self.init(refused: code)
        case .cancelled: self.init(.cancelled, message: "the message was taken back")
        case .queued, .sent, .acknowledged: self.init(.disconnected, message: "the message is not finished")
        }
    }

    private init(refused code: RefusalCode) {
        self.init(.refused, message: "the service refused the message: \(code.explanation)", refusal: code)
    }
}

/// A result that is there once and for good, with any number of waiters.
final class Outcome<Value: Sendable>: Sendable {
    private struct State {
        var result: Result<Value, any Error>?
        var waiters: [UInt64: CheckedContinuation<Value, any Error>] = [:]
        var cancelled: Set<UInt64> = []
        var nextWaiter: UInt64 = 0
    }

    private let state = Mutex(State())

    /// Sets the result; a later one is ignored.
    func resolve(_ result: Result<Value, any Error>) {
        let waiters = state.withLock { state -> [CheckedContinuation<Value, any Error>] in
            guard state.result == nil else { return [] }
            state.result = result
            defer { state.waiters = [:] }
            return Array(state.waiters.values)
        }
        for waiter in waiters { waiter.resume(with: result) }
    }

    /// Whether there is a result.
    var isResolved: Bool { state.withLock { $0.result != nil } }

    func value() async throws -> Value {
        let id = state.withLock { state in
            state.nextWaiter += 1
            return state.nextWaiter
        }
        defer { state.withLock { _ = $0.cancelled.remove(id) } }
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                let immediate = state.withLock { state -> Result<Value, any Error>? in
                    if let result = state.result { return result }
                    if state.cancelled.remove(id) != nil { return .failure(CancellationError()) }
                    state.waiters[id] = continuation
                    return nil
                }
                if let immediate { continuation.resume(with: immediate) }
            }
        } onCancel: {
            let waiter = state.withLock { state -> CheckedContinuation<Value, any Error>? in
                if let waiter = state.waiters.removeValue(forKey: id) { return waiter }
                if state.result == nil { state.cancelled.insert(id) }
                return nil
            }
            waiter?.resume(throwing: CancellationError())
        }
    }
}

extension Outcome where Value == Void {
    /// It came to its end, or to this error.
    func end(_ error: (any Error)?) {
        if let error { resolve(.failure(error)) } else { resolve(.success(())) }
    }
}

extension Outcome {
    /// What something comes to, for at most a time. Then, or when the caller is cancelled, its task is cancelled; one that goes on all
    /// the same keeps nobody waiting.
    /// - Parameter timedOut: the error then.
    static func bounded(
        by time: TimeAmount, on loop: any EventLoop, timedOut: @escaping @Sendable () -> ClientError,
        _ body: @escaping @Sendable () async throws -> Value
    ) async throws -> Value {
        let outcome = Outcome()
        let timer = loop.scheduleTask(in: time) { outcome.resolve(.failure(timedOut())) }
        let task = Task {
            do { outcome.resolve(.success(try await body())) } catch { outcome.resolve(.failure(error)) }
        }
        defer {
            timer.cancel()
            task.cancel()
        }
        return try await outcome.value()
    }
}
