public import LonglineWire

/// What is kept of users' presence: when they were last seen, and what of it they show. One row a user.
public protocol PresenceRecords: Sendable {
    /// What is kept of users; those of whom nothing is have no place in the answer.
    func presence(of users: [UserID], in tenant: TenantID) async throws(StoreError) -> [UserID: PresenceRecord]

    /// Takes notes down, in one transaction: gather them, they are worth none of their own. When a user was last seen only
    /// grows.
    func note(_ presence: [PresenceNote]) async throws(StoreError)
}

/// What is kept of one user's presence.
public struct PresenceRecord: Hashable, Sendable {
    /// When a device of the user was last in the foreground, in milliseconds since 1970; 0 when that is not known.
    public var lastSeen: UInt64
    /// What others see.
    public var visibility: PresenceVisibility

    /// A record.
    public init(lastSeen: UInt64 = 0, visibility: PresenceVisibility = .everything) {
        self.lastSeen = lastSeen
        self.visibility = visibility
    }
}

/// News of one user's presence. What is nil stays as it is.
public struct PresenceNote: Hashable, Sendable {
    /// The user's tenant.
    public var tenant: TenantID
    /// The user.
    public var user: UserID
    /// When the user was seen, in milliseconds since 1970.
    public var lastSeen: UInt64?
    /// What others see from now on.
    public var visibility: PresenceVisibility?

    /// A note.
    public init(tenant: TenantID, user: UserID, lastSeen: UInt64? = nil, visibility: PresenceVisibility? = nil) {
        self.tenant = tenant
        self.user = user
        self.lastSeen = lastSeen
        self.visibility = visibility
    }
}

extension StoreLogic {
    func note(_ note: PresenceNote) throws {
        var record = try tables.presence(of: note.user, in: note.tenant) ?? PresenceRecord()
        if let seen = note.lastSeen { record.lastSeen = max(record.lastSeen, seen) }
        if let visibility = note.visibility { record.visibility = visibility }
        try tables.set(record, of: note.user, in: note.tenant)
    }
}

extension StoreRules {
    static func presence(
        of users: [UserID], in tenant: TenantID, _ tables: some StoreTables
    ) throws -> [UserID: PresenceRecord] {
        var records: [UserID: PresenceRecord] = [:]
        for user in users { records[user] = try tables.presence(of: user, in: tenant) }
        return records
    }
}
