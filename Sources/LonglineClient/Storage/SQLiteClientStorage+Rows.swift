import Foundation
import GRDB
import LonglineWire
import NIOCore

/// How the state is laid out in tables. 64-bit numbers are stored by their bits, since SQLite's are signed.
extension SQLiteClientStorage {
    private enum Fact {
        static let producerHigh = "producer.high"
        static let producerLow = "producer.low"
        static let lastID = "last-id"
        static let connectNumber = "connect-number"
        static let cursorVersion = "cursor-version"
        static let user = "user"
        static let device = "device"
        static let login = "login"
        static let resumeTicket = "resume-ticket"
        static let endedStay = "ended-stay/"
        static let transportTicket = "transport-ticket/"
        static let addressToken = "address-token/"
    }

    static func apply(_ change: StorageChange, to database: Database) throws {
        switch change {
        case .producer(let producer):
            for table in ["outbox", "chain"] { try database.execute(sql: "DELETE FROM \(table)") }
            try set(Fact.producerHigh, number: producer.high, in: database)
            try set(Fact.producerLow, number: producer.low, in: database)
            try set(Fact.lastID, number: 0, in: database)
            try set(Fact.connectNumber, number: 0, in: database)
        case .insert(let row): try insert(row, into: database)
        case .rechain(let id, let after):
            try database.execute(
                sql: "UPDATE outbox SET after = ? WHERE id = ?", arguments: [bits(after), bits(id)])
        case .remove(let id):
            try database.execute(sql: "DELETE FROM outbox WHERE id = ?", arguments: [bits(id)])
        case .attempted(let id):
            try database.execute(sql: "UPDATE outbox SET attempted = 1 WHERE id = ?", arguments: [bits(id)])
        case .adopted(let send):
            try database.execute(sql: "DELETE FROM submission WHERE send = ?", arguments: [bytes(send)])
        case .outcome(let outcome): try keep(outcome, in: database)
        case .lastID(let id): try set(Fact.lastID, number: id, in: database)
        case .chain(let channel, let id):
            try database.execute(
                sql: "INSERT OR REPLACE INTO chain VALUES (?, ?)", arguments: [channel.description, bits(id)])
        case .connectNumber(let number): try set(Fact.connectNumber, number: number, in: database)
        case .cursor(let channel, let position):
            try database.execute(
                sql: "INSERT OR REPLACE INTO cursor VALUES (?, ?, ?)",
                arguments: [channel.description, bits(position.epoch), bits(position.offset)])
        case .forgetCursor(let channel):
            try database.execute(sql: "DELETE FROM cursor WHERE channel = ?", arguments: [channel.description])
            try set(nil, endOf: channel, in: database)
        case .endedStay(let channel, let stay): try set(stay, endOf: channel, in: database)
        case .cursorVersion(let version): try set(Fact.cursorVersion, number: version, in: database)
        case .user(let user): try set(Fact.user, bytes: Array(user.description.utf8), in: database)
        case .device(let device): try set(Fact.device, bytes: Array(device.description.utf8), in: database)
        case .resumeTicket(let secret): try set(Fact.resumeTicket, secret: secret, in: database)
        case .transportTicket(let accessPoint, let secret):
            try set(Fact.transportTicket + accessPoint, secret: secret, in: database)
        case .addressToken(let accessPoint, let token):
            try set(
                Fact.addressToken + accessPoint, secret: token.map { StoredSecret(bytes: $0, expiry: 0) }, in: database)
        case .network(let network): try keep(network, in: database)
        case .access(let access): try keep(access, in: database)
        case .controlRoutes(let routes): try keep(routes, in: database)
        }
    }

    private static func insert(_ row: StoredPublish, into database: Database) throws {
        try database.execute(
            sql: """
                INSERT INTO outbox (id, tag, after, channel, recipient, time_to_live, queued_at, payload, kind,
                    target_epoch, target_offset, send, attempted)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                """,
            arguments: [
                bits(row.id), bits(row.tag), bits(row.after), row.channel.description, row.recipient?.description,
                bits(row.timeToLive), bits(row.queuedAt), Data(row.payload.readableBytesView),
                Int64(row.kind.entryKind.rawValue), bits(row.kind.target?.epoch ?? 0),
                bits(row.kind.target?.offset ?? 0), bytes(row.send), row.attempted ? 1 : 0,
            ])
    }

