public import LonglineWire
public import NIOCore

/// A page of history, or why there is none.
public struct HistoryResult: Hashable, Sendable {
    /// The head of the page, which names the request.
    public var answer: HistoryAnswer
    /// In the log's order and without a hole, whichever the direction.
    public var items: [SessionPage.Item]
}

/// What a client asked for of its channels' history, and the page that is arriving.
///
/// Bounded: a few requests at once, and a page of ``LonglineWire/FrameLimits/maximumHistoryItems`` frames.
struct HistoryReceiver {
    fileprivate var requests: Set<UInt64> = []
    fileprivate var lane: LaneID?
    fileprivate var arriving: HistoryResult?
    /// An entry of the page whose payload arrives in parts.
    fileprivate var payload: PayloadArrival?
    /// An entry of the page came in parts: there is no other in it.
    fileprivate var isFull = false

    fileprivate var hasEntry: Bool {
        arriving?.items.contains { if case .entry = $0 { true } else { false } } == true
    }
}

/// Paging through a channel's log, apart from delivery: no cursor moves by it.
extension ClientSession {
    /// Asks for a page of history; ``ClientAction/history(_:)`` brings the answer.
    /// - Returns: false while not connected, or while as many requests as the protocol allows wait for their answers.
    public mutating func history(_ request: HistoryRequest, now: NIODeadline) -> Bool {
        guard phase == .connected, history.requests.count < FrameLimits.maximumHistoryRequests,
            history.requests.insert(request.request).inserted
        else { return false }
        send(.history(request), lane: .control, owed: true, now: now)
        return true
    }

    /// Whether a frame belongs to the history lane: the one whose first frame is a page's head.
    func isHistory(_ frame: Frame, lane: LaneID) -> Bool {
        if case .historyPage = frame { true } else { lane == history.lane }
    }

    mutating func processHistory(_ frame: Frame, lane: LaneID, now: NIODeadline) throws(InboundLanes.Problem) {
        if history.lane == nil {
            try inbound.openedWithoutHeader(lane)
            history.lane = lane
        }
        switch frame {
        case .historyPage(let answer) where lane == history.lane && history.arriving == nil:
            history.arriving = HistoryResult(answer: answer, items: [])
            history.isFull = false
        case .part(let part) where history.payload != nil:
            guard !part.isEnd else { return endPage() }
            guard history.payload?.append(part) == true else {
                return violated(.unexpectedFrame, "a part out of its place", now: now)
            }
            guard let whole = history.payload?.whole else { return }
            history.payload = nil
            history.arriving?.items.append(.entry(whole.entry))
        case .deliver(let deliver) where history.arriving != nil && history.payload == nil:
            let isLarge = deliver.entry.following > 0
            guard !history.isFull, !(isLarge && history.hasEntry) else {
                return violated(.unexpectedFrame, "a large payload beside another entry of its page", now: now)
            }
            guard isLarge else {
                history.arriving?.items.append(.entry(deliver.entry))
                break
            }
            guard deliver.entry.length <= UInt64(FrameLimits.maximumWholePayload) else {
                return violated(.limitExceeded, "a payload too large", now: now)
            }
            history.payload = PayloadArrival(deliver)
            history.isFull = true
            return
        case .skip(let skip) where history.arriving != nil && history.payload == nil:
            history.arriving?.items.append(.skip(skip))
        default:
            return violated(.unexpectedFrame, "a frame that has no place on the history lane", now: now)
        }
        guard let page = history.arriving, page.items.count == page.answer.items else { return }
        history.arriving = nil
        guard HistoryPaging.isWhole(page.answer, page.items) else {
            return close(Close(code: .internalError, reason: "a hole in a page of history"), now: now)
        }
        if history.requests.remove(page.answer.request) != nil { actions.append(.history(page)) }
    }

    /// An entry of the page went while it was sent: there is no page, and another request finds what is left.
    private mutating func endPage() {
        history.payload = nil
        guard let page = history.arriving else { return }
        history.arriving = nil
        guard history.requests.remove(page.answer.request) != nil else { return }
        let refused = HistoryAnswer(request: page.answer.request, refusal: .overloaded)
        actions.append(.history(HistoryResult(answer: refused, items: [])))
    }

    /// - Returns: whether the lane that ended was the history lane.
    mutating func historyFinished(_ lane: LaneID, now: NIODeadline) -> Bool {
        guard lane == history.lane else { return false }
        history.lane = nil
        history.payload = nil
        if history.arriving != nil { violated(.unexpectedFrame, "a lane that ended inside a page", now: now) }
        return true
    }
}
