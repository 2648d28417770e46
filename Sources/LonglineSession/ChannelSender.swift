import DequeModule
import LonglineWire
import NIOCore

/// Sends one channel to one session: the only path by which an entry reaches a device.
///
/// It reads the log from what was sent, and nothing else moves it: a wake (``advanced(to:)``) only tells that there is
/// more to read, so a live publish can't race the catch-up.
///
/// ```
///          GAP or SKIP owed                     page: items in chain order
///  start ------------------> notice --sent-->  idle <----------------------- reading
///    '------ none owed ---------------------->  |   more in the log, room in    ^
///                                               '---the window, lane writable---'
/// ```
///
/// An entry that is too large for a frame holds the channel up until its payload is sent, in parts that are read one by
/// one (``PayloadSending``), so that it costs no more memory than another.
///
/// Invariants: `acknowledged <= sent`; every item sent continues from `sent`; `unacknowledged` ascends and ends at or
/// below `sent`; at most one read is under way.
struct ChannelSender {
    /// The log's life that every offset here belongs to.
    private(set) var epoch: Epoch
    /// The last offset sent, skipped or known to be on the device.
    private(set) var sent: Offset
    /// The highest offset the device confirmed in this epoch; nil before the first.
    private(set) var acknowledged: Offset?
    /// The log's last entry, as far as known.
    private(set) var head: Offset
    /// The leave entry, after which nothing is readable.
    private(set) var upTo: Offset?
    /// How the device's cursor fits the log.
    private(set) var recovery: Recovery
    /// A GAP or SKIP that goes before everything else.
    private(set) var notice: Notice?
    /// What was sent and is not acknowledged, added up.
    private(set) var unconfirmed = Unconfirmed()

    /// Takes no memory of its own before the first: a session has a sender for each of its channels.
    private var unacknowledged: Deque<(offset: Offset, cost: UInt32, isInParts: Bool)> = []
    /// Direct messages among them, whose senders are told.
    private var direct: Deque<(offset: Offset, sender: UserID, origin: Position)> = []
    private var redeliveredUpTo: Offset
    /// Where the user's present stay begins: just before the join.
    private var begin: Offset
    /// The payload that is being sent. Rare: it takes no place in a channel without.
    private var payloadBox: Box<PayloadSending>?
    /// A payload that began will not be finished, and the client has not been told yet.
    private var owesEnd = false
    /// The next entry goes on in parts, and has to wait until other payloads are done.
    var waitsForParts = false
    /// Where the read under way began.
    private var readAfter: Offset?
    /// A membership that starts after this one's end, taken up when the end has been sent. Rare, and large.
    private var next: Box<SessionChannel>?

    init(_ channel: SessionChannel) {
        let start = Self.start(channel)
        epoch = channel.head.epoch
        sent = start.sent
        acknowledged = start.acknowledged
        head = max(channel.head.offset, start.sent)
        upTo = channel.upTo
        recovery = start.recovery
        notice = start.notice
        redeliveredUpTo = channel.sent ?? channel.head.offset
        begin = channel.after
    }

    /// The payload that is being sent.
    private(set) var payload: PayloadSending? {
        get { payloadBox?.value }
        set { payloadBox = newValue.map { Box($0) } }
    }

    /// The highest offset that may have reached the device, on this link or before.
    var everSent: Offset { max(sent, redeliveredUpTo) }

    /// Where the stay that a range belongs to ended, if it did.
    func end(of range: ReadableRange) -> Offset? { epoch == range.epoch && begin == range.after ? upTo : nil }

    /// Bytes sent and not acknowledged.
    var unacknowledgedBytes: Int { unconfirmed.bytes }

    /// The last offset to send at present.
    private var limit: Offset { min(head, upTo ?? .max) }

    /// Whether something waits to be sent.
    var hasMore: Bool { notice != nil || limit > sent || payload != nil }

    var isReading: Bool { isReadingPage || payload?.isReading == true }

    var isReadingPage: Bool { readAfter != nil }

    /// Nothing to send, nothing under way, everything confirmed: the lane may be finished without being overtaken.
    var isIdle: Bool { !hasMore && isQuiet }

