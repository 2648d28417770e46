import DequeModule
import LonglineWire

/// Which delivered places of each channel the app has not confirmed yet.
///
/// A confirmation is cumulative. Places that the app never sees (its own echo, a skipped range) are confirmed by
/// themselves, but only once everything before them was: a cursor must not run past a message that the app holds.
struct ConfirmationLedger: Sendable {
    private struct Place: Sendable {
        var position: Position
        var visible: Bool
    }

    private var open: [ChannelID: Deque<Place>] = [:]

    /// Places that wait for a confirmation.
    var count: Int { open.values.reduce(0) { $0 + $1.count } }

    /// Another process may have confirmed some: forgets what does not wait any more.
    mutating func keep(where isWaiting: (Position, ChannelID) -> Bool) {
        for (channel, places) in open {
            let left = places.filter { isWaiting($0.position, channel) }
            open[channel] = left.isEmpty ? nil : left
        }
    }

    /// A message went to the app.
    mutating func delivered(_ position: Position, in channel: ChannelID) {
        open[channel, default: []].append(Place(position: position, visible: true))
    }

    /// Messages before `position` are gone, and the app has to confirm that it knows. Places of another epoch, or beyond
    /// the end of a log that got shorter, mean nothing any more.
    mutating func lost(upTo position: Position, in channel: ChannelID) {
        open[channel, default: []].removeAll {
            $0.position.epoch != position.epoch || $0.position.offset >= position.offset
        }
        delivered(position, in: channel)
    }

    /// A place that the app doesn't see.
    /// - Returns: the place to confirm now, or nil while the app holds something before it.
    mutating func passed(_ position: Position, in channel: ChannelID) -> Position? {
        guard let places = open[channel], !places.isEmpty else { return position }
        open[channel, default: []].append(Place(position: position, visible: false))
        return nil
    }

    /// The app confirmed everything up to `position`.
    /// - Returns: the place to confirm to the service, or nil when nothing new was confirmed.
    mutating func confirmed(_ position: Position, in channel: ChannelID) -> Position? {
        // Taken out while it is changed, so that the change is made in place.
        guard var places = open.removeValue(forKey: channel) else { return nil }
        defer { if !places.isEmpty { open[channel] = places } }
        // Only a place that is waiting can be confirmed: another epoch's, or one confirmed before, is not there.
        guard var end = places.firstIndex(where: { $0.position == position }) else { return nil }
        while end + 1 < places.count, !places[end + 1].visible { end += 1 }
        let reached = places[end].position
        places.removeFirst(end + 1)
        return reached
    }
}
