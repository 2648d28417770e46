import Foundation
import GRDB
import LonglineWire
import NIOCore

extension SQLiteTables {
    private static let entryColumns = """
        offset, previous, kind, sender, device, producer_high, producer_low, publish_id, recipient, origin_epoch,
        origin_offset, time, expiry, payload, target, following
        """

    func entries(
        in channel: ChannelRecord, above: Offset, through: Offset, downward: Bool, _ take: (Entry) -> Bool
    ) throws {
        let statement = try db.cachedStatement(
            sql: """
                SELECT \(Self.entryColumns) FROM entries
                WHERE channel = ? AND offset > ? AND offset <= ? ORDER BY offset \(downward ? "DESC" : "ASC")
                """)
        let rows = try Row.fetchCursor(
            statement, arguments: [channel.id, Int64(clamping: above), Int64(clamping: through)])
        while let row = try rows.next() {
            guard take(try Self.entry(row)) else { break }
        }
    }

    func entry(at offset: Offset, in channel: ChannelRecord) throws -> Entry? {
        try row(
            "SELECT \(Self.entryColumns) FROM entries WHERE offset = ? AND channel = ?",
            [Int64(clamping: offset), channel.id]
        ).map { try Self.entry($0) }
    }

    func edits(of offset: Offset, in channel: ChannelRecord, limit: Int) throws -> [EntrySummary] {
        // A bound kind would not be known to be that of the index `edits_by_target`.
        try rows(
            """
            SELECT offset, time, length(payload) + following FROM entries
            WHERE channel = ? AND target = ? AND kind = \(EntryKind.edited.rawValue) ORDER BY offset LIMIT ?
            """, [channel.id, Int64(offset), limit]
        ).map { EntrySummary(offset: $0[0], time: $0[1], bytes: $0[2]) }
    }

    func withholdCopy(of record: Offset) throws {
        try run("UPDATE entries SET withheld = 1 WHERE offset = ?", [Int64(record)])
    }

    func isCopyWithheld(of record: Offset) throws -> Bool {
        try row("SELECT withheld FROM entries WHERE offset = ?", [Int64(clamping: record)]).map { $0[0] as Bool }
            ?? false
    }

    func erase(_ offset: Offset, in channel: ChannelRecord) throws {
        let large = try largePayload(of: offset, in: channel)
        try run(
            "UPDATE entries SET kind = ?, target = NULL, payload = x'', following = 0 WHERE offset = ? AND channel = ?",
            [Int64(EntryKind.retracted.rawValue), Int64(offset), channel.id])
        try removeParts(large)
        erased(offset, in: channel.key)
    }

    func channels(above mark: Int64, limit: Int) throws -> [(id: Int64, summary: ChannelSummary)] {
        // The oldest entry is the first of its channel in the index.
        try rows(
            """
            SELECT id, tenant, name, entries, bytes,
                (SELECT min(time, coalesce((SELECT clock.time FROM clock WHERE clock.offset >= entries.offset
                        ORDER BY clock.offset LIMIT 1), time))
                    FROM entries WHERE channel = channels.id ORDER BY offset LIMIT 1)
            FROM channels WHERE id > ? ORDER BY id LIMIT ?
            """, [mark, limit]
        ).map { row in
            let key = ChannelKey(tenant: try TenantID(row[1] as String), channel: try ChannelID(row[2] as String))
            return (row[0], ChannelSummary(key: key, entries: row[3], bytes: row[4], oldest: row[5]))
        }
    }

    func clockMark(from offset: Offset) throws -> UInt64? {
        try row("SELECT time FROM clock WHERE offset >= ? ORDER BY offset LIMIT 1", [Int64(offset)]).map { $0[0] }
    }

    func lastClockMark() throws -> UInt64? {
        try row("SELECT time FROM clock ORDER BY offset DESC LIMIT 1", []).map { $0[0] }
    }

    func markClock(_ time: UInt64) throws {
        try run("DELETE FROM clock WHERE time >= ?", [Int64(clamping: time)])
        let offset = try Int64(lastOffset())
        try run("INSERT OR IGNORE INTO clock (offset, time) VALUES (?, ?)", [offset, Int64(clamping: time)])
        guard let count = try row("SELECT count(*) FROM clock", []), count[0] as Int > ClockMark.most else { return }
        try run(
            """
            DELETE FROM clock WHERE offset IN (SELECT offset FROM
                (SELECT offset, row_number() OVER (ORDER BY offset DESC) AS place FROM clock) WHERE place % 2 = 0)
            """, [])
    }

    /// An entry out of a row, its columns in the order of ``entryColumns``.
    /// - Throws: ``StoreError`` or ``/LonglineWire/IdentifierError`` when the row was not written by a store.
    static func entry(_ row: Row) throws -> Entry {
        guard let kind = EntryKind(rawValue: row[2]) else {
            throw StoreError(.unavailable, message: "entry \(row[0] as Int64) has an unknown kind")
        }
        var origin: Position?
        if let epoch: Int64 = row[9], let offset: Offset = row[10] {
            origin = Position(epoch: Epoch(bitPattern: epoch), offset: offset)
        }
        let recipient: String? = row[8]
        let payload = try row.withUnsafeData(atIndex: 13) { data in
            data.map { bytes in ByteBuffer(bytes: bytes) } ?? ByteBuffer()
        }
        return Entry(
            offset: row[0], previous: row[1], kind: kind, sender: try UserID(row[3] as String),
            device: try DeviceID(row[4] as String),
            producer: ProducerID(high: UInt64(bitPattern: row[5]), low: UInt64(bitPattern: row[6])),
            publishID: row[7], recipient: try recipient.map { try UserID($0) }, origin: origin, target: row[14],
            time: row[11], expiry: row[12], payload: payload, following: row[15])
    }
}
