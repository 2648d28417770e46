import LonglineStore
import LonglineWire

/// How news of one key add up, when a device has them, and what is left of them later. Offsets compare within one epoch only.
extension PendingNotification {
    /// What there is to tell when news of the same key came behind this: theirs, all counted, since the first of them.
    /// Nil when they are no news: this is as far in the same epoch. In another epoch the later one counts.
    func followed(by news: PendingNotification) -> PendingNotification? {
        assert(news.key == key)
        if news.position.epoch == position.epoch, news.position.offset <= position.offset { return nil }
        var all = news
        all.count = count + news.count
        all.since = since
        all.until = Self.later(until, news.until)
        return all
    }

    /// Of two times until when something is worth telling the later one, where 0 is for good.
    static func later(_ one: UInt64, _ other: UInt64) -> UInt64 { one == 0 || other == 0 ? 0 : max(one, other) }

    /// Whether nothing of it is worth telling any more.
    func isOver(at now: UInt64) -> Bool { until != 0 && now >= until }

    /// Whether the last of the news is not worth telling any more: those before it may be.
    func isLastOver(at now: UInt64) -> Bool { expiry != 0 && now >= expiry }

    /// The others, with nothing that is the last one's; nil when there are none.
    var withoutLast: PendingNotification? {
        guard count > 1, position.offset > 0 else { return nil }
        var others = self
        others.count -= 1
        // They lie before it, and are told under another place: it is another request, and its last is not taken back again.
        others.position.offset -= 1
        (others.expiry, others.payload) = (0, nil)
        return others
    }

    /// To be told in the place of what was told, the last of which was taken back: the others; nil when there are none.
    /// - Parameter now: by ``WebhookClock/steady``.
    func others(at now: UInt64) -> PendingNotification? {
        guard var others = withoutLast else { return nil }
        (others.failures, others.since, others.notBefore) = (0, now, now)
        return others
    }

    /// Whether it says that what was told before is done with: there is nothing new in it.
    var isCancel: Bool { count == 0 }

    /// To be told, of what was told: a device has it.
    /// - Parameter now: by ``WebhookClock/steady``.
    func cancel(at now: UInt64) -> PendingNotification {
        var cancel = self
        (cancel.count, cancel.failures, cancel.payload) = (0, 0, nil)
        (cancel.expiry, cancel.until) = (0, 0)
        (cancel.since, cancel.notBefore) = (now, now)
        return cancel
    }

    /// Whether a device that has a channel's entries up to a position has what this is about.
    func isCovered(by position: Position, of channel: ChannelID) -> Bool {
        self.channel == channel && self.position.epoch == position.epoch && self.position.offset <= position.offset
    }
}
