import GRDB

@testable import LonglineStore

/// Databases as earlier versions wrote them.
enum SQLiteFixture {
    /// A database of the first schema, filled by statements.
    static func schemaOne(_ folder: String, _ statements: [String]) throws {
        try schema("1", folder, statements)
    }

    /// A database as it was after a migration, filled by statements.
    static func schema(_ migration: String, _ folder: String, _ statements: [String]) throws {
        let queue = try DatabaseQueue(path: folder + "/longline.db")
        try SQLiteSchema.migrator.migrate(queue, upTo: migration)
        try queue.write { db in for statement in statements { try db.execute(sql: statement) } }
        try queue.close()
    }
}
