import Foundation
import GRDB
import LonglineServer
import LonglineStore
public import LonglineWire

/// The API keys of a server's folder. A key that is made or revoked by one process counts in every other at once.
public struct APIKeys: Sendable {
    private let database: ControlDatabase

    /// Those in this database.
    public init(_ database: ControlDatabase) { self.database = database }

    /// The longest label, in bytes.
    public static let maximumLabel = 128

    /// Makes a key.
    /// - Parameters:
    ///   - tenant: the tenant it is for; nil: for all and for nodes, with no other right than ``APIKeyRight/operate``.
    ///   - rights: one at least.
    ///   - label: for people; at most 128 bytes.
    /// - Returns: the key, which can't be shown again: a secret; and what is kept of it.
    /// - Throws: ``ControlError/Code/invalidConfiguration``, ``ControlError/Code/storeUnavailable``.
    public func create(
        tenant: TenantID?, rights: Set<APIKeyRight>, label: String
    ) async throws(ControlError) -> (key: String, info: APIKeyInfo) {
        guard !rights.isEmpty else {
            throw ControlError(.invalidConfiguration, message: "an API key needs a right at least")
        }
        guard tenant != nil || rights == [.operate] else {
            throw ControlError(
                .invalidConfiguration,
                message: "a key without a tenant is an operator's, and has the right 'operate' only",
                advice: "name the tenant")
        }
        guard label.utf8.count <= Self.maximumLabel else {
            throw ControlError(.invalidConfiguration, message: "a label has at most \(Self.maximumLabel) bytes")
        }
        let secret = APIKeySecret.generate()
        let hash = APIKeySecret.hash(secret.text)
        let info = APIKeyInfo(
            id: APIKeySecret.id(ofHash: hash), tenant: tenant, rights: rights, label: label,
            created: WallClock.milliseconds())
        try await Self.translate { [pool = database.pool] in
            try await pool.write { db in
                try db.execute(
                    sql: "INSERT INTO api_keys (id, hash, tenant, rights, label, created) VALUES (?, ?, ?, ?, ?, ?)",
                    arguments: [
                        info.id, Data(hash), tenant?.description,
                        rights.map(\.rawValue).sorted().joined(separator: " "), label, Int64(info.created),
                    ])
            }
        }
        return (secret.text, info)
    }

    /// All keys, oldest first; those that were revoked among them.
    /// - Throws: ``ControlError/Code/storeUnavailable``.
    public func list() async throws(ControlError) -> [APIKeyInfo] {
        try await Self.translate { [pool = database.pool] in
            try await pool.read { db in
                try Row.fetchAll(db, sql: "SELECT * FROM api_keys ORDER BY created, id").compactMap { Self.info($0) }
            }
        }
    }

    /// Revokes a key, by its name. It can't be used any more once this returns.
    /// - Returns: false when there is no such key, or it was revoked before.
    /// - Throws: ``ControlError/Code/storeUnavailable``.
    public func revoke(id: String) async throws(ControlError) -> Bool {
        let now = Int64(WallClock.milliseconds())
        return try await Self.translate { [pool = database.pool] in
            try await pool.write { db in
                try db.execute(
                    sql: "UPDATE api_keys SET revoked = ? WHERE id = ? AND revoked IS NULL", arguments: [now, id])
                return db.changesCount > 0
            }
        }
    }

    /// The key that a caller shows, if it is one that is good. Costs the same whatever it is shown.
    /// - Throws: ``ControlError/Code/storeUnavailable``.
    func find(_ text: String?) async throws(ControlError) -> APIKeyInfo? {
        let hash = APIKeySecret.hash(text.flatMap { $0.utf8.count <= 256 ? $0 : nil } ?? "")
        let id = APIKeySecret.id(ofHash: hash)
        let row = try await Self.translate { [pool = database.pool] in
            try await pool.read { db in
                try Row.fetchOne(db, sql: "SELECT * FROM api_keys WHERE id = ?", arguments: [id])
                    .map { (hash: $0["hash"] as Data, info: Self.info($0)) }
            }
        }
        let isRight = APIKeySecret.areEqual(hash, row.map { Array($0.hash) } ?? Self.nobody)
        guard isRight, let info = row?.info, info.revoked == nil else { return nil }
        return info
    }

    /// Compared with where there is no such key. The hash of nothing that anybody knows.
    private static let nobody = [UInt8](repeating: 0, count: 32)

    private static func info(_ row: Row) -> APIKeyInfo? {
        let name: String? = row["tenant"]
        let tenant = name.flatMap { try? TenantID($0) }
        // A tenant that can't be read must not become an operator's key.
        guard (name == nil) == (tenant == nil) else { return nil }
        let rights: String = row["rights"]
        return APIKeyInfo(
            id: row["id"], tenant: tenant,
            rights: Set(rights.split(separator: " ").compactMap { APIKeyRight(rawValue: String($0)) }),
            label: row["label"],
            created: UInt64(clamping: row["created"] as Int64),
            revoked: (row["revoked"] as Int64?).map { UInt64(clamping: $0) })
    }

    private static func translate<Value: Sendable>(
        _ work: @Sendable () async throws -> Value
    ) async throws(ControlError) -> Value {
        do { return try await work() } catch {
            throw ControlError(.storeUnavailable, message: "the control database can't be used", cause: error)
        }
    }
}
