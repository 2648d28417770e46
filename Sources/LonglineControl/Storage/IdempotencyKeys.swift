import Crypto
import Foundation
import GRDB
import Logging
import LonglineServer
import LonglineStore
import LonglineWire
import NIOCore
import Synchronization

/// Remembers for 24 hours at least which requests an API key made under which idempotency key, durably. A key is over once the sweep
/// forgot it, and no earlier: a clock that is ahead for a while would have things done twice.
///
/// ```
///             begin                    finish
///   (none) ───────────▶ under way ─────────────────▶ done: the same request gets the same result
///      ▲                  │   │ the process ended
///      └──── release ─────┘   └─▶ begun: the same request goes on, with the same number
/// ```
/// A result that can't be kept is answered all the same, and the key stays begun. What must not be done twice in this database keeps
/// its result with what it does, in one transaction: ``keep(_:under:_:)``. Where the user whom a request is about is erased,
/// its result goes, and nobody knows it any more.
///
/// An API key has a limit of them: beyond, a new one waits until the sweep forgot others.
///
/// Another request with a key that is known is refused in every state. A number is drawn with the row, above all that the API key
/// had before, by which what is done twice can be told from what is done anew.
final class IdempotencyKeys: Sendable {
    enum Beginning: Sendable {
        /// Do it, with this number. `isResumed`: it was begun before, and may have been done.
        case begun(number: UInt64, isResumed: Bool)
        /// It was done, with this result.
        case done(Data)
    }

    /// How long a key is remembered at least, in milliseconds.
    static let lifetime: UInt64 = 24 * 3_600 * 1_000
    /// The longest key, in bytes.
    static let maximumKey = 128

    /// A key, and whose it is.
    struct Name: Hashable, Sendable {
        var apiKey: String
        var key: String
    }

    private let database: ControlDatabase
    private let time: @Sendable () -> UInt64
    private let logger: Logger
    /// Keys of one API key.
    private let limit: Int
    private let underWay = Mutex<Set<Name>>([])
    /// How many keys each API key has, counted when the first of them is asked for.
    private let kept = Mutex<[String: Int]>([:])

    init(
        _ database: ControlDatabase, time: @escaping @Sendable () -> UInt64, logger: Logger,
        limit: Int = ControlLimits().idempotencyKeys
    ) {
        self.database = database
        self.time = time
        self.logger = logger
        self.limit = limit
    }

    /// Names a request: what it asks for, and its body.
    static func digest(_ route: String, _ body: ByteBuffer) -> Data {
        var hash = SHA256()
        hash.update(data: Data(route.utf8))
        hash.update(data: Data([0]))
        hash.update(data: Data(body.readableBytesView))
        return Data(hash.finalize())
    }

    /// Does something once under a key.
    /// - Parameters:
    ///   - key: the caller's idempotency key.
    ///   - apiKey: whose it is.
    ///   - subject: whom the request is about.
    ///   - request: ``digest(_:_:)``.
    ///   - work: does it; a ``Problem`` that it throws releases the key unless it was resumed, so that it may be tried again.
    /// - Returns: the result, now or from before.
    /// - Throws: ``Problem``.
    func once(
        _ key: String, of apiKey: String, about subject: UserKey, request: Data,
        _ work: @escaping @Sendable (_ number: UInt64, _ isResumed: Bool) async throws -> Data
    ) async throws -> Data {
        let name = Name(apiKey: apiKey, key: key)
        guard underWay.withLock({ $0.insert(name).inserted }) else {
            throw Problem(.idempotencyKeyInUse, retryAfter: 1)
        }
        // Goes on when its caller went away: half a request is worse than one.
        return try await Task {
            defer { self.underWay.withLock { _ = $0.remove(name) } }
            switch try await self.begin(name, subject, request) {
            case .done(let result): return result
            case .begun(let number, let isResumed):
                do {
                    let result = try await work(number, isResumed)
                    await self.finish(name, result)
                    return result
                } catch let problem as Problem where !isResumed && problem.kind != .outcomeUnknown {
                    try await self.release(name)
                    throw problem
                }
            }
        }.value
    }

    private func begin(_ name: Name, _ subject: UserKey, _ request: Data) async throws -> Beginning {
        let now = time()
        let beginning: Beginning = try await database.pool.write { db in
            let row = try Row.fetchOne(
                db, sql: "SELECT * FROM idempotency WHERE api_key = ? AND key = ?", arguments: [name.apiKey, name.key])
            if let row {
                guard row["request"] as Data == request else { throw Problem(.idempotencyKeyReused) }
                if let result = row["result"] as Data? {
                    guard !result.isEmpty else { throw Problem(.outcomeUnknown, "the user was erased since") }
                    return .done(result)
                }
                return .begun(number: UInt64(clamping: row["number"] as Int64), isResumed: true)
            }
            guard try self.count(of: name.apiKey, db) < self.limit else {
                throw Problem(
                    .overloaded, "\(self.limit) idempotency keys of the API key are remembered", retryAfter: 3_600)
            }
            let number = try Self.nextNumber(of: name.apiKey, now: now, db)
            try db.execute(
                sql: """
                    INSERT INTO idempotency (api_key, key, request, created, number, tenant, user)
                        VALUES (?, ?, ?, ?, ?, ?, ?)
                    """,
                arguments: [
                    name.apiKey, name.key, request, Int64(clamping: now), number, subject.tenant.description,
                    subject.user.description,
                ])
            return .begun(number: UInt64(clamping: number), isResumed: false)
        }
        if case .begun(number: _, isResumed: false) = beginning { note(1, of: name.apiKey) }
        return beginning
    }

