import Foundation
import GRDB
import LonglineWire
import NIOCore
import Synchronization

/// A message on its way into the outbox: of the app, or of a process that does not own a shared one.
struct Submission: Hashable, Sendable {
    var send: SendID
    var destination: Destination
    var kind: PublishKind = .message
    var timeToLive: UInt64
    /// Wall clock, milliseconds since 1970.
    var queuedAt: UInt64
    var payload: ByteBuffer
    /// When this process saw it, by a clock that nobody sets; nil for what another one put in.
    var seen: NIODeadline?
}

/// Who puts a message in for the owner.
struct Submitter: Sendable {
    /// As the app names them; nil: it doesn't.
    var user: UserID?
    var device: DeviceID?
    /// Why nothing may get into the file any more; nil: it may. Asked in the transaction, on the queue that a wipe goes through as well.
    var end: @Sendable () -> ClientError? = { nil }
}

/// What an owner finds when it looks.
enum SharedNews: Sendable {
    /// Nothing that concerns it.
    case nothing
    /// Another process took over.
    case lost
    /// Another process wants to take over, and asks whether this one is awake.
    case challenged
    /// Messages wait to be claimed.
    case submissions
}

/// What an owner took on.
struct SharedClaim: Hashable, Sendable {
    /// The oldest messages that wait, in their order. They are there until the owner has them in its outbox.
    var submissions: [Submission]
    /// Whether nothing else waits.
    var isAll: Bool
}

extension SharedClientStorage {
    /// The most messages that are taken over at a time.
    private static let claims = 256

    // MARK: What any process does

    /// Puts a message in for the owner. Durable when it returns.
    /// - Returns: how far it is: queued, or further if it came through by another way before.
    /// - Throws: ``ClientError/Code/otherUser``, ``ClientError/Code/otherDevice`` or ``ClientError/Code/loggedOut`` too, where the owner
    ///   would publish it in another's name.
    func submit(
        _ submission: Submission, limits: OutboxLimits, by submitter: Submitter = Submitter()
    ) async throws -> SendStatus {
        let (status, login) = try await transaction { database -> (SendStatus, Int64) in
            let login = try self.check(submitter, database)
            return (try Self.put(submission, limits: limits, database), login)
        }
        met(login)
        return status
    }

    /// Whose the file is by now: another process may have wiped it, and another user logged in.
    /// - Returns: the file's login.
    private func check(_ submitter: Submitter, _ database: Database) throws -> Int64 {
        if let end = submitter.end() { throw end }
        if let user = submitter.user, let stored = try SQLiteClientStorage.user(database), stored != user {
            throw ClientError.otherUser(stored: stored, login: user)
        }
        if let device = submitter.device, let stored = try SQLiteClientStorage.device(database), stored != device {
            throw ClientError.otherDevice(stored: stored, login: device)
        }
        let login = try SQLiteClientStorage.login(database)
        if let own = self.login, own != login {
            throw ClientError(
                .loggedOut, message: "another client of the app logged the device out",
                advice: "make another client for the next login")
        }
        return login
    }

    private static func put(
        _ submission: Submission, limits: OutboxLimits, _ database: Database
    ) throws -> SendStatus {
        // A send that was on its way into the outbox when its process lost it may have come through.
        if let known = try status(of: submission.send, database) { return known }
        let row = try Row.fetchOne(
            database,
            sql: """
                SELECT (SELECT count(*) FROM outbox) + count(*),
                    (SELECT coalesce(sum(length(payload)), 0) FROM outbox) + coalesce(sum(length(payload)), 0)
                FROM submission
                """)
        try limits.checkRoom(
            for: submission.payload.readableBytes, messages: row?[0] ?? 0, bytes: row?[1] ?? 0)
        try database.execute(
            sql: """
                INSERT INTO submission (send, destination, time_to_live, queued_at, payload, kind, target_epoch,
                    target_offset)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?)
                """,
            arguments: [
                SQLiteClientStorage.bytes(submission.send), submission.destination.description,
                SQLiteClientStorage.bits(submission.timeToLive), SQLiteClientStorage.bits(submission.queuedAt),
                Data(submission.payload.readableBytesView), Int64(submission.kind.entryKind.rawValue),
                SQLiteClientStorage.bits(submission.kind.target?.epoch ?? 0),
                SQLiteClientStorage.bits(submission.kind.target?.offset ?? 0),
            ])
        return try status(submission, isCancellable: true, database)
    }

    /// A number that changes with everything that is written, here or elsewhere.
    func version() async throws -> Int {
        try await reading { try Int.fetchOne($0, sql: "PRAGMA data_version") ?? 0 }
    }

    /// How far messages are, whoever put them in; one that nobody remembers is left out.
    /// - Parameter payload: whether to read what they say, too, which may be much: else it is empty.
    func statuses(of sends: [SendID], payload: Bool = true) async throws -> [SendStatus] {
        try await reading { database in try sends.compactMap { try Self.status(of: $0, payload: payload, database) } }
    }

    /// What waits in the outbox and for it, in the order in which it will be published.
    func waiting() async throws -> [SendStatus] {
        try await reading { database in
            let rows = try Row.fetchAll(database, sql: "SELECT * FROM outbox ORDER BY id").map {
                Self.status(try SQLiteClientStorage.publish($0))
            }
            let generation = try Self.generation(database)
            let submissions = try Row.fetchAll(database, sql: "SELECT * FROM submission ORDER BY seq").map {
                try Self.status(submission: $0, generation, database)
            }
            return rows + submissions
        }
    }

