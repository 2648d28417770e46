import LonglineWire

/// Which channel's log is read next.
///
/// ```
///  control  ▷ ▷        the most urgent first; after `patience` reads that passed a less urgent channel by, that channel
///  chat     ▷ ▷ ▷  ──▶ reads once. Of the reads under way at once half may be bulk, one at least, so that a chat message
///  bulk     ▷          never waits for a free place behind bulk.
/// ```
/// Within an urgency in the order in which they asked. A channel stands in it once, and has one read under way.
struct ReadTurns {
    /// Reads that may pass a waiting channel of the next lower urgency.
    static let patience = 8

    private struct Line {
        var waiting = WorkQueue<ChannelID>()
        /// Reads of more urgent channels since one of these was read, while some waited.
        var passed = 0
    }

    private let limit: Int
    private var lines = Urgency.allCases.map { _ in Line() }
    private var waiting = 0
    private var underWay: [ChannelID: Urgency] = [:]

    /// - Parameter limit: reads under way at once.
    init(limit: Int) { self.limit = limit }

    mutating func append(_ channel: ChannelID, _ urgency: Urgency) {
        lines[Int(urgency.rawValue)].waiting.append(channel)
        waiting += 1
    }

    /// Whether nobody waits.
    var isEmpty: Bool { waiting == 0 }

    /// Whether nobody of an urgency waits.
    func isEmpty(of urgency: Urgency) -> Bool { lines[Int(urgency.rawValue)].waiting.isEmpty }

    /// Whether nobody waits and nothing is under way.
    var isUnused: Bool { waiting == 0 && underWay.isEmpty }

    func isUnderWay(_ channel: ChannelID) -> Bool { underWay[channel] != nil }

    /// Takes a channel out of the line.
    mutating func remove(_ channel: ChannelID) {
        for index in lines.indices { lines[index].waiting.keep { $0 != channel } }
        waiting = lines.reduce(0) { $0 + $1.waiting.count }
    }

    /// The channel whose turn it is, if another read may start now. It counts as under way until ``ended(_:)``.
    /// - Parameter urgencies: those whose channels may have it, the most urgent first.
    mutating func next(of urgencies: [Urgency] = Urgency.allCases) -> ChannelID? {
        guard waiting > 0, underWay.count < limit else { return nil }
        let bulkIsFull = underWay.values.count { $0 == .bulk } >= max(1, limit / 2)
        let able = urgencies.filter { urgency in
            !lines[Int(urgency.rawValue)].waiting.isEmpty && !(urgency == .bulk && bulkIsFull)
        }
        guard let first = able.first else { return nil }
        let taken = able.last { lines[Int($0.rawValue)].passed >= Self.patience } ?? first
        for urgency in able where urgency > taken { lines[Int(urgency.rawValue)].passed += 1 }
        lines[Int(taken.rawValue)].passed = 0
        guard let channel = lines[Int(taken.rawValue)].waiting.popFirst() else { return nil }
        waiting -= 1
        underWay[channel] = taken
        return channel
    }

    /// A channel's read was answered, or is not waited for any more.
    mutating func ended(_ channel: ChannelID) { underWay[channel] = nil }

    /// Channels whose reads are under way.
    var channelsUnderWay: Dictionary<ChannelID, Urgency>.Keys { underWay.keys }

    mutating func removeAll() { self = ReadTurns(limit: limit) }
}
