import Foundation
import GRDB
import LonglineWire
import NIOCore
import Synchronization

/// A client's state in one SQLite file that several processes of an app on one device may have open: the app and its share
/// extension, say.
///
/// One of them *owns* the file: it alone numbers messages, connects and receives. The others put messages in, durably, which the
/// owner takes over into its outbox, and follow their states.
///
/// ```
///               nobody owns it, or the owner's process died
///   standby -------------------------------------------------> owner
///     ^  |      the owner did not answer a challenge in time     |
///     |  '-----------------------------------------------------> |
///     '----- another process took it while this one slept, ------'
///            disconnect(), or it does not want to connect
/// ```
///
/// * **The data** is locked for the time of one transaction only. Each of the owner's transactions checks that it still is the
///   owner: one that slept while another took over writes nothing more, so that no publish ID is ever drawn twice.
/// * **Ownership** is a row in the file with a generation that grows. The owner's process holds a lock on a second file
///   (`-owner` beside the first), which the system gives up when the process ends: others take over at once. An owner that holds
///   the lock and sleeps is asked by a *challenge* in the row, once in ``takeOverAfter``; when it has not answered within that
///   time, another process takes over all the same.
///
/// Several clients in one process may have one storage object: each is a *seat* of its own, and owns the file or stands by as another
/// process would.
///
/// iOS ends an app that is suspended while it holds a lock on a file in a shared container. There ``holdsLock`` is off, and a dead
/// owner is found by the challenge alone; `docs/mobile.md` says more. Everything is in one folder on a local file system.
public final class SharedClientStorage: ClientStorage {
    /// How long an owner has to answer before another process takes over.
    public let takeOverAfter: Duration
    /// How often the file is looked at for what other processes did, while the user is there; more seldom by an owner in the background
    /// or in low power.
    public let pollInterval: Duration
    /// Whether the owner's process holds a file lock, by which others notice its death at once.
    public let holdsLock: Bool

    /// true: writes go to the database's own queue.
    public var handsOverAtOnce: Bool { true }

    /// What writes. Who wants to write waits here, on the queue's own thread, while another process does.
    let database: DatabaseQueue
    /// What only looks: no writer holds it up, and it sees by their version what others and this process wrote.
    private let reader: DatabaseQueue
    private let token = {
        var random = SystemRandomNumberGenerator()
        return SendID.random(using: &random)
    }()
    private let lockPath: String
    let held = Mutex<Ownership?>(nil)
    private let contention = Mutex<Contention?>(nil)
    private let seats = Mutex(Seats())
    private let ownLogin = Mutex<Int64?>(nil)

    /// Who works on the file through the same connections.
    private struct Seats: Sendable {
        struct Other: Sendable { weak var storage: SharedClientStorage? }

        /// A client works on this object itself.
        var isTaken = false
        var others: [Other] = []
    }

    /// What the owner knows itself by.
    struct Ownership: Sendable {
        var generation: Int64
        /// The open lock file, if this process has it.
        var lock: CInt?
    }

    /// A challenge that waits for the owner's answer, or had it: then the next one has time.
    private struct Contention {
        var generation: Int64
        var challenge: Int64
        var since: ContinuousClock.Instant
        var answeredAt: ContinuousClock.Instant?
    }

    /// Whether a process holds a lock unless told otherwise: not on iOS and its kin.
    public static var holdsLockByDefault: Bool {
        #if os(iOS) || os(tvOS) || os(watchOS) || os(visionOS)
            false
        #else
            true
        #endif
    }

    /// Opens or creates the file, and its folder with mode 0700 when that is missing.
    /// - Parameters:
    ///   - path: the file; each process of the app names the same.
    ///   - takeOverAfter: how long an owner may sleep before another process takes over, at least 100 milliseconds.
    ///   - pollInterval: how often the file is looked at, 10 milliseconds to half of `takeOverAfter`.
    ///   - holdsLock: see ``holdsLock``.
    /// - Throws: ``ClientError`` of code ``ClientError/Code/storage``, ``ClientError/Code/storageInUse`` while a
    ///   ``SQLiteClientStorage`` has the file, ``ClientError/Code/storageTooNew`` or ``ClientError/Code/invalidConfiguration``.
    ///
    /// Reads and writes on the caller's thread, and waits there while another process makes the file;
    /// ``open(path:takeOverAfter:pollInterval:holdsLock:)`` doesn't.
    public convenience init(
        path: String, takeOverAfter: Duration = .seconds(10), pollInterval: Duration = .milliseconds(250),
        holdsLock: Bool = SharedClientStorage.holdsLockByDefault
    ) throws {
        // Transactions are short: whoever waits longer than this waits for a process that hangs.
        try self.init(
            path: path, takeOverAfter: takeOverAfter, pollInterval: pollInterval, holdsLock: holdsLock, patience: 10)
    }