    /// Takes a message back that the owner has not claimed.
    func cancel(_ send: SendID) async throws -> CancelResult {
        try await transaction { database in
            guard let status = try Self.status(of: send, database) else { return .unknown }
            guard status.isCancellable else { return .tooLate(status.state) }
            try database.execute(
                sql: "DELETE FROM submission WHERE send = ?", arguments: [SQLiteClientStorage.bytes(send)])
            // A row of the outbox is the owner's to take out.
            guard database.changesCount == 1 else { return .tooLate(status.state) }
            let outcome = StoredOutcome(
                send: send, channel: status.channel, recipient: status.recipient, queuedAt: status.queuedAt,
                state: .cancelled)
            try SQLiteClientStorage.keep(outcome, in: database)
            return .cancelled
        }
    }

    private static func generation(_ database: Database) throws -> Int64 {
        try Int64.fetchOne(database, sql: "SELECT generation FROM owner") ?? 0
    }

    private static func status(of send: SendID, payload: Bool = false, _ database: Database) throws -> SendStatus? {
        let name = SQLiteClientStorage.bytes(send)
        let content = payload ? "payload" : "x'' AS payload"
        let outbox = """
            SELECT id, tag, after, channel, recipient, time_to_live, queued_at, \(content), kind, target_epoch, target_offset,
                send, attempted
            FROM outbox WHERE send = ?
            """
        if let row = try Row.fetchOne(database, sql: outbox, arguments: [name]) {
            return status(try SQLiteClientStorage.publish(row))
        }
        let submission = """
            SELECT send, destination, time_to_live, queued_at, \(content), kind, target_epoch, target_offset, taken
            FROM submission WHERE send = ?
            """
        if let row = try Row.fetchOne(database, sql: submission, arguments: [name]) {
            return try status(submission: row, try generation(database), database)
        }
        return try SQLiteClientStorage.outcome(of: send, database)?.status
    }

    /// Of another process it is known whether a row may have left, not whether it did.
    private static func status(_ row: StoredPublish) -> SendStatus {
        SendStatus(
            send: row.send, channel: row.channel, recipient: row.recipient, queuedAt: row.queuedAt,
            state: row.attempted ? .sent : .queued, isCancellable: false, kind: row.kind,
            payload: row.payload)
    }

    private static func status(submission row: Row, _ generation: Int64, _ database: Database) throws -> SendStatus {
        let taken: Int64? = row["taken"]
        return try status(try submission(row), isCancellable: taken != generation, database)
    }

    private static func status(
        _ submission: Submission, isCancellable: Bool, _ database: Database
    ) throws -> SendStatus {
        var channel = submission.destination.channel
        var recipient: UserID?
        if case .user(let user) = submission.destination {
            recipient = user
            // Whose inbox it will be is known once a token or a connection told an owner.
            if let own = try SQLiteClientStorage.user(database) { channel = .user(own) }
        }
        return SendStatus(
            send: submission.send, channel: channel, recipient: recipient, queuedAt: submission.queuedAt,
            state: .queued, isCancellable: isCancellable, kind: submission.kind, payload: submission.payload)
    }

    private static func submission(_ row: Row) throws -> Submission {
        let payload: Data = row["payload"]
        return Submission(
            send: SQLiteClientStorage.send(row["send"]),
            destination: Destination(try SQLiteClientStorage.channel(row["destination"])),
            kind: try SQLiteClientStorage.kind(row),
            timeToLive: SQLiteClientStorage.number(row["time_to_live"]),
            queuedAt: SQLiteClientStorage.number(row["queued_at"]), payload: ByteBuffer(bytes: payload))
    }

    // MARK: What the owner does

    /// Looks for what other processes did.
    func news() async throws -> SharedNews {
        guard let generation = held.withLock({ $0?.generation }) else { return .lost }
        return try await reading { database in
            guard let row = try Row.fetchOne(database, sql: "SELECT generation, token, challenge FROM owner"),
                row[0] == generation, (row[1] as Data?) != nil
            else { return .lost }
            if (row[2] as Int64?) != nil { return .challenged }
            return try Bool.fetchOne(database, sql: "SELECT EXISTS (SELECT 1 FROM submission)") == true
                ? .submissions : .nothing
        }
    }

    /// Claims the oldest messages that wait: from now on who put them in can't take them back.
    /// - Throws: ``ClientError/Code/ownershipLost`` too.
    func claim() async throws -> SharedClaim {
        try await transaction { database in
            let generation = try self.checkOwnership(database)
            let rows = try Row.fetchAll(
                database, sql: "SELECT * FROM submission ORDER BY seq LIMIT ?", arguments: [Self.claims + 1])
            let claimed = rows.prefix(Self.claims)
            if let last = claimed.last {
                try database.execute(
                    sql: "UPDATE submission SET taken = ? WHERE seq <= ? AND taken IS NOT ?",
                    arguments: [generation, last["seq"] as Int64, generation])
            }
            return SharedClaim(submissions: try claimed.map(Self.submission), isAll: rows.count <= Self.claims)
        }
    }

    /// Tells whoever asked that this process is awake.
    func answerChallenge() async throws {
        try await transaction { database in
            try self.checkOwnership(database)
            try database.execute(sql: "UPDATE owner SET challenge = NULL")
        }
    }
}
