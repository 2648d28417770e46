public import LonglineWire
import NIOCore

/// One conversation of this user, as the service lists it.
public struct Conversation: Hashable, Sendable {
    /// The room, or the other side of the direct messages.
    public let destination: Destination
    /// Its last entry: in the room, or in this user's inbox. nil for none yet.
    public let last: Position?
    /// The time of that entry, in milliseconds since 1970.
    public let time: UInt64
    /// Messages of others that this user has not read; 1,000 stands for so many or more.
    public let unread: Int
    /// What this user decided about it, on any device.
    public let settings: ConversationSettings
    /// Up to where this user read it, on any device.
    public let read: Position?
    /// Up to where what this user sent reached a device of the other side; nil in a room.
    public let peerDelivered: Position?
    /// Up to where the other side read it and says so; nil in a room.
    public let peerRead: Position?
}

/// A page of this user's conversations, the latest first.
public struct ConversationPage: Sendable {
    /// The conversations.
    public let conversations: [Conversation]
    /// Where the next page begins; nil at the end of the list.
    public let next: ConversationCursor?
}

/// A place in the list of conversations, for ``LonglineClient/LonglineClient/conversations(after:limit:timeout:)``.
public struct ConversationCursor: Hashable, Sendable {
    let bytes: ByteBuffer
}

extension LonglineClient {
    /// The user's conversations, the latest first: rooms that the user is in, and users with whom there were direct messages.
    ///
    /// It needs a connection now, and asks once. A conversation in which something happens between two pages may come in both.
    /// - Parameters:
    ///   - place: ``ConversationPage/next`` of the page before; nil for the latest.
    ///   - limit: the most in the page, 1 to 50.
    ///   - timeout: how long to wait for the answer.
    /// - Throws: ``ClientError``: ``ClientError/Code/notConnected`` when there is no connection or it is lost meanwhile,
    ///   ``ClientError/Code/timedOut``, ``ClientError/Code/tooManyRequests`` when 64 wait already, and
    ///   ``ClientError/Code/refused``, with ``/LonglineWire/RefusalCode/invalidRange`` for another limit. `CancellationError`
    ///   when the task is cancelled.
    public func conversations(
        after place: ConversationCursor? = nil, limit: Int = 50, timeout: Duration = .seconds(30)
    ) async throws -> ConversationPage {
        let handle = try await core.handleUnlessCancelled()
        return try await handle.call(ignoring: ConversationPage(conversations: [], next: nil)) { driver, done in
            driver.requestConversations(after: place, limit: limit, timeout: TimeAmount(timeout), done: done)
        } cancel: { driver, id in
            driver.cancelConversationRequest(id)
        }
    }

    /// The user read everything up to this message. See ``markRead(_:upTo:)``.
    public func markRead(_ message: Message) async throws {
        try await markRead(message.reference.destination, upTo: message.position)
    }

    /// The user read a conversation up to a place.
    ///
    /// The user's other devices learn it, unread counts follow, and unless ``Configuration/sharesReadReceipts`` is off the
    /// other side is told, in a room of up to 100 members its members. Places are gathered for a moment, of each conversation
    /// the furthest counts, and what the service has not stored yet is said again on the next connection, though not by
    /// another process. ``receipts`` tells when it is stored.
    /// - Parameter position: a ``Message/position`` in the room, or in this user's inbox.
    /// - Throws: ``ClientError`` when the durable state can't be read; ``ClientError/Code/refused`` with
    ///   ``/LonglineWire/RefusalCode/invalidRange`` for an offset over 2^62 - 1, which no log has, and with
    ///   ``/LonglineWire/RefusalCode/unknownChannel`` for a broadcast: that is no conversation, and has no read place.
    public func markRead(_ conversation: Destination, upTo position: Position) async throws {
        if case .all = conversation {
            throw ClientError(
                .refused, message: "a broadcast has no read place", advice: "confirm the message; that is kept",
                refusal: .unknownChannel)
        }
        try position.checkRepresentable(.invalidRange)
        try await run { $0.markRead(conversation.channel, position) }
    }

    /// How far others came in this user's conversations, and this user on any device: everything up to a place. A reader that
    /// lags by more than 256 loses the oldest; what is missed while there is no connection is in the list of
    /// ``conversations(after:limit:timeout:)``. A place may be told again, or be lower than one before.
    public var receipts: AsyncStream<Receipt> { core.outlets.receipts.stream() }

    /// Has nothing announced of a conversation, on any of the user's devices: the flag is the app's and a push gateway's to
    /// heed, messages arrive as before.
    /// - Parameters:
    ///   - conversation: a room that the user is in, or another user.
    ///   - duration: how long; nil for ever.
    /// - Returns: the settings as they are now.
    /// - Throws: as ``conversations(after:limit:timeout:)``; refused with ``/LonglineWire/RefusalCode/unknownChannel`` where
    ///   there can't be such a conversation, ``/LonglineWire/RefusalCode/tooMany`` with settings for 1,000 others.
    @discardableResult
    public func mute(_ conversation: Destination, for duration: Duration? = nil) async throws -> ConversationSettings {
        try await change(conversation) { driver in
            guard let duration else { return .mute(until: FrameLimits.maximumNumber) }
            let (until, overflow) = driver.serverTime.addingReportingOverflow(UInt64(max(1, duration.milliseconds)))
            return .mute(until: overflow ? FrameLimits.maximumNumber : min(until, FrameLimits.maximumNumber))
        }
    }

    /// Ends what ``mute(_:for:)`` began.
    @discardableResult
    public func unmute(_ conversation: Destination) async throws -> ConversationSettings {
        try await change(conversation) { _ in .mute(until: 0) }
    }

    /// Blocks a user: what they send does not arrive any more, and they are not told; they get no receipts either, and
    /// neither sees the other's presence or gets the other's signals, but in rooms. What is there stays, unless they take it back.
    /// This user can't send to them before ``unblock(_:)``, but take back what was sent.
    /// - Returns: the settings as they are now.
    /// - Throws: as ``mute(_:for:)``.
    @discardableResult
    public func block(_ user: UserID) async throws -> ConversationSettings {
        try await change(.user(user)) { _ in .block(true) }
    }

    /// Ends what ``block(_:)`` began. What was sent meanwhile does not come.
    @discardableResult
    public func unblock(_ user: UserID) async throws -> ConversationSettings {
        try await change(.user(user)) { _ in .block(false) }
    }

    private func change(
        _ conversation: Destination, _ setting: @escaping @Sendable (ConnectionDriver) -> ConversationSetting
    ) async throws -> ConversationSettings {
        let handle = try await core.handleUnlessCancelled()
        return try await handle.call(ignoring: ConversationSettings()) { driver, done in
            driver.requestChange(of: conversation.channel, to: setting(driver), done: done)
        } cancel: { driver, id in
            driver.cancelConversationRequest(id)
        }
    }
}

extension Destination {
    /// The name of the conversation: the room's, or that of the other side's inbox.
    package var channel: ChannelID {
        switch self {
        case .user(let user): .user(user)
        case .room(let room): .room(room)
        case .all(let broadcast): .all(broadcast)
        }
    }

    init(_ conversation: ChannelID) {
        switch conversation {
        case .user(let user): self = .user(user)
        case .room(let room): self = .room(room)
        case .all(let broadcast): self = .all(broadcast)
        }
    }
}
