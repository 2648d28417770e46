import LonglineWire

/// What changed in memory and is not on disk yet. Later values replace earlier ones, so a batch is as small as the
/// difference it makes.
struct PendingWrites: Sendable {
    /// A new producer: everything of the outbox is written again.
    var producer: ProducerID?
    var inserts: [PublishID] = []
    var removes: [PublishID] = []
    /// Rows that may leave the device once this is written.
    var attempts: [PublishID] = []
    var outcomes: [StoredOutcome] = []
    /// Messages of other processes whose rows are among ``inserts``, or that ended in a batch that failed.
    var adopted: [SendID] = []
    var rechains: [PublishID: PublishID] = [:]
    var chains: Set<ChannelID> = []
    var connectNumber: UInt64?
    var cursors: [ChannelID: Position] = [:]
    /// None of which is among ``cursors``.
    var forgottenCursors: Set<ChannelID> = []
    /// None of which is older than the same room's place among ``forgottenCursors``.
    var endedStays: [ChannelID: StoredStay?] = [:]
    var cursorVersion: UInt64?
    var user: UserID?
    var device: DeviceID?
    /// The outer optional: whether it changed.
    var resumeTicket: StoredSecret??
    var transportTickets: [String: StoredSecret?] = [:]
    var addressTokens: [String: [UInt8]?] = [:]
    var networks: [String: StoredNetwork] = [:]
    /// The outer optional: whether it changed.
    var access: StoredAccess??
    var controlRoutes: [StoredControlRoute]?

    var isEmpty: Bool {
        producer == nil && inserts.isEmpty && removes.isEmpty && attempts.isEmpty && outcomes.isEmpty
            && rechains.isEmpty && chains.isEmpty
            && connectNumber == nil && cursors.isEmpty && forgottenCursors.isEmpty && cursorVersion == nil
            && endedStays.isEmpty
            && user == nil && device == nil && resumeTicket == nil
            && transportTickets.isEmpty && addressTokens.isEmpty && networks.isEmpty
            && access == nil && controlRoutes == nil
    }

    /// The batch, with the outbox as it is now.
    func changes(outbox: Outbox) -> [StorageChange] {
        var changes: [StorageChange] = []
        if let producer {
            changes.append(.producer(producer))
            changes += adopted.map { .adopted($0) }
            changes += outbox.inOrder.map { .insert($0) }
            changes += outbox.chains.map { .chain($0, $1) }
            changes.append(.lastID(outbox.lastID))
        } else {
            // Rows that were given up between their insert and this batch are not there any more.
            changes += adopted.map { .adopted($0) }
            changes += inserts.compactMap { outbox.rows[$0] }.map { .insert($0) }
            if !inserts.isEmpty { changes.append(.lastID(outbox.lastID)) }
            changes += removes.map { .remove($0) }
            changes += attempts.map { .attempted($0) }
            changes += rechains.sorted { $0.key < $1.key }.map { .rechain($0, after: $1) }
            changes += chains.compactMap { channel in outbox.chains[channel].map { .chain(channel, $0) } }
        }
        changes += outcomes.map { .outcome($0) }
        if let connectNumber { changes.append(.connectNumber(connectNumber)) }
        changes += cursors.map { .cursor($0, $1) }
        // A stay that ended since is another one than what is forgotten with it.
        changes += forgottenCursors.map { .forgetCursor($0) }
        changes += endedStays.map { .endedStay($0, $1) }
        if let cursorVersion { changes.append(.cursorVersion(cursorVersion)) }
        if let user { changes.append(.user(user)) }
        if let device { changes.append(.device(device)) }
        if let resumeTicket { changes.append(.resumeTicket(resumeTicket)) }
        changes += transportTickets.map { .transportTicket($0, $1) }
        changes += addressTokens.map { .addressToken($0, $1) }
        changes += networks.values.map { .network($0) }
        if let access { changes.append(.access(access)) }
        if let controlRoutes { changes.append(.controlRoutes(controlRoutes)) }
        return changes
    }

    /// Puts a batch that failed back under what came since. Its inserts were told to the app as failed, so they go; but for messages of
    /// other processes that ended in it, which nobody takes from where they wait any more.
    mutating func restore(_ failed: PendingWrites) {
        var restored = failed
        restored.inserts = []
        let ended = Set(failed.outcomes.map(\.send))
        restored.adopted = failed.adopted.filter { ended.contains($0) }
        if let producer {
            // A newer producer begins from nothing and writes every row again.
            restored.producer = producer
            restored.removes = []
            restored.attempts = []
            restored.rechains = [:]
            restored.chains = []
            restored.connectNumber = nil
        }
        restored.inserts += inserts
        restored.adopted += adopted
        restored.removes += removes
        restored.attempts += attempts
        restored.outcomes += outcomes
        restored.rechains.merge(rechains) { $1 }
        restored.chains.formUnion(chains)
        restored.connectNumber = connectNumber ?? restored.connectNumber
        restored.cursors.merge(cursors) { $1 }
        for channel in forgottenCursors {
            restored.cursors[channel] = nil
            restored.endedStays.removeValue(forKey: channel)
        }
        restored.forgottenCursors.subtract(cursors.keys)
        restored.forgottenCursors.formUnion(forgottenCursors)
        restored.endedStays.merge(endedStays) { $1 }
        restored.cursorVersion = cursorVersion ?? restored.cursorVersion
        restored.user = user ?? restored.user
        restored.device = device ?? restored.device
        restored.resumeTicket = resumeTicket ?? restored.resumeTicket
        restored.transportTickets.merge(transportTickets) { $1 }
        restored.addressTokens.merge(addressTokens) { $1 }
        restored.networks.merge(networks) { $1 }
        restored.access = access ?? restored.access
        restored.controlRoutes = controlRoutes ?? restored.controlRoutes
        self = restored
    }
}
