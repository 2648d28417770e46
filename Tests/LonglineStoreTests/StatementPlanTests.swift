import GRDB
import LonglineTestKit
import LonglineWire
import Testing

@testable import LonglineStore

/// Statements whose cost must not grow with what a user piles up: the index that each goes by, as SQLite plans it here.
@Suite struct StatementPlanTests {
    /// The plans of the statements of one kind that the tables make, with values that SQLite doesn't know when it plans.
    private func plans(
        of verb: String = "SELECT", _ body: (SQLiteTables, ChannelRecord) throws -> Void
    ) throws -> [String] {
        let queue = try DatabaseQueue()
        defer { try? queue.close() }
        try SQLiteSchema.migrator.migrate(queue)
        return try queue.write { db in
            let tables = SQLiteTables(db)
            let channel = try tables.addChannel(roomKey("r"), epoch: 1, begin: 0)
            var statements: [String] = []
            db.trace { event in
                if case .statement(let statement) = event, statement.sql.hasPrefix(verb) {
                    statements.append(statement.sql)
                }
            }
            try body(tables, channel)
            db.trace(options: [])
            return try statements.map { sql in
                let plan = try db.makeStatement(sql: "EXPLAIN QUERY PLAN \(sql)")
                plan.setUncheckedArguments(StatementArguments())
                return try Row.fetchAll(plan).map { $0["detail"] as String }.joined(separator: "; ")
            }
        }
    }

    @Test("the edits of a message are found without its reactions") func edits() throws {
        let plans = try plans { tables, channel in _ = try tables.edits(of: 7, in: channel, limit: 100) }
        #expect(plans == ["SEARCH entries USING INDEX edits_by_target (channel=? AND target=?)"])
    }

    @Test("a user's settings are counted without the other conversations") func settings() throws {
        let plans = try plans { tables, channel in _ = try tables.countSettings(of: channel) }
        #expect(plans == ["SEARCH conversations USING COVERING INDEX conversations_with_settings (owner=?)"])
    }

    @Test("a sweep looks for settings without the other conversations") func sweep() throws {
        let rule = SweepRule(unseenSince: 1, expiredAt: 1, rows: 10)
        let plans = try plans { tables, _ in _ = try tables.sweep(.channels, after: SweepMark(), rule) }
        let expected = "SEARCH conversations USING COVERING INDEX conversations_with_settings (owner=?)"
        #expect(plans.contains { $0.contains(expected) })
    }

    @Test("a sweep finds a user's stay in a room without the user's others, or the room's") func stays() throws {
        let rule = SweepRule(unseenSince: 1, expiredAt: 1, rows: 10)
        let plans = try plans(of: "DELETE") { tables, _ in
            try tables.run("UPDATE store SET orphans = 1", [])
            _ = try tables.sweep(.conversations, after: SweepMark(), rule)
        }
        #expect(plans.count == 1)
        #expect(
            plans.allSatisfy { plan in
                plan.contains("SEARCH conversations USING PRIMARY KEY")
                    && plan.contains("SEARCH stints USING PRIMARY KEY (tenant=? AND user=? AND room=?)")
            }, "\(plans)")
    }

    @Test("a page of members has nobody of a former life of the room to pass over") func members() throws {
        let plans = try plans { tables, channel in _ = try tables.members(of: channel, after: nil, limit: 100) }
        #expect(plans == ["SEARCH stints USING COVERING INDEX members (room=? AND life=? AND user>?)"])
    }
}
