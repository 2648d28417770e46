import Foundation
import GRDB
import LonglineWire

/// The control layer's last answer, and how it was reached.
extension SQLiteClientStorage {
    static func keep(_ access: StoredAccess?, in database: Database) throws {
        guard let access else { return try database.execute(sql: "DELETE FROM access") }
        try database.execute(
            sql: "INSERT OR REPLACE INTO access VALUES (1, ?, ?, ?, ?)",
            arguments: [
                Data(access.answer), access.control, access.user?.description, bits(access.receivedAt),
            ])
    }

    static func keep(_ routes: [StoredControlRoute], in database: Database) throws {
        try database.execute(sql: "DELETE FROM control_route")
        for route in routes {
            try database.execute(
                sql: "INSERT OR REPLACE INTO control_route VALUES (?, ?, ?)",
                arguments: [route.url, route.http3Port, bits(route.httpsFirstUntil)])
        }
    }

    /// One that can't be read is left out: it costs a question.
    static func readAccess(_ database: Database) throws -> StoredAccess? {
        let row = try Row.fetchOne(database, sql: "SELECT answer, control, user, received_at FROM access")
        guard let row else { return nil }
        let answer: Data = row[0]
        let user: String? = row[2]
        guard answer.count <= StoredAccess.maximumAnswer else { return nil }
        let known: UserID?
        if let user {
            guard let name = try? UserID(user) else { return nil }
            known = name
        } else {
            known = nil
        }
        return StoredAccess(answer: Array(answer), control: row[1], user: known, receivedAt: number(row[3]))
    }

    static func readRoutes(_ database: Database) throws -> [StoredControlRoute] {
        try Row.fetchAll(
            database, sql: "SELECT url, http3_port, https_first_until FROM control_route ORDER BY url"
        ).map { row in
            StoredControlRoute(
                url: row[0], http3Port: (row[1] as Int64?).map { Int($0) }, httpsFirstUntil: number(row[2]))
        }.filter(\.isSound)
    }
}
