import LonglineStore
import LonglineWire
import NIOCore
import Synchronization

/// A store in memory that fails when it is told to.
final class FaultyStore: MessageStore {
    struct Faults: Sendable {
        /// Appends, joins, cursors and revocations find no room.
        var isFull = false
        /// Cursors throw this.
        var cursors: StoreError?
        /// Reads of pages throw this.
        var reads: StoreError?
        /// Reads of presence throw this.
        var presence: StoreError?
        /// Reads of who blocks whom throw this.
        var touch: StoreError?
        /// Runs, once, before it is read who blocks whom.
        var beforeTouch: (@Sendable () async -> Void)?
        /// The next read of a room's members throws this.
        var members: StoreError?
        /// Runs, once, before a room's members are read.
        var beforeMembers: (@Sendable () async -> Void)?
        /// Reads of entitlements throw this.
        var entitlements: StoreError?
        /// Runs, once, when entitlements were read and before they are answered.
        var afterEntitlements: (@Sendable () async -> Void)?
        /// Runs, once, before a batch of publishes is entered.
        var beforeAppend: (@Sendable () async -> Void)?
        /// Runs during each read of a page.
        var whileReading: (@Sendable () async -> Void)?
        /// Runs, once, before a room's or a conversation's change is made.
        var beforeChange: (@Sendable () async -> Void)?
        /// The next change of a room is made, and its answer is this.
        var changeAnswer: StoreError?
        /// Runs, once, before a device takes its place among those of its user.
        var beforePlace: (@Sendable () async -> Void)?
        /// Runs, once, when pending erasures were read and before they are answered.
        var afterPendingErasures: (@Sendable () async -> Void)?
        /// Runs, once, when it was read whether an erasure is pending and before that is answered.
        var afterErasurePending: (@Sendable () async -> Void)?
        /// Erasures take steps without end.
        var erasesForever = false
        /// Runs, once, when a credential's revocations were read and before the last of them is answered.
        var afterRevocations: (@Sendable () async -> Void)?
    }

    let inner = InMemoryStore()
    let faults = Mutex(Faults())
    /// Batches handed to ``append(_:)``, by size.
    let batches = Mutex<[Int]>([])
    /// Presence written down, by transaction.
    let notes = Mutex<[[PresenceNote]]>([])
    /// Places read by users, by write, also where there was no room.
    let marks = Mutex<[Int]>([])
    /// Pages read.
    let reads = Mutex(0)
    /// Steps of erasures.
    let erasureSteps = Mutex(0)
    /// Writes of cursors, also where there was no room.
    let cursorWrites = Mutex(0)
    private let full = StoreError(.storageFull, message: "no room", advice: "make some")

    func set(_ change: (inout Faults) -> Void) { faults.withLock { change(&$0) } }
    private var current: Faults { faults.withLock { $0 } }

    func append(_ batch: [AppendRequest]) async -> [AppendOutcome] {
        batches.withLock { $0.append(batch.count) }
        if current.isFull {
            return batch.map { .refused(Refused(id: $0.publish.id, code: .storageFull, retryAfter: 700)) }
        }
        let hook = faults.withLock { faults in
            defer { faults.beforeAppend = nil }
            return faults.beforeAppend
        }
        await hook?()
        return await inner.append(batch)
    }

    func read(
        _ channel: ChannelKey, after: Offset, upTo: Offset?, maximumBytes: Int, now: UInt64
    ) async throws(StoreError) -> LogPage {
        reads.withLock { $0 += 1 }
        if let error = current.reads { throw error }
        await current.whileReading?()
        return try await inner.read(channel, after: after, upTo: upTo, maximumBytes: maximumBytes, now: now)
    }

    func payload(of offset: Offset, in channel: ChannelKey, from: UInt64, maximumBytes: Int)
        async throws(StoreError) -> ByteBuffer?
    {
        reads.withLock { $0 += 1 }
        if let error = current.reads { throw error }
        return try await inner.payload(of: offset, in: channel, from: from, maximumBytes: maximumBytes)
    }

