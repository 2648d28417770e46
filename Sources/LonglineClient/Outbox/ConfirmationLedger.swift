import DequeModule
import LonglineWire

/// What the app is done with, and with it everything before that in its channel.
enum ConfirmedItem: Hashable, Sendable {
    /// A message, by the number of its delivery: where a log lost its end, another one may stand at its place by now.
    case message(UInt64)
    /// A gap, as the app was told it: one log may lose its end at one place more than once.
    case gap(MessageGap)
}

/// Which delivered places of each channel the app has not confirmed yet.
///
/// A confirmation is cumulative. Places that the app never sees (its own echo, a skipped range) are confirmed by
/// themselves, but only once everything before them was: a cursor must not run past a message that the app holds.
struct ConfirmationLedger: Sendable {
    private enum Content: Equatable, Sendable {
        case message(UInt64)
        case gap(MessageGap)
        /// Nothing that the app sees.
        case absent
    }

    private struct Place: Sendable {
        var position: Position
        var content: Content
    }

    private var open: [ChannelID: Deque<Place>] = [:]
    private var deliveries: UInt64 = 0
    /// How far the app is by its own word: its record when the storage was opened, and what it confirmed since.
    private(set) var byApp: [ChannelID: Position] = [:]

    /// Places that wait for a confirmation.
    var count: Int { open.values.reduce(0) { $0 + $1.count } }

    /// Whether one in this channel does.
    func isWaited(for channel: ChannelID) -> Bool { open[channel] != nil }

    /// Another process may have confirmed some: forgets what does not wait any more.
    /// - Returns: the places to confirm now, by channel: of those that the app doesn't see and that nothing is before any more, which
    ///   no confirmation of the app's would take along.
    mutating func keep(where isWaiting: (Position, ChannelID) -> Bool) -> [ChannelID: Position] {
        var reached: [ChannelID: Position] = [:]
        for (channel, places) in open {
            var left: Deque<Place> = places.filter { isWaiting($0.position, channel) }
            while let first = left.first, first.content == .absent {
                reached[channel] = first.position
                left.removeFirst()
            }
            open[channel] = left.isEmpty ? nil : left
        }
        return reached
    }

    /// The app's record, as it was when the storage was opened.
    mutating func began(with record: [ChannelID: Position]) { byApp = record }

    /// A message goes to the app.
    /// - Returns: the number of this delivery, by which the app confirms it. No other one has it.
    mutating func delivered(_ position: Position, in channel: ChannelID) -> UInt64 {
        deliveries += 1
        open[channel, default: []].append(Place(position: position, content: .message(deliveries)))
        return deliveries
    }

    /// Messages are gone, and the app has to confirm that it knows. Places of another epoch, or beyond the end of a log that got
    /// shorter, mean nothing any more.
    mutating func lost(_ gap: MessageGap, in channel: ChannelID) {
        open[channel, default: []].removeAll {
            $0.position.epoch != gap.upTo.epoch || $0.position.offset > gap.upTo.offset
        }
        open[channel, default: []].append(Place(position: gap.upTo, content: .gap(gap)))
    }

    /// Whether the app has not confirmed yet that it knows of a gap.
    func owesGap(in channel: ChannelID) -> Bool {
        open[channel]?.contains { if case .gap = $0.content { true } else { false } } ?? false
    }

    /// A place that the app doesn't see.
    /// - Returns: the place to confirm now, or nil while the app holds something before it.
    mutating func passed(_ position: Position, in channel: ChannelID) -> Position? {
        guard let places = open[channel], !places.isEmpty else { return position }
        open[channel, default: []].append(Place(position: position, content: .absent))
        return nil
    }

    /// The app confirmed `item`, and everything before it.
    /// - Returns: the place to confirm to the service, or nil when nothing new was confirmed.
    mutating func confirmed(_ item: ConfirmedItem, in channel: ChannelID) -> Position? {
        // Taken out while it is changed, so that the change is made in place.
        guard var places = open.removeValue(forKey: channel) else { return nil }
        defer { if !places.isEmpty { open[channel] = places } }
        // Only what is waiting can be confirmed: what is lost with a log's end, or was confirmed before, is not there.
        let index =
            switch item {
            case .message(let delivery): places.firstIndex { $0.content == .message(delivery) }
            // Of two that are alike the app knows of the first, at least.
            case .gap(let gap): places.firstIndex { $0.content == .gap(gap) }
            }
        guard var end = index else { return nil }
        byApp[channel] = places[end].position
        while end + 1 < places.count, places[end + 1].content == .absent { end += 1 }
        let reached = places[end].position
        places.removeFirst(end + 1)
        return reached
    }
}
