import LonglineWire
import NIOCore

/// How long a channel has had more to send than the device takes.
///
/// ```
///        more in the log, and no lane or no room, or lane or window are full      for long
///   keeps up ------------------------------------------------------> lagging -------------> told
///      ^                                                               |                     |
///      '----------------------- everything was sent -------------------'---- told again -----'
/// ```
struct DeliveryLag {
    /// Since when; nil: keeps up.
    private(set) var since: NIODeadline?
    /// Whether the client was told.
    private(set) var isTold = false

    enum Change { case began, ended }

    /// Looks at a sender after anything happened to it.
    mutating func update(hasMore: Bool, isFull: Bool, now: NIODeadline) -> Change? {
        if since == nil {
            guard hasMore, isFull else { return nil }
            since = now
            return .began
        }
        guard !hasMore else { return nil }
        defer { self = DeliveryLag() }
        return isTold ? .ended : nil
    }

    /// - Returns: whether the client is to be told now, once.
    mutating func isDue(after time: TimeAmount, now: NIODeadline) -> Bool {
        guard let since, !isTold, now >= since + time else { return false }
        isTold = true
        return true
    }
}

/// Telling a device that it is slower than its channels. The log holds what waits, so it costs the server nothing; but the
/// app may want to know.
extension ServerSession {
    /// Takes note of whether a channel waits for the device.
    mutating func noteLag(_ channel: ChannelID, now: NIODeadline) {
        let window = window
        switch modify(channel, { $0.updateLag(window: window, now: now) }) ?? nil {
        case .began: lagCheckAt = lagCheckAt ?? now + configuration.lagNoticeTime
        case .ended: tellLag(channel, isBehind: false)
        case nil: break
        }
    }

    /// Tells of channels that have waited for long.
    mutating func checkLags(now: NIODeadline) {
        lagCheckAt = nil
        var due: [ChannelID] = []
        for index in channels.values.indices where channels.values[index].lag.since != nil {
            if channels.values[index].lag.isDue(after: configuration.lagNoticeTime, now: now) {
                due.append(channels.keys[index])
            } else if let since = channels.values[index].lag.since, !channels.values[index].lag.isTold {
                let next = since + configuration.lagNoticeTime
                lagCheckAt = min(lagCheckAt ?? next, next)
            }
        }
        for channel in due.sorted(by: { $0.description < $1.description }) { tellLag(channel, isBehind: true) }
    }

    private mutating func tellLag(_ channel: ChannelID, isBehind: Bool) {
        guard let sender = channels[channel]?.sender else { return }
        let head = Position(epoch: sender.epoch, offset: sender.head)
        actions.append(.send(.behind(ChannelLag(channel: channel, head: head, isBehind: isBehind)), lane: .control))
    }
}

extension ServerChannel {
    fileprivate mutating func updateLag(window: Int, now: NIODeadline) -> DeliveryLag.Change? {
        guard let sender else { return nil }
        // What the credential does not allow is not waited for.
        let hasMore = mayReceive && sender.hasMore
        let isFull =
            sender.unacknowledgedBytes >= window || lane?.isWritable == false || waitsForLane
            || standsToBegin || standsToGoOn || standsForParts
        return lag.update(hasMore: hasMore, isFull: isFull, now: now)
    }
}