    func page(_ channel: ChannelKey, _ range: LogRange, now: UInt64) async throws(StoreError) -> LogPage {
        reads.withLock { $0 += 1 }
        if let error = current.reads { throw error }
        return try await inner.page(channel, range, now: now)
    }

    func lastEdit(of offset: Offset, in channel: ChannelKey, through end: Offset, now: UInt64)
        async throws(StoreError) -> Entry?
    {
        if let error = current.reads { throw error }
        return try await inner.lastEdit(of: offset, in: channel, through: end, now: now)
    }

    func countMessages(
        in channel: ChannelKey, after: Offset, upTo: Offset, by authors: Authors, limit: Int, now: UInt64
    ) async throws(StoreError) -> Int {
        if let error = current.reads { throw error }
        return try await inner.countMessages(
            in: channel, after: after, upTo: upTo, by: authors, limit: limit, now: now)
    }

    func head(of channel: ChannelKey) async throws(StoreError) -> ChannelHead? { try await inner.head(of: channel) }

    func entitlements(of user: UserID, in tenant: TenantID) async throws(StoreError) -> [Entitlement] {
        if let error = current.entitlements { throw error }
        let answer = try await inner.entitlements(of: user, in: tenant)
        let hook = faults.withLock { faults in
            defer { faults.afterEntitlements = nil }
            return faults.afterEntitlements
        }
        await hook?()
        return answer
    }

    func channels(of device: DeviceKey) async throws(StoreError) -> [Entitlement] {
        if let error = current.entitlements { throw error }
        let answer = try await inner.channels(of: device)
        let hook = faults.withLock { faults in
            defer { faults.afterEntitlements = nil }
            return faults.afterEntitlements
        }
        await hook?()
        return answer
    }

    private func take(_ hook: WritableKeyPath<Faults, (@Sendable () async -> Void)?>) -> (@Sendable () async -> Void)? {
        faults.withLock { faults in
            defer { faults[keyPath: hook] = nil }
            return faults[keyPath: hook]
        }
    }

    func change(_ room: RoomID, _ change: RoomChange, by device: DeviceKey) async throws(StoreError) -> RoomOutcome {
        if current.isFull { throw full }
        await take(\.beforeChange)?()
        let outcome = try await inner.change(room, change, by: device)
        let error = faults.withLock { faults in
            defer { faults.changeAnswer = nil }
            return faults.changeAnswer
        }
        if let error { throw error }
        return outcome
    }

    func members(of room: RoomID, in tenant: TenantID, for reader: UserID?, after: UserID?, limit: Int)
        async throws(StoreError) -> MemberList?
    {
        let error = faults.withLock { faults in
            defer { faults.members = nil }
            return faults.members
        }
        if let error { throw error }
        await take(\.beforeMembers)?()
        return try await inner.members(of: room, in: tenant, for: reader, after: after, limit: limit)
    }

    func advance(_ device: DeviceKey, to cursors: [ChannelPosition]) async throws(StoreError) -> CursorRecord {
        cursorWrites.withLock { $0 += 1 }
        if current.isFull && !cursors.isEmpty { throw full }
        if let error = current.cursors { throw error }
        return try await inner.advance(device, to: cursors)
    }

    func cursors(of device: DeviceKey) async throws(StoreError) -> CursorRecord {
        if let error = current.cursors { throw error }
        return try await inner.cursors(of: device)
    }

    func confirmed(by user: UserID, in channel: ChannelKey) async throws(StoreError) -> Position? {
        if let error = current.cursors { throw error }
        return try await inner.confirmed(by: user, in: channel)
    }

    func admit(_ device: DeviceKey, producer: ProducerID, connectNumber: UInt64) async throws(StoreError)
        -> ConnectAdmission
    {
        if current.isFull { throw full }
        return try await inner.admit(device, producer: producer, connectNumber: connectNumber)
    }

    func generations(of device: DeviceKey) async throws(StoreError) -> RevocationGenerations {
        try await inner.generations(of: device)
    }

    func revoke(user: UserID, in tenant: TenantID) async throws(StoreError) {
        if current.isFull { throw full }
        try await inner.revoke(user: user, in: tenant)
    }

