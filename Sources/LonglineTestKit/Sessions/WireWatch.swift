import LonglineSession
import LonglineWire
import NIOCore

/// Watches what a server sends on one link: nothing that is not durable, not the user's or expired; each channel as one
/// chain; no more than the window, and than all channels may have together; nothing behind CLOSE.
struct WireWatch {
    private struct Chain {
        var epoch: Epoch
        /// Where the chain ends; nil before its first link.
        var end: Offset?
        /// The highest place the device confirmed on this link.
        var confirmed: Offset = 0
        var time: UInt64 = 0
        var unacknowledged: [(offset: Offset, cost: Int, isInParts: Bool)] = []
    }

    private var lanes: [LaneID: LaneHeader] = [:]
    private var chains: [ChannelID: Chain] = [:]
    private var clientLanes: [LaneID: LaneHeader] = [:]
    private var isClosed = false
    /// Entries of which parts are still to come, by lane.
    private var arriving: [LaneID: Entry] = [:]
    /// What CONNECTED named.
    var window = Int.max
    /// What may be unacknowledged in all channels, beside entries in parts.
    var room = Int.max
    /// Channels of which the credential allows nothing.
    var stopped: Set<ChannelID> = []
    /// Channels of which CONNECTED said that something is gone, and whose GAP did not leave yet.
    private var owedGaps: Set<ChannelID> = []
    /// Requests for history, and the page that is being sent.
    private var requests: [UInt64: ChannelID] = [:]
    private var page: (lane: LaneID, channel: ChannelID)?

    /// The client's word that it is done with everything up to an offset, as it arrives.
    mutating func received(_ frame: Frame, lane: LaneID) {
        switch frame {
        case .history(let request): requests[request.request] = request.channel
        case .lane(let header): clientLanes[lane] = header
        case .acknowledge(let acknowledge):
            guard let header = clientLanes[lane], chains[header.channel]?.epoch == header.epoch else { return }
            chains[header.channel]?.confirmed.formMax(acknowledge.offset)
            chains[header.channel]?.unacknowledged.removeAll { $0.offset <= acknowledge.offset }
        default: break
        }
    }

    /// A frame leaves the server.
    /// - Returns: what is wrong with it.
    mutating func sent(
        _ frame: Frame, lane: LaneID, to user: UserID?, _ device: DeviceID?, truth: Truth, time: UInt64
    ) -> String? {
        guard !isClosed else { return "\(frame.name) follows CLOSE" }
        if case .close = frame { isClosed = true }
        if case .connected(let connected) = frame {
            owedGaps = Set(connected.channels.filter { $0.recovery == .gap }.map(\.channel))
        }
        guard lane != .control else { return nil }
        if case .lane(let header) = frame {
            lanes[lane] = header
            if chains[header.channel]?.epoch != header.epoch { chains[header.channel] = Chain(epoch: header.epoch) }
            return nil
        }
        if case .historyPage(let answer) = frame {
            guard let channel = requests.removeValue(forKey: answer.request) else { return "a page of nothing asked" }
            page = (lane, channel)
            return answer.refusal == nil && stopped.contains(channel) ? "a page of \(channel) without the right" : nil
        }
        if let page, page.lane == lane { return past(frame, of: page.channel, user, truth, time) }
        guard let header = lanes[lane] else { return "\(frame.name) before LANE" }
        let channel = header.channel
        if stopped.contains(channel) {
            switch frame {
            case .deliver, .skip, .gap, .batch: return "\(channel): \(frame.name) is sent without the right"
            default: break
            }
        }
        switch frame {
        case .published(let published): return answered(published, channel, truth)
        case .deliver(let deliver):
            if arriving[lane] != nil { return "\(channel): an entry inside another's payload" }
            guard deliver.entry.following > 0 else {
                return delivered(deliver.entry, isInParts: false, channel, user, device, truth, time)
            }
            // Judged as soon as it begins: what is seen of it has to be what is there.
            arriving[lane] = deliver.entry
            guard let whole = chainLog(of: channel, truth)?.entry(at: deliver.entry.offset),
                whole.head(deliver.entry.payload.readableBytes) == deliver.entry
            else { return "\(channel) at \(deliver.entry.offset) begins, and is not durable" }
            return delivered(whole, isInParts: true, channel, user, device, truth, time)
        case .batch(let batch):
            if arriving[lane] != nil { return "\(channel): an entry inside another's payload" }
            guard let frames = try? batch.frames() else { return "\(channel): a batch that can't be read" }
            for frame in frames {
                if let problem = sent(frame, lane: lane, to: user, device, truth: truth, time: time) { return problem }
            }
            return nil
        case .part(let part):
            guard var entry = arriving.removeValue(forKey: lane) else { return "\(channel): a part of nothing" }
            guard !part.isEnd else {
                // It counts as not sent.
                chains[channel]?.end = entry.previous
                chains[channel]?.unacknowledged.removeAll { $0.offset == entry.offset }
                return nil
            }
            guard part.offset == UInt64(entry.payload.readableBytes) else {
                return "\(channel): a part out of its place"
            }
            entry.payload.writeImmutableBuffer(part.bytes)
            entry.following -= UInt64(part.bytes.readableBytes)
            if entry.following > 0 { arriving[lane] = entry }
            return nil
        case .skip(let skip): return linked(skip.previous, to: skip.to, cost: 128, channel)
        case .gap(let gap):
            owedGaps.remove(channel)
            chains[channel]?.end = gap.first
            return weighed(gap.first, cost: 128, channel)
        default: return nil
        }
    }

