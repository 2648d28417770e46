import Foundation
import GRDB
import GRDBSQLite
import Logging
public import LonglineWire
public import NIOCore

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// A store in one SQLite database: a write-ahead log, one writer, several readers.
///
/// Concurrent writes share a transaction (group commit), and no call returns before its transaction is on disk. One process at a
/// time may open a folder. All methods may be called from any thread. `docs/storage.md` says what is on disk.
public final class SQLiteStore: MessageStore, StoreMaintenance {
    /// Whether opening found a database that wasn't the one closed last (a backup was put back), and so drew new epochs.
    public let wasRestored: Bool
    /// When the store was last found to be restored so, in milliseconds since 1970, now or in an earlier life; nil: never. What
    /// was revoked after the backup and before then is not known any more.
    public let restoredAt: UInt64?
    /// true: writes go to the writer's thread, reads to a reader's, but for what is in the cache.
    public var handsOverAtOnce: Bool { true }
    /// What users may make the store keep.
    public let limits: StoreLimits
    public var unseenLimit: UInt64 { limits.unseen }

    let directory: StoreDirectory
    private let pool: DatabasePool
    private let commits: GroupCommit
    private let checkpoints: Checkpointer
    private let closingPatience: CInt
    private let faults: StoreFaults
    private let erasures = ErasureWatch()
    let cache: TailCache

    /// Opens the store in a folder, or makes one there.
    /// - Parameters:
    ///   - configuration: the folder, limits and queues.
    ///   - clock: the wall clock, in milliseconds since 1970; called from the writer's thread.
    ///   - random: draws epochs.
    /// - Throws: ``StoreError/Code/unavailable``, ``StoreError/Code/versionTooNew`` or ``StoreError/Code/storageFull``, with advice.
    public convenience init(
        _ configuration: SQLiteStoreConfiguration, clock: @escaping @Sendable () -> UInt64 = WallClock.milliseconds,
        random: any RandomNumberGenerator & Sendable = SystemRandomNumberGenerator()
    ) throws(StoreError) {
        try self.init(configuration, clock: clock, random: random, faults: StoreFaults())
    }

    init(
        _ configuration: SQLiteStoreConfiguration, clock: @escaping @Sendable () -> UInt64,
        random: any RandomNumberGenerator & Sendable, faults: StoreFaults,
        checkpoints limits: CheckpointLimits = CheckpointLimits()
    ) throws(StoreError) {
        var random = random
        self.limits = configuration.limits
        self.faults = faults
        closingPatience = limits.closingPatience
        let fatal = configuration.fatal ?? { _ in _exit(74) }
        let directory = try StoreDirectory(configuration.directory)
        let pool = try SQLiteOpening.open(directory, configuration, faults)
        (wasRestored, restoredAt) = try SQLiteOpening.identify(
            directory, pool, configuration.logger, now: clock(), &random)
        cache = TailCache(maximumBytes: configuration.tailCacheBytes)
        let headBytes = configuration.limits.headBytes
        let tables = pool.writeWithoutTransaction { SQLiteTables($0, headBytes: headBytes) }
        let logic = StoreLogic(tables: tables, limits: configuration.limits, clock: clock, random: random)
        let checkpoints = try SQLiteOpening.translate(directory) {
            try Checkpointer(
                path: directory.database, limits: limits, logger: configuration.logger, faults: faults, fatal: fatal)
        }
        self.checkpoints = checkpoints
        let writer = Writer(
            logic: logic, cache: cache, logger: configuration.logger, checkpoints: checkpoints, faults: faults,
            fatal: fatal)
        pool.writeWithoutTransaction { writer.watchLog($0) }
        commits = GroupCommit(
            pool: pool,
            limits: GroupCommit.Limits(
                queueRequests: configuration.queueRequests, queueBytes: configuration.queueBytes,
                batchRequests: configuration.batchRequests, batchBytes: configuration.batchBytes),
            writer: writer)
        self.directory = directory
        self.pool = pool
    }

    /// Whether a process has the store in this folder open.
    package static func isOpen(at directory: String) -> Bool { StoreDirectory.isLocked(directory) }

    /// Writes what is queued, refuses what comes, and gives the files back. Reads under way end first.
    ///
    /// Afterwards the database file alone is complete, unless another process goes on reading an older state, as a backup does: then
    /// its write-ahead log belongs to it still. A second call does nothing.
    public func close() async throws(StoreError) {
        guard await commits.close() else { return }
        defer { directory.unlock() }
        try SQLiteOpening.translate(directory) {
            try checkpoints.close()
            // GRDB closes the writer before the readers, and SQLite empties the write-ahead log only when a connection that may
            // write closes last. After a failed sync it stays as it is.
            if checkpoints.failure == nil { try pool.writeWithoutTransaction(emptyLog) }
            try pool.close()
        }
    }