    func revoke(device: DeviceKey) async throws(StoreError) {
        if current.isFull { throw full }
        try await inner.revoke(device: device)
    }

    func revoke(token: String, in tenant: TenantID, until: UInt64) async throws(StoreError) {
        if current.isFull { throw full }
        try await inner.revoke(token: token, in: tenant, until: until)
    }

    func place(of login: DeviceLogin, policy: DevicePolicy) async throws(StoreError) -> PlaceAnswer {
        try await inner.place(of: login, policy: policy)
    }

    func takePlace(of login: DeviceLogin, policy: DevicePolicy) async throws(StoreError) -> PlaceAnswer {
        if current.isFull { throw full }
        await take(\.beforePlace)?()
        return try await inner.takePlace(of: login, policy: policy)
    }

    func requestErasure(of user: UserID, in tenant: TenantID) async throws(StoreError) {
        if current.isFull { throw full }
        try await inner.requestErasure(of: user, in: tenant)
    }

    func pendingErasures(limit: Int) async throws(StoreError) -> [PendingErasure] {
        let answer = try await inner.pendingErasures(limit: limit)
        await take(\.afterPendingErasures)?()
        return answer
    }

    func isErasurePending(of user: UserID, in tenant: TenantID) async throws(StoreError) -> Bool {
        let answer = try await inner.isErasurePending(of: user, in: tenant)
        await take(\.afterErasurePending)?()
        return answer
    }

    func erase(user: UserID, in tenant: TenantID) async throws(StoreError) -> ErasureStep {
        erasureSteps.withLock { $0 += 1 }
        if current.isFull { throw full }
        if current.erasesForever { return ErasureStep(isDone: false, left: []) }
        return try await inner.erase(user: user, in: tenant)
    }

    func conversations(
        of user: UserID, in tenant: TenantID, after: ConversationPlace?, limit: Int, now: UInt64
    ) async throws(StoreError) -> ConversationList {
        if let error = current.reads { throw error }
        return try await inner.conversations(of: user, in: tenant, after: after, limit: limit, now: now)
    }

    func markRead(_ notes: [ReadNote]) async throws(StoreError) -> [ReadOutcome?] {
        let isFull = current.isFull
        marks.withLock { $0.append(notes.count) }
        if isFull { throw full }
        return try await inner.markRead(notes)
    }

    func receipts(for notes: [DeliveryNote]) async throws(StoreError) -> [DeliveryNote?] {
        try await inner.receipts(for: notes)
    }

    func set(
        _ setting: ConversationSetting, of conversation: ChannelID, for user: UserID, in tenant: TenantID
    ) async throws(StoreError) -> ConversationSettings? {
        if current.isFull { throw full }
        await take(\.beforeChange)?()
        return try await inner.set(setting, of: conversation, for: user, in: tenant)
    }

    func settings(
        of conversation: ChannelID, for user: UserID, in tenant: TenantID
    ) async throws(StoreError) -> ConversationSettings {
        try await inner.settings(of: conversation, for: user, in: tenant)
    }

    func outOfTouch(
        _ user: UserID, with others: [UserID], in tenant: TenantID
    ) async throws(StoreError) -> Set<UserID> {
        if let error = current.touch { throw error }
        await take(\.beforeTouch)?()
        return try await inner.outOfTouch(user, with: others, in: tenant)
    }

    func presence(of users: [UserID], in tenant: TenantID) async throws(StoreError) -> [UserID: PresenceRecord] {
        if let error = current.presence { throw error }
        return try await inner.presence(of: users, in: tenant)
    }

    func note(_ presence: [PresenceNote]) async throws(StoreError) {
        if current.isFull { throw full }
        notes.withLock { $0.append(presence) }
        try await inner.note(presence)
    }

    func isRevoked(token: String, in tenant: TenantID) async throws(StoreError) -> Bool {
        let answer = try await inner.isRevoked(token: token, in: tenant)
        let hook = faults.withLock { faults in
            defer { faults.afterRevocations = nil }
            return faults.afterRevocations
        }
        await hook?()
        return answer
    }
}
