import LonglineWire
import NIOCore

/// The places that a device says it has, and those that the server has for it.
///
/// ```
///   CURSORS* CONNECT ───▶ the device's word: named places; with `all`, none elsewhere
///                              │      in a channel that it does not name, the record counts
///   AHEAD* CONNECTED ◀─── where the record is further than the place at which delivery goes on
/// ```
/// A device that was restored from a backup, or lost everything, so gets again what it lacks, on its first link; and it names these
/// channels on its next ones until it is where the record is, because that only grows.
extension ServerSession {
    /// What came before `CONNECT`.
    struct NamedCursors {
        var cursors: [ChannelPosition] = []
        var frames = 0
        /// They are all that the device has.
        var areAll = false
    }

    mutating func cursorsReceived(_ more: Cursors, now: NIODeadline) {
        guard !named.areAll else {
            return violated(.unexpectedFrame, "cursors behind those that were said to be all", now: now)
        }
        guard named.frames < FrameLimits.maximumCursorFrames else {
            return violated(.limitExceeded, "too many cursors", now: now)
        }
        named.frames += 1
        named.areAll = more.areAll
        named.cursors += more.cursors
    }

    /// A connect with all cursors that were named for it.
    mutating func withNamedCursors(_ connect: Connect) -> Connect {
        guard !named.cursors.isEmpty else { return connect }
        var connect = connect
        connect.cursors += named.cursors
        named.cursors = []
        return connect
    }

    /// Of other rooms' places only so many are kept. Who joins a room again beyond them needs a link more.
    private static let maximumPlacesElsewhere = 128

    /// Keeps the places that the device named in rooms that its session does not begin with.
    mutating func keepPlacesElsewhere(_ claimed: [ChannelID: Position]) {
        for (channel, place) in claimed where channels[channel]?.sender == nil {
            guard placesElsewhere.count < Self.maximumPlacesElsewhere else { return }
            if case .room = channel { placesElsewhere[channel] = place }
        }
    }

    /// A channel that the session takes up only now. Where the device has a place in a log that was there before it, that is gone, and the
    /// device has to be told before it gets anything of this one: to it that would be a hole.
    mutating func takenUp(_ channel: SessionChannel) -> SessionChannel {
        guard channels[channel.channel]?.sender == nil,
            let place = placesElsewhere.removeValue(forKey: channel.channel), place.epoch != channel.head.epoch
        else { return channel }
        var channel = channel
        channel.cursor = place
        return channel
    }

    /// Where delivery begins in a channel. The device knows best: one restored from a backup is behind the record.
    /// - Parameter claim: the place that it named there.
    /// - Returns: the place, and whether the record counts for nothing because the device has no place at all.
    func start(in channel: SessionChannel, claim: Position?) -> (place: Position?, isAnew: Bool) {
        if let claim { return (claim, false) }
        guard named.areAll, channel.cursor != nil else { return (channel.cursor, false) }
        return (Position(epoch: channel.head.epoch, offset: 0), true)
    }

    /// Tells the device where the record is further than where it goes on.
    mutating func tell(ahead records: [ChannelPosition]) {
        var rest = records.prefix(FrameLimits.maximumAheadFrames * FrameLimits.maximumCursors)
        while !rest.isEmpty {
            let some = rest.prefix(FrameLimits.maximumCursors)
            rest = rest.dropFirst(some.count)
            actions.append(.send(.ahead(CursorsAhead(Array(some))), lane: .control))
        }
    }
}