    /// Nothing under way, everything confirmed, though there may be more to send.
    var isQuiet: Bool { !isReading && payload == nil && unacknowledged.isEmpty }

    /// The stay ended, no other one follows, and the device confirmed all of it.
    var isOver: Bool {
        guard let upTo, let acknowledged else { return false }
        return acknowledged >= upTo && next == nil && isIdle
    }

    /// The channel's log is longer now. A head of another epoch is not ours to judge: the next page tells.
    mutating func advanced(to position: Position) {
        if position.epoch == epoch { head = max(head, position.offset) }
    }

    /// Takes the notice that is owed, if the window has room.
    mutating func takeNotice(window: Int) -> Frame? {
        guard let owed = notice, payload == nil, unacknowledgedBytes < window else { return nil }
        notice = nil
        track(sent, cost: FrameCost.overhead)
        skipToBegin()
        return owed.frame
    }

    /// Starts the next read, when there is something to read and room in the window.
    mutating func startRead(window: Int, readBytes: Int) -> (after: Offset, upTo: Offset?, bytes: Int)? {
        guard notice == nil, payload == nil, !isReading, limit > sent, unacknowledgedBytes < window else { return nil }
        readAfter = sent
        return (sent, upTo, min(readBytes, window - unacknowledgedBytes))
    }

    /// The read brought nothing.
    mutating func readFailed() {
        readAfter = nil
        payload?.isReading = false
    }

    /// Starts the next read of the payload that is being sent.
    mutating func startPayloadRead() -> PayloadSending? {
        guard let started = payload, !started.isReading else { return nil }
        payload?.isReading = true
        return started
    }

    /// Takes the next bytes of a payload; nil: they are not in the log any more.
    /// - Returns: the parts to send.
    mutating func takePayload(_ bytes: ByteBuffer?, from: UInt64, partBytes: Int) -> [Frame] {
        guard var sending = payload, sending.isReading, sending.next == from else { return [] }
        guard let bytes, bytes.readableBytes > 0 else {
            abandonPayload()
            return []
        }
        let frames = sending.parts(bytes, partBytes: partBytes)
        sending.isReading = false
        payload = sending.isDone ? nil : sending
        if payload == nil { takeUpNext() }
        return frames
    }

    /// Ends a payload without its last part: the entry counts as not sent.
    mutating func abandonPayload() {
        guard let sending = payload else { return }
        payload = nil
        owesEnd = true
        if let last = unacknowledged.last, last.offset == sending.offset {
            unacknowledged.removeLast()
            unconfirmed.remove(last.cost, isInParts: last.isInParts)
        }
        if direct.last?.offset == sending.offset { direct.removeLast() }
        if sent == sending.offset { sent = max(sending.previous, acknowledged ?? 0) }
    }

    /// Tells the client that the rest of a payload does not come.
    mutating func takeEnd() -> Frame? {
        guard owesEnd else { return nil }
        owesEnd = false
        return .part(Part(offset: 0, bytes: ByteBuffer()))
    }

    /// What is told before anything else: smaller than a frame, as every channel of every session has room for one.
    enum Notice: Equatable {
        case skip(Skip)
        case gap(Gap)

        var frame: Frame {
            switch self {
            case .skip(let skip): .skip(skip)
            case .gap(let gap): .gap(gap)
            }
        }
    }

    /// Something rare and large, kept apart. What it holds is replaced, and never changed.
    private final class Box<Value: Sendable>: Sendable {
        let value: Value
        init(_ value: Value) { self.value = value }
    }

    enum PageResult {
        /// Send these, in order.
        case send([Frame])
        /// The log is another one now; the session has to start over.
        case otherEpoch
        /// The store's answer has a hole; the session can't go on.
        case broken
    }