    private func emptyLog(_ db: Database) throws {
        _ = sqlite3_busy_timeout(db.sqliteConnection, closingPatience)
        do { _ = try db.checkpoint(.truncate) } catch let error as DatabaseError where error.resultCode == .SQLITE_BUSY
        {
            // Somebody else reads what is in the log. It is on disk, and nothing is missing in it.
        }
    }

    /// Where the database of a store lies.
    /// - Parameter directory: the store's folder.
    public static func databasePath(in directory: String) -> String { directory + "/longline.db" }

    /// Writes a consistent copy of the database as it is now, while the store goes on.
    ///
    /// The copy is one file that only this user may read, and opening it in this folder or another starts new epochs (it is a
    /// backup). It is durable on return. Until it is complete it is called `path` with `.partial` behind.
    /// - Parameter path: a file that does not exist yet; nor does it after an error.
    public func backup(to path: String) async throws(StoreError) {
        let (pool, faults) = (pool, faults)
        try await Self.copying(directory.database) { try SQLiteBackup.copy(pool, to: path, faults) }
    }

    /// Writes a consistent copy of a store that this process doesn't have open, as ``backup(to:)`` does: for tools beside a server,
    /// which goes on meanwhile.
    /// - Parameters:
    ///   - directory: the store's folder. This process must be allowed to write there, as SQLite's readers do.
    ///   - path: a file that does not exist yet; nor does it after an error.
    public static func backup(of directory: String, to path: String) async throws(StoreError) {
        let database = databasePath(in: directory)
        try await copying(database) { try SQLiteBackup.copy(database: database, to: path) }
    }

    /// Where a backup is until it is complete.
    /// - Parameter path: what it will be called.
    package static func partialBackup(of path: String) -> String { SQLiteBackup.partial(path) }

    private static func copying(_ database: String, _ body: @escaping @Sendable () throws -> Void)
        async throws(StoreError)
    {
        let result: Result<Void, StoreError> = await withCheckedContinuation { continuation in
            // Not on the tasks' threads: a large copy takes long.
            DispatchQueue.global(qos: .utility).async {
                let result = Result { try body() }
                continuation.resume(returning: result.mapError { SQLiteOpening.storeError($0, database) })
            }
        }
        try result.get()
    }

    // MARK: The writer and the readers

    private func write<Value: Sendable>(
        requests: Int = 1, bytes: Int = 0,
        _ body: @escaping @Sendable (inout StoreLogic<SQLiteTables>) throws -> Value
    ) async throws(StoreError) -> Value {
        let result: Result<Value, StoreError> = await withCheckedContinuation { continuation in
            let job = WriteJob(
                requests: requests, bytes: bytes,
                perform: { logic in
                    do {
                        let value = try body(&logic)
                        return { continuation.resume(returning: .success(value)) }
                    } catch let error as StoreError where error.code == .limitExceeded {
                        // A rule said no before anything was changed: the transaction goes on.
                        return { continuation.resume(returning: .failure(error)) }
                    }
                },
                refuse: { continuation.resume(returning: .failure($0)) })
            commits.submit(job)
        }
        return try result.get()
    }

    /// Reads from one snapshot. Not cancelled with the task: a page is short.
    private func read<Value: Sendable>(_ body: @escaping @Sendable (SQLiteTables) throws -> Value)
        async throws(StoreError) -> Value
    {
        let directory = directory
        let result: Result<Value, StoreError> = await withCheckedContinuation { continuation in
            pool.asyncRead { database in
                do {
                    continuation.resume(returning: .success(try body(SQLiteTables(try database.get()))))
                } catch {
                    continuation.resume(returning: .failure(SQLiteOpening.storeError(error, directory.database)))
                }
            }
        }
        return try result.get()
    }

    // MARK: ChannelLog

    public func append(_ batch: [AppendRequest]) async -> [AppendOutcome] {
        guard !batch.isEmpty else { return [] }
        return await withCheckedContinuation { continuation in
            commits.submit(
                .append(batch[...], retryAfter: limits.retryAfter) { continuation.resume(returning: $0) })
        }
    }

    public func read(_ channel: ChannelKey, after: Offset, upTo: Offset?, maximumBytes: Int, now: UInt64)
        async throws(StoreError) -> LogPage
    {
        let cached = cache.page(
            channel, after: after, upTo: upTo, maximumBytes: maximumBytes, maximumEntries: limits.pageEntries,
            now: now)
        if let cached { return cached }
        return try await readUncached(channel, after: after, upTo: upTo, maximumBytes: maximumBytes, now: now)
    }

