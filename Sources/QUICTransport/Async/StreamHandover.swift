internal import NIOCore
internal import Synchronization

/// What a stream's tasks and its loop hand each other without waiting for one another: a write that is known to have room
/// leaves bytes here and goes on, and a read leaves word here that it waits. Without it each would change threads twice.
///
/// ```
///  task: write --credit--> queued --drain on the loop--> engine        (no credit: the task waits on the loop)
///  task: read --nothing there--> reader waits <--readable-- loop       (something there: the task asks the loop)
/// ```
/// `credit` was the room of the engine's buffer when the loop looked last, less what was queued since, and never more than
/// `largestCredit`. Where other streams of the connection have used that room up meanwhile, the loop keeps what the engine
/// doesn't take until it does, and gives no credit before.
final class StreamHandover: Sendable {
    /// What a write came to.
    enum WriteStep {
        case taken(wakesLoop: Bool)
        case mustWait
        case failed(QUICTransportError)
    }

    /// What a read came to.
    enum ReadStep {
        case waits
        case asksLoop
        /// What every read gets from now on.
        case finished(Result<ByteBuffer?, any Error>)
        /// Bytes that were left when the connection closed; the waiter is claimed.
        case served(ByteBuffer)
    }

    /// Bytes that came before the connection closed.
    struct Leftover {
        var bytes: ByteBuffer
        var isEarly: Bool
    }

    private struct State {
        var credit = 0
        var queued: [ByteBuffer] = []
        var isFinishing = false
        /// The loop was asked to come for what is queued.
        var drainIsDue = false
        /// A write waits on the loop for room.
        var writerWaits = false
        var writeEnd: QUICTransportError?
        /// The peer has everything that was written, and the end.
        var isDelivered = false
        var reader: Waiter<ByteBuffer?>?
        /// The engine has bytes or the end.
        var loopHasMore = false
        /// What was read last came, at least in part, as 0-RTT.
        var lastReadWasEarly = false
        /// What is read before ``readEnd``, the first last. No more than the stream's window.
        var leftovers: [Leftover] = []
        /// What reads get when nothing more comes: nil behind the end, or why not.
        var readEnd: Result<ByteBuffer?, any Error>?
    }

    private let state = Mutex(State())

    /// Bytes that may be queued for the loop: small messages. What is larger waits on the loop, where it costs little more.
    private static let largestCredit = 16 << 10

    static let finished = QUICTransportError(
        .streamState, "the stream was finished", advice: "Write before finishing.")

    static func busy(_ what: String) -> QUICTransportError {
        QUICTransportError(
            .concurrentUse, "another task \(what) the stream", advice: "Use one reader and one writer a stream.")
    }

    // MARK: Tasks

    /// Takes bytes for the loop to fetch, if they are sure to have room.
    func write(_ bytes: ByteBuffer) -> WriteStep {
        state.withLock { state in
            if let error = state.writeEnd { return .failed(error) }
            // The loop knows whether the one that waits was cancelled just now.
            guard !state.writerWaits, bytes.readableBytes <= state.credit else { return .mustWait }
            state.credit -= bytes.readableBytes
            state.queued.append(bytes)
            defer { state.drainIsDue = true }
            return .taken(wakesLoop: !state.drainIsDue)
        }
    }

    /// Ends the sending side behind what was written.
    func finish() -> WriteStep {
        state.withLock { state in
            if let error = state.writeEnd { return .failed(error) }
            guard !state.writerWaits else { return .mustWait }
            state.writeEnd = Self.finished
            state.isFinishing = true
            defer { state.drainIsDue = true }
            return .taken(wakesLoop: !state.drainIsDue)
        }
    }

    /// Lets a reader wait, unless there is something for it already.
    func arm(_ waiter: Waiter<ByteBuffer?>) -> ReadStep {
        state.withLock { state in
            // One that was cancelled while it waited is still here.
            if let reader = state.reader, reader.isWaiting {
                return .finished(.failure(Self.busy("reads from")))
            }
            state.reader = nil
            if let next = state.leftovers.last {
                guard waiter.claim() else { return .waits }
                state.leftovers.removeLast()
                state.lastReadWasEarly = next.isEarly
                return .served(next.bytes)
            }
            if let end = state.readEnd { return .finished(end) }
            if state.loopHasMore { return .asksLoop }
            state.reader = waiter
            return .waits
        }
    }

    // MARK: The loop, writing

    /// Takes what was queued, and whether the stream ends behind it.
    func takeQueued() -> (buffers: [ByteBuffer], finish: Bool) {
        state.withLock { state in
            state.drainIsDue = false
            defer { state.queued.removeAll(keepingCapacity: state.queued.capacity <= 8) }
            let finish = state.isFinishing
            state.isFinishing = false
            return (state.queued, finish)
        }
    }

    /// Tells how many bytes the engine's buffer would take now.
    func setRoom(_ room: Int) {
        state.withLock { state in
            let free = room - state.queued.reduce(0) { $0 + $1.readableBytes }
            state.credit = max(0, min(free, Self.largestCredit))
        }
    }

    var writeEnd: QUICTransportError? { state.withLock(\.writeEnd) }

    /// No more can be written, for this reason; what is queued is dropped.
    func endWriting(_ error: QUICTransportError) {
        state.withLock { state in
            state.writeEnd = error
            state.queued.removeAll()
            state.credit = 0
        }
    }

    /// Whether the peer is known to have everything that was written, and the end. That stays so when the connection goes.
    var isDelivered: Bool { state.withLock(\.isDelivered) }
    func setDelivered() { state.withLock { $0.isDelivered = true } }

    func setWriterWaits(_ waits: Bool) { state.withLock { $0.writerWaits = waits } }

    // MARK: The loop, reading

    /// Whether a read waits.
    var isRead: Bool { state.withLock { $0.reader?.isWaiting ?? false } }

    /// The engine has something: whom to give it to. nil: nobody waits, the next read will ask.
    func takeReader() -> Waiter<ByteBuffer?>? {
        state.withLock { state in
            state.loopHasMore = true
            defer { state.reader = nil }
            return state.reader
        }
    }

    var lastReadWasEarly: Bool { state.withLock(\.lastReadWasEarly) }
    func setLastReadWasEarly(_ isEarly: Bool) { state.withLock { $0.lastReadWasEarly = isEarly } }

    /// After a read: whether the engine has yet more.
    func setLoopHasMore(_ more: Bool) { state.withLock { $0.loopHasMore = more } }

    var readEnd: Result<ByteBuffer?, any Error>? { state.withLock(\.readEnd) }

    /// Nothing more comes in; who waits learns it. The first reason counts.
    /// - Parameter leftovers: what can be read before that, in order.
    func endReading(_ end: Result<ByteBuffer?, any Error>, behind leftovers: [Leftover] = []) {
        let reader = state.withLock { state -> Waiter<ByteBuffer?>? in
            guard state.readEnd == nil else { return nil }
            state.readEnd = end
            state.leftovers = leftovers.reversed()
            state.loopHasMore = false
            defer { state.reader = nil }
            return state.reader
        }
        if let reader { serve(reader) }
    }

    /// Gives a reader what there is when the loop has nothing more.
    func serve(_ reader: Waiter<ByteBuffer?>) {
        switch arm(reader) {
        case .waits: break
        case .finished(let end): reader.finish(end)
        case .served(let bytes): reader.resume(with: .success(bytes))
        case .asksLoop: assertionFailure("the loop has nothing more")
        }
    }
}
