import DequeModule
import Synchronization

/// Hands elements from the client's loop to the app's readers, each to one of them.
///
/// A reader's sequence ends with the first end after it began, also when it notices that late: busy with an element, it comes back when
/// the client is connected again, and what arrives then is for those who began to read since.
final class HandOverQueue<Element: Sendable>: Sendable {
    private struct State {
        var waiting: Deque<Element> = []
        /// What the waiting elements weigh.
        var bytes = 0
        var waiters: [(id: UInt64, continuation: CheckedContinuation<Element?, Never>)] = []
        var nextWaiter: UInt64 = 0
        var cancelled: Set<UInt64> = []
        var ended = false
        /// How often it has ended.
        var ends: UInt64 = 0
        /// Called when the weight has fallen to its mark.
        var onFall: (@Sendable () -> Void)?
        var mark: Int?

        /// What is to be called now, once for each mark.
        mutating func fallen() -> (@Sendable () -> Void)? {
            guard let mark, bytes <= mark else { return nil }
            self.mark = nil
            return onFall
        }

        /// Whether nothing is left for a reader that began after so many ends: what had arrived at its own end it still gets, until
        /// others may begin to read.
        func isOver(since ends: UInt64) -> Bool { self.ends > (ended ? ends + 1 : ends) }
    }

    private let state = Mutex(State())
    private let limit: Int
    private let byteLimit: Int
    private let size: @Sendable (Element) -> Int

    /// - Parameters:
    ///   - limit: the most that waits for a reader; beyond, the oldest goes. Messages need none: the session takes no more than
    ///     a window of unconfirmed bytes per channel, and beyond a weight of all of them the client stays away.
    ///   - bytes: the most that the waiting elements weigh together, if there is more than one.
    ///   - size: what an element weighs.
    init(
        limit: Int = .max, bytes: Int = .max, size: @escaping @Sendable (Element) -> Int = { _ in 0 }
    ) {
        self.limit = limit
        byteLimit = bytes
        self.size = size
    }

    /// How many wait for a reader.
    var count: Int { state.withLock { $0.waiting.count } }

    /// What these weigh together.
    var weight: Int { state.withLock { $0.bytes } }

    /// Sets what is called, from any thread, when the weight has fallen as far as somebody waits for.
    func onFall(_ tell: @escaping @Sendable () -> Void) {
        state.withLock { $0.onFall = tell }
    }

    /// Has that called once when the waiting elements weigh so much or less; at once where they do.
    func awaitFall(to mark: Int) {
        let tell = state.withLock { state -> (@Sendable () -> Void)? in
            state.mark = mark
            return state.fallen()
        }
        tell?()
    }

    /// How often it has ended, for a reader that begins now.
    var ends: UInt64 { state.withLock { $0.ends } }

    /// How many readers wait for one.
    var readers: Int { state.withLock { $0.waiters.count } }

    /// - Returns: how many went unread.
    @discardableResult
    func append(_ element: Element) -> Int {
        let (waiter, dropped) = state.withLock { state -> (CheckedContinuation<Element?, Never>?, Int) in
            guard state.waiters.isEmpty else { return (state.waiters.removeFirst().continuation, 0) }
            state.waiting.append(element)
            state.bytes += size(element)
            var dropped = 0
            while state.waiting.count > limit || (state.bytes > byteLimit && state.waiting.count > 1),
                let oldest = state.waiting.popFirst()
            {
                state.bytes -= size(oldest)
                dropped += 1
            }
            return (nil, dropped)
        }
        waiter?.resume(returning: element)
        return dropped
    }

    /// Takes out what waits and is to be read no more.
    func remove(where isGone: (Element) -> Bool) {
        let tell = state.withLock { state -> (@Sendable () -> Void)? in
            let gone = state.waiting.filter(isGone)
            guard !gone.isEmpty else { return nil }
            state.waiting.removeAll(where: isGone)
            state.bytes -= gone.reduce(0) { $0 + size($1) }
            return state.fallen()
        }
        tell?()
    }

    /// Ends the sequence for those who read it now, after what has arrived.
    func finish() {
        let waiters = state.withLock { state in
            if !state.ended { state.ends += 1 }
            state.ended = true
            defer { state.waiters = [] }
            return state.waiters
        }
        for waiter in waiters { waiter.continuation.resume(returning: nil) }
    }

    /// The client connects again: the sequence goes on, for those who begin to read it since its end.
    func reopen() {
        state.withLock { $0.ended = false }
    }

    /// - Parameter ends: how often it had ended when the reader began.
    func next(since ends: UInt64) async -> Element? {
        let id = state.withLock { state in
            state.nextWaiter += 1
            return state.nextWaiter
        }
        defer { state.withLock { _ = $0.cancelled.remove(id) } }
        return await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let (immediate, tell) = state.withLock { state -> (Element??, (@Sendable () -> Void)?) in
                    if state.cancelled.remove(id) != nil { return (.some(nil), nil) }
                    if state.isOver(since: ends) { return (.some(nil), nil) }
                    if let element = state.waiting.popFirst() {
                        state.bytes -= size(element)
                        return (.some(element), state.fallen())
                    }
                    if state.ended { return (.some(nil), nil) }
                    state.waiters.append((id, continuation))
                    return (nil, nil)
                }
                if let immediate { continuation.resume(returning: immediate) }
                tell?()
            }
        } onCancel: {
            let waiter = state.withLock { state -> CheckedContinuation<Element?, Never>? in
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