    /// Takes the answer to a read. What the window has no room for is dropped and read again later.
    ///
    /// The entry that ends the user's stay in a room is the last one sent, even where the log goes on: the host's word that
    /// the stay ended may come later than what was entered behind its end.
    /// - Parameter mayBeginParts: whether another payload in parts may begin now.
    mutating func take(_ page: SessionPage, window: Int, user: UserID, mayBeginParts: Bool = true) -> PageResult {
        guard let after = readAfter else { return .send([]) }
        readAfter = nil
        guard page.epoch == epoch else { return .otherEpoch }
        head = max(head, page.head)
        // An acknowledgement moved on meanwhile: what was read is behind it.
        guard after == sent, notice == nil else { return .send([]) }
        var frames: [Frame] = []
        frames.reserveCapacity(page.items.count)
        let first = min(page.first, upTo ?? .max)
        if first > sent {
            // Trimmed while we were sending: trimming ignores cursors, and the device is told.
            frames.append(.gap(Gap(from: Position(epoch: epoch, offset: sent), first: first)))
            sent = first
            track(sent, cost: FrameCost.overhead)
        }
        // Nothing of a stay that ended is left: what the page has came behind it.
        if let upTo, page.first >= upTo {
            head = max(head, sent)
            return finish(frames)
        }
        for item in page.items {
            guard unacknowledgedBytes < window else { break }
            let frame: Frame
            switch item {
            case .entry(var entry):
                // A device may have confirmed a place between two entries: it goes on behind that.
                guard entry.previous <= sent, entry.offset > sent else { return .broken }
                entry.previous = sent
                if entry.offset > (upTo ?? .max) { return finish(frames) }
                if entry.following > 0 {
                    guard mayBeginParts else {
                        waitsForParts = true
                        return finish(frames)
                    }
                    payload = PayloadSending(entry)
                }
                sent = entry.offset
                if entry.offset > begin, entry.endsStay(of: user) { upTo = entry.offset }
                if entry.kind == .message, let origin = entry.origin {
                    direct.append((entry.offset, entry.sender, origin))
                }
                frame = .deliver(Deliver(entry: entry, redelivered: entry.offset <= redeliveredUpTo))
            case .skip(var skip):
                guard skip.previous <= sent, skip.to > sent else { return .broken }
                skip.previous = sent
                skip.to = min(skip.to, upTo ?? .max)
                if skip.to <= sent { return finish(frames) }
                sent = skip.to
                frame = .skip(skip)
            }
            if case .entry(let entry) = item {
                track(sent, cost: FrameCost.of(entry), isInParts: entry.following > 0)
            } else {
                track(sent, cost: FrameCost.overhead)
            }
            frames.append(frame)
            // What follows is read again behind the payload.
            if payload != nil { return finish(frames) }
        }
        // Nothing left up to the head the page itself names: believe it, or the same read would be made for ever. A page
        // older than the last wake is asked for again.
        if frames.isEmpty, page.items.isEmpty, page.head == head {
            head = sent
            if upTo != nil { upTo = sent }
        }
        head = max(head, sent)
        return finish(frames)
    }

    private mutating func finish(_ frames: [Frame]) -> PageResult {
        assert((acknowledged ?? 0) <= sent)
        takeUpNext()
        return .send(frames)
    }

    /// What is read of a log that is no more.
    var nothingLeft: SessionPage { SessionPage(epoch: epoch, items: [], head: limit, first: limit) }

    enum AcknowledgeResult { case moved(Position), old, beyond }

    /// Takes the device's word that it is done with everything up to `offset`.
    ///
    /// A device that was cut off may confirm more than this link sent, when its cursor did not fit into CONNECT: then
    /// sending goes on behind it. What lies beyond the log's end moves nothing: the log lost its end since.
    mutating func acknowledge(_ offset: Offset) -> AcknowledgeResult {
        guard offset <= max(limit, sent) else { return .beyond }
        if let acknowledged, offset <= acknowledged { return .old }
        // The device has it from before.
        if let payload, offset >= payload.offset { abandonPayload() }
        acknowledged = offset
        while let first = unacknowledged.first, first.offset <= offset {
            unconfirmed.remove(first.cost, isInParts: first.isInParts)
            unacknowledged.removeFirst()
        }
        if offset >= sent {
            // What is still owed tells the device nothing: it would answer with what was acknowledged already.
            sent = offset
            notice = nil
            takeUpNext()
            skipToBegin()
        }
        assert(unacknowledgedBytes >= 0)
        return .moved(Position(epoch: epoch, offset: offset))
    }

