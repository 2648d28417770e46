import DequeModule
import LonglineWire
import NIOCore
import Synchronization

/// The messages of all channels, each channel in its order.
///
/// The service sends no more than a window of unconfirmed bytes per channel, so a slow reader costs bounded memory: the
/// rest waits in the service's log. Several readers share the messages; each message goes to one of them. The sequence
/// ends when the client was disconnected or stopped, after what had arrived.
public struct MessageStream: AsyncSequence, Sendable {
    public typealias Element = Message
    public typealias Failure = Never

    let queue: MessageQueue
    let confirmsWhenNextIsAsked: Bool

    public func makeAsyncIterator() -> Iterator {
        Iterator(queue: queue, confirmsWhenNextIsAsked: confirmsWhenNextIsAsked)
    }

    /// Reads messages one by one.
    public struct Iterator: AsyncIteratorProtocol {
        let queue: MessageQueue
        let confirmsWhenNextIsAsked: Bool
        private var last: Message?

        init(queue: MessageQueue, confirmsWhenNextIsAsked: Bool) {
            self.queue = queue
            self.confirmsWhenNextIsAsked = confirmsWhenNextIsAsked
        }

        /// The next message, when there is one; nil at the end, or when the task was cancelled.
        public mutating func next() async -> Message? {
            if confirmsWhenNextIsAsked { last?.confirm() }
            last = await queue.next()
            return last
        }

        /// The next message, when there is one; nil at the end, or when the task was cancelled.
        public mutating func next(isolation actor: isolated (any Actor)?) async -> Message? {
            if confirmsWhenNextIsAsked { last?.confirm() }
            last = await queue.next()
            return last
        }
    }
}

/// Hands messages from the client's loop to the app's readers.
///
/// Its length is bounded by the session: a window of unconfirmed bytes per channel.
final class MessageQueue: Sendable {
    private struct State {
        var messages: Deque<Message> = []
        var waiters: [(id: UInt64, continuation: CheckedContinuation<Message?, Never>)] = []
        var nextWaiter: UInt64 = 0
        var cancelled: Set<UInt64> = []
        var ended = false
    }

    private let state = Mutex(State())

    func append(_ message: Message) {
        let waiter = state.withLock { state -> CheckedContinuation<Message?, Never>? in
            if state.waiters.isEmpty {
                state.messages.append(message)
                return nil
            }
            return state.waiters.removeFirst().continuation
        }
        waiter?.resume(returning: message)
    }

    /// Ends the sequence for those who read it now, after what has arrived.
    func finish() {
        let waiters = state.withLock { state in
            state.ended = true
            defer { state.waiters = [] }
            return state.waiters
        }
        for waiter in waiters { waiter.continuation.resume(returning: nil) }
    }

    /// The client connects again: the sequence goes on.
    func reopen() {
        state.withLock { $0.ended = false }
    }

    func next() async -> Message? {
        let id = state.withLock { state in
            state.nextWaiter += 1
            return state.nextWaiter
        }
        defer { state.withLock { _ = $0.cancelled.remove(id) } }
        return await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let immediate = state.withLock { state -> Message?? in
                    if state.cancelled.remove(id) != nil { return .some(nil) }
                    if let message = state.messages.popFirst() { return message }
                    if state.ended { return .some(nil) }
                    state.waiters.append((id, continuation))
                    return nil
                }
                if let immediate { continuation.resume(returning: immediate) }
            }
        } onCancel: {
            let waiter = state.withLock { state -> CheckedContinuation<Message?, Never>? in
                guard let index = state.waiters.firstIndex(where: { $0.id == id }) else {
                    // The cancellation came before the wait began, or after it was over.
                    state.cancelled.insert(id)
                    return nil
                }
                return state.waiters.remove(at: index).continuation
            }
            waiter?.resume(returning: nil)
        }
    }
}

/// Carries the app's confirmations to the client's loop, one hop for many.
final class ConfirmationInbox: Sendable {
    private struct State {
        var waiting: [(ChannelID, Position)] = []
        var wake: (@Sendable () -> Void)?
    }

    private let state = Mutex(State())

    /// Sets what is called, from any thread, when the inbox stops to be empty.
    func onFirst(_ wake: @escaping @Sendable () -> Void) {
        state.withLock { $0.wake = wake }
    }

    func confirm(_ channel: ChannelID, _ position: Position) {
        let wake = state.withLock { state in
            state.waiting.append((channel, position))
            return state.waiting.count == 1 ? state.wake : nil
        }
        wake?()
    }

    func drain() -> [(ChannelID, Position)] {
        state.withLock { state in
            defer { state.waiting = [] }
            return state.waiting
        }
    }
}