    /// As ``init(path:takeOverAfter:pollInterval:holdsLock:)``, on a thread of its own.
    public static func open(
        path: String, takeOverAfter: Duration = .seconds(10), pollInterval: Duration = .milliseconds(250),
        holdsLock: Bool = SharedClientStorage.holdsLockByDefault
    ) async throws -> SharedClientStorage {
        try await SQLiteClientStorage.elsewhere {
            try SharedClientStorage(
                path: path, takeOverAfter: takeOverAfter, pollInterval: pollInterval, holdsLock: holdsLock)
        }
    }

    /// - Parameter patience: how long a transaction waits for another process's.
    init(
        path: String, takeOverAfter: Duration, pollInterval: Duration, holdsLock: Bool, patience: TimeInterval
    ) throws {
        guard takeOverAfter >= .milliseconds(100), pollInterval >= .milliseconds(10), pollInterval * 2 <= takeOverAfter
        else {
            throw ClientError(.invalidConfiguration, message: "the times of a shared storage are out of bounds")
        }
        self.takeOverAfter = takeOverAfter
        self.pollInterval = pollInterval
        self.holdsLock = holdsLock
        lockPath = path + "-owner"
        do {
            try SQLiteClientStorage.create(path)
            var configuration = GRDB.Configuration()
            configuration.busyMode = .timeout(patience)
            configuration.prepareDatabase { database in
                try database.execute(sql: "PRAGMA journal_mode=WAL")
                try database.execute(sql: "PRAGMA synchronous=FULL")
            }
            database = try Self.open(path, configuration)
            var looking = GRDB.Configuration()
            looking.busyMode = .timeout(patience)
            looking.readonly = true
            reader = try DatabaseQueue(path: path, configuration: looking)
        } catch {
            throw SQLiteClientStorage.describe(error, path: path)
        }
    }

    /// Another seat, with the same connections.
    private init(beside first: SharedClientStorage) {
        (takeOverAfter, pollInterval, holdsLock) = (first.takeOverAfter, first.pollInterval, first.holdsLock)
        (database, reader, lockPath) = (first.database, first.reader, first.lockPath)
    }

    /// What one client works on: this storage itself, or a seat beside it where another client had it. What that one holds can't be taken
    /// for this one's.
    func seat() -> SharedClientStorage {
        seats.withLock { seats in
            guard seats.isTaken else {
                seats.isTaken = true
                return self
            }
            let seat = SharedClientStorage(beside: self)
            seats.others.removeAll { $0.storage == nil }
            seats.others.append(Seats.Other(storage: seat))
            return seat
        }
    }

    /// The login that this seat's client met in the file first, or owned it under since: its own. Another one stands there once the
    /// file was wiped.
    var login: Int64? { ownLogin.withLock { $0 } }

    /// Notes the login that a transaction found, which is written by now. Who owns the file is who is logged in.
    func met(_ login: Int64, asOwner isOwner: Bool = false) {
        ownLogin.withLock { if isOwner || $0 == nil { $0 = login } }
    }

    private var others: [SharedClientStorage] { seats.withLock { $0.others.compactMap(\.storage) } }

    /// A file that another process makes at this moment is busy without being waited for.
    private static func open(_ path: String, _ configuration: GRDB.Configuration) throws -> DatabaseQueue {
        let end = ContinuousClock.now + .seconds(2)
        while true {
            do {
                let database = try DatabaseQueue(path: path, configuration: configuration)
                try SQLiteClientStorage.migrate(database, path: path)
                return database
            } catch let error as DatabaseError where error.resultCode == .SQLITE_BUSY && ContinuousClock.now < end {
                Thread.sleep(forTimeInterval: 0.02)
            }
        }
    }

    deinit { if let lock = held.withLock({ $0?.lock }) { Foundation.close(lock) } }

