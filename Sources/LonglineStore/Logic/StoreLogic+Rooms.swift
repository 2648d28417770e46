import LonglineWire
import NIOCore

/// Rooms: membership is what the join and leave entries of the room's log say.
extension StoreLogic {
    mutating func join(_ room: RoomID, by device: DeviceKey, create: Bool) throws(any Error) -> Position? {
        let key = ChannelKey(tenant: device.tenant, channel: .room(room))
        let known = try tables.channel(key)
        guard known != nil || create else { return nil }
        if let known, let stint = try tables.stint(of: device.user, in: known), stint.left == nil {
            return Position(epoch: known.epoch, offset: stint.joined)
        }
        if let known, known.members >= limits.roomMembers {
            throw StoreError(.limitExceeded, message: "room \(room) has \(known.members) members, the most it may have")
        }
        try makeRoomForStint(of: device.user, in: known, tenant: device.tenant)
        var channel: ChannelRecord
        if let known { channel = known } else { channel = try tables.addChannel(key, epoch: drawEpoch()) }
        channel.members += 1
        let entry = try enter(Self.membership(.joined, of: device), in: &channel, now: clock())
        try tables.set(Stint(after: entry.previous, joined: entry.offset), of: device.user, in: channel)
        return Position(epoch: channel.epoch, offset: entry.offset)
    }

    mutating func leave(_ room: RoomID, by device: DeviceKey) throws -> Position? {
        guard var channel = try tables.channel(ChannelKey(tenant: device.tenant, channel: .room(room))),
            var stint = try tables.stint(of: device.user, in: channel), stint.left == nil
        else { return nil }
        precondition(channel.members > 0, "who leaves was a member")
        channel.members -= 1
        let entry = try enter(Self.membership(.left, of: device), in: &channel, now: clock())
        stint.left = entry.offset
        try tables.set(stint, of: device.user, in: channel)
        return Position(epoch: channel.epoch, offset: entry.offset)
    }

    /// Makes sure that the user may be in one more room: the room left longest ago gives way.
    private func makeRoomForStint(of user: UserID, in room: ChannelRecord?, tenant: TenantID) throws {
        if let room, try tables.stint(of: user, in: room) != nil { return }
        let stints = try tables.stints(of: user, in: tenant)
        guard stints.count >= limits.roomsPerUser else { return }
        let ended = stints.filter { $0.stint.left != nil }
        guard let oldest = ended.min(by: { ($0.stint.left ?? 0) < ($1.stint.left ?? 0) }) else {
            throw StoreError(
                .limitExceeded, message: "user \(user) is in \(stints.count) rooms, the most one may be in")
        }
        try tables.removeStint(of: user, in: oldest.room)
    }

    private static func membership(_ kind: EntryKind, of device: DeviceKey) -> Entry {
        Entry(
            offset: 0, previous: 0, kind: kind, sender: device.user, device: device.device,
            producer: ProducerID(high: 0, low: 0), publishID: 0, recipient: nil, origin: nil, time: 0, expiry: 0,
            payload: ByteBuffer())
    }
}