    /// The last direct message of each sender that the device is done with, since the last time it was asked, in their order.
    mutating func takeReached() -> [(sender: UserID, origin: Position)] {
        guard let acknowledged, direct.first.map({ $0.offset <= acknowledged }) ?? false else { return [] }
        var reached: [(sender: UserID, origin: Position)] = []
        while let first = direct.first, first.offset <= acknowledged {
            direct.removeFirst()
            if reached.last?.sender == first.sender { reached.removeLast() }
            reached.append((first.sender, first.origin))
        }
        return reached
    }

    /// The right to the channel changed: a leave sets the end, a new join starts a range behind the old one's.
    /// - Returns: whether the epoch changed, so that a new lane is needed.
    mutating func change(_ channel: SessionChannel) -> Bool {
        guard channel.head.epoch == epoch else {
            let from = Position(epoch: epoch, offset: acknowledged ?? sent)
            var fresh = channel
            fresh.cursor = from
            fresh.sent = fresh.sent ?? 0
            self = ChannelSender(fresh)
            return true
        }
        head = max(head, channel.head.offset)
        if let upTo, sent < upTo, channel.after >= upTo {
            next = Box(channel)
        } else {
            apply(channel)
        }
        return false
    }

    private mutating func takeUpNext() {
        guard let channel = next?.value, let upTo, sent >= upTo else { return }
        next = nil
        apply(channel)
    }

    private mutating func apply(_ channel: SessionChannel) {
        // A stay ends with the first of what may end it, of which the log may have told before the host does.
        let end = channel.after == begin ? upTo : nil
        upTo = end.map { min($0, channel.upTo ?? .max) } ?? channel.upTo
        begin = channel.after
        skipToBegin()
    }

    /// Owes the skip to where the stay begins; behind what is owed already.
    private mutating func skipToBegin() {
        guard begin > sent, notice == nil else { return }
        abandonPayload()
        notice = .skip(Skip(previous: sent, to: begin, reason: .notEntitled))
        sent = begin
        head = max(head, sent)
        // A read under way began before the new start; its answer is dropped.
    }

    private mutating func track(_ offset: Offset, cost: Int, isInParts: Bool = false) {
        assert((unacknowledged.last?.offset ?? 0) <= offset)
        let cost = UInt32(clamping: cost)
        unacknowledged.append((offset, cost, isInParts))
        unconfirmed.add(cost, isInParts: isInParts)
    }

    /// Where sending starts, and what has to be said first.
    private static func start(
        _ channel: SessionChannel
    ) -> (sent: Offset, acknowledged: Offset?, recovery: Recovery, notice: Notice?) {
        // Of a stay that ended what is trimmed behind its end is no loss: a device that was told of it would stand behind that end.
        let begin = min(max(channel.after, channel.first), channel.upTo ?? .max)
        guard let cursor = channel.cursor else {
            guard begin > 0 else { return (0, nil, .fresh, nil) }
            let reason: SkipReason = channel.after >= channel.first ? .notEntitled : .trimmed
            return (begin, nil, .fresh, .skip(Skip(previous: 0, to: begin, reason: reason)))
        }
        guard cursor.epoch == channel.head.epoch else {
            return (begin, nil, .gap, .gap(Gap(from: cursor, first: begin)))
        }
        if cursor.offset > channel.head.offset {
            // The log is shorter than what was confirmed: say so, and go on from its end.
            let end = channel.head.offset
            return (end, nil, .gap, .gap(Gap(from: cursor, first: end)))
        }
        guard cursor.offset < begin else { return (cursor.offset, cursor.offset, .recovered, nil) }
        if channel.first <= channel.after {
            let skip = Skip(previous: cursor.offset, to: begin, reason: .notEntitled)
            return (begin, cursor.offset, .recovered, .skip(skip))
        }
        return (begin, cursor.offset, .gap, .gap(Gap(from: cursor, first: begin)))
    }
}
