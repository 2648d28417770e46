import GRDB
import GRDBSQLite
import NIOCore

/// A statement of the publish path. Its values are bound straight to SQLite: as an array of values of any type they would
/// cost as much again as the insert itself. Valid within the transaction that it was made in.
struct BoundStatement {
    private let db: Database
    private let statement: Statement

    init(_ db: Database, _ sql: String) throws {
        self.db = db
        statement = try db.cachedStatement(sql: sql)
    }

    /// Values of one execution, in the order of the parameters.
    struct Values {
        fileprivate let statement: SQLiteStatement
        fileprivate var index: Int32 = 0
        /// The first error of a binding.
        fileprivate var failure = SQLITE_OK

        private mutating func note(_ result: Int32) { if failure == SQLITE_OK { failure = result } }

        mutating func add(_ value: Int64) {
            index += 1
            note(sqlite3_bind_int64(statement, index, value))
        }

        mutating func add(_ value: UInt64) { add(Int64(bitPattern: value)) }

        mutating func addNull() {
            index += 1
            note(sqlite3_bind_null(statement, index))
        }

        mutating func add(_ text: String) {
            index += 1
            var text = text
            var result = SQLITE_OK
            text.withUTF8 { bytes in
                bytes.withMemoryRebound(to: CChar.self) { characters in
                    // SQLite copies it: nothing of ours need outlive the call.
                    let count = Int32(characters.count)
                    result = sqlite3_bind_text(statement, index, characters.baseAddress, count, Self.copied)
                }
            }
            note(result)
        }

        mutating func add(_ bytes: ByteBuffer) {
            index += 1
            let result = bytes.withUnsafeReadableBytes { memory -> Int32 in
                guard let base = memory.baseAddress, !memory.isEmpty else {
                    return sqlite3_bind_zeroblob(statement, index, 0)
                }
                return sqlite3_bind_blob(statement, index, base, Int32(memory.count), Self.copied)
            }
            note(result)
        }

        /// SQLITE_TRANSIENT, a macro that Swift can't see.
        private static let copied = unsafeBitCast(-1, to: sqlite3_destructor_type.self)
    }

    /// Binds and executes; not without a value that couldn't be bound, in whose place SQLite would enter NULL.
    func run(_ bind: (inout Values) -> Void) throws {
        let pointer = statement.sqliteStatement
        var values = Values(statement: pointer)
        bind(&values)
        let result = values.failure == SQLITE_OK ? sqlite3_step(pointer) : values.failure
        sqlite3_reset(pointer)
        guard result == SQLITE_DONE else {
            throw DatabaseError(
                resultCode: ResultCode(rawValue: result), message: db.lastErrorMessage, sql: statement.sql)
        }
    }
}
