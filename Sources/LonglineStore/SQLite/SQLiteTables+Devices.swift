import GRDB
import LonglineWire

/// Devices, cursors and revocations.
extension SQLiteTables {
    func device(_ key: DeviceKey) throws -> DeviceRecord? {
        if let known = devices[key] { return known }
        let row = try row(
            "SELECT id, seen, cursor_version, producers, \"begin\" FROM devices WHERE tenant = ? AND user = ? AND device = ?",
            [key.tenant.description, key.user.description, key.device.description])
        guard let row else { return nil }
        let record = DeviceRecord(
            id: row[0], key: key, seen: row[1], cursorVersion: row[2], producers: row[3], begin: row[4])
        devices[key] = record
        return record
    }

    func addDevice(_ key: DeviceKey, seen: UInt64, begin: Offset) throws -> DeviceRecord {
        try run(
            "INSERT INTO devices (tenant, user, device, seen, \"begin\") VALUES (?, ?, ?, ?, ?)",
            [key.tenant.description, key.user.description, key.device.description, Int64(seen), Int64(begin)])
        let record = DeviceRecord(id: db.lastInsertedRowID, key: key, seen: seen, begin: begin)
        devices[key] = record
        return record
    }

    func update(_ device: DeviceRecord) throws {
        try run(
            "UPDATE devices SET seen = ?, cursor_version = ?, producers = ? WHERE id = ?",
            [Int64(device.seen), Int64(device.cursorVersion), device.producers, device.id])
        devices[device.key] = device
    }

    func producer(_ producer: ProducerID, of device: DeviceRecord) throws -> ProducerRecord? {
        let key = ProducerKey(device: device.id, producer: producer)
        if let known = producers[key] { return known }
        let row = try row(
            "SELECT id, seen, connect_number FROM producers WHERE device = ? AND high = ? AND low = ?",
            [device.id, Int64(bitPattern: producer.high), Int64(bitPattern: producer.low)])
        guard let row else { return nil }
        let record = ProducerRecord(id: row[0], seen: row[1], connectNumber: UInt64(bitPattern: row[2]))
        producers[key] = record
        return record
    }

    func addProducer(_ producer: ProducerID, of device: DeviceRecord, seen: UInt64) throws -> ProducerRecord {
        try run(
            "INSERT INTO producers (device, high, low, seen) VALUES (?, ?, ?, ?)",
            [device.id, Int64(bitPattern: producer.high), Int64(bitPattern: producer.low), Int64(seen)])
        let record = ProducerRecord(id: db.lastInsertedRowID, seen: seen)
        producers[ProducerKey(device: device.id, producer: producer)] = record
        return record
    }

    func update(_ producer: ProducerRecord, _ id: ProducerID, of device: DeviceRecord) throws {
        try run(
            "UPDATE producers SET seen = ?, connect_number = ? WHERE id = ?",
            [Int64(producer.seen), Int64(bitPattern: producer.connectNumber), producer.id])
        producers[ProducerKey(device: device.id, producer: id)] = producer
    }

    /// A name in the tables was checked when it was written; one that isn't valid means damaged files.
    static func key(_ name: String, _ tenant: TenantID) throws -> ChannelKey {
        ChannelKey(tenant: tenant, channel: try ChannelID(name))
    }

    // MARK: Cursors

    func cursors(of device: DeviceRecord) throws -> [(channel: ChannelRecord, position: Position)] {
        try flush()
        return try rows(
            """
            SELECT \(Self.channelColumns.replacing("epoch", with: "channels.epoch")), name, cursors.epoch, offset
            FROM cursors JOIN channels ON channels.id = cursors.channel WHERE device = ?
            """, [device.id]
        ).map { row in
            (
                try Self.channel(row, try Self.key(row[Self.channelColumnCount], device.key.tenant)),
                Position(
                    epoch: Epoch(bitPattern: row[Self.channelColumnCount + 1]), offset: row[Self.channelColumnCount + 2]
                )
            )
        }
    }

    func cursor(of device: DeviceRecord, in channel: ChannelRecord) throws -> Position? {
        try row("SELECT epoch, offset FROM cursors WHERE device = ? AND channel = ?", [device.id, channel.id])
            .map { Position(epoch: Epoch(bitPattern: $0[0]), offset: $0[1]) }
    }

