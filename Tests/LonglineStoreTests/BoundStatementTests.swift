import GRDB
import Testing

@testable import LonglineStore

/// Statements whose values are bound without GRDB.
@Suite struct BoundStatementTests {
    @Test("a value that can't be bound fails the statement, and nothing is entered without it") func unbound() throws {
        let queue = try DatabaseQueue()
        defer { try? queue.close() }
        try queue.write { db in
            try db.execute(sql: "CREATE TABLE t (a INTEGER NOT NULL, b TEXT)")
            let statement = try BoundStatement(db, "INSERT INTO t (a, b) VALUES (?, ?)")
            let error = #expect(throws: DatabaseError.self) {
                try statement.run { values in
                    values.add(Int64(1))
                    values.add("text")
                    // There is no place for it, as there is no memory for another.
                    values.add("more")
                }
            }
            #expect(error?.resultCode == .SQLITE_RANGE)
            #expect(try Int.fetchOne(db, sql: "SELECT count(*) FROM t") == 0)
            try statement.run { values in
                values.add(Int64(2))
                values.addNull()
            }
            #expect(try Int.fetchOne(db, sql: "SELECT a FROM t WHERE b IS NULL") == 2)
        }
    }
}
