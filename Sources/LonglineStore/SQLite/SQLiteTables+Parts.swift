import Foundation
import GRDB
import LonglineWire
import NIOCore

/// What of a payload is too large for its entry's row. It is kept once, also where a copy of a direct message shares it, and
/// goes with the last entry that names it.
extension SQLiteTables {
    /// Bytes of a row: several frames are sent out of one, and none has to be read twice.
    private static let partBytes = 4 * FrameLimits.maximumPayload

    func addParts(of entry: Entry) throws {
        var rest = entry.payload
        rest.moveReaderIndex(forwardBy: headBytes)
        var start = headBytes
        let statement = try BoundStatement(db, "INSERT INTO parts (payload, start, data) VALUES (?, ?, ?)")
        while let part = rest.readSlice(length: min(Self.partBytes, rest.readableBytes)), part.readableBytes > 0 {
            try statement.run { values in
                values.add(entry.offset)
                values.add(UInt64(start))
                values.add(part)
            }
            start += part.readableBytes
        }
    }

    func payload(of offset: Offset, in channel: ChannelRecord, from: UInt64, maximumBytes: Int) throws -> ByteBuffer? {
        guard let offset = Int64(exactly: offset), let from = Int64(exactly: from),
            let entry = try row(
                """
                SELECT coalesce(origin_offset, offset), length(payload), following FROM entries
                WHERE offset = ? AND channel = ?
                """, [offset, channel.id])
        else { return nil }
        let head: Int64 = entry[1]
        let wanted = max(maximumBytes, 1)
        if from < head {
            let sql = "SELECT substr(payload, ?, ?) FROM entries WHERE offset = ?"
            return try row(sql, [from + 1, min(Int64(wanted), head - from), offset]).map { try Self.bytes($0, 0) }
        }
        // An erased record has nothing, though its copy may keep the parts.
        guard entry[2] as Int64 > 0 else { return nil }
        let part = try row(
            "SELECT start, data FROM parts WHERE payload = ? AND start <= ? ORDER BY start DESC LIMIT 1",
            [entry[0] as Int64, from])
        guard let part else { return nil }
        var bytes = try Self.bytes(part, 1)
        let skipped = Int(from - (part[0] as Int64))
        guard skipped < bytes.readableBytes else { return nil }
        bytes.moveReaderIndex(forwardBy: skipped)
        return bytes.readSlice(length: min(wanted, bytes.readableBytes))
    }

    private static func bytes(_ row: Row, _ index: Int) throws -> ByteBuffer {
        try row.withUnsafeData(atIndex: index) { data in data.map { ByteBuffer(bytes: $0) } ?? ByteBuffer() }
    }

    /// The payloads in parts of entries that are about to go.
    func largePayloads(in channel: ChannelRecord, through offset: Offset) throws -> [Int64] {
        try rows(
            """
            SELECT coalesce(origin_offset, offset) FROM entries
            WHERE channel = ? AND following > 0 AND offset <= ?
            """, [channel.id, Int64(clamping: offset)]
        ).map { $0[0] }
    }

    /// The payload in parts of an entry that is about to be erased: one or none.
    func largePayload(of offset: Offset, in channel: ChannelRecord) throws -> [Int64] {
        try rows(
            "SELECT coalesce(origin_offset, offset) FROM entries WHERE offset = ? AND channel = ? AND following > 0",
            [Int64(clamping: offset), channel.id]
        ).map { $0[0] }
    }

    /// Removes those that no entry names any more: an erased one keeps its row, and names none.
    func removeParts(_ payloads: [Int64]) throws {
        for payload in payloads {
            try run(
                """
                DELETE FROM parts WHERE payload = ?1
                    AND NOT EXISTS (SELECT 1 FROM entries WHERE offset = ?1 AND following > 0)
                    AND NOT EXISTS (SELECT 1 FROM entries WHERE origin_offset = ?1 AND following > 0)
                """, [payload])
        }
    }
}