    /// The first time the rows are counted.
    private func count(of apiKey: String, _ db: Database) throws -> Int {
        if let known = kept.withLock({ $0[apiKey] }) { return known }
        let count =
            try Int.fetchOne(db, sql: "SELECT count(*) FROM idempotency WHERE api_key = ?", arguments: [apiKey]) ?? 0
        kept.withLock { $0[apiKey] = count }
        return count
    }

    private func note(_ change: Int, of apiKey: String) {
        kept.withLock { kept in
            if let count = kept[apiKey] { kept[apiKey] = max(count + change, 0) }
        }
    }

    /// Another number for a request under way, where it turned out that nothing was done with the last one.
    func renew(_ key: String, of apiKey: String) async throws -> UInt64 {
        let now = time()
        return try await database.pool.write { db in
            let number = try Self.nextNumber(of: apiKey, now: now, db)
            try db.execute(
                sql: "UPDATE idempotency SET number = ? WHERE api_key = ? AND key = ?",
                arguments: [number, apiKey, key])
            return UInt64(clamping: number)
        }
    }

    /// A number, above all that the API key had before, for what is done once whoever asks for it again, and so needs no key.
    func number(of apiKey: String) async throws -> UInt64 {
        let now = time()
        return try await database.pool.write { db in
            UInt64(clamping: try Self.nextNumber(of: apiKey, now: now, db))
        }
    }

    /// Never below the time in milliseconds: numbers go on growing where the database is an older copy.
    private static func nextNumber(of apiKey: String, now: UInt64, _ db: Database) throws -> Int64 {
        let last = try Int64.fetchOne(db, sql: "SELECT last FROM numbers WHERE api_key = ?", arguments: [apiKey]) ?? 0
        let next = max(last + 1, Int64(clamping: now))
        try db.execute(sql: "INSERT OR REPLACE INTO numbers (api_key, last) VALUES (?, ?)", arguments: [apiKey, next])
        return next
    }

    /// Where the result can't be kept, as on a full disk, the caller gets it all the same: it was done. The same request then goes
    /// on as one that was cut off.
    private func finish(_ name: Name, _ result: Data) async {
        do {
            try await database.pool.write { db in
                try db.execute(
                    sql: "UPDATE idempotency SET result = ? WHERE api_key = ? AND key = ? AND result IS NULL",
                    arguments: [result, name.apiKey, name.key])
            }
        } catch {
            logger.error(
                "a request's result was not kept", metadata: ["api_key": "\(name.apiKey)", "error": "\(error)"])
        }
    }

    /// Keeps the result of a request under way, in the transaction of what it does.
    /// - Throws: ``Problem`` where the user whom it is about was erased meanwhile.
    static func keep(_ result: Data, under name: Name, _ db: Database) throws {
        try db.execute(
            sql: "UPDATE idempotency SET result = ? WHERE api_key = ? AND key = ? AND result IS NULL",
            arguments: [result, name.apiKey, name.key])
        guard db.changesCount > 0 else { throw Problem(.outcomeUnknown, "the user was erased since") }
    }

    private func release(_ name: Name) async throws {
        let released = try await database.pool.write { db in
            try db.execute(
                sql: "DELETE FROM idempotency WHERE api_key = ? AND key = ?", arguments: [name.apiKey, name.key])
            return db.changesCount
        }
        note(-released, of: name.apiKey)
    }

    /// Forgets keys that are over, some at a time.
    func sweep(now: UInt64) async throws {
        let oldest = Int64(clamping: now - min(now, Self.lifetime))
        do {
            try await database.writeInSteps { db in
                let over = try String.fetchAll(
                    db,
                    sql: """
                        DELETE FROM idempotency WHERE (api_key, key) IN
                            (SELECT api_key, key FROM idempotency WHERE created <= ? LIMIT ?) RETURNING api_key
                        """, arguments: [oldest, ControlDatabase.step])
                for apiKey in over { self.note(-1, of: apiKey) }
            }
        } catch {
            // What was noted may not have been done: all are counted anew.
            kept.withLock { $0 = [:] }
            throw error
        }
    }

    /// Forgets results of requests about a user, also of those under way. The keys stay, without the user: what was done once is not
    /// done again.
    static func forget(_ user: UserID, in tenant: TenantID, from database: ControlDatabase) async throws {
        try await database.writeInSteps { db in
            try db.execute(
                sql: """
                    UPDATE idempotency SET result = x'', tenant = NULL, user = NULL WHERE (api_key, key) IN
                        (SELECT api_key, key FROM idempotency WHERE tenant = ? AND user = ? LIMIT ?)
                    """, arguments: [tenant.description, user.description, ControlDatabase.step])
        }
    }

    /// The user whom a result names.
    static func user(inResult result: Data) -> String? {
        struct Named: Decodable {
            var user: String?
            var channel: String?
        }
        guard let named = try? ControlJSON.decoder.decode(Named.self, from: result) else { return nil }
        let inbox = named.channel.flatMap { $0.hasPrefix("user/") ? String($0.dropFirst(5)) : nil }
        return named.user ?? inbox
    }
}
