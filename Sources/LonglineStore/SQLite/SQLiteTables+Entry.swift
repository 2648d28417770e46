import Foundation
import GRDB
import LonglineWire
import NIOCore

extension SQLiteTables {
    /// An entry out of a row, its columns in the order of ``read(_:into:)``.
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
            publishID: row[7], recipient: try recipient.map { try UserID($0) }, origin: origin, time: row[11],
            expiry: row[12], payload: payload)
    }
}
