import GRDB

/// The tables on disk, as migrations: a released one is never changed, a new one is added at the end.
///
/// Unsigned 64-bit values that may use their top bit (epochs, tags, halves of producers) are stored by bit pattern, and never
/// compared in SQL.
enum SQLiteSchema {
    static var migrator: DatabaseMigrator {
        var migrator = DatabaseMigrator()
        migrator.registerMigration("1") { db in
            for table in first { try db.execute(sql: table) }
        }
        migrator.registerMigration("2: owners and settings of rooms") { db in
            for change in rooms { try db.execute(sql: change) }
        }
        migrator.registerMigration("3: broadcasts") { db in
            // Of those before there were any none is missed.
            try db.execute(sql: "ALTER TABLE devices ADD COLUMN \"begin\" INTEGER NOT NULL DEFAULT 0")
        }
        migrator.registerMigration("4: entries that name another") { db in
            try db.execute(sql: "ALTER TABLE entries ADD COLUMN target INTEGER")
            // Of the few entries that name another only: others cost nothing.
            try db.execute(
                sql: "CREATE INDEX entries_by_target ON entries (channel, target) WHERE target IS NOT NULL")
        }
        migrator.registerMigration("5: conversations") { db in
            try db.execute(sql: conversations)
            // Rooms sort before users, and their logs say what came last.
            try db.execute(
                sql: "CREATE INDEX conversations_by_time ON conversations (owner, time, name) WHERE name >= 'user/'")
        }
        migrator.registerMigration("6: presence") { db in
            try db.execute(
                sql: """
                    CREATE TABLE presence (
                        tenant TEXT NOT NULL, user TEXT NOT NULL, last_seen INTEGER NOT NULL,
                        visibility INTEGER NOT NULL, PRIMARY KEY (tenant, user)) WITHOUT ROWID
                    """)
        }
        migrator.registerMigration("7: places") { db in
            // The highest login of each platform of a user, where a device policy counts them.
            try db.execute(
                sql: """
                    CREATE TABLE places (
                        tenant TEXT NOT NULL, user TEXT NOT NULL, platform TEXT NOT NULL, device TEXT NOT NULL,
                        login INTEGER NOT NULL, PRIMARY KEY (tenant, user, platform)) WITHOUT ROWID
                    """)
        }
        migrator.registerMigration("8: parts") { db in
            for statement in largePayloads { try db.execute(sql: statement) }
        }
        migrator.registerMigration("erasures") { db in
            // Accounts that are to be erased, until nothing is left of them.
            try db.execute(
                sql: """
                    CREATE TABLE erasures (
                        tenant TEXT NOT NULL, user TEXT NOT NULL, PRIMARY KEY (tenant, user)) WITHOUT ROWID
                    """)
        }
        migrator.registerMigration("restores") { db in
            // When the database was last found to be a copy that was put back, in milliseconds since 1970; 0 for never.
            try db.execute(sql: "ALTER TABLE store ADD COLUMN restored INTEGER NOT NULL DEFAULT 0")
        }
        migrator.registerMigration("deletions") { db in
            // The entries by which rooms were deleted, as long as they end a stay.
            try db.execute(
                sql: """
                    CREATE TABLE deletions (
                        room INTEGER NOT NULL, offset INTEGER NOT NULL, PRIMARY KEY (room, offset)) WITHOUT ROWID
                    """)
            try db.execute(sql: "INSERT INTO deletions SELECT id, deleted FROM channels WHERE deleted > 0")
        }
        migrator.registerMigration("ledgers without heads") { db in
            // A ledger's head is what its answers say; its row only finds the answers of a channel.
            try db.execute(sql: "ALTER TABLE ledgers DROP COLUMN last_id")
            try db.execute(sql: "ALTER TABLE ledgers DROP COLUMN remembered")
        }
        migrator.registerMigration("channels that are gone") { db in
            // The highest number of a channel that was removed, and whether something may name such channels.
            try db.execute(sql: "ALTER TABLE store ADD COLUMN removed_channel INTEGER NOT NULL DEFAULT 0")
            try db.execute(sql: "ALTER TABLE store ADD COLUMN orphans INTEGER NOT NULL DEFAULT 0")
        }
        migrator.registerMigration("edits by target") { db in
            // Of edits only (kind 4): a message may have any number of reactions, which nobody looks for.
            try db.execute(sql: "DROP INDEX entries_by_target")
            try db.execute(sql: "CREATE INDEX edits_by_target ON entries (channel, target) WHERE kind = 4")
        }
        migrator.registerMigration("conversations with settings") { db in
            // Of the few that are muted or blocked only, with all that counting them needs.
            try db.execute(
                sql: """
                    CREATE INDEX conversations_with_settings ON conversations (owner, muted_until, blocked)
                        WHERE muted_until <> 0 OR blocked <> 0
                    """)
        }
        migrator.registerMigration("members by life") { db in
            for statement in lives { try db.execute(sql: statement) }
        }
        migrator.registerMigration("marks of the clock") { db in
            // What time it was at an offset, for entries with a time that the clock has not reached.
            try db.execute(sql: "CREATE TABLE clock (offset INTEGER PRIMARY KEY, time INTEGER NOT NULL)")
        }
        migrator.registerMigration("copies that were withheld") { db in
            // Whether a block kept the copy of a direct message back. Of those before nobody knows.
            try db.execute(sql: "ALTER TABLE entries ADD COLUMN withheld INTEGER NOT NULL DEFAULT 0")
        }
        migrator.registerMigration("beginnings of channels") { db in
            for statement in beginnings { try db.execute(sql: statement) }
        }
        migrator.registerMigration("what was read in rooms that are gone") { db in
            // Sweeps left it where channels were removed: the next one looks.
            try db.execute(sql: "UPDATE store SET orphans = 1 WHERE removed_channel > 0")
        }
        migrator.registerMigration("last messages that were sent") { db in
            // Of those before the conversation's last entry stands for it.
            try db.execute(sql: "ALTER TABLE conversations ADD COLUMN sent INTEGER NOT NULL DEFAULT 0")
        }
        return migrator
    }

