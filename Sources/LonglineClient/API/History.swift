public import LonglineWire

/// A page of a channel's past, in the channel's order: the oldest message first, whichever way the page was asked for.
public struct HistoryPage: Sendable {
    /// The channel.
    public let channel: ChannelID
    /// The messages, joins and leaves. Confirming one of them does nothing: history moves no cursor.
    public let messages: [Message]
    /// The ranges within the page that are absent on purpose, with why: expired, retracted, removed by retention, or from a
    /// time when this user was not entitled to them.
    public let absent: [Skip]
    /// Whether there is more in the direction that was asked for.
    public let hasMore: Bool
    /// Where the next page in that direction goes on: pass it as `before` or as `after`, as for this page.
    public let next: Position
}

extension LonglineClient {
    /// The messages right before a place of a channel: for paging back as a user scrolls.
    ///
    /// It has nothing to do with ``messages``: no cursor moves, and what comes live meanwhile comes there. It needs a
    /// connection now, and asks once.
    ///
    /// - Parameters:
    ///   - channel: this user's inbox, a room that the user is or was a member of, or a broadcast, of which everybody may read
    ///     all that is left.
    ///   - place: a ``Message/position``, or ``HistoryPage/next`` of the page before; nil for the newest messages.
    ///   - limit: the most messages, 1 to 100. A page has fewer where they are large: 64 KiB of payload end it.
    ///   - timeout: how long to wait for the answer.
    /// - Throws: ``ClientError``: ``ClientError/Code/notConnected`` when there is no connection or it is lost meanwhile,
    ///   ``ClientError/Code/timedOut``, ``ClientError/Code/tooManyRequests`` when 64 wait already, and
    ///   ``ClientError/Code/refused`` with ``ClientError/refusal``: `unknownChannel` for a channel that isn't this user's,
    ///   `epochChanged` when the channel's log was made anew since the place was told (ask without a place),
    ///   `invalidRange` for a place or a limit that can't be. `CancellationError` when the task is cancelled.
    public func history(
        of channel: ChannelID, before place: Position? = nil, limit: Int = 50, timeout: Duration = .seconds(30)
    ) async throws -> HistoryPage {
        let place = place ?? Position(epoch: 0, offset: FrameLimits.maximumNumber)
        return try await history(of: channel, .older, from: place, limit: limit, timeout: timeout)
    }

    /// The messages right after a place of a channel; see ``history(of:before:limit:timeout:)``.
    /// - Parameter place: a ``Message/position``, or ``HistoryPage/next`` of the page before. Offset 0 of epoch 0 is the
    ///   log's beginning.
    public func history(
        of channel: ChannelID, after place: Position, limit: Int = 50, timeout: Duration = .seconds(30)
    ) async throws -> HistoryPage {
        try await history(of: channel, .newer, from: place, limit: limit, timeout: timeout)
    }
}