    static func readState(_ database: Database) throws -> StoredClientState {
        var state = StoredClientState()
        state.outbox = try Row.fetchAll(database, sql: "SELECT * FROM outbox ORDER BY id").map { try publish($0) }
        let chains = try Row.fetchAll(database, sql: "SELECT channel, last FROM chain")
        for row in chains { state.chains[try channel(row[0])] = number(row[1]) }
        let cursors = try Row.fetchAll(database, sql: "SELECT channel, epoch, offset FROM cursor")
        for row in cursors {
            state.cursors[try channel(row[0])] = Position(epoch: number(row[1]), offset: number(row[2]))
        }
        var high: UInt64?
        var low: UInt64?
        for row in try Row.fetchAll(database, sql: "SELECT name, number, bytes FROM fact") {
            let name: String = row[0]
            let number = (row[1] as Int64?).map(Self.number) ?? 0
            let bytes = (row[2] as Data?).map { Array($0) } ?? []
            switch name {
            case Fact.producerHigh: high = number
            case Fact.producerLow: low = number
            case Fact.lastID: state.lastID = number
            case Fact.connectNumber: state.connectNumber = number
            case Fact.cursorVersion: state.cursorVersion = number
            case Fact.user: state.user = try? UserID(String(decoding: bytes, as: UTF8.self))
            case Fact.device: state.device = try? DeviceID(String(decoding: bytes, as: UTF8.self))
            case Fact.resumeTicket: state.resumeTicket = StoredSecret(bytes: bytes, expiry: number)
            case _ where name.hasPrefix(Fact.endedStay):
                // What can't be true is left out: it costs bytes at each start, no message.
                if let room = try? channel(String(name.dropFirst(Fact.endedStay.count))) {
                    state.endedStays[room] = stay(number, bytes)
                }
            case _ where name.hasPrefix(Fact.transportTicket):
                let accessPoint = String(name.dropFirst(Fact.transportTicket.count))
                state.transportTickets[accessPoint] = StoredSecret(bytes: bytes, expiry: number)
            case _ where name.hasPrefix(Fact.addressToken):
                state.addressTokens[String(name.dropFirst(Fact.addressToken.count))] = bytes
            default: break
            }
        }
        if let high, let low { state.producer = ProducerID(high: high, low: low) }
        state.networks = try readNetworks(database)
        state.outcomes = try readOutcomes(database)
        state.access = try readAccess(database)
        state.controlRoutes = try readRoutes(database)
        return state
    }

    /// Whose device this is, as far as it is known.
    static func user(_ database: Database) throws -> UserID? {
        try text(Fact.user, database).flatMap { try? UserID($0) }
    }

    /// Which of the user's devices it is, as far as it is known.
    static func device(_ database: Database) throws -> DeviceID? {
        try text(Fact.device, database).flatMap { try? DeviceID($0) }
    }

    private static func text(_ name: String, _ database: Database) throws -> String? {
        let bytes = try Data.fetchOne(database, sql: "SELECT bytes FROM fact WHERE name = ?", arguments: [name])
        return bytes.map { String(decoding: $0, as: UTF8.self) }
    }

    /// A random number that stands in the file from its first use to the next wipe: by it a client knows that somebody logged out since.
    static func login(_ database: Database) throws -> Int64 {
        let known = try Int64.fetchOne(
            database, sql: "SELECT number FROM fact WHERE name = ?", arguments: [Fact.login])
        if let known { return known }
        return try beginLogin(database)
    }

    @discardableResult
    static func beginLogin(_ database: Database) throws -> Int64 {
        let login = UInt64.random(in: .min ... .max)
        try set(Fact.login, number: login, in: database)
        return bits(login)
    }

