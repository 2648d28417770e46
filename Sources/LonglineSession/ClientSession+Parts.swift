import LonglineWire
import NIOCore

/// A publish of which the first frame left, and whose payload goes on in parts.
struct PublishSending {
    let id: PublishID
    private var payload: ByteBuffer
    private var next: UInt64

    /// - Parameter payload: what is left of it, behind the first `next` bytes.
    init(id: PublishID, payload: ByteBuffer, next: UInt64) {
        self.id = id
        self.payload = payload
        self.next = next
    }

    var isDone: Bool { payload.readableBytes == 0 }

    /// The next part, which shares the payload's memory.
    mutating func take(_ bytes: Int) -> Part? {
        guard let part = payload.readSlice(length: min(bytes, payload.readableBytes)), part.readableBytes > 0 else {
            return nil
        }
        defer { next += UInt64(part.readableBytes) }
        return Part(offset: next, bytes: part)
    }
}

/// Large payloads, in both directions.
extension ClientSession {
    /// Bytes of parts that are sent on a lane before the transport is asked whether it keeps up.
    static let burst = 64 * 1024

    // MARK: Out

    /// Sends the next parts of the channel's payload.
    /// - Returns: whether all of it was sent, so that the lane is free for others.
    mutating func sendParts(_ channel: ChannelID, now: NIODeadline) -> Bool {
        var burst = 0
        while channels[channel]?.sending != nil {
            guard let lane = channels[channel]?.lane, lane.isWritable else { return false }
            guard burst < Self.burst else {
                modify(channel) { $0.lane?.isWritable = false }
                actions.append(.awaitRoom(lane.id))
                return false
            }
            let size = configuration.partBytes
            let part: Part? =
                modify(channel) { state in
                    let part = state.sending?.take(size)
                    if state.sending?.isDone == true { state.sending = nil }
                    return part
                } ?? nil
            guard let part else { break }
            burst += part.bytes.readableBytes
            send(.part(part), lane: lane.id, owed: false, now: now)
        }
        return true
    }

    /// Cuts a publish that is too large for a frame: its first frame is returned, the rest is kept for ``sendParts(_:now:)``.
    mutating func begin(_ publish: Publish, in channel: ChannelID) -> Publish {
        guard publish.payload.readableBytes > configuration.partBytes else { return publish }
        var first = publish
        var rest = publish.payload
        first.payload = rest.readSlice(length: configuration.partBytes) ?? ByteBuffer()
        first.following = UInt64(rest.readableBytes)
        let next = UInt64(first.payload.readableBytes)
        modify(channel) { $0.sending = PublishSending(id: publish.id, payload: rest, next: next) }
        unansweredParts[channel] = publish.id
        return first
    }

    /// Whether the next publish is one in parts for which there is no place now.
    ///
    /// A channel has its place until its last one in parts is answered: what left this side may still be under way, and another
    /// lane's would overtake it. Its own next one can't.
    func mustWaitForParts(_ channel: ChannelID) -> Bool {
        guard let cost = channels[channel]?.queue.nextCost, cost > configuration.partBytes + FrameCost.overhead else {
            return false
        }
        return unansweredParts.count >= FrameLimits.maximumPayloadsInParts && unansweredParts[channel] == nil
    }

    /// A publish was answered before all of it was sent: the rest is not wanted.
    mutating func endParts(of id: PublishID, in channel: ChannelID, now: NIODeadline) {
        if unansweredParts[channel] == id { unansweredParts[channel] = nil }
        guard channels[channel]?.sending?.id == id, let lane = channels[channel]?.lane?.id else { return }
        modify(channel) { $0.sending = nil }
        send(.part(Part(offset: 0, bytes: ByteBuffer())), lane: lane, owed: false, now: now)
    }

    // MARK: In

    /// An entry that goes on in parts.
    mutating func beginAssembly(_ deliver: Deliver, lane: LaneID, now: NIODeadline) {
        guard arriving.count < FrameLimits.maximumPayloadsInParts,
            deliver.entry.length <= UInt64(FrameLimits.maximumWholePayload)
        else { return violated(.limitExceeded, "too many payloads in parts at once, or one too large", now: now) }
        guard let arrival = PayloadArrival(deliver) else {
            return violated(.unexpectedFrame, "a payload longer than it is", now: now)
        }
        arriving[lane] = arrival
    }

    /// The next part of an entry on a channel's lane.
    /// - Returns: the entry, when it is whole.
    mutating func assemble(_ part: Part, lane: LaneID, now: NIODeadline) -> Deliver? {
        // Out of the table while it is changed, so that its buffer has one owner.
        guard var arrival = arriving.removeValue(forKey: lane) else {
            violated(.unexpectedFrame, "a part of nothing", now: now)
            return nil
        }
        guard !part.isEnd else { return nil }
        guard arrival.append(part) else {
            violated(.unexpectedFrame, "a part out of its place", now: now)
            return nil
        }
        if let whole = arrival.whole { return whole }
        arriving[lane] = arrival
        return nil
    }
}

/// An entry whose payload is arriving in parts. Bounded by the protocol: so many at once, each of so many bytes.
struct PayloadArrival {
    private var deliver: Deliver
    private var assembly: PayloadAssembly

    init?(_ deliver: Deliver) {
        let length = Int(clamping: deliver.entry.length)
        guard let assembly = try? PayloadAssembly(head: deliver.entry.payload, length: length, account: nil) else {
            return nil
        }
        self.assembly = assembly
        self.deliver = deliver
        self.deliver.entry.payload = ByteBuffer()
        self.deliver.entry.following = 0
    }

    /// - Returns: false for a part that does not continue it.
    mutating func append(_ part: Part) -> Bool {
        do throws(PayloadAssembly.Problem) {
            try assembly.append(part)
            return true
        } catch {
            return false
        }
    }

    /// The entry, once all of it is here.
    var whole: Deliver? {
        guard assembly.isWhole else { return nil }
        var whole = deliver
        whole.entry.payload = assembly.bytes
        return whole
    }
}