    private static let rooms = [
        "ALTER TABLE channels ADD COLUMN owners INTEGER NOT NULL DEFAULT 0",
        // The entry by which a room was deleted last; stays that began before it have ended.
        "ALTER TABLE channels ADD COLUMN deleted INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE channels ADD COLUMN joining INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE channels ADD COLUMN publishing INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE stints ADD COLUMN role INTEGER NOT NULL DEFAULT 0",
        "CREATE INDEX members_by_age ON stints (room, joined, user) WHERE \"left\" IS NULL",
        // Rooms from before owners belong to whoever is in them longest.
        """
        UPDATE stints SET role = 1 WHERE "left" IS NULL AND joined =
            (SELECT min(joined) FROM stints AS others WHERE others.room = stints.room AND others."left" IS NULL)
        """,
        "UPDATE channels SET owners = 1 WHERE members > 0",
        // All that a page of members needs, so that it reads no row beside the index.
        "DROP INDEX members",
        "CREATE INDEX members ON stints (room, user, joined, role) WHERE \"left\" IS NULL",
    ]

    // `owner` is the user's inbox.
    private static let conversations = """
        CREATE TABLE conversations (
            owner INTEGER NOT NULL, name TEXT NOT NULL, last INTEGER NOT NULL, time INTEGER NOT NULL,
            incoming INTEGER NOT NULL, unread INTEGER NOT NULL, read INTEGER NOT NULL, shared INTEGER NOT NULL,
            muted_until INTEGER NOT NULL, blocked INTEGER NOT NULL, PRIMARY KEY (owner, name)) WITHOUT ROWID
        """

    /// What of a payload is too large for its entry's row. `payload` is the offset of the entry that it was published with, which
    /// a direct message's copy shares (its `origin_offset`); `start` is the place within the payload.
    private static let largePayloads = [
        "ALTER TABLE entries ADD COLUMN following INTEGER NOT NULL DEFAULT 0",
        """
        CREATE TABLE parts (
            payload INTEGER NOT NULL, start INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (payload, start))
        """,
        "CREATE INDEX large_entries ON entries (channel) WHERE following > 0",
        "CREATE INDEX large_copies ON entries (origin_offset) WHERE following > 0 AND origin_offset IS NOT NULL",
    ]

    /// A room's life is named by the deletion before it; 0 for the first. Open stays of lives that ended remain where they are, and
    /// are no members: so many of them must not stand between two members of the life that lasts.
    private static let lives = [
        "ALTER TABLE stints ADD COLUMN life INTEGER NOT NULL DEFAULT 0",
        """
        UPDATE stints SET life = (SELECT deleted FROM channels WHERE channels.id = stints.room)
            WHERE joined > (SELECT deleted FROM channels WHERE channels.id = stints.room AND deleted > 0)
        """,
        "DROP INDEX members",
        // With "left", which is NULL, SQLite before 3.41 too reads no row beside the index.
        "CREATE INDEX members ON stints (room, life, user, role, \"left\") WHERE \"left\" IS NULL",
    ]

