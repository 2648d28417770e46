/// Keys that are known until their time is over, each of a host. No call does more than a bounded part of the work.
///
/// The clock may have been ahead when a key came, or may go back: keys stand in lines by the hour in which their time is over, so
/// that none waits for one that stays longer.
struct ExpiringKeys<Key: Hashable> {
    private struct Entry {
        var key: Key
        var host: UInt64
        var expiry: UInt64
    }

    /// The keys whose time is over in the same hour, in the order in which they came.
    private struct Line {
        var hour: UInt64
        var keys = Chains.Chain()
    }

    private struct Host {
        var keys = Chains.Chain()
        var count = 0
    }

    /// Forgotten at most in one call: more than come with one.
    static var mostForgotten: Int { 64 }

    private var slots: [Key: UInt32] = [:]
    /// A free one keeps what it had until it is used again.
    private var entries: [Entry] = []
    private var free: [UInt32] = []
    /// By the hour; none is empty.
    private var lines: [Line] = []
    private var byTime = Chains()
    private var hosts: [UInt64: Host] = [:]
    private var byHost = Chains()

    var count: Int { slots.count }

    func contains(_ key: Key) -> Bool { slots[key] != nil }

    /// How many of a host's are known.
    func count(of host: UInt64) -> Int { hosts[host]?.count ?? 0 }

    /// Only if it isn't known.
    /// - Parameter expiry: from when on it may be forgotten, in seconds.
    mutating func insert(_ key: Key, host: UInt64, expiry: UInt64) {
        guard slots[key] == nil else { return }
        let entry = Entry(key: key, host: host, expiry: expiry)
        let slot: UInt32
        if let used = free.popLast() {
            slot = used
            entries[Int(slot)] = entry
        } else {
            slot = UInt32(entries.count)
            entries.append(entry)
        }
        slots[key] = slot
        let index = line(of: expiry)
        byTime.append(slot, to: &lines[index].keys)
        var owner = hosts[host] ?? Host()
        byHost.append(slot, to: &owner.keys)
        owner.count += 1
        hosts[host] = owner
    }

    /// Forgets keys whose time is over, ``mostForgotten`` at most. One may stay for up to an hour longer.
    mutating func forget(expiredBy now: UInt64) {
        for _ in 0..<Self.mostForgotten {
            guard let slot = lines.first?.keys.first, entries[Int(slot)].expiry <= now else { return }
            remove(slot)
        }
    }

    /// Forgets the oldest of a host's, if its time is over.
    mutating func forgetOldest(of host: UInt64, expiredBy now: UInt64) {
        guard let slot = hosts[host]?.keys.first, entries[Int(slot)].expiry <= now else { return }
        remove(slot)
    }

    /// Forgets the one of a host that came first.
    mutating func forgetOldest(of host: UInt64) {
        if let slot = hosts[host]?.keys.first { remove(slot) }
    }

    /// Forgets the one whose time is over first.
    mutating func forgetOldest() {
        if let slot = lines.first?.keys.first { remove(slot) }
    }

    /// Where the line of a time stands; it is made if there is none.
    private mutating func line(of expiry: UInt64) -> Int {
        let hour = Self.hour(of: expiry)
        let before = lines.lastIndex { $0.hour <= hour }
        if let before, lines[before].hour == hour { return before }
        let index = before.map { $0 + 1 } ?? 0
        lines.insert(Line(hour: hour), at: index)
        return index
    }

    private mutating func remove(_ slot: UInt32) {
        let entry = entries[Int(slot)]
        slots[entry.key] = nil
        free.append(slot)
        let hour = Self.hour(of: entry.expiry)
        if let index = lines.firstIndex(where: { $0.hour == hour }) {
            byTime.remove(slot, from: &lines[index].keys)
            if lines[index].keys.isEmpty { lines.remove(at: index) }
        }
        guard var owner = hosts[entry.host] else { return }
        byHost.remove(slot, from: &owner.keys)
        owner.count -= 1
        hosts[entry.host] = owner.count > 0 ? owner : nil
    }

    private static func hour(of time: UInt64) -> UInt64 { time / 3600 }
}

/// Lists of slots that lose any of theirs at once; each slot is in one of them at most.
private struct Chains {
    struct Chain {
        fileprivate(set) var first: UInt32?
        fileprivate var last: UInt32?

        var isEmpty: Bool { first == nil }
    }

    private static let none = UInt32.max

    private var links: [(before: UInt32, behind: UInt32)] = []

    mutating func append(_ slot: UInt32, to chain: inout Chain) {
        let link = (before: chain.last ?? Self.none, behind: Self.none)
        if Int(slot) == links.count { links.append(link) } else { links[Int(slot)] = link }
        if let last = chain.last { links[Int(last)].behind = slot } else { chain.first = slot }
        chain.last = slot
    }

    mutating func remove(_ slot: UInt32, from chain: inout Chain) {
        let (before, behind) = links[Int(slot)]
        if before == Self.none {
            chain.first = behind == Self.none ? nil : behind
        } else {
            links[Int(before)].behind = behind
        }
        if behind == Self.none {
            chain.last = before == Self.none ? nil : before
        } else {
            links[Int(behind)].before = before
        }
    }
}
