import LonglineStore
import LonglineWire

/// Erasures of accounts.
extension SimulatedStore {
    /// What one step did.
    struct Step {
        var isDone: Bool
        /// Rooms that the user left by it.
        var rooms: Set<ChannelID>
    }

    /// What a leave names for a device that none made.
    private static let noDevice = try? DeviceID("-")

    /// Users whose account is to be erased.
    var erasing: [UserID] {
        real.pendingErasures.filter { $0.tenant == tenant }.map(\.user).sorted { $0.description < $1.description }
    }

    func isErasing(_ user: UserID) -> Bool {
        real.pendingErasures.contains(PendingErasure(tenant: tenant, user: user))
    }

    func generation(of user: UserID) -> UInt64 { real.generation(of: user, in: tenant) }

    func requestErasure(of user: UserID) {
        do { try real.requestErasure(of: user, in: tenant) } catch { violation("\(user) can't be erased: \(error)") }
        erasedUsers.insert(user)
        erasureResolved(user)
    }

    func revoke(_ user: UserID) {
        do { try real.revoke(user: user, in: tenant) } catch { violation("\(user) can't be revoked: \(error)") }
    }

    /// Takes one step of an erasure, and writes down what it did.
    /// - Parameter devices: all names that the user may have published or connected under.
    func erase(_ user: UserID, devices: [DeviceID]) -> Step {
        guard var step = try? real.erase(user: user, in: tenant), let nobody = Self.noDevice else {
            violation("\(user)'s erasure failed")
            return Step(isDone: true, rooms: [])
        }
        truth.partlyErased.insert(user)
        if faults.contains(.hideErasedLeave) { step.left = Array(step.left.dropFirst()) }
        for place in step.left { recordLeave(of: user, nobody, place) }
        for room in truth.rooms.keys where truth.isMember(user, of: room) {
            violation("\(user) is erased, and stays a member of \(room)")
        }
        let inbox = ChannelID.user(user)
        if let ends = real.ends(of: key(inbox)) { truth.logs[inbox]?.first = ends.first }
        for other in truth.blocks[user] ?? [] where !isReallyBlocking(user, other) {
            truth.blocks[user]?.remove(other)
        }
        truth.forgetStays(of: user)
        if step.isDone {
            truth.partlyErased.remove(user)
            leaveBehind(of: user, devices)
            checkErased(user, devices)
        }
        return Step(isDone: step.isDone, rooms: Set(step.left.map(\.channel)))
    }

    private func recordLeave(of user: UserID, _ nobody: DeviceID, _ place: ChannelPosition) {
        let room = truth.rooms[place.channel]
        // The oldest member becomes an owner by the next entry, where the user was the only one.
        let handsOver = room?.owners == [user] && room?.members.count ?? 0 > 1
        var leave = place.position
        if handsOver { leave.offset -= 1 }
        record(
            .leave, RoomReceipt(position: leave, head: place.position, isNew: true, user: user), user, nobody,
            in: place.channel)
    }

    private func isReallyBlocking(_ user: UserID, _ other: UserID) -> Bool {
        (try? real.settings(of: .user(other), for: user, in: tenant))?.isBlocked ?? false
    }

    /// For rules that are broken: what an erasure forgot.
    private func leaveBehind(of user: UserID, _ devices: [DeviceID]) {
        if faults.contains(.keepErasedInbox) { _ = head(.user(user)) }
        guard faults.contains(.keepErasedDevice), let device = devices.last else { return }
        _ = try? real.admit(key(user, device), producer: ProducerID(high: 0, low: 0), connectNumber: 1)
    }

    /// Nothing is left of what goes; outboxes, ledgers and cursors hang on their device.
    private func checkErased(_ user: UserID, _ devices: [DeviceID]) {
        if real.ends(of: key(.user(user))) != nil { violation("the inbox of \(user), who was erased, is there") }
        for device in devices where real.knows(key(user, device)) {
            violation("\(device) of \(user), who was erased, is there")
        }
        truth.forget(user, devices)
        accountErased(user)
    }
}
