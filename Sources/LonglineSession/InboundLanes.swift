import LonglineWire

/// The peer's lanes on one link. Lanes may appear out of their order (QUIC streams overtake each other), but no number is
/// used twice, and the numbers a peer may leave open or skip are bounded.
///
/// ```
///  unseen --higher number seen--> announced --LANE--> open --finished--> closed
///     '-------------LANE------------------------------^        (announced --finished--> closed)
/// ```
struct InboundLanes {
    enum Problem: Error { case reused, tooMany, noHeader, secondHeader }

    private let limit: Int
    private var open: [LaneID: LaneHeader] = [:]
    /// Numbers below ``highest`` that were not seen yet.
    private var announced: Set<UInt64> = []
    private var highest: UInt64 = 0

    init(limit: Int) { self.limit = limit }

    /// Lanes open now.
    var count: Int { open.count }

    /// Takes a lane's header, its first frame.
    mutating func opened(_ lane: LaneID, _ header: LaneHeader) throws(Problem) {
        guard open[lane] == nil else { throw .secondHeader }
        try see(lane)
        open[lane] = header
    }

    /// Takes a lane that carries no channel and so has no header. Whoever opened it notes that it is open.
    mutating func openedWithoutHeader(_ lane: LaneID) throws(Problem) {
        guard open[lane] == nil else { throw .secondHeader }
        try see(lane)
    }

    /// The header of the lane that another frame came on.
    func header(_ lane: LaneID) throws(Problem) -> LaneHeader {
        guard let header = open[lane] else { throw .noHeader }
        return header
    }

    /// The peer finished a lane; a lane that never had a header counts as used too.
    mutating func finished(_ lane: LaneID) throws(Problem) -> LaneHeader? {
        if let header = open.removeValue(forKey: lane) { return header }
        try see(lane)
        return nil
    }

    private mutating func see(_ lane: LaneID) throws(Problem) {
        let number = lane.rawValue
        if number > highest {
            let skipped = number - highest - 1
            guard skipped < UInt64(limit), open.count + announced.count + Int(skipped) < limit else { throw .tooMany }
            announced.formUnion(highest + 1..<number)
            highest = number
        } else if announced.remove(number) == nil {
            throw .reused
        }
        assert(open.count + announced.count <= limit)
    }
}
