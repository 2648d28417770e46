import LonglineStore
import LonglineWire

/// How news of one key add up, and when a device has them. Offsets compare within one epoch only.
extension PendingNotification {
    /// What there is to tell when news of the same key came behind this: theirs, all counted, since the first of them.
    /// Nil when they are no news: this is as far in the same epoch. In another epoch the later one counts.
    func followed(by news: PendingNotification) -> PendingNotification? {
        assert(news.key == key)
        if news.position.epoch == position.epoch, news.position.offset <= position.offset { return nil }
        var all = news
        all.count = count + news.count
        all.since = since
        return all
    }

    /// Whether a device that has a channel's entries up to a position has what this is about.
    func isCovered(by position: Position, of channel: ChannelID) -> Bool {
        self.channel == channel && self.position.epoch == position.epoch && self.position.offset <= position.offset
    }
}
