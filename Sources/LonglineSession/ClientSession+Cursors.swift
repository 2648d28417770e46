public import LonglineWire
import NIOCore

/// The places that this device says it has, and those that the server has for it. See ``ServerSession``'s half.
///
/// Named in each connect are, in this order: channels whose chain broke, those in which the server's record is ahead, and those that
/// moved since the server's record was seen. A session's first connect names all there are, and says so: its storage may be an older
/// one, or new, and nothing else tells the server.
extension ClientSession {
    /// The places that the present link's `CONNECT` named, and what went before it: once the session is connected, the server has them.
    public var namedCursors: [ChannelID: Position] { connectCursors }

    /// The server has the place in a channel in which nothing comes any more, and doesn't list it. The next connects don't name it until
    /// it moves, or the server's record turns out to be an older one.
    public mutating func nameNoMore(_ channel: ChannelID) { movedCursors.remove(channel) }

    /// The next connect names the place in a channel once more, whether it moves or not.
    public mutating func nameAgain(_ channel: ChannelID) { movedCursors.insert(channel) }

    /// What goes before `CONNECT`, and the cursors in it.
    mutating func nameCursors() -> (before: [Frame], cursors: [ChannelPosition]) {
        let size = configuration.cursorsPerFrame
        let places = placesToName()
        let isWhole = places.count <= size * (1 + FrameLimits.maximumCursorFrames)
        connectCursors = [:]
        var rest = places.prefix(size * (1 + FrameLimits.maximumCursorFrames))
        for place in rest { connectCursors[place.channel] = place.position }
        let first = Array(rest.prefix(size))
        rest = rest.dropFirst(size)
        var before: [Frame] = []
        while !rest.isEmpty {
            before.append(.cursors(Cursors(Array(rest.prefix(size)), areAll: false)))
            rest = rest.dropFirst(size)
        }
        guard namesAll, isWhole else { return (before, first) }
        if case .cursors(var last) = before.popLast() ?? .cursors(Cursors([], areAll: true)) {
            last.areAll = true
            before.append(.cursors(last))
        }
        return (before, first)
    }

    private func placesToName() -> [ChannelPosition] {
        var named = Set(claimedChannels)
        var channels = claimedChannels
        func add(_ more: some Sequence<ChannelID>) {
            channels += more.filter { named.insert($0).inserted }.sorted { $0.description < $1.description }
        }
        add(recordsAhead.keys)
        // What moved can follow as an ACK; the others count only here.
        add(movedCursors)
        if namesAll { add(self.channels.keys) }
        return channels.compactMap { channel in
            self.channels[channel]?.receiver.claim.map { ChannelPosition(channel: channel, position: $0) }
        }
    }

    /// The server's record is ahead of this device in these channels.
    mutating func noteAhead(_ ahead: CursorsAhead, now: NIODeadline) {
        guard aheadFrames < FrameLimits.maximumAheadFrames else {
            return violated(.limitExceeded, "too many channels ahead", now: now)
        }
        aheadFrames += 1
        for record in ahead.records {
            guard knows(record.channel, now: now) else { return }
            modify(record.channel) { $0.receiver.opened(epoch: record.position.epoch) }
            recordsAhead[record.channel] = record.position
            settleRecord(of: record.channel)
        }
    }

    /// A place as far as the server's record is as good as that.
    mutating func settleRecord(of channel: ChannelID) {
        guard let record = recordsAhead[channel], let receiver = channels[channel]?.receiver else { return }
        let isOld = receiver.last.map { $0.epoch != record.epoch } ?? false
        guard isOld || receiver.confirmedOffset(in: record.epoch).map({ $0 >= record.offset }) ?? false else { return }
        recordsAhead[channel] = nil
        claimedChannels.removeAll { $0 == channel }
    }
}