    /// A frame of a page of history.
    private func past(_ frame: Frame, of channel: ChannelID, _ user: UserID?, _ truth: Truth, _ time: UInt64) -> String?
    {
        guard case .deliver(let deliver) = frame else { return nil }
        let entry = deliver.entry
        let place = "history of \(channel) at \(entry.offset)"
        guard let log = truth.readableLog(channel, where: { $0.entry(at: entry.offset) != nil }),
            let whole = log.entry(at: entry.offset),
            entry.following > 0 ? whole.head(entry.payload.readableBytes) == entry : whole == entry
        else { return "\(place) is sent, and is not durable" }
        guard let user, truth.mayReadPast(entry.offset, of: channel, user) else {
            return "\(place) is sent to a stranger"
        }
        if log.erased.contains(entry.offset) { return "\(place) is sent, and was retracted" }
        return entry.expiry > 0 && entry.expiry <= time ? "\(place) is sent, and its time is over" : nil
    }

    /// The log that a channel's chain is of.
    private func chainLog(of channel: ChannelID, _ truth: Truth) -> Truth.Log? {
        guard let epoch = chains[channel]?.epoch else { return nil }
        return truth.readableLog(channel, of: epoch)
    }

    private func answered(_ published: Published, _ channel: ChannelID, _ truth: Truth) -> String? {
        let log = truth.readableLog(channel, of: published.position.epoch)
        guard log?.entry(at: published.position.offset)?.publishID == published.id else {
            return "publish \(published.id) is acknowledged at \(published.position), and is not durable"
        }
        return nil
    }

    private mutating func delivered(
        _ entry: Entry, isInParts: Bool, _ channel: ChannelID, _ user: UserID?, _ device: DeviceID?, _ truth: Truth,
        _ time: UInt64
    ) -> String? {
        let place = "\(channel) at \(entry.offset)"
        guard let log = chainLog(of: channel, truth), log.entry(at: entry.offset) == entry else {
            return "\(place) is sent, and is not durable"
        }
        if log.erased.contains(entry.offset) { return "\(place) is sent, and was retracted" }
        guard let user, truth.mayRead(entry.offset, of: channel, user, device) else {
            return "\(place) is sent to a stranger"
        }
        if entry.expiry > 0, entry.expiry <= time { return "\(place) is sent, and its time is over" }
        if entry.time < chains[channel]?.time ?? 0 { return "\(place) is earlier than the entry before it" }
        chains[channel]?.time = entry.time
        return linked(
            entry.previous, to: entry.offset, cost: entry.payload.readableBytes + 128, isInParts: isInParts, channel)
    }

    private mutating func linked(
        _ previous: Offset, to offset: Offset, cost: Int, isInParts: Bool = false, _ channel: ChannelID
    ) -> String? {
        guard let chain = chains[channel] else { return "\(channel) has no lane" }
        if owedGaps.contains(channel) {
            return "\(channel) goes on at \(offset) without the GAP that CONNECTED told of"
        }
        if let end = chain.end, previous != end, !(previous > end && previous <= chain.confirmed) {
            return "\(channel) at \(offset) continues \(previous), and \(end) was sent last"
        }
        chains[channel]?.end = offset
        return weighed(offset, cost: cost, isInParts: isInParts, channel)
    }

    private mutating func weighed(
        _ offset: Offset, cost: Int, isInParts: Bool = false, _ channel: ChannelID
    ) -> String? {
        let open = chains[channel]?.unacknowledged.reduce(0) { $0 + $1.cost } ?? 0
        chains[channel]?.unacknowledged.append((offset, cost, isInParts))
        if open >= window { return "\(channel) at \(offset) is sent with \(open) bytes unacknowledged" }
        let all = chains.values.reduce(0) { sum, chain in
            chain.unacknowledged.reduce(sum) { $0 + ($1.isInParts ? 0 : $1.cost) }
        }
        return all > room ? "\(channel) at \(offset) makes it \(all) bytes unacknowledged in all channels" : nil
    }
}

extension UInt64 {
    fileprivate mutating func formMax(_ other: UInt64) { self = Swift.max(self, other) }
}