    func readUncached(_ channel: ChannelKey, after: Offset, upTo: Offset? = nil, maximumBytes: Int, now: UInt64)
        async throws(StoreError) -> LogPage
    {
        let entries = limits.pageEntries
        let page: LogPage? = try await read { tables in
            guard let record = try tables.channel(channel) else { return nil }
            var page = PageBuilder(
                channel: record, after: after, upTo: upTo, maximumBytes: maximumBytes, maximumEntries: entries,
                now: now)
            try tables.read(record, into: &page)
            return page.page()
        }
        if let page { return page }
        return try await emptyPage(channel)
    }

    public func payload(of offset: Offset, in channel: ChannelKey, from: UInt64, maximumBytes: Int)
        async throws(StoreError) -> ByteBuffer?
    {
        try await read { tables in
            guard let record = try tables.channel(channel) else { return nil }
            return try tables.payload(of: offset, in: record, from: from, maximumBytes: maximumBytes)
        }
    }

    /// What a session reads of a channel that was not there: an inbox is made now.
    private func emptyPage(_ channel: ChannelKey) async throws(StoreError) -> LogPage {
        guard let head = try await head(of: channel) else { throw .unknown(channel) }
        return LogPage(epoch: head.position.epoch, items: [], head: head.position.offset, first: head.first)
    }

    /// From the database, not the cache: history is mostly what nobody read lately.
    public func page(_ channel: ChannelKey, _ range: LogRange, now: UInt64) async throws(StoreError) -> LogPage {
        let entries = limits.pageEntries
        return try await read { try StoreRules.page(channel, range, maximumEntries: entries, now: now, $0) }
    }

    public func lastEdit(of offset: Offset, in channel: ChannelKey, through end: Offset, now: UInt64)
        async throws(StoreError) -> Entry?
    {
        try await read { try StoreRules.lastEdit(of: offset, in: channel, through: end, now: now, $0) }
    }

    public func countMessages(
        in channel: ChannelKey, after: Offset, upTo: Offset, by authors: Authors, limit: Int, now: UInt64
    ) async throws(StoreError) -> Int {
        try await read {
            try StoreRules.countMessages(in: channel, after: after, upTo: upTo, by: authors, limit: limit, now: now, $0)
        }
    }

    public func head(of channel: ChannelKey) async throws(StoreError) -> ChannelHead? {
        if let cached = cache.ends(channel) { return cached }
        if let known = try await read({ try $0.channel(channel)?.ends }) { return known }
        guard case .user = channel.channel else { return nil }
        return try await write { try $0.channel(channel)?.ends }
    }

    public func entitlements(of user: UserID, in tenant: TenantID) async throws(StoreError) -> [Entitlement] {
        let inbox = ChannelKey(tenant: tenant, channel: .user(user))
        _ = try await head(of: inbox)
        return try await read { tables in try StoreRules.entitlements(of: user, in: tenant, tables) }
    }

    public func channels(of device: DeviceKey) async throws(StoreError) -> [Entitlement] {
        _ = try await head(of: ChannelKey(tenant: device.tenant, channel: .user(device.user)))
        return try await read { tables in try StoreRules.channels(of: device, tables) }
    }

    // MARK: Rooms

    public func change(_ room: RoomID, _ change: RoomChange, by device: DeviceKey)
        async throws(StoreError) -> RoomOutcome
    {
        try await write { try $0.change(room, change, by: device) }
    }

    public func members(of room: RoomID, in tenant: TenantID, for reader: UserID?, after: UserID?, limit: Int)
        async throws(StoreError) -> MemberList?
    {
        try await read { tables in
            try StoreRules.members(of: room, in: tenant, for: reader, after: after, limit: limit, tables)
        }
    }

    // MARK: DeviceCursors

    public func advance(_ device: DeviceKey, to cursors: [ChannelPosition]) async throws(StoreError) -> CursorRecord {
        try await write(bytes: cursors.count * 64) { try $0.advance(device, to: cursors) }
    }

    public func move(_ device: DeviceKey, to cursors: [ChannelPosition]) async throws(StoreError) {
        try await write(bytes: cursors.count * 64) { try $0.move(device, to: cursors) }
    }

    public func cursors(of device: DeviceKey) async throws(StoreError) -> CursorRecord {
        try await read { try StoreRules.cursors(of: device, $0) }
    }

    public func confirmed(by user: UserID, in channel: ChannelKey) async throws(StoreError) -> Position? {
        try await read { try StoreRules.confirmed(by: user, in: channel, $0) }
    }

    public func admit(_ device: DeviceKey, producer: ProducerID, connectNumber: UInt64)
        async throws(StoreError) -> ConnectAdmission
    {
        try await write { try $0.admit(device, producer: producer, connectNumber: connectNumber) }
    }

    // MARK: Revocations

    public func generations(of device: DeviceKey) async throws(StoreError) -> RevocationGenerations {
        try await read { try StoreRules.generations(of: device, $0) }
    }

    public func revoke(user: UserID, in tenant: TenantID) async throws(StoreError) {
        try await write { try $0.revoke(user, device: nil, in: tenant) }
    }