    // MARK: ClientStorage

    /// - Throws: ``ClientError/Code/ownershipLost`` too, unless this process owns the file.
    public func load() async throws -> StoredClientState {
        try await reading { database in
            try self.checkOwnership(database)
            return try SQLiteClientStorage.readState(database)
        }
    }

    /// - Throws: ``ClientError/Code/ownershipLost`` too, unless this process owns the file: then nothing was written.
    public func apply(_ changes: [StorageChange]) async throws {
        try await transaction { database in
            try self.checkOwnership(database)
            for change in changes { try SQLiteClientStorage.apply(change, to: database) }
        }
    }

    /// Takes ownership for it when nobody has it: it was given up with the first of two logouts, say.
    /// - Throws: ``ClientError/Code/ownershipLost`` too, when another process owns the file.
    public func erase() async throws {
        if generation == nil { _ = try await contend() }
        do {
            try await database.writeWithoutTransaction { database in
                try SQLiteClientStorage.erase(database) { try self.checkOwnership(database) }
            }
        } catch {
            throw describe(error)
        }
        try await release()
    }

    /// Gives up ownership and closes the file. Later calls fail.
    public func close() async throws {
        for seat in [self] + others { try await seat.release() }
        let (database, reader) = (database, reader)
        try await SQLiteClientStorage.elsewhere {
            try reader.close()
            try database.close()
        }
    }

    // MARK: Ownership

    /// Whether this process owned the file when it last looked.
    public var isOwner: Bool { ([self] + others).contains { $0.generation != nil } }

    /// Takes ownership if nobody has it, if its process died, or if it let a challenge wait for too long; else challenges it.
    ///
    /// This and ``release()`` change what is held within their turn on the database's queue: each sees all of the other or nothing.
    /// - Returns: whether this process is the owner now.
    func contend() async throws -> Bool {
        try await onQueue(of: database) { database in
            var lock: CInt?
            var taken: Ownership?
            var login: Int64?
            defer { if taken == nil, let lock { Foundation.close(lock) } }
            let next = try SQLiteClientStorage.inTransaction(database) {
                database -> (isOwner: Bool, ownership: Ownership?) in
                login = try SQLiteClientStorage.login(database)
                let row = try Self.owner(database)
                if let row, !row.isReleased, row.generation == self.generation { return (true, nil) }
                // Of a turn that is over nothing is held.
                self.letGo { _ in true }
                // The lock is free when its owner is dead, and when it never had it: the row tells which.
                if self.holdsLock { lock = self.takeLock() }
                let isDead = row.map { $0.isLocked && lock != nil } ?? true
                guard try isDead || self.challenge(row, database) else { return (false, nil) }
                let generation = (row?.generation ?? 0) + 1
                try database.execute(
                    sql: "INSERT OR REPLACE INTO owner VALUES (1, ?, ?, ?, NULL)",
                    arguments: [SQLiteClientStorage.bytes(self.token), generation, lock != nil])
                return (true, Ownership(generation: generation, lock: lock))
            }
            if let login { self.met(login, asOwner: next.isOwner) }
            taken = next.ownership
            if let taken {
                self.held.withLock { $0 = taken }
                self.contention.withLock { $0 = nil }
            }
            return next.isOwner
        }
    }

    /// Lets another process take over at once. Does nothing when this one isn't the owner.
    /// - Parameter turn: the generation of the turn that ends; nil: whichever there is.
    func release(_ turn: Int64? = nil) async throws {
        try await onQueue(of: database) { database in
            let mine = self.held.withLock { held -> Ownership? in
                if let turn, held?.generation != turn { return nil }
                defer { held = nil }
                return held
            }
            guard let mine else { return }
            // The row first: a lock that is free before says that the owner died, which comes to the same.
            defer { if let lock = mine.lock { Foundation.close(lock) } }
            try SQLiteClientStorage.inTransaction(database) { database in
                try database.execute(
                    sql: "UPDATE owner SET token = NULL, challenge = NULL WHERE generation = ?",
                    arguments: [mine.generation])
            }
        }
    }

    /// Another process took over: this one holds nothing any more of that generation.
    /// - Returns: false when it had forgotten it before.
    @discardableResult
    func forgetOwnership(_ generation: Int64) -> Bool { letGo { $0 == generation } }

