public import LonglineWire
public import NIOCore

/// A store for tests and trials: the rules of ``SQLiteStore``, kept in memory only. What it answers is gone with the
/// process.
public actor InMemoryStore: MessageStore, StoreMaintenance {
    private var logic: StoreLogic<MemoryTables>
    public nonisolated let unseenLimit: UInt64

    /// An empty store.
    /// - Parameters:
    ///   - limits: what the store holds at most.
    ///   - clock: the wall clock, in milliseconds since 1970; may be called from any thread.
    ///   - random: draws epochs.
    public init(
        limits: StoreLimits = StoreLimits(), clock: @escaping @Sendable () -> UInt64 = WallClock.milliseconds,
        random: any RandomNumberGenerator & Sendable = SystemRandomNumberGenerator()
    ) {
        unseenLimit = limits.unseen
        logic = StoreLogic(
            tables: MemoryTables(headBytes: limits.headBytes), limits: limits, clock: clock, random: random)
    }

    /// The tables in memory never fail: what is thrown here is a ``StoreError`` of the rules.
    private func perform<Value>(_ body: (inout StoreLogic<MemoryTables>) throws -> Value) throws(StoreError) -> Value {
        do {
            return try body(&logic)
        } catch let error as StoreError {
            throw error
        } catch {
            throw StoreError(.unavailable, message: "\(error)")
        }
    }

    /// true: there is nothing to wait for.
    public nonisolated var handsOverAtOnce: Bool { true }

    public func append(_ batch: [AppendRequest]) async -> [AppendOutcome] {
        batch.map { request in
            do {
                return try logic.append(request)
            } catch {
                return .refused(
                    Refused(id: request.publish.id, code: .overloaded, retryAfter: logic.limits.retryAfter))
            }
        }
    }

    public func read(_ channel: ChannelKey, after: Offset, upTo: Offset?, maximumBytes: Int, now: UInt64)
        async throws(StoreError) -> LogPage
    {
        try perform { logic in
            guard let record = try logic.channel(channel) else { throw StoreError.unknown(channel) }
            var page = PageBuilder(
                channel: record, after: after, upTo: upTo, maximumBytes: maximumBytes,
                maximumEntries: logic.limits.pageEntries, now: now)
            for entry in logic.tables.entries(in: record, above: page.start) {
                guard page.take(entry.head(logic.limits.headBytes)) else { break }
            }
            return page.page()
        }
    }

    public func payload(of offset: Offset, in channel: ChannelKey, from: UInt64, maximumBytes: Int)
        async throws(StoreError) -> ByteBuffer?
    {
        try perform { logic in
            guard let record = logic.tables.channel(channel) else { return nil }
            return logic.tables.payload(of: offset, in: record, from: from, maximumBytes: maximumBytes)
        }
    }

    public func page(_ channel: ChannelKey, _ range: LogRange, now: UInt64) async throws(StoreError) -> LogPage {
        try perform { logic in
            try StoreRules.page(
                channel, range, maximumEntries: logic.limits.pageEntries, now: now, logic.tables)
        }
    }

    public func lastEdit(of offset: Offset, in channel: ChannelKey, through end: Offset, now: UInt64)
        async throws(StoreError) -> Entry?
    {
        try perform { logic in
            let edit = try StoreRules.lastEdit(of: offset, in: channel, through: end, now: now, logic.tables)
            return edit?.head(logic.limits.headBytes)
        }
    }

    public func countMessages(
        in channel: ChannelKey, after: Offset, upTo: Offset, by authors: Authors, limit: Int, now: UInt64
    ) async throws(StoreError) -> Int {
        try perform { logic in
            try StoreRules.countMessages(
                in: channel, after: after, upTo: upTo, by: authors, limit: limit, now: now, logic.tables)
        }
    }

    public func head(of channel: ChannelKey) async throws(StoreError) -> ChannelHead? {
        try perform { try $0.channel(channel)?.ends }
    }

    public func entitlements(of user: UserID, in tenant: TenantID) async throws(StoreError) -> [Entitlement] {
        try perform { logic in
            _ = try logic.channel(ChannelKey(tenant: tenant, channel: .user(user)))
            return try StoreRules.entitlements(of: user, in: tenant, logic.tables)
        }
    }

    public func channels(of device: DeviceKey) async throws(StoreError) -> [Entitlement] {
        try perform { logic in
            _ = try logic.channel(ChannelKey(tenant: device.tenant, channel: .user(device.user)))
            return try StoreRules.channels(of: device, logic.tables)
        }
    }

    public func change(_ room: RoomID, _ change: RoomChange, by device: DeviceKey)
        async throws(StoreError) -> RoomOutcome
    {
        try perform { try $0.change(room, change, by: device) }
    }

    public func members(of room: RoomID, in tenant: TenantID, for reader: UserID?, after: UserID?, limit: Int)
        async throws(StoreError) -> MemberList?
    {
        try perform { logic in
            try StoreRules.members(
                of: room, in: tenant, for: reader, after: after, limit: limit, logic.tables)
        }
    }

    public func advance(_ device: DeviceKey, to cursors: [ChannelPosition]) async throws(StoreError) -> CursorRecord {
        try perform { try $0.advance(device, to: cursors) }
    }

    public func move(_ device: DeviceKey, to cursors: [ChannelPosition]) async throws(StoreError) {
        try perform { try $0.move(device, to: cursors) }
    }

    public func cursors(of device: DeviceKey) async throws(StoreError) -> CursorRecord {
        try perform { try StoreRules.cursors(of: device, $0.tables) }
    }

    public func confirmed(by user: UserID, in channel: ChannelKey) async throws(StoreError) -> Position? {
        try perform { try StoreRules.confirmed(by: user, in: channel, $0.tables) }
    }

    public func admit(_ device: DeviceKey, producer: ProducerID, connectNumber: UInt64)
        async throws(StoreError) -> ConnectAdmission
    {
        try perform { try $0.admit(device, producer: producer, connectNumber: connectNumber) }
    }

    public func generations(of device: DeviceKey) async throws(StoreError) -> RevocationGenerations {
        try perform { try StoreRules.generations(of: device, $0.tables) }
    }

    public func revoke(user: UserID, in tenant: TenantID) async throws(StoreError) {
        try perform { try $0.revoke(user, device: nil, in: tenant) }
    }

    public func revoke(device: DeviceKey) async throws(StoreError) {
        try perform { try $0.revoke(device.user, device: device.device, in: device.tenant) }
    }

    public func revoke(token: String, in tenant: TenantID, until: UInt64) async throws(StoreError) {
        try perform { try $0.revoke(token: token, in: tenant, until: until) }
    }

    public func isRevoked(token: String, in tenant: TenantID) async throws(StoreError) -> Bool {
        try perform { $0.tables.revocation(of: token, in: tenant) != nil }
    }

    public func place(of login: DeviceLogin, policy: DevicePolicy) async throws(StoreError) -> PlaceAnswer {
        try perform { try StoreRules.place(of: login, policy: policy, $0.tables) }
    }

    public func takePlace(of login: DeviceLogin, policy: DevicePolicy) async throws(StoreError) -> PlaceAnswer {
        try perform { try $0.takePlace(of: login, policy: policy) }
    }

    public func requestErasure(of user: UserID, in tenant: TenantID) async throws(StoreError) {
        try perform { try $0.requestErasure(of: user, in: tenant) }
    }

    public func pendingErasures(limit: Int) async throws(StoreError) -> [PendingErasure] {
        try perform { $0.tables.erasures(limit: limit) }
    }

    public func isErasurePending(of user: UserID, in tenant: TenantID) async throws(StoreError) -> Bool {
        try perform { $0.tables.hasErasure(PendingErasure(tenant: tenant, user: user)) }
    }

    public func erase(user: UserID, in tenant: TenantID) async throws(StoreError) -> ErasureStep {
        try perform { try $0.erase(user, in: tenant) }
    }

    public func conversations(
        of user: UserID, in tenant: TenantID, after: ConversationPlace?, limit: Int, now: UInt64
    ) async throws(StoreError) -> ConversationList {
        try perform { logic in
            _ = try logic.channel(ChannelKey(tenant: tenant, channel: .user(user)))
            return try StoreRules.conversations(
                of: user, in: tenant, after: after, limit: limit, limits: logic.limits, now: now, logic.tables)
        }
    }

    public func markRead(_ notes: [ReadNote]) async throws(StoreError) -> [ReadOutcome?] {
        try perform { logic in try logic.markRead(notes) }
    }

    public func receipts(for notes: [DeliveryNote]) async throws(StoreError) -> [DeliveryNote?] {
        try perform { logic in try notes.map { try StoreRules.receipt(for: $0, logic.tables) } }
    }

    public func set(
        _ setting: ConversationSetting, of conversation: ChannelID, for user: UserID, in tenant: TenantID
    ) async throws(StoreError) -> ConversationSettings? {
        try perform { try $0.set(setting, of: conversation, for: user, in: tenant) }
    }

    public func settings(
        of conversation: ChannelID, for user: UserID, in tenant: TenantID
    ) async throws(StoreError) -> ConversationSettings {
        try perform { try StoreRules.settings(of: conversation, for: user, in: tenant, $0.tables) }
    }

    public func outOfTouch(
        _ user: UserID, with others: [UserID], in tenant: TenantID
    ) async throws(StoreError) -> Set<UserID> {
        try perform { try StoreRules.outOfTouch(user, with: others, in: tenant, $0.tables) }
    }

    public func presence(of users: [UserID], in tenant: TenantID) async throws(StoreError) -> [UserID: PresenceRecord] {
        try perform { try StoreRules.presence(of: users, in: tenant, $0.tables) }
    }

    public func note(_ presence: [PresenceNote]) async throws(StoreError) {
        try perform { logic in for note in presence { try logic.note(note) } }
    }

    public func trim(_ channel: ChannelKey, keep: Retention) async throws(StoreError) -> TrimReport {
        try perform { try $0.trim(channel, keep: keep) }
    }

    public func channels(after mark: UInt64, limit: Int) async throws(StoreError) -> ChannelList {
        try perform { try StoreRules.channels(after: mark, limit: limit, $0.tables) }
    }

    public func sweep(from place: SweepPlace?) async throws(StoreError) -> SweepReport {
        try perform { try $0.sweep(from: place) }
    }
}

extension StoreError {
    static func unknown(_ channel: ChannelKey) -> StoreError {
        StoreError(.unknownChannel, message: "\(channel.channel) does not exist in tenant \(channel.tenant)")
    }
}
