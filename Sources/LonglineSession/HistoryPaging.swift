public import LonglineWire

/// The part of a channel's log that a session may read.
struct ReadableRange: Hashable, Sendable {
    var epoch: Epoch
    /// Nothing at or below this offset.
    var after: Offset
    /// The last readable offset, or nil.
    var upTo: Offset?

    init(_ channel: SessionChannel) {
        epoch = channel.head.epoch
        // Delivery of a broadcast begins where the device came in; its past is everybody's.
        after = channel.channel.isBroadcast ? 0 : channel.after
        upTo = channel.upTo
    }

    /// The range once a stay is over, or another one has begun; nil: the stay is the range's own.
    func superseded(by stay: SessionPage.Stay) -> ReadableRange? {
        guard stay.after >= after, stay.after > after || stay.upTo ?? .max < upTo ?? .max else { return nil }
        var range = self
        (range.after, range.upTo) = (stay.after, stay.upTo)
        return range
    }
}

/// A read of one page of history, as the host hands it to the store.
public struct HistoryRead: Hashable, Sendable {
    /// The request that it is for.
    public var request: UInt64
    /// The channel.
    public var channel: ChannelID
    /// Nothing at or below this offset.
    public var after: Offset
    /// Nothing above this offset, or nil.
    public var upTo: Offset?
    /// Whether the page holds the range's last entries, or its first.
    public var direction: HistoryDirection
    /// The most entries; what is absent on purpose doesn't count.
    public var maximumEntries: Int
    /// The most bytes of payload, beyond the first entry.
    public var maximumBytes: Int
}

/// How a request for history becomes a read, and what was read a page: the rules, without any state.
enum HistoryPaging {
    /// What to read, or why not.
    static func read(_ request: HistoryRequest, of range: ReadableRange, bytes: Int) -> Result<HistoryRead, Refusal> {
        guard (1...UInt64(FrameLimits.maximumHistoryEntries)).contains(request.limit) else {
            return .failure(Refusal(code: .invalidRange))
        }
        guard request.epoch == 0 || request.epoch == range.epoch else {
            return .failure(Refusal(code: .epochChanged, epoch: range.epoch))
        }
        var read = HistoryRead(
            request: request.request, channel: request.channel, after: range.after, upTo: range.upTo,
            direction: request.direction, maximumEntries: Int(request.limit), maximumBytes: bytes)
        switch request.direction {
        case .older:
            guard request.from > 0 else { return .failure(Refusal(code: .invalidRange)) }
            read.upTo = min(request.from - 1, range.upTo ?? .max)
        case .newer:
            read.after = max(request.from, range.after)
        }
        return .success(read)
    }

    struct Refusal: Error {
        var code: RefusalCode
        var epoch: Epoch = 0
    }

    /// The frames of an answer. What lies before the readable part is named as a device would be told of it: by a skip.
    ///
    /// The host's word that the user's stay ended may come later than what was entered behind its end: of a page that holds the end
    /// nothing behind it is in the answer. Of a page that lies behind it ``SessionPage/stay`` tells.
    static func answer(
        _ request: HistoryRequest, of range: ReadableRange, page: SessionPage, for user: UserID?
    ) -> [Frame] {
        var (range, page) = (range, page)
        if let user, let last = page.items.firstIndex(where: { $0.endsStay(of: user, after: range.after) }) {
            range.upTo = page.items[last].end
            page.items.removeSubrange((last + 1)...)
        }
        func refused(_ code: RefusalCode, epoch: Epoch) -> [Frame] {
            [.historyPage(HistoryAnswer(request: request.request, refusal: code, epoch: epoch))]
        }
        guard page.epoch == range.epoch else { return refused(.epochChanged, epoch: page.epoch) }
        let beginning = max(range.after, page.first)
        let reason: SkipReason = range.after >= page.first ? .notEntitled : .trimmed
        let most = FrameLimits.maximumHistoryItems - 1
        var items: [SessionPage.Item]
        let start: Offset
        let end: Offset
        let more: Bool
        switch request.direction {
        case .newer:
            guard request.from <= page.head else { return refused(.invalidRange, epoch: 0) }
            items = Array(page.items.prefix(most))
            if request.from < beginning {
                items.insert(.skip(Skip(previous: request.from, to: beginning, reason: reason)), at: 0)
            }
            start = request.from
            end = items.last?.end ?? start
            more = min(page.head, range.upTo ?? .max) > end
        case .older:
            items = Array(page.items.suffix(most))
            let first = max(items.first?.previous ?? beginning, beginning)
            more = first > beginning
            let absent = min(beginning, request.from - 1)
            if !more, absent > 0 { items.insert(.skip(Skip(previous: 0, to: absent, reason: reason)), at: 0) }
            start = more ? first : 0
            end = items.last?.end ?? start
        }
        let head = HistoryAnswer(
            request: request.request, epoch: page.epoch, start: start, end: end, more: more, items: items.count)
        return [.historyPage(head)] + items.map(\.frame)
    }

    /// Whether a page that arrived is what its head says, without a hole.
    static func isWhole(_ answer: HistoryAnswer, _ items: [SessionPage.Item]) -> Bool {
        var end = answer.start
        for item in items {
            // An item that begins before the last one's end leaves nothing out.
            guard item.previous <= end, item.end > end else { return false }
            end = item.end
        }
        return end == answer.end
    }
}

extension SessionPage.Item {
    /// Whether a stay of the user that began behind an offset ends here.
    fileprivate func endsStay(of user: UserID, after offset: Offset) -> Bool {
        guard case .entry(let entry) = self else { return false }
        return entry.offset > offset && entry.endsStay(of: user)
    }

    /// Where the one before it ended.
    var previous: Offset {
        switch self {
        case .entry(let entry): entry.previous
        case .skip(let skip): skip.previous
        }
    }

    /// Where it ends.
    var end: Offset {
        switch self {
        case .entry(let entry): entry.offset
        case .skip(let skip): skip.to
        }
    }

    fileprivate var frame: Frame {
        switch self {
        case .entry(let entry): .deliver(Deliver(entry: entry, redelivered: false))
        case .skip(let skip): .skip(skip)
        }
    }
}
