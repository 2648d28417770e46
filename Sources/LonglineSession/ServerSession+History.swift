public import LonglineWire
public import NIOCore

/// Requests for history of one link, answered one after another on a lane of their own.
///
/// ```
///             HISTORY                 lane writable              page or refusal
///   (none) ------------> waiting, in order --------> reading ----------------------> answered
/// ```
///
/// Bounded: so many requests wait (``LonglineWire/FrameLimits/maximumHistoryRequests``), one is read, and none while the
/// lane holds more than the link takes without delay. So a client that asks and doesn't listen costs a page or two.
struct HistoryQueue {
    fileprivate(set) var waiting: [HistoryRequest] = []
    /// The first of those that wait is being read, in this range.
    fileprivate(set) var reading: ReadableRange?
    fileprivate(set) var lane: LaneID?
    fileprivate(set) var isWritable = true
    /// An entry of the page whose payload is being sent in parts, and what comes behind it.
    fileprivate var payload: (request: UInt64, channel: ChannelID, sending: PayloadSending, rest: ArraySlice<Frame>)?

    mutating func removeAll() { self = HistoryQueue() }
}

/// Paging through a channel's log, apart from delivery: no cursor moves by it.
extension ServerSession {
    mutating func processHistory(_ request: HistoryRequest, now: NIODeadline) {
        guard !history.waiting.contains(where: { $0.request == request.request }) else {
            return violated(.unexpectedFrame, "a request number that waits for its answer", now: now)
        }
        guard history.waiting.count < FrameLimits.maximumHistoryRequests else {
            return violated(.limitExceeded, "too many requests for history without an answer", now: now)
        }
        history.waiting.append(request)
        advanceHistory()
    }

    /// Answers ``ServerAction/readHistory(_:)``.
    public mutating func historyRead(_ request: UInt64, page: SessionPage, now: NIODeadline) {
        guard let (first, range) = finishRead(request) else { return }
        // The store knows of the end of a stay before the host says so.
        if let stay = page.stay, page.epoch == range.epoch, let known = range.superseded(by: stay) {
            modify(first.channel) { $0.readable = known }
        }
        // The right to the channel changed while it was read: only what may be read now leaves.
        if readable(first.channel) == range, identity?.may(.receive, first.channel) == true {
            answerFirst(with: HistoryPaging.answer(first, of: range, page: page, for: identity?.user))
        }
        advanceHistory()
    }

    /// Answers ``ServerAction/readHistory(_:)``: not now, or not at all.
    public mutating func historyFailed(_ request: UInt64, code: RefusalCode, retryAfter: UInt64, now: NIODeadline) {
        guard finishRead(request) != nil else { return }
        refuseFirst(code, retryAfter: retryAfter)
        advanceHistory()
    }

    mutating func historyWritable(_ writable: Bool) {
        history.isWritable = writable
        readHistoryPayload()
        advanceHistory()
    }

    private mutating func finishRead(_ request: UInt64) -> (HistoryRequest, ReadableRange)? {
        guard case .up = phase, let range = history.reading, let first = history.waiting.first,
            first.request == request
        else { return nil }
        history.reading = nil
        return (first, range)
    }

    /// Works off requests in their order, up to the first that needs a read.
    private mutating func advanceHistory() {
        while case .up = phase, history.reading == nil, history.payload == nil, history.isWritable,
            let request = history.waiting.first
        {
            guard identity?.may(.receive, request.channel) == true else {
                refuseFirst(.forbidden)
                continue
            }
            guard let range = readable(request.channel) else {
                refuseFirst(.unknownChannel)
                continue
            }
            switch HistoryPaging.read(request, of: range, bytes: configuration.historyBytes) {
            case .failure(let refusal): refuseFirst(refusal.code, epoch: refusal.epoch)
            case .success(let read):
                history.reading = range
                actions.append(.readHistory(read))
            }
        }
    }

    /// What of a channel may be read. Of the end of a stay the log, or a page of history, may have told before the host does.
    private func readable(_ channel: ChannelID) -> ReadableRange? {
        guard let state = channels[channel], var range = state.readable else { return nil }
        if let end = state.sender?.end(of: range) { range.upTo = min(end, range.upTo ?? .max) }
        return range
    }

    private mutating func refuseFirst(_ code: RefusalCode, retryAfter: UInt64 = 0, epoch: Epoch = 0) {
        guard let request = history.waiting.first?.request else { return }
        answerFirst(with: [
            .historyPage(HistoryAnswer(request: request, refusal: code, retryAfter: retryAfter, epoch: epoch))
        ])
    }

    private mutating func answerFirst(with frames: [Frame]) {
        let request = history.waiting.removeFirst()
        let lane: LaneID
        if let open = history.lane {
            lane = open
        } else {
            lane = openLane()
            history.lane = lane
            // A page is asked for by somebody who reads; a message is not to wait for it.
            actions.append(.prioritize(lane, .bulk))
        }
        send(frames[...], of: request.request, channel: request.channel, lane: lane)
    }

    /// Sends the frames of a page, up to one that goes on in parts.
    private mutating func send(_ frames: ArraySlice<Frame>, of request: UInt64, channel: ChannelID, lane: LaneID) {
        for (index, frame) in zip(frames.indices, frames) {
            actions.append(.send(frame, lane: lane))
            guard case .deliver(let deliver) = frame, deliver.entry.following > 0 else { continue }
            history.payload = (request, channel, PayloadSending(deliver.entry), frames[(index + 1)...])
            return readHistoryPayload()
        }
    }

    private mutating func readHistoryPayload() {
        guard case .up = phase, history.isWritable, let payload = history.payload, !payload.sending.isReading else {
            return
        }
        history.payload?.sending.isReading = true
        actions.append(
            .readPayload(
                PayloadRead(
                    channel: payload.channel, epoch: channels[payload.channel]?.epoch ?? 0,
                    offset: payload.sending.offset, from: payload.sending.next, maximumBytes: configuration.readBytes,
                    history: payload.request)))
    }

    /// The next bytes of a page's entry; nil: they are not there, and the page ends without it.
    mutating func historyPayload(_ read: PayloadRead, bytes: ByteBuffer?) {
        guard var payload = history.payload, payload.request == read.history, payload.sending.isReading,
            payload.sending.next == read.from, let lane = history.lane
        else { return }
        // The right to the channel may have changed meanwhile.
        let mayRead = identity?.may(.receive, payload.channel) == true
        guard let bytes, bytes.readableBytes > 0, mayRead else {
            history.payload = nil
            actions.append(.send(.part(Part(offset: 0, bytes: ByteBuffer())), lane: lane))
            return advanceHistory()
        }
        let parts = payload.sending.parts(bytes, partBytes: configuration.partBytes)
        for part in parts { actions.append(.send(part, lane: lane)) }
        payload.sending.isReading = false
        if payload.sending.isDone {
            history.payload = nil
            send(payload.rest, of: payload.request, channel: payload.channel, lane: lane)
            advanceHistory()
        } else {
            history.payload = payload
            readHistoryPayload()
        }
    }
}