    private static func keep(_ network: StoredNetwork, in database: Database) throws {
        try database.execute(
            sql: "INSERT OR REPLACE INTO network VALUES (?, ?, ?, ?)",
            arguments: [network.name, network.lived.map(bits), network.died.map(bits), bits(network.lastUse)])
        try database.execute(
            sql: """
                DELETE FROM network WHERE name NOT IN
                    (SELECT name FROM network ORDER BY last_use DESC, name DESC LIMIT ?)
                """,
            arguments: [StoredNetwork.limit])
    }

    /// What can't be true is left out: it costs a search, no message.
    private static func readNetworks(_ database: Database) throws -> [StoredNetwork] {
        try Row.fetchAll(
            database, sql: "SELECT name, lived, died, last_use FROM network ORDER BY last_use DESC, name DESC"
        ).map { row in
            StoredNetwork(
                name: row[0], lived: (row[1] as Int64?).map(number), died: (row[2] as Int64?).map(number),
                lastUse: number(row[3]))
        }.filter(\.isSound)
    }

    static func publish(_ row: Row) throws -> StoredPublish {
        let recipient: String? = row["recipient"]
        let payload: Data = row["payload"]
        return StoredPublish(
            id: number(row["id"]), tag: number(row["tag"]), after: number(row["after"]),
            channel: try channel(row["channel"]),
            recipient: try recipient.map { try UserID($0) }, kind: try kind(row),
            timeToLive: number(row["time_to_live"]), queuedAt: number(row["queued_at"]),
            payload: ByteBuffer(bytes: payload), send: send(row["send"]), attempted: row["attempted"] != 0)
    }

    /// What a row of the outbox, or of what waits for it, makes.
    static func kind(_ row: Row) throws -> PublishKind {
        let target = Position(epoch: number(row["target_epoch"]), offset: number(row["target_offset"]))
        let written: Int64 = row["kind"]
        guard let kind = UInt8(exactly: written).flatMap(EntryKind.init).flatMap({ PublishKind($0, target: target) })
        else { throw ClientError(.storage, message: "a message of the outbox has the unknown kind \(written)") }
        return kind
    }

    static func channel(_ text: String) throws -> ChannelID { try ChannelID(text) }
    static func bits(_ number: UInt64) -> Int64 { Int64(bitPattern: number) }
    static func number(_ bits: Int64) -> UInt64 { UInt64(bitPattern: bits) }

    private static func set(_ name: String, number: UInt64, in database: Database) throws {
        try database.execute(
            sql: "INSERT OR REPLACE INTO fact VALUES (?, ?, NULL)", arguments: [name, bits(number)])
    }

    private static func set(_ name: String, bytes: [UInt8], in database: Database) throws {
        try database.execute(
            sql: "INSERT OR REPLACE INTO fact VALUES (?, NULL, ?)", arguments: [name, Data(bytes)])
    }

    /// The offset, and as bytes the epoch and the record's version, if there is one.
    private static func set(_ stay: StoredStay?, endOf channel: ChannelID, in database: Database) throws {
        let name = Fact.endedStay + channel.description
        guard let stay else {
            return try database.execute(sql: "DELETE FROM fact WHERE name = ?", arguments: [name])
        }
        var numbers = ByteBuffer(integer: stay.end.epoch)
        if let version = stay.namedAt { numbers.writeInteger(version) }
        try database.execute(
            sql: "INSERT OR REPLACE INTO fact VALUES (?, ?, ?)",
            arguments: [name, bits(stay.end.offset), Data(numbers.readableBytesView)])
    }

    private static func stay(_ offset: Offset, _ bytes: [UInt8]) -> StoredStay? {
        var numbers = ByteBuffer(bytes: bytes)
        guard let epoch = numbers.readInteger(as: Epoch.self) else { return nil }
        return StoredStay(
            end: Position(epoch: epoch, offset: offset), namedAt: numbers.readInteger(as: UInt64.self))
    }

    private static func set(_ name: String, secret: StoredSecret?, in database: Database) throws {
        guard let secret else {
            return try database.execute(sql: "DELETE FROM fact WHERE name = ?", arguments: [name])
        }
        try database.execute(
            sql: "INSERT OR REPLACE INTO fact VALUES (?, ?, ?)",
            arguments: [name, bits(secret.expiry), Data(secret.bytes)])
    }
}
