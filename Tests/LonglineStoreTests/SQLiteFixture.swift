import GRDB

@testable import LonglineStore

/// Databases as earlier versions wrote them.
enum SQLiteFixture {
    /// A database of the first schema, filled by statements.
    static func schemaOne(_ folder: String, _ statements: [String]) throws {
        let queue = try DatabaseQueue(path: folder + "/longline.db")
        try SQLiteSchema.migrator.migrate(queue, upTo: "1")
        try queue.write { db in for statement in statements { try db.execute(sql: statement) } }
        try queue.close()
    }
}