    @discardableResult
    private func letGo(where isOver: (_ generation: Int64) -> Bool) -> Bool {
        let mine = held.withLock { held -> Ownership? in
            guard let mine = held, isOver(mine.generation) else { return nil }
            held = nil
            return mine
        }
        if let lock = mine?.lock { Foundation.close(lock) }
        return mine != nil
    }

    /// Which of its turns this process is the owner in; nil when it isn't.
    var generation: Int64? { held.withLock { $0?.generation } }

    private struct OwnerRow {
        var generation: Int64
        /// Its owner gave it up.
        var isReleased: Bool
        var isLocked: Bool
        var challenge: Int64?
    }

    /// The last owner; nil when there was none.
    private static func owner(_ database: Database) throws -> OwnerRow? {
        guard let row = try Row.fetchOne(database, sql: "SELECT token, generation, locked, challenge FROM owner") else {
            return nil
        }
        return OwnerRow(
            generation: row[1], isReleased: (row[0] as Data?) == nil, isLocked: row[2], challenge: row[3])
    }

    /// Asks the owner whether it is awake, or finds that it has been asked for long enough.
    /// - Returns: whether the owner's time is over.
    private func challenge(_ row: OwnerRow?, _ database: Database) throws -> Bool {
        guard let row, !row.isReleased else { return true }
        let now = ContinuousClock.now
        if let challenge = row.challenge {
            return contention.withLock { contention in
                if let known = contention, known.generation == row.generation, known.challenge == challenge {
                    return now - known.since >= takeOverAfter
                }
                contention = Contention(generation: row.generation, challenge: challenge, since: now)
                return false
            }
        }
        // An owner that just answered is not asked at every look: each question and answer is a write.
        let isQuiet = contention.withLock { contention in
            guard let known = contention, known.generation == row.generation else { return false }
            let answeredAt = known.answeredAt ?? now
            contention?.answeredAt = answeredAt
            return now - answeredAt < takeOverAfter
        }
        if isQuiet { return false }
        let challenge = Int64.random(in: .min ... .max)
        try database.execute(
            sql: "UPDATE owner SET challenge = ? WHERE generation = ?", arguments: [challenge, row.generation])
        contention.withLock { $0 = Contention(generation: row.generation, challenge: challenge, since: now) }
        return false
    }

    private func takeLock() -> CInt? {
        let descriptor = Foundation.open(lockPath, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { return nil }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            Foundation.close(descriptor)
            return nil
        }
        return descriptor
    }

    /// Within a transaction: what follows in it happens only while this process is the owner.
    /// - Returns: its generation.
    @discardableResult
    func checkOwnership(_ database: Database) throws -> Int64 {
        let generation = held.withLock { $0?.generation }
        guard let generation, let row = try Self.owner(database), row.generation == generation, !row.isReleased else {
            throw ClientError(
                .ownershipLost, message: "another process of the app owns the outbox",
                advice: "what is sent here is taken over by it")
        }
        return generation
    }

    /// One look at the file, which no writer holds up.
    func reading<Value: Sendable>(_ body: @escaping @Sendable (Database) throws -> Value) async throws -> Value {
        try await onQueue(of: reader) { database in try SQLiteClientStorage.inTransaction(database, .deferred, body) }
    }

    /// Nobody owns a shared file for longer than a transaction.
    private func describe(_ error: any Error) -> ClientError {
        if let error = error as? DatabaseError, error.resultCode == .SQLITE_BUSY {
            return ClientError(
                .storage, message: "\(database.path) stayed locked by another process", cause: error,
                advice: "find the process that hangs while it has the file open; try again")
        }
        return SQLiteClientStorage.describe(error, path: database.path)
    }

    /// One transaction that may write: short, and alone.
    func transaction<Value: Sendable>(_ body: @escaping @Sendable (Database) throws -> Value) async throws -> Value {
        try await onQueue(of: database) { database in try SQLiteClientStorage.settled(database, body) }
    }

    /// A turn on a connection's queue. Where the file was closed before it comes, this throws.
    private func onQueue<Value: Sendable>(
        of connection: DatabaseQueue, _ body: @escaping @Sendable (Database) throws -> Value
    ) async throws -> Value {
        do {
            return try await connection.writeWithoutTransaction(body)
        } catch let error as CancellationError {
            throw error
        } catch {
            throw describe(error)
        }
    }
}
