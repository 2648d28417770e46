public import LonglineWire
import Synchronization

/// A message that is durable in the outbox, and will be published once, however often the connection is lost.
public struct SendReceipt: Sendable {
    /// The channel it goes to.
    public let channel: ChannelID
    let outcome: Outcome<Published>

    /// Waits until the service has the message on its disk.
    ///
    /// - Returns: its place in the channel. For a direct message that is the sender's own record.
    /// - Throws: ``ClientError`` of code ``ClientError/Code/refused`` or ``ClientError/Code/outcomeUnknown``;
    ///   `CancellationError` when the task is cancelled. The message stays in the outbox then.
    public func acknowledged() async throws -> Published { try await outcome.value() }
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