    /// The last offset drawn when a channel was made. Of one from before that was never trimmed the first entry tells, where it has one;
    /// of others nobody knows.
    private static let beginnings = [
        "ALTER TABLE channels ADD COLUMN \"begin\" INTEGER NOT NULL DEFAULT 0",
        """
        UPDATE channels SET "begin" = coalesce(
            (SELECT offset - 1 FROM entries WHERE channel = channels.id ORDER BY offset LIMIT 1),
            (SELECT sequence FROM store)) WHERE first = 0
        """,
    ]

    private static let first = [
        // One row. `sequence` is the offset up to which some may have been drawn, for all channels.
        """
        CREATE TABLE store (
            id INTEGER PRIMARY KEY CHECK (id = 1), identity TEXT NOT NULL, sequence INTEGER NOT NULL)
        """,
        "INSERT INTO store (id, identity, sequence) VALUES (1, '', 0)",
        """
        CREATE TABLE channels (
            id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, name TEXT NOT NULL, epoch INTEGER NOT NULL,
            head INTEGER NOT NULL DEFAULT 0, first INTEGER NOT NULL DEFAULT 0, time INTEGER NOT NULL DEFAULT 0,
            entries INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0, members INTEGER NOT NULL DEFAULT 0,
            UNIQUE (tenant, name))
        """,
        // The offset is the rowid: entries are always appended at the table's end, whatever their channel.
        """
        CREATE TABLE entries (
            offset INTEGER PRIMARY KEY, channel INTEGER NOT NULL, previous INTEGER NOT NULL, kind INTEGER NOT NULL,
            sender TEXT NOT NULL, device TEXT NOT NULL, producer_high INTEGER NOT NULL, producer_low INTEGER NOT NULL,
            publish_id INTEGER NOT NULL, recipient TEXT, origin_epoch INTEGER, origin_offset INTEGER,
            time INTEGER NOT NULL, expiry INTEGER NOT NULL, payload BLOB NOT NULL)
        """,
        // SQLite ends every index row with the rowid, so this index orders a channel's entries by offset.
        "CREATE INDEX entries_by_channel ON entries (channel)",
        """
        CREATE TABLE devices (
            id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, user TEXT NOT NULL, device TEXT NOT NULL,
            seen INTEGER NOT NULL, cursor_version INTEGER NOT NULL DEFAULT 0, producers INTEGER NOT NULL DEFAULT 0,
            UNIQUE (tenant, user, device))
        """,
        """
        CREATE TABLE producers (
            id INTEGER PRIMARY KEY, device INTEGER NOT NULL, high INTEGER NOT NULL, low INTEGER NOT NULL,
            seen INTEGER NOT NULL, connect_number INTEGER NOT NULL DEFAULT 0, UNIQUE (device, high, low))
        """,
        """
        CREATE TABLE ledgers (
            producer INTEGER NOT NULL, channel INTEGER NOT NULL, last_id INTEGER NOT NULL,
            remembered INTEGER NOT NULL, PRIMARY KEY (producer, channel)) WITHOUT ROWID
        """,
        """
        CREATE TABLE answers (
            producer INTEGER NOT NULL, channel INTEGER NOT NULL, publish_id INTEGER NOT NULL, tag INTEGER NOT NULL,
            epoch INTEGER NOT NULL, offset INTEGER NOT NULL, time INTEGER NOT NULL,
            PRIMARY KEY (producer, channel, publish_id)) WITHOUT ROWID
        """,
        """
        CREATE TABLE stints (
            tenant TEXT NOT NULL, user TEXT NOT NULL, room INTEGER NOT NULL, after INTEGER NOT NULL,
            joined INTEGER NOT NULL, "left" INTEGER, PRIMARY KEY (tenant, user, room)) WITHOUT ROWID
        """,
        "CREATE INDEX members ON stints (room, user) WHERE \"left\" IS NULL",
        """
        CREATE TABLE cursors (
            device INTEGER NOT NULL, channel INTEGER NOT NULL, epoch INTEGER NOT NULL, offset INTEGER NOT NULL,
            PRIMARY KEY (device, channel)) WITHOUT ROWID
        """,
        // The empty device stands for the user itself: no identifier is empty.
        """
        CREATE TABLE generations (
            tenant TEXT NOT NULL, user TEXT NOT NULL, device TEXT NOT NULL, generation INTEGER NOT NULL,
            PRIMARY KEY (tenant, user, device)) WITHOUT ROWID
        """,
        """
        CREATE TABLE revoked_tokens (
            tenant TEXT NOT NULL, token TEXT NOT NULL, until INTEGER NOT NULL, PRIMARY KEY (tenant, token))
            WITHOUT ROWID
        """,
    ]
}
