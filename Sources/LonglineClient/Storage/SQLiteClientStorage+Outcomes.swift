import Foundation
import GRDB
import LonglineWire

/// How finished messages are laid out.
extension SQLiteClientStorage {
    private enum Ending {
        static let acknowledged = 0
        static let refused = 1
        static let cancelled = 2
    }

    static func bytes(_ send: SendID) -> Data {
        Data(
            [send.high, send.low].flatMap { half in (0..<8).map { UInt8(truncatingIfNeeded: half >> (56 - 8 * $0)) } })
    }

    /// A name that is none can be nobody's: it is read as another one.
    static func send(_ bytes: Data?) -> SendID {
        func half(_ part: Data.SubSequence) -> UInt64 { part.reduce(0) { $0 << 8 | UInt64($1) } }
        let bytes = bytes ?? Data()
        return SendID(high: half(bytes.prefix(8)), low: half(bytes.dropFirst(8).prefix(8)))
    }

    static func keep(_ outcome: StoredOutcome, in database: Database) throws {
        var state = Ending.cancelled
        var code: RefusalCode?
        var published: Published?
        switch outcome.state {
        case .acknowledged(let answer): (state, published) = (Ending.acknowledged, answer)
        case .refused(let refusal): (state, code) = (Ending.refused, refusal)
        case .expired: (state, code) = (Ending.refused, .expired)
        case .outcomeUnknown: (state, code) = (Ending.refused, .outcomeUnknown)
        case .cancelled: break
        case .queued, .sent:
            assertionFailure("an outcome is final")
            return
        }
        try database.execute(
            sql: """
                INSERT INTO outcome (send, channel, recipient, queued_at, state, code, publish_id, epoch, offset, time)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                """,
            arguments: [
                bytes(outcome.send), outcome.channel.description, outcome.recipient?.description,
                bits(outcome.queuedAt), state, code.map { Int64($0.rawValue) }, published.map { bits($0.id) },
                published.map { bits($0.position.epoch) }, published.map { bits($0.position.offset) },
                published.map { bits($0.time) },
            ])
        try database.execute(
            sql: "DELETE FROM outcome WHERE seq <= ?",
            arguments: [database.lastInsertedRowID - Int64(StoredOutcome.limit)])
    }

    static func readOutcomes(_ database: Database) throws -> [StoredOutcome] {
        try Row.fetchAll(
            database,
            sql: """
                SELECT send, channel, recipient, queued_at, state, code, publish_id, epoch, offset, time
                FROM outcome ORDER BY seq
                """
        ).map(outcome)
    }

    /// How one message ended, if that is remembered.
    static func outcome(of name: SendID, _ database: Database) throws -> StoredOutcome? {
        try Row.fetchOne(
            database,
            sql: """
                SELECT send, channel, recipient, queued_at, state, code, publish_id, epoch, offset, time
                FROM outcome WHERE send = ? ORDER BY seq DESC
                """, arguments: [bytes(name)]
        ).map(outcome)
    }

    private static func outcome(_ row: Row) throws -> StoredOutcome {
        StoredOutcome(
            send: send(row[0]), channel: try channel(row[1]), recipient: try (row[2] as String?).map { try UserID($0) },
            queuedAt: number(row[3]), state: ending(row))
    }

    private static func ending(_ row: Row) -> SendState {
        let state: Int = row[4]
        switch state {
        case Ending.acknowledged:
            let position = Position(epoch: number(row[7] ?? 0), offset: number(row[8] ?? 0))
            return .acknowledged(Published(id: number(row[6] ?? 0), position: position, time: number(row[9] ?? 0)))
        case Ending.refused: return SendState(refusal: RefusalCode(rawValue: UInt32(clamping: row[5] ?? Int64(0))))
        default: return .cancelled
        }
    }
}
