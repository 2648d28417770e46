/// Who is due when, the earliest first, and of those at the same time who came first.
///
/// A binary heap that knows where each entry stands: what is taken out leaves nothing behind that somebody who looks for the
/// next one would have to clear away.
struct DueTimes<Key> {
    private struct Entry {
        let time: UInt64
        /// Unlike that of any other entry.
        let order: UInt64
        let key: Key

        func precedes(_ other: Entry) -> Bool { (time, order) < (other.time, other.order) }
    }

    private var entries: [Entry] = []
    /// By order.
    private var places: [UInt64: Int] = [:]
    /// Entries that were put somewhere so far: what the work is measured by.
    private(set) var moves: UInt64 = 0

    var isEmpty: Bool { entries.isEmpty }
    var first: (time: UInt64, key: Key)? { entries.first.map { ($0.time, $0.key) } }

    /// Puts a key in, in the place of what has the same order.
    mutating func insert(_ key: Key, time: UInt64, order: UInt64) {
        remove(order: order)
        entries.append(Entry(time: time, order: order, key: key))
        rise(entries.count - 1)
    }

    mutating func removeFirst() {
        guard let first = entries.first else { return }
        remove(order: first.order)
    }

    /// Takes out what has an order, if it is there.
    mutating func remove(order: UInt64) {
        guard let place = places.removeValue(forKey: order), let last = entries.popLast() else { return }
        guard place < entries.count else { return }
        entries[place] = last
        sink(place)
        rise(place)
    }

    private mutating func rise(_ start: Int) {
        let entry = entries[start]
        var place = start
        while place > 0, entry.precedes(entries[(place - 1) / 2]) {
            settle(entries[(place - 1) / 2], at: place)
            place = (place - 1) / 2
        }
        settle(entry, at: place)
    }

    private mutating func sink(_ start: Int) {
        let entry = entries[start]
        var place = start
        while true {
            var child = 2 * place + 1
            guard child < entries.count else { break }
            if child + 1 < entries.count, entries[child + 1].precedes(entries[child]) { child += 1 }
            guard entries[child].precedes(entry) else { break }
            settle(entries[child], at: place)
            place = child
        }
        settle(entry, at: place)
    }

    private mutating func settle(_ entry: Entry, at place: Int) {
        entries[place] = entry
        places[entry.order] = place
        moves += 1
    }
}
