public import LonglineWire
public import NIOCore

/// The answer to a request.
public struct Reply: Sendable {
    /// Who answered: whom the request was put to.
    public let sender: UserID
    /// The device that answered first.
    public let device: DeviceID
    /// The service's time of the reply, in milliseconds since 1970.
    public let time: UInt64
    /// The answer.
    public let payload: ByteBuffer

    /// The payload as text; bytes that are not UTF-8 are replaced.
    public var text: String { String(buffer: payload) }
}

/// Another user's request, which waits for a reply until its deadline.
public struct IncomingRequest: Sendable {
    /// Who asks.
    public let sender: UserID
    /// The device that asks.
    public let device: DeviceID
    /// The service's time of the request, in milliseconds since 1970.
    public let time: UInt64
    /// The question.
    public let payload: ByteBuffer
    /// When nobody waits for the reply any more, on this machine's clock; nil: the asking side waits for ever.
    public let deadline: ContinuousClock.Instant?

    let position: Position
    let answer: RequestAnswer
    /// What it is answered through: a request that nobody reads or answers keeps no client.
    private(set) weak var core: ClientCore?

    /// The payload as text; bytes that are not UTF-8 are replaced.
    public var text: String { String(buffer: payload) }

    /// Whether one of this user's devices is known to have answered, this one or another: that reply is what the asking side gets. What
    /// another device did is learned with the connection.
    public var isAnswered: Bool { answer.isKnown }

    /// Waits until one of this user's devices is known to have answered: what rings on all of them stops on the others.
    /// - Returns: true then; false when the ``deadline`` passed before, the task was cancelled, or the client is gone.
    public func waitUntilAnswered() async -> Bool {
        guard let deadline else { return await answer.wait() }
        return await withTaskGroup(of: Bool.self) { [answer] group in
            group.addTask { await answer.wait() }
            group.addTask {
                try? await Task.sleep(until: deadline, clock: .continuous)
                return answer.isKnown
            }
            let isAnswered = await group.next() ?? false
            group.cancelAll()
            return isAnswered
        }
    }

    /// Answers. It is sent as surely as a message, while the request lasts; where another device of this user answered before,
    /// that reply counts.
    /// - Returns: a receipt. It throws ``ClientError/Code/refused`` with ``/LonglineWire/RefusalCode/unknownTarget`` when the
    ///   time was over.
    /// - Throws: as ``LonglineClient/LonglineClient/send(_:to:timeToLive:)-(ByteBuffer,_,_)``, and
    ///   ``ClientError/Code/disconnected`` once the client is gone.
    @discardableResult
    public func reply(_ payload: ByteBuffer) async throws -> SendReceipt {
        guard let core else { throw ConnectionDriver.shutDown }
        return try await core.send(payload, .reply(position), to: .user(sender))
    }

    /// Answers with text as UTF-8; see ``reply(_:)-(ByteBuffer)``.
    @discardableResult
    public func reply(_ text: String) async throws -> SendReceipt { try await reply(ByteBuffer(string: text)) }
}

/// Requests of other users. Several readers share them; each request goes to one of them. One whose deadline is over is left out, and one
/// that another device of this user is known to have answered when it is read.
///
/// At most 100 wait to be read, of 16 MiB of payloads together; beyond, the oldest goes and is counted (``ClientStatistics/requestsDropped``). A reader's
/// sequence ends when the client was disconnected or stopped, as that of a ``MessageStream`` does.
public struct RequestStream: AsyncSequence, Sendable {
    public typealias Element = IncomingRequest
    public typealias Failure = Never

    let queue: HandOverQueue<IncomingRequest>

    public func makeAsyncIterator() -> Iterator { Iterator(queue: queue) }

    /// Reads requests one by one.
    public struct Iterator: AsyncIteratorProtocol {
        let queue: HandOverQueue<IncomingRequest>
        private let ends: UInt64

        init(queue: HandOverQueue<IncomingRequest>) {
            self.queue = queue
            ends = queue.ends
        }

        /// The next request, when there is one; nil at the end, or when the task was cancelled.
        public mutating func next() async -> IncomingRequest? {
            while let request = await queue.next(since: ends) {
                if request.deadline.map({ ContinuousClock.now < $0 }) ?? true { return request }
            }
            return nil
        }

        /// The next request, when there is one; nil at the end, or when the task was cancelled.
        public mutating func next(isolation actor: isolated (any Actor)?) async -> IncomingRequest? {
            while let request = await queue.next(since: ends) {
                if request.deadline.map({ ContinuousClock.now < $0 }) ?? true { return request }
            }
            return nil
        }
    }
}

extension LonglineClient {
    /// Asks another user, and waits for the first reply of any of their devices.
    ///
    /// The request goes through the outbox like a message and lives as long as its deadline: it is asked once, the connection
    /// may come and go meanwhile. What comes later than the deadline is dropped and counted
    /// (``ClientStatistics/lateReplies``).
    /// - Parameters:
    ///   - user: whom to ask.
    ///   - payload: the question, as large as one that is sent.
    ///   - deadline: how long to wait, from now.
    /// - Throws: ``ClientError``: ``ClientError/Code/timedOut`` when no reply came in time, whatever the reason (nobody is
    ///   connected, nobody answers, this user is blocked), ``ClientError/Code/refused`` when the service refused the request,
    ///   ``ClientError/Code/storageInUse`` or ``ClientError/Code/ownershipLost`` while another process of the app owns a shared
    ///   outbox, as the replies come to that one, ``ClientError/Code/cancelled`` after
    ///   ``LonglineClient/LonglineClient/cancel(_:)``, ``ClientError/Code/tooManyRequests`` when 1,024 wait, ``ClientError/Code/disconnected`` after ``disconnect()``, and
    ///   what ``send(_:to:timeToLive:)-(ByteBuffer,_,_)`` throws. `CancellationError` when the task is cancelled; the request
    ///   may be answered all the same.
    public func request(to user: UserID, payload: ByteBuffer, deadline: Duration) async throws -> Reply {
        let handle = try await core.handleUnlessCancelled()
        let none = Reply(sender: user, device: try DeviceID("-"), time: 0, payload: ByteBuffer())
        return try await handle.call(ignoring: none) { driver, done in
            driver.ask(user, payload, deadline: TimeAmount(deadline), done: done)
        } cancel: { driver, id in
            driver.cancelRequest(id)
        }
    }

    /// Asks with text as UTF-8; see ``request(to:payload:deadline:)``.
    public func request(to user: UserID, text: String, deadline: Duration) async throws -> Reply {
        try await request(to: user, payload: ByteBuffer(string: text), deadline: deadline)
    }

    /// The requests of other users. A request that is handed over counts as processed: an app that crashes over it leaves the
    /// asking side to its deadline.
    public var requests: RequestStream { RequestStream(queue: core.outlets.requests) }
}
