import GRDB
import LonglineWire

/// Conversations. Those that change are written once at the end of a transaction, however many entries they got in it.
extension SQLiteTables {
    private static let conversationColumns =
        "name, last, time, incoming, unread, read, shared, muted_until, blocked, sent"

    private static func conversation(_ row: Row, of inbox: ChannelRecord) throws -> ConversationRecord {
        var record = ConversationRecord(owner: inbox.id, name: try ChannelID(row[0] as String))
        record.last = row[1]
        record.time = row[2]
        record.incoming = row[3]
        record.unread = row[4]
        record.read = row[5]
        record.shared = row[6]
        record.mutedUntil = row[7]
        record.blocked = row[8]
        record.sent = row[9]
        return record
    }

    func conversation(_ name: ChannelID, of inbox: ChannelRecord) throws -> ConversationRecord? {
        let key = ConversationKey(owner: inbox.id, name: name)
        if let known = conversations[key] { return known }
        let found = try row(
            "SELECT \(Self.conversationColumns) FROM conversations WHERE owner = ? AND name = ?",
            [inbox.id, name.description]
        ).map { try Self.conversation($0, of: inbox) }
        conversations[key] = .some(found)
        return found
    }

    func update(_ conversation: ConversationRecord) throws {
        let key = ConversationKey(owner: conversation.owner, name: conversation.name)
        conversations[key] = .some(conversation)
        dirtyConversations.insert(key)
    }

    func flushConversations() throws {
        for key in dirtyConversations {
            guard let record = conversations[key] ?? nil else { continue }
            try run(
                """
                INSERT OR REPLACE INTO conversations (owner, name, last, time, incoming, unread, read, shared,
                    muted_until, blocked, sent) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                """,
                [
                    record.owner, record.name.description, Int64(record.last), Int64(record.time),
                    Int64(record.incoming), record.unread, Int64(record.read), Int64(record.shared),
                    Int64(record.mutedUntil), Int64(record.blocked), Int64(record.sent),
                ])
        }
        dirtyConversations.removeAll(keepingCapacity: true)
    }

    func directConversations(of inbox: ChannelRecord, after: ConversationPlace?, limit: Int) throws
        -> [ConversationRecord]
    {
        try flush()
        // The highest time and a name behind all others stand for the beginning.
        return try rows(
            """
            SELECT \(Self.conversationColumns) FROM conversations
            WHERE owner = ? AND name >= 'user/' AND (time, name) < (?, ?) ORDER BY time DESC, name DESC LIMIT ?
            """,
            [
                inbox.id, Int64(clamping: after?.time ?? .max), after?.conversation.description ?? "v", limit,
            ]
        ).map { try Self.conversation($0, of: inbox) }
    }

    func countSettings(of inbox: ChannelRecord) throws -> Int {
        try flush()
        // The condition as the index `conversations_with_settings` has it.
        return try row(
            "SELECT count(*) FROM conversations WHERE owner = ? AND (muted_until <> 0 OR blocked <> 0)", [inbox.id]
        ).map { $0[0] } ?? 0
    }

    func conversationsWithSettings(of inbox: ChannelRecord) throws -> [ConversationRecord] {
        try flush()
        return try rows(
            """
            SELECT \(Self.conversationColumns) FROM conversations
            WHERE owner = ? AND (muted_until <> 0 OR blocked <> 0) ORDER BY name
            """, [inbox.id]
        ).map { try Self.conversation($0, of: inbox) }
    }

    func count(
        _ what: Counted, in channel: ChannelRecord, above: Offset, through: Offset, by authors: Authors, limit: Int,
        looking: Int, now: UInt64
    ) throws -> UnreadCount {
        let (comparison, user) =
            switch authors {
            case .only(let user): ("=", user)
            case .allBut(let user): ("<>", user)
            }
        let kinds =
            switch what {
            case .messages: "kind = 0"
            case .news: "kind IN (0, 7, 8)"
            }
        let counted = try row(
            """
            SELECT coalesce(sum(\(kinds) AND sender \(comparison) ? AND (expiry = 0 OR expiry > ?)), 0), count(*), max(offset)
                FROM (SELECT offset, kind, sender, expiry FROM entries
                    WHERE channel = ? AND offset > ? AND offset <= ? ORDER BY offset LIMIT ?)
            """,
            [
                user.description, Int64(clamping: now), channel.id, Int64(above), Int64(clamping: through), looking,
            ])
        guard let counted, let last = counted[2] as Offset? else {
            return UnreadCount(count: 0, looked: 0, last: above)
        }
        return UnreadCount(count: min(counted[0], limit), looked: counted[1], last: last)
    }

    func highestCursor(of user: UserID, in channel: ChannelRecord) throws -> Offset {
        try row(
            """
            SELECT max(offset) FROM cursors WHERE channel = ? AND epoch = ? AND device IN
                (SELECT id FROM devices WHERE tenant = ? AND user = ?)
            """,
            [channel.id, Int64(bitPattern: channel.epoch), channel.key.tenant.description, user.description]
        ).flatMap { $0[0] as Offset? } ?? 0
    }

    func removeConversation(_ name: ChannelID, of inbox: ChannelRecord) throws {
        let key = ConversationKey(owner: inbox.id, name: name)
        dirtyConversations.remove(key)
        conversations[key] = .some(nil)
        try run("DELETE FROM conversations WHERE owner = ? AND name = ?", [inbox.id, name.description])
    }

    func removeConversations(of inbox: ChannelRecord, limit: Int) throws -> Int {
        try flush()
        try run(
            """
            DELETE FROM conversations WHERE owner = ?1 AND name IN
                (SELECT name FROM conversations WHERE owner = ?1 LIMIT ?2)
            """, [inbox.id, limit])
        let count = db.changesCount
        conversations = conversations.filter { $0.key.owner != inbox.id }
        return count
    }
}
