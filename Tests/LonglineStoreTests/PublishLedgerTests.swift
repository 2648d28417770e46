import LonglineStore
import LonglineWire
import Testing

/// The ledger's rule as a table: a ledger whose last ID is 10, that remembers 5 (tag 50) and 10 (tag 100).
@Suite struct PublishLedgerTests {
    struct Case: Sendable, CustomTestStringConvertible {
        var id: PublishID
        var after: PublishID
        var tag: PublishTag
        var expected: String
        var testDescription: String { "id \(id) after \(after) tag \(tag)" }
    }

    static let table: [Case] = [
        Case(id: 0, after: 0, tag: 0, expected: "invalid"),
        Case(id: 11, after: 11, tag: 1, expected: "invalid"),
        Case(id: 11, after: 12, tag: 1, expected: "invalid"),
        Case(id: 1 << 62, after: 10, tag: 1, expected: "invalid"),
        Case(id: 1 << 62 - 1, after: 10, tag: 1, expected: "enter"),
        Case(id: 11, after: 10, tag: 1, expected: "enter"),
        Case(id: 99, after: 10, tag: 1, expected: "enter"),
        Case(id: 11, after: 3, tag: 1, expected: "enter"),
        Case(id: 11, after: 0, tag: 1, expected: "enter"),
        Case(id: 12, after: 11, tag: 1, expected: "out-of-order 10"),
        Case(id: 10, after: 9, tag: 100, expected: "duplicate 1010"),
        Case(id: 10, after: 0, tag: 100, expected: "duplicate 1010"),
        Case(id: 10, after: 9, tag: 101, expected: "reused"),
        Case(id: 5, after: 4, tag: 50, expected: "duplicate 1005"),
        Case(id: 5, after: 4, tag: 100, expected: "reused"),
        Case(id: 7, after: 6, tag: 70, expected: "reused"),
        Case(id: 4, after: 3, tag: 40, expected: "reused"),
        Case(id: 3, after: 2, tag: 30, expected: "unknown"),
        Case(id: 1, after: 0, tag: 1, expected: "unknown"),
    ]

    @Test("every case has one answer", arguments: table) func everyCaseHasOneAnswer(_ row: Case) {
        let known: [PublishID: PublishTag] = [5: 50, 10: 100]
        // What is below 4 was forgotten.
        let verdict = PublishLedger.judge(
            id: row.id, tag: row.tag, after: row.after, lastID: 10, oldest: { 4 }
        ) { id in
            known[id].map { tag in
                LedgerAnswer(
                    tag: tag, published: Published(id: id, position: Position(epoch: 1, offset: id + 1_000), time: 0))
            }
        }
        #expect(Self.name(verdict) == row.expected)
    }

    static func name(_ verdict: PublishLedger.Verdict) -> String {
        switch verdict {
        case .enter: "enter"
        case .duplicate(let published): "duplicate \(published.position.offset)"
        case .refuse(let refused):
            switch refused.code {
            case .invalidID: "invalid"
            case .outOfOrder: "out-of-order \(refused.lastID)"
            case .idReused: "reused"
            case .outcomeUnknown: "unknown"
            default: "\(refused)"
            }
        }
    }
}
