/// Which way a page of history goes from the place it is asked for.
public enum HistoryDirection: UInt8, Hashable, Sendable {
    /// Towards the log's beginning: the entries right before the place.
    case older = 0
    /// Towards the log's end: the entries right after it.
    case newer = 1
}

/// A client's request for one page of a channel's log.
public struct HistoryRequest: Hashable, Sendable {
    /// Chosen by the client; the answer names it.
    public var request: UInt64
    /// The channel.
    public var channel: ChannelID
    /// The epoch that ``from`` belongs to; 0 for whatever the log's present one is.
    public var epoch: Epoch
    /// The page holds entries below this offset (``HistoryDirection/older``) or above it (``HistoryDirection/newer``).
    /// ``FrameLimits/maximumNumber`` is behind every entry.
    public var from: Offset
    /// Which way.
    public var direction: HistoryDirection
    /// The most entries in the page: 1 to ``FrameLimits/maximumHistoryEntries``, or the request is refused.
    public var limit: UInt64

    /// A history request.
    public init(
        request: UInt64, channel: ChannelID, epoch: Epoch, from: Offset, direction: HistoryDirection, limit: UInt64
    ) {
        self.request = request
        self.channel = channel
        self.epoch = epoch
        self.from = from
        self.direction = direction
        self.limit = limit
    }
}

/// The head of a page of history. As many ``Frame/deliver(_:)`` and ``Frame/skip(_:)`` as ``items`` says follow on the
/// same lane, in the log's order.
public struct HistoryAnswer: Hashable, Sendable {
    /// The request it answers.
    public var request: UInt64
    /// Why there is no page, or nil.
    public var refusal: RefusalCode?
    /// For refusals that are worth another try: not before this many milliseconds.
    public var retryAfter: UInt64
    /// The epoch of every offset in the page, and of the log; 0 where a refusal does not tell it.
    public var epoch: Epoch
    /// The page holds what is readable above this offset…
    public var start: Offset
    /// …and up to this one.
    public var end: Offset
    /// Whether there is more in the direction that was asked for.
    public var more: Bool
    /// The frames that follow; at most ``FrameLimits/maximumHistoryItems``.
    public var items: Int

    /// The head of a page.
    public init(request: UInt64, epoch: Epoch, start: Offset, end: Offset, more: Bool, items: Int) {
        self.request = request
        refusal = nil
        retryAfter = 0
        self.epoch = epoch
        self.start = start
        self.end = end
        self.more = more
        self.items = items
    }

    /// A refusal, after which nothing follows.
    public init(request: UInt64, refusal: RefusalCode, retryAfter: UInt64 = 0, epoch: Epoch = 0) {
        self.init(request: request, epoch: epoch, start: 0, end: 0, more: false, items: 0)
        self.refusal = refusal
        self.retryAfter = retryAfter
    }
}

extension HistoryRequest {
    func write(to sink: inout some FrameSink) throws(FrameError) {
        sink.fixed(request)
        sink.channel(channel)
        sink.fixed(epoch)
        try sink.varint(from, "from")
        sink.byte(direction.rawValue)
        try sink.varint(limit, "limit")
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        self.init(
            request: try reader.fixed("request"), channel: try reader.channel("channel"),
            epoch: try reader.fixed("epoch"), from: try reader.varint("from"),
            direction: try reader.choice("direction"), limit: try reader.varint("limit"))
    }
}

extension HistoryAnswer {
    func write(to sink: inout some FrameSink) throws(FrameError) {
        guard refusal == nil || items == 0 else {
            throw FrameError(.unrepresentable, message: "a refusal with items")
        }
        sink.fixed(request)
        if let refusal {
            try refusal.write(to: &sink)
        } else {
            sink.uncheckedVarint(0)
        }
        try sink.varint(retryAfter, "retry after")
        sink.fixed(epoch)
        try sink.varint(start, "start")
        try sink.varint(end, "end")
        sink.byte(more ? 1 : 0)
        try sink.count(items, limit: FrameLimits.maximumHistoryItems, "items")
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        request = try reader.fixed("request")
        let code = try reader.varint32("refusal")
        refusal = code == 0 ? nil : RefusalCode(rawValue: code)
        retryAfter = try reader.varint("retry after")
        epoch = try reader.fixed("epoch")
        start = try reader.varint("start")
        end = try reader.varint("end")
        more = try reader.flags("more", known: 1) == 1
        items = try reader.count("items", limit: FrameLimits.maximumHistoryItems)
        guard refusal == nil || items == 0 else { throw reader.malformed("items", "is above 0 in a refusal") }
    }
}