    func set(_ cursor: Position, of device: DeviceRecord, in channel: ChannelRecord) throws {
        try run(
            "INSERT OR REPLACE INTO cursors (device, channel, epoch, offset) VALUES (?, ?, ?, ?)",
            [device.id, channel.id, Int64(bitPattern: cursor.epoch), Int64(cursor.offset)])
    }

    func removeCursors(of user: UserID, in channel: ChannelRecord) throws {
        try run(
            "DELETE FROM cursors WHERE channel = ? AND device IN (SELECT id FROM devices WHERE tenant = ? AND user = ?)",
            [channel.id, channel.key.tenant.description, user.description])
    }

    // MARK: Revocations

    func generation(of user: UserID, device: DeviceID?, in tenant: TenantID) throws -> UInt64 {
        try row(
            "SELECT generation FROM generations WHERE tenant = ? AND user = ? AND device = ?",
            [tenant.description, user.description, device?.description ?? ""])?[0] ?? 0
    }

    func set(generation: UInt64, of user: UserID, device: DeviceID?, in tenant: TenantID) throws {
        try run(
            "INSERT OR REPLACE INTO generations (tenant, user, device, generation) VALUES (?, ?, ?, ?)",
            [tenant.description, user.description, device?.description ?? "", Int64(generation)])
    }

    func removeDeviceGenerations(of user: UserID, in tenant: TenantID, limit: Int) throws -> Int {
        try run(
            """
            DELETE FROM generations WHERE tenant = ?1 AND user = ?2 AND device IN
                (SELECT device FROM generations WHERE tenant = ?1 AND user = ?2 AND device > '' LIMIT ?3)
            """, [tenant.description, user.description, limit])
        return db.changesCount
    }

    func revocation(of token: String, in tenant: TenantID) throws -> UInt64? {
        try row("SELECT until FROM revoked_tokens WHERE tenant = ? AND token = ?", [tenant.description, token])?[0]
    }

    func revoke(token: String, in tenant: TenantID, until: UInt64) throws {
        try run(
            "INSERT OR REPLACE INTO revoked_tokens (tenant, token, until) VALUES (?, ?, ?)",
            [tenant.description, token, Int64(clamping: until)])
    }

    // MARK: Places

    func places(of user: UserID, in tenant: TenantID) throws -> [PlaceRecord] {
        try rows(
            "SELECT platform, device, login FROM places WHERE tenant = ? AND user = ? ORDER BY platform",
            [tenant.description, user.description]
        ).map { row in
            PlaceRecord(
                platform: try DevicePlatform(row[0] as String), device: try DeviceID(row[1] as String),
                login: UInt64(bitPattern: row[2]))
        }
    }

    func set(_ place: PlaceRecord, of user: UserID, in tenant: TenantID) throws {
        try run(
            "INSERT OR REPLACE INTO places (tenant, user, platform, device, login) VALUES (?, ?, ?, ?, ?)",
            [
                tenant.description, user.description, place.platform.description, place.device.description,
                Int64(bitPattern: place.login),
            ])
    }

    func removePlaces(of user: UserID, in tenant: TenantID) throws {
        try run("DELETE FROM places WHERE tenant = ? AND user = ?", [tenant.description, user.description])
    }

    // MARK: Erasures

    func addErasure(_ erasure: PendingErasure) throws {
        try run(
            "INSERT OR IGNORE INTO erasures (tenant, user) VALUES (?, ?)",
            [erasure.tenant.description, erasure.user.description])
    }

    func removeErasure(_ erasure: PendingErasure) throws {
        try run(
            "DELETE FROM erasures WHERE tenant = ? AND user = ?",
            [erasure.tenant.description, erasure.user.description])
    }

    func erasures(limit: Int) throws -> [PendingErasure] {
        try rows("SELECT tenant, user FROM erasures LIMIT ?", [limit]).map { row in
            PendingErasure(tenant: try TenantID(row[0] as String), user: try UserID(row[1] as String))
        }
    }

    func hasErasure(_ erasure: PendingErasure) throws -> Bool {
        try rows(
            "SELECT 1 FROM erasures WHERE tenant = ? AND user = ?",
            [erasure.tenant.description, erasure.user.description]
        ).first != nil
    }

    // MARK: Reading

    /// Fills a page with the channel's entries, row by row: nothing beyond the page is read.
    func read(_ channel: ChannelRecord, into page: inout PageBuilder) throws {
        guard page.start < page.limit else { return }
        try entries(in: channel, above: page.start, through: page.limit, downward: false) { page.take($0) }
    }
}
