package import LonglineWire
package import NIOCore

/// The rules of every store over tables in memory, without an actor around them: for simulations, which run in one thread
/// and take copies where a real store would have a disk. Not `Sendable`: one thread owns it.
package final class SingleThreadedStore {
    private var logic: StoreLogic<MemoryTables>

    /// An empty store.
    /// - Parameters:
    ///   - remembered: how many acknowledgements a ledger remembers; a client may have no more unanswered.
    ///   - clock: the wall clock, in milliseconds since 1970.
    ///   - random: draws epochs.
    package init(
        limits: StoreLimits = StoreLimits(), remembered: Int = PublishLedger.remembered,
        clock: @escaping @Sendable () -> UInt64, random: any RandomNumberGenerator & Sendable
    ) {
        logic = StoreLogic(
            tables: MemoryTables(headBytes: limits.headBytes), limits: limits, clock: clock, random: random)
        logic.remembered = remembered
    }

    private init(_ logic: StoreLogic<MemoryTables>) { self.logic = logic }

    /// What a disk holds now. Changes of either leave the other alone.
    package func copy() -> SingleThreadedStore {
        let copy = SingleThreadedStore(
            StoreLogic(
                tables: logic.tables.copy(), limits: logic.limits, clock: logic.clock, random: logic.random))
        copy.logic.remembered = logic.remembered
        return copy
    }

    /// What opening a store does that was restored from a backup: every channel starts a new epoch.
    /// - Parameter random: draws epochs from now on; not as in the life that the backup was taken in.
    package func startNewEpochs(random: any RandomNumberGenerator & Sendable) {
        logic.random = random
        logic.tables.changeEpochs { logic.drawEpoch() }
    }

    /// As ``ChannelLog/append(_:)``.
    package func append(_ request: AppendRequest) -> AppendOutcome {
        do { return try logic.append(request) } catch {
            return .refused(Refused(id: request.publish.id, code: .overloaded, retryAfter: logic.limits.retryAfter))
        }
    }

    /// As ``ChannelLog/read(_:after:upTo:maximumBytes:now:)``.
    package func read(_ channel: ChannelKey, after: Offset, upTo: Offset?, maximumBytes: Int, now: UInt64) throws
        -> LogPage
    {
        guard let record = try logic.channel(channel) else { throw StoreError.unknown(channel) }
        var page = PageBuilder(
            channel: record, after: after, upTo: upTo, maximumBytes: maximumBytes,
            maximumEntries: logic.limits.pageEntries, now: now)
        for entry in logic.tables.entries(in: record, above: page.start) {
            guard page.take(entry.head(logic.limits.headBytes)) else { break }
        }
        return page.page()
    }

    /// As ``ChannelLog/payload(of:in:from:maximumBytes:)``.
    package func payload(of offset: Offset, in channel: ChannelKey, from: UInt64, maximumBytes: Int) -> ByteBuffer? {
        guard let record = logic.tables.channel(channel) else { return nil }
        return logic.tables.payload(of: offset, in: record, from: from, maximumBytes: maximumBytes)
    }

    /// As ``ChannelLog/page(_:_:now:)``.
    package func page(_ channel: ChannelKey, _ range: LogRange, now: UInt64) throws -> LogPage {
        try StoreRules.page(channel, range, maximumEntries: logic.limits.pageEntries, now: now, logic.tables)
    }

    /// As ``ChannelLog/head(of:)``.
    package func head(of channel: ChannelKey) throws -> ChannelHead? { try logic.channel(channel)?.ends }

    /// As ``ChannelLog/entitlements(of:in:)``.
    package func entitlements(of user: UserID, in tenant: TenantID) throws -> [Entitlement] {
        _ = try logic.channel(ChannelKey(tenant: tenant, channel: .user(user)))
        return try StoreRules.entitlements(of: user, in: tenant, logic.tables)
    }

    /// As ``ChannelLog/channels(of:)``.
    package func channels(of device: DeviceKey) throws -> [Entitlement] {
        _ = try logic.channel(ChannelKey(tenant: device.tenant, channel: .user(device.user)))
        return try StoreRules.channels(of: device, logic.tables)
    }

    /// As ``Rooms/change(_:_:by:)``.
    package func change(_ room: RoomID, _ change: RoomChange, by device: DeviceKey) throws -> RoomOutcome {
        try logic.change(room, change, by: device)
    }

    /// As ``DeviceCursors/advance(_:to:)``.
    package func advance(_ device: DeviceKey, to cursors: [ChannelPosition]) throws -> CursorRecord {
        try logic.advance(device, to: cursors)
    }

    /// As ``DeviceCursors/admit(_:producer:connectNumber:)``.
    package func admit(_ device: DeviceKey, producer: ProducerID, connectNumber: UInt64) throws -> ConnectAdmission {
        try logic.admit(device, producer: producer, connectNumber: connectNumber)
    }

    /// As ``DevicePlaces/place(of:policy:)``.
    package func place(of login: DeviceLogin, policy: DevicePolicy) throws -> PlaceAnswer {
        try StoreRules.place(of: login, policy: policy, logic.tables)
    }

    /// As ``DevicePlaces/takePlace(of:policy:)``.
    package func takePlace(of login: DeviceLogin, policy: DevicePolicy) throws -> PlaceAnswer {
        try logic.takePlace(of: login, policy: policy)
    }

    /// As ``Conversations/set(_:of:for:in:)``.
    package func set(
        _ setting: ConversationSetting, of conversation: ChannelID, for user: UserID, in tenant: TenantID
    ) throws -> ConversationSettings? {
        try logic.set(setting, of: conversation, for: user, in: tenant)
    }

    /// As ``Conversations/conversations(of:in:after:limit:now:)``, from the beginning; an inbox that is not there is not made.
    package func conversations(
        of user: UserID, in tenant: TenantID, limit: Int, now: UInt64
    ) throws -> ConversationList {
        try StoreRules.conversations(
            of: user, in: tenant, after: nil, limit: limit, limits: logic.limits, now: now, logic.tables)
    }

    /// As ``StoreMaintenance/trim(_:keep:)``.
    package func trim(_ channel: ChannelKey, keep: Retention) throws -> TrimReport {
        try logic.trim(channel, keep: keep)
    }

    // MARK: Sweeps

    /// What a step of a sweep looks at.
    package enum SweepPart: Sendable { case devices, outboxes, channels, others }

    /// What the step that begins at a place looks at; nil is the beginning.
    package static func part(at place: SweepPlace?) -> SweepPart {
        switch place?.stage {
        case .devices?: .devices
        case .outboxes?: .outboxes
        case .channels?: .channels
        case .presence?, .tokens?, .ledgers?, .cursors?, .conversations?, .stints?, nil: .others
        }
    }

    /// As ``StoreMaintenance/sweep(from:)``.
    package func sweep(from place: SweepPlace?) throws -> SweepReport { try logic.sweep(from: place) }

    /// Whether there is a record of an outbox of a device.
    package func knows(_ producer: ProducerID, of device: DeviceKey) -> Bool {
        logic.tables.device(device).map { logic.tables.producer(producer, of: $0) != nil } ?? false
    }

    // MARK: Erasure

    /// As ``AccountErasure/requestErasure(of:in:)``.
    package func requestErasure(of user: UserID, in tenant: TenantID) throws {
        try logic.requestErasure(of: user, in: tenant)
    }

    /// As ``AccountErasure/pendingErasures(limit:)``, all of them.
    package var pendingErasures: [PendingErasure] { logic.tables.erasures(limit: .max) }

    /// As ``AccountErasure/erase(user:in:)``.
    package func erase(user: UserID, in tenant: TenantID) throws -> ErasureStep { try logic.erase(user, in: tenant) }

    /// As ``Revocations/revoke(user:in:)``.
    package func revoke(user: UserID, in tenant: TenantID) throws { try logic.revoke(user, device: nil, in: tenant) }

    /// A user's present generation.
    package func generation(of user: UserID, in tenant: TenantID) -> UInt64 {
        logic.tables.generation(of: user, device: nil, in: tenant)
    }

    /// Whether there is a record of a device.
    package func knows(_ device: DeviceKey) -> Bool { logic.tables.device(device) != nil }

    /// Where a channel's log begins and ends, without making an inbox that is not there.
    package func ends(of channel: ChannelKey) -> ChannelHead? { logic.tables.channel(channel)?.ends }

    /// What a user decided about a conversation.
    package func settings(
        of conversation: ChannelID, for user: UserID, in tenant: TenantID
    ) throws -> ConversationSettings {
        try StoreRules.settings(of: conversation, for: user, in: tenant, logic.tables)
    }
}
