public import LonglineWire
public import NIOCore

extension LonglineClient {
    /// Sends a message and waits until the service has it on its disk.
    ///
    /// - Parameters:
    ///   - payload: as for ``send(_:to:timeToLive:)-(ByteBuffer,_,_)``.
    ///   - destination: a user, or a room that this user is a member of.
    ///   - timeToLive: how long it is worth delivering; nil for ever.
    ///   - deadline: how long to wait.
    /// - Returns: its place in the channel.
    /// - Throws: as ``send(_:to:timeToLive:)-(ByteBuffer,_,_)`` and ``SendReceipt/acknowledged(within:)``. After
    ///   ``ClientError/Code/timedOut`` the message stays in the outbox, by the name in ``ClientError/send``.
    @discardableResult
    public func send(
        _ payload: ByteBuffer, to destination: Destination, timeToLive: Duration? = nil,
        acknowledgedWithin deadline: Duration
    ) async throws -> Published {
        try await send(payload, to: destination, timeToLive: timeToLive).acknowledged(within: deadline)
    }

    /// Sends text as UTF-8 and waits; see ``send(_:to:timeToLive:acknowledgedWithin:)-(ByteBuffer,_,_,_)``.
    @discardableResult
    public func send(
        _ text: String, to destination: Destination, timeToLive: Duration? = nil,
        acknowledgedWithin deadline: Duration
    ) async throws -> Published {
        try await send(
            ByteBuffer(string: text), to: destination, timeToLive: timeToLive, acknowledgedWithin: deadline)
    }

    /// As ``send(_:to:timeToLive:)-(ByteBuffer,_,_)``, but waits while the outbox or the channel is full: for an app that makes
    /// messages faster than the service takes them. Calls that wait at the same time go on in any order.
    ///
    /// - Throws: as ``send(_:to:timeToLive:)-(ByteBuffer,_,_)`` but for ``ClientError/Code/outboxFull`` and
    ///   ``ClientError/Code/channelFull``; `CancellationError` when the task is cancelled: the message is not in the outbox then.
    @discardableResult
    public func sendWhenRoom(
        _ payload: ByteBuffer, to destination: Destination, timeToLive: Duration? = nil
    ) async throws -> SendReceipt {
        while true {
            // Read from before the try, so that nothing is missed.
            let room = core.outlets.room.stream()
            do {
                return try await send(payload, to: destination, timeToLive: timeToLive)
            } catch let error as ClientError where error.code == .outboxFull || error.code == .channelFull {
                await core.someRoom(room)
                try Task.checkCancellation()
            }
        }
    }

    /// What becomes of all messages of the outbox, also of those that an earlier process of the app sent: every change of a
    /// state from now on. Begin to read before asking for ``outbox()``, and nothing is missed. A reader that lags by more than
    /// 1,024 changes loses the oldest. Payloads are in ``outbox()`` and ``status(of:)`` only. A process that does not own a shared
    /// outbox is told of what it sent or took up itself, and within a moment (``SharedClientStorage/pollInterval``, up to eight times as long where nothing happens).
    public var sends: AsyncStream<SendStatus> { core.outlets.sends.stream() }

    /// The messages in the outbox, in the order in which they were sent; of a shared one also what waits for the process that
    /// owns it.
    /// - Throws: ``ClientError`` when the durable state can't be read.
    public func outbox() async throws -> [SendStatus] { try await core.waiting() }

    /// How far a message is: one of the outbox, or of the ``StoredOutcome/limit`` that were finished last.
    /// - Returns: nil when it is none of these.
    /// - Throws: ``ClientError`` when the durable state can't be read.
    public func status(of send: SendID) async throws -> SendStatus? { try await core.status(of: send) }

    /// Takes up a message that an earlier or another process of the app sent, by the name that its receipt had.
    /// - Returns: nil for a message that is neither in the outbox nor among the ``StoredOutcome/limit`` that were finished
    ///   last.
    /// - Throws: ``ClientError`` when the durable state can't be read.
    public func receipt(for send: SendID) async throws -> SendReceipt? { try await core.receipt(for: send) }

    /// Takes a message back, if it has not left this device. A message leaves with the first attempt to connect after it was
    /// sent, or at once while there is a connection.
    ///
    /// When this returns ``CancelResult/cancelled`` that is durable.
    /// - Throws: ``ClientError`` when the durable state can't be read or written; the message may then be gone or not.
    @discardableResult
    public func cancel(_ send: SendID) async throws -> CancelResult { try await core.cancel(send) }
}