    public func revoke(device: DeviceKey) async throws(StoreError) {
        try await write { try $0.revoke(device.user, device: device.device, in: device.tenant) }
    }

    public func revoke(token: String, in tenant: TenantID, until: UInt64) async throws(StoreError) {
        try await write(bytes: token.utf8.count) { try $0.revoke(token: token, in: tenant, until: until) }
    }

    public func isRevoked(token: String, in tenant: TenantID) async throws(StoreError) -> Bool {
        try await read { try $0.revocation(of: token, in: tenant) != nil }
    }

    // MARK: DevicePlaces

    public func place(of login: DeviceLogin, policy: DevicePolicy) async throws(StoreError) -> PlaceAnswer {
        try await read { try StoreRules.place(of: login, policy: policy, $0) }
    }

    public func takePlace(of login: DeviceLogin, policy: DevicePolicy) async throws(StoreError) -> PlaceAnswer {
        try await write { try $0.takePlace(of: login, policy: policy) }
    }

    // MARK: AccountErasure

    public func requestErasure(of user: UserID, in tenant: TenantID) async throws(StoreError) {
        erasures.changes()
        defer { erasures.changes() }
        try await write { try $0.requestErasure(of: user, in: tenant) }
    }

    public func pendingErasures(limit: Int) async throws(StoreError) -> [PendingErasure] {
        try await read { try $0.erasures(limit: limit) }
    }

    public func isErasurePending(of user: UserID, in tenant: TenantID) async throws(StoreError) -> Bool {
        if erasures.isQuiet { return false }
        let look = erasures.begin()
        let (isPending, isAny) = try await read { tables in
            (
                try tables.hasErasure(PendingErasure(tenant: tenant, user: user)),
                try !tables.erasures(limit: 1).isEmpty
            )
        }
        if !isAny { erasures.foundNone(look) }
        return isPending
    }

    public func erase(user: UserID, in tenant: TenantID) async throws(StoreError) -> ErasureStep {
        try await write(requests: 64) { try $0.erase(user, in: tenant) }
    }

    // MARK: Conversations

    public func conversations(
        of user: UserID, in tenant: TenantID, after: ConversationPlace?, limit: Int, now: UInt64
    ) async throws(StoreError) -> ConversationList {
        let limits = limits
        _ = try await head(of: ChannelKey(tenant: tenant, channel: .user(user)))
        return try await read { tables in
            try StoreRules.conversations(
                of: user, in: tenant, after: after, limit: limit, limits: limits, now: now, tables)
        }
    }

    public func markRead(_ notes: [ReadNote]) async throws(StoreError) -> [ReadOutcome?] {
        try await write(requests: notes.count, bytes: notes.count * 256) { try $0.markRead(notes) }
    }

    public func receipts(for notes: [DeliveryNote]) async throws(StoreError) -> [DeliveryNote?] {
        try await read { tables in try notes.map { try StoreRules.receipt(for: $0, tables) } }
    }

    public func set(
        _ setting: ConversationSetting, of conversation: ChannelID, for user: UserID, in tenant: TenantID
    ) async throws(StoreError) -> ConversationSettings? {
        try await write { try $0.set(setting, of: conversation, for: user, in: tenant) }
    }

    public func settings(
        of conversation: ChannelID, for user: UserID, in tenant: TenantID
    ) async throws(StoreError) -> ConversationSettings {
        try await read { try StoreRules.settings(of: conversation, for: user, in: tenant, $0) }
    }

    public func outOfTouch(
        _ user: UserID, with others: [UserID], in tenant: TenantID
    ) async throws(StoreError) -> Set<UserID> {
        try await read { try StoreRules.outOfTouch(user, with: others, in: tenant, $0) }
    }

    // MARK: PresenceRecords

    public func presence(of users: [UserID], in tenant: TenantID) async throws(StoreError) -> [UserID: PresenceRecord] {
        try await read { try StoreRules.presence(of: users, in: tenant, $0) }
    }

    public func note(_ presence: [PresenceNote]) async throws(StoreError) {
        guard !presence.isEmpty else { return }
        try await write(requests: presence.count, bytes: presence.count * 160) { logic in
            for note in presence { try logic.note(note) }
        }
    }

    // MARK: StoreMaintenance

    public func trim(_ channel: ChannelKey, keep: Retention) async throws(StoreError) -> TrimReport {
        try await write { try $0.trim(channel, keep: keep) }
    }

    public func channels(after mark: UInt64, limit: Int) async throws(StoreError) -> ChannelList {
        try await read { try StoreRules.channels(after: mark, limit: limit, $0) }
    }

    public func sweep(from place: SweepPlace?) async throws(StoreError) -> SweepReport {
        try await write { try $0.sweep(from: place) }
    }
}
