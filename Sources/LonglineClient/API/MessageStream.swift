import LonglineWire
import NIOCore
import Synchronization

/// The messages of all channels, each channel in its order.
///
/// The service sends no more than a window of unconfirmed bytes per channel, so a slow reader costs bounded memory: the
/// rest waits in the service's log. Several readers share the messages; each message goes to one of them, once in a process: what a
/// reader leaves its loop over is not given to the next one, which goes on behind it. A reader's
/// sequence ends when the client was disconnected or stopped, after what had arrived; who is busy with a message then, and asks for the
/// next one when the client is connected again, has reached that end all the same. New readers go on.
public struct MessageStream: AsyncSequence, Sendable {
    public typealias Element = Message
    public typealias Failure = Never

    let queue: HandOverQueue<Message>
    let confirmsWhenNextIsAsked: Bool

    public func makeAsyncIterator() -> Iterator {
        Iterator(queue: queue, confirmsWhenNextIsAsked: confirmsWhenNextIsAsked)
    }

    /// Reads messages one by one.
    public struct Iterator: AsyncIteratorProtocol {
        let queue: HandOverQueue<Message>
        let confirmsWhenNextIsAsked: Bool
        private let ends: UInt64
        private var last: Message?

        init(queue: HandOverQueue<Message>, confirmsWhenNextIsAsked: Bool) {
            self.queue = queue
            ends = queue.ends
            self.confirmsWhenNextIsAsked = confirmsWhenNextIsAsked
        }

        /// The next message, when there is one; nil at the end, or when the task was cancelled.
        public mutating func next() async -> Message? {
            if confirmsWhenNextIsAsked { last?.confirm() }
            last = await queue.next(since: ends)
            return last
        }

        /// The next message, when there is one; nil at the end, or when the task was cancelled.
        public mutating func next(isolation actor: isolated (any Actor)?) async -> Message? {
            if confirmsWhenNextIsAsked { last?.confirm() }
            last = await queue.next(since: ends)
            return last
        }
    }
}

/// Carries the app's confirmations to the client's loop, one hop for many.
final class ConfirmationInbox: Sendable {
    private struct State {
        var waiting: [(ChannelID, ConfirmedItem)] = []
        var wake: (@Sendable () -> Void)?
    }

    private let state = Mutex(State())

    /// Sets what is called, from any thread, when the inbox stops to be empty.
    func onFirst(_ wake: @escaping @Sendable () -> Void) {
        state.withLock { $0.wake = wake }
    }

    func confirm(_ item: ConfirmedItem, in channel: ChannelID) {
        let wake = state.withLock { state in
            state.waiting.append((channel, item))
            return state.waiting.count == 1 ? state.wake : nil
        }
        wake?()
    }

    func drain() -> [(ChannelID, ConfirmedItem)] {
        state.withLock { state in
            defer { state.waiting = [] }
            return state.waiting
        }
    }
}

/// Confirms one delivery of a message.
struct MessageConfirmer: Sendable {
    let inbox: ConfirmationInbox
    /// As ``ConfirmationLedger`` numbered it.
    let delivery: UInt64

    func confirm(in channel: ChannelID) { inbox.confirm(.message(delivery), in: channel) }
}
