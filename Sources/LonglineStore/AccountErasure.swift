public import LonglineWire

/// Forgets what is kept of a user.
public protocol AccountErasure: Sendable {
    /// Resolves to erase a user, durably: from here on every credential issued so far is void, as by
    /// ``Revocations/revoke(user:in:)``, and the erasure is one of ``pendingErasures(limit:)`` until its last step.
    func requestErasure(of user: UserID, in tenant: TenantID) async throws(StoreError)

    /// Whether a user's erasure was resolved and did not come to its end. Who went by a list of ``pendingErasures(limit:)`` asks
    /// before the first step: an account that was erased meanwhile may be somebody's again.
    func isErasurePending(of user: UserID, in tenant: TenantID) async throws(StoreError) -> Bool

    /// Erasures that were resolved and did not come to their end: of a process that is gone, say.
    /// - Parameter limit: the most to name, 1 or more.
    func pendingErasures(limit: Int) async throws(StoreError) -> [PendingErasure]

    /// Takes one step, in one transaction, of at most ``StoreLimits/trimEntries`` rows, and of entries until there are
    /// ``StoreLimits/trimBytes`` of them: call again until ``ErasureStep/isDone``.
    ///
    /// What goes: the memberships (each room that the user is in gets a leave entry, whose device is `-`), the inbox with its
    /// log, the devices with their outboxes, ledgers, cursors and generations. What stays: messages that were sent to others,
    /// which are theirs, the user's generation, which voids what those of the devices did, and the revoked tokens: without these old
    /// credentials would be good again. A user of whom nothing is kept is done
    /// at once.
    ///
    /// A session of the user that still lives brings some of it back: shut the user out first.
    func erase(user: UserID, in tenant: TenantID) async throws(StoreError) -> ErasureStep
}

/// A user who is to be erased.
public struct PendingErasure: Hashable, Sendable {
    /// The user's tenant.
    public var tenant: TenantID
    /// The user.
    public var user: UserID

    /// An erasure.
    public init(tenant: TenantID, user: UserID) {
        self.tenant = tenant
        self.user = user
    }
}

/// What one step of an erasure did.
public struct ErasureStep: Hashable, Sendable {
    /// Whether nothing is left.
    public var isDone: Bool
    /// The leave entries that were made, for whoever listens to the rooms.
    public var left: [ChannelPosition]

    /// A step.
    public init(isDone: Bool, left: [ChannelPosition]) {
        self.isDone = isDone
        self.left = left
    }
}
