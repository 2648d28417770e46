import LonglineWire

/// The rules of reading that need no writer.
enum StoreRules {
    static func members(of room: RoomID, in tenant: TenantID, _ tables: some StoreTables) throws -> [UserID] {
        guard let channel = try tables.channel(ChannelKey(tenant: tenant, channel: .room(room))) else { return [] }
        return try tables.members(of: channel)
    }

    /// The inbox, when it exists, and the rooms of the user's last stints.
    static func entitlements(of user: UserID, in tenant: TenantID, _ tables: some StoreTables) throws -> [Entitlement] {
        var result: [Entitlement] = []
        if let inbox = try tables.channel(ChannelKey(tenant: tenant, channel: .user(user))) {
            result.append(Entitlement(channel: inbox.key.channel, head: inbox.ends, after: 0, upTo: nil))
        }
        for (room, stint) in try tables.stints(of: user, in: tenant) {
            result.append(
                Entitlement(channel: room.key.channel, head: room.ends, after: stint.after, upTo: stint.left))
        }
        return result
    }

    static func generations(of device: DeviceKey, _ tables: some StoreTables) throws -> RevocationGenerations {
        RevocationGenerations(
            user: try tables.generation(of: device.user, device: nil, in: device.tenant),
            device: try tables.generation(of: device.user, device: device.device, in: device.tenant))
    }
}
