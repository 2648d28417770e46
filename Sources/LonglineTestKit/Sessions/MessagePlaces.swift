import LonglineWire

/// Where messages stand in the logs, to count them.
struct MessagePlaces {
    private struct Record {
        let producer: ProducerID
        let era: LedgerEra
    }

    private var records: [UInt64: [Record]] = [:]
    /// Copies in recipients' inboxes, by the message's number.
    private(set) var copies: [UInt64: Int] = [:]

    mutating func add(_ entry: Entry, _ number: UInt64, _ era: LedgerEra) {
        guard entry.origin == nil else {
            copies[number, default: 0] += 1
            return
        }
        records[number, default: []].append(Record(producer: entry.producer, era: era))
    }

    /// How often a message was entered.
    func count(of number: UInt64) -> Int { records[number]?.count ?? 0 }

    /// How often it was entered in an era of its ledgers, by some outboxes, or by any.
    func count(of number: UInt64, by producers: Set<ProducerID>?, in era: LedgerEra) -> Int {
        (records[number] ?? []).count { $0.era == era && producers?.contains($0.producer) ?? true }
    }

    /// How often at most it was entered in one era, by some outboxes, or by any.
    func most(of number: UInt64, by producers: Set<ProducerID>? = nil) -> Int {
        let known = records[number] ?? []
        return known.map { count(of: number, by: producers, in: $0.era) }.max() ?? 0
    }
}
