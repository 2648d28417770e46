import LonglineStore
import LonglineWire

/// How many direct messages are unread, where no device marks any as read.
extension SimulatedStore {
    /// So many entries of an inbox are looked at to leave out what expired: in a longer one a count may be too high.
    private static let longest = 256

    /// What is wrong with the counts of a user's direct conversations.
    func unreadProblems(of user: UserID) -> [String] {
        let now = wall.milliseconds
        guard let list = try? real.conversations(of: user, in: tenant, limit: 100, now: now) else {
            return ["the conversations of \(user) can't be listed"]
        }
        let log = truth.logs[.user(user)]
        guard log.map({ $0.entries(above: $0.first).count < Self.longest }) ?? true else { return [] }
        var counted: [UserID: Int] = [:]
        for item in list.items {
            if case .user(let peer) = item.conversation { counted[peer] = Int(item.unread) }
        }
        if faults.contains(.countRetracted) {
            for (peer, count) in log?.received(retracted: true, at: now) ?? [:] { counted[peer, default: 0] += count }
        }
        let there = log?.received(retracted: false, at: now) ?? [:]
        return Set(counted.keys).union(there.keys).sorted { $0.description < $1.description }.compactMap { peer in
            let (count, right) = (counted[peer] ?? 0, min(there[peer] ?? 0, FrameLimits.maximumUnread))
            guard count != right else { return nil }
            return "\(count) messages of \(peer) are said to be unread by \(user), and \(right) are there"
        }
    }
}

extension Truth.Log {
    /// The messages of others in an inbox that retention left and whose time is not over, by who sent them: those that were retracted,
    /// or those that weren't.
    fileprivate func received(retracted: Bool, at time: UInt64) -> [UserID: Int] {
        var counts: [UserID: Int] = [:]
        for entry in entries(above: first) where entry.kind == .message && entry.origin != nil {
            guard entry.expiry == 0 || entry.expiry > time, erased.contains(entry.offset) == retracted else { continue }
            counts[entry.sender, default: 0] += 1
        }
        return counts
    }
}
