public import LonglineWire
public import NIOCore

/// A signal of another device: something that was worth telling at once.
public struct ReceivedSignal: Sendable {
    /// The room it was sent to, or this user's inbox.
    public let channel: ChannelID
    /// Who sent it.
    public let sender: UserID
    /// The sender's device.
    public let device: DeviceID
    /// What it is about.
    public let kind: SignalKind
    /// What came with it; empty for typing.
    public let payload: ByteBuffer
    /// How long it was still worth something when it came: an app shows "is typing" for so long, unless another comes.
    public let lifetime: Duration
    let until: NIODeadline
}

extension LonglineClient {
    /// Tells others something that is worth knowing now or never: that the user types, say.
    ///
    /// It leaves at once, in a datagram where the transport has those, or not at all: it is neither stored nor repeated nor
    /// acknowledged, may be lost, and overtakes messages. It reaches members of the room, or the user, while their apps are in
    /// the foreground. The user's own other devices get only what is sent to the user's own inbox. The service drops what goes
    /// beyond its rate (20 a second by default), and signals into rooms with more than so many devices (200); and into a room where
    /// only owners publish those of other members, but for what is about oneself (``LonglineWire/SignalKind/readPosition``,
    /// ``LonglineWire/SignalKind/presenceHint``, of 64 bytes at most).
    ///
    /// - Parameters:
    ///   - kind: ``LonglineWire/SignalKind/typing``, or one of the app's own.
    ///   - payload: at most 1,000 bytes. Over about 900 it does not fit a datagram everywhere, and goes beside messages.
    ///   - destination: a room that this user is a member of, or a user.
    ///   - lifetime: how long it is worth delivering, a millisecond to a minute. Typing is said again before it is over.
    /// - Returns: whether it left this device's session; false without a connection.
    /// - Throws: ``ClientError``: ``ClientError/Code/payloadTooLarge``, ``ClientError/Code/storage`` when the durable
    ///   state can't be read, ``ClientError/Code/storageInUse`` or ``ClientError/Code/ownershipLost`` where another process of the app
    ///   has the outbox.
    @discardableResult
    public func signal(
        _ kind: SignalKind, _ payload: ByteBuffer = ByteBuffer(), to destination: Destination,
        lifetime: Duration = .seconds(5)
    ) async throws -> Bool {
        guard payload.readableBytes <= FrameLimits.maximumSignalPayload else {
            throw ClientError(
                .payloadTooLarge, message: "a signal of \(payload.readableBytes) bytes",
                advice: "send at most \(FrameLimits.maximumSignalPayload), or a message")
        }
        let signal = Signal(
            channel: destination.channel, kind: kind,
            deadline: UInt64(min(max(1, lifetime.milliseconds), Int64(FrameLimits.maximumSignalDeadline))),
            payload: payload)
        let handle = try await core.handleUnlessCancelled()
        return try await handle.call(ignoring: false) { driver, done in
            done(.success(driver.signal(signal)))
            return 0
        }
    }

    /// The signals of others. Each call makes a sequence of its own. For a reader that lags a newer signal takes the place of
    /// the older one of the same sender, channel and kind; what is too late is passed over; 256 wait at most. The sequence
    /// ends with the client.
    public var signals: AsyncStream<ReceivedSignal> {
        let now = core.clock.now
        return core.outlets.signals.stream { $0.until > now() }
    }
}
