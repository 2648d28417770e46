import LonglineWire

/// What arrived before it may be read: frames and ends of lanes in their order, bounded in bytes of ``FrameCost``, so that the
/// memory they take is bounded whatever they are.
struct HeldFrames {
    enum Item {
        case frame(Frame, lane: LaneID)
        case finished(LaneID)
    }

    /// The limit in bytes of ``FrameCost``; a finished lane costs a frame's overhead.
    let limit: Int
    private var items = WorkQueue<Item>()
    private(set) var bytes = 0

    init(limit: Int) { self.limit = limit }

    var isEmpty: Bool { items.isEmpty }

    /// Keeps an item; false when it doesn't fit beside what is held elsewhere, and then it is not kept.
    mutating func hold(_ item: Item, beside others: Int = 0) -> Bool {
        let cost = Self.cost(item)
        guard bytes + others + cost <= limit else { return false }
        bytes += cost
        items.append(item)
        return true
    }

    /// Takes the oldest item.
    mutating func next() -> Item? {
        guard let item = items.popFirst() else { return nil }
        bytes -= Self.cost(item)
        assert(bytes >= 0)
        return item
    }

    /// Takes the frames of lane 0, in their order; the rest stays in its own.
    mutating func takeControl() -> [Frame] {
        var taken: [Frame] = []
        var rest = WorkQueue<Item>()
        while let item = items.popFirst() {
            if case .frame(let frame, lane: .control) = item {
                bytes -= Self.cost(item)
                taken.append(frame)
            } else {
                rest.append(item)
            }
        }
        items = rest
        return taken
    }

    mutating func removeAll() {
        items.removeAll()
        bytes = 0
    }

    private static func cost(_ item: Item) -> Int {
        switch item {
        case .frame(let frame, _): FrameCost.of(frame)
        case .finished: FrameCost.overhead
        }
    }
}
