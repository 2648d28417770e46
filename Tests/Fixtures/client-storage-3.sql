-- A client's storage as the third published layout wrote it: with names of messages, how they ended, and what several processes
-- share. A device of alice has a message that waits, one that was acknowledged, and one that another process put in.
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY, tag INTEGER NOT NULL, after INTEGER NOT NULL, channel TEXT NOT NULL,
    recipient TEXT, time_to_live INTEGER NOT NULL, queued_at INTEGER NOT NULL, payload BLOB NOT NULL
    , kind INTEGER NOT NULL DEFAULT 0, target_epoch INTEGER NOT NULL DEFAULT 0, target_offset INTEGER NOT NULL DEFAULT 0
    , send BLOB, attempted INTEGER NOT NULL DEFAULT 1) STRICT;
CREATE TABLE chain (channel TEXT PRIMARY KEY, last INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE cursor (
    channel TEXT PRIMARY KEY, epoch INTEGER NOT NULL, offset INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE fact (name TEXT PRIMARY KEY, number INTEGER, bytes BLOB) STRICT, WITHOUT ROWID;
CREATE TABLE network (
    name TEXT PRIMARY KEY, lived INTEGER, died INTEGER, last_use INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE outcome (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, send BLOB NOT NULL, channel TEXT NOT NULL, recipient TEXT,
    queued_at INTEGER NOT NULL, state INTEGER NOT NULL, code INTEGER, publish_id INTEGER,
    epoch INTEGER, offset INTEGER, time INTEGER
) STRICT;
CREATE INDEX outbox_send ON outbox (send);
CREATE INDEX outcome_send ON outcome (send);
CREATE TABLE submission (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, send BLOB NOT NULL UNIQUE, destination TEXT NOT NULL,
    time_to_live INTEGER NOT NULL, queued_at INTEGER NOT NULL, payload BLOB NOT NULL, taken INTEGER,
    kind INTEGER NOT NULL, target_epoch INTEGER NOT NULL, target_offset INTEGER NOT NULL
) STRICT;
CREATE TABLE owner (
    id INTEGER PRIMARY KEY CHECK (id = 1), token BLOB, generation INTEGER NOT NULL,
    locked INTEGER NOT NULL, challenge INTEGER
) STRICT;
CREATE TABLE grdb_migrations (identifier TEXT NOT NULL PRIMARY KEY);
INSERT INTO grdb_migrations VALUES ('1'), ('heartbeat-networks'), ('entries-that-name-another'), ('sends'), ('shared');
INSERT INTO outbox VALUES (5, 12, 4, 'user/alice', 'bob', 0, 1700000000000, X'68656c6c6f', 0, 0, 0,
    X'000102030405060708090a0b0c0d0e0f', 0);
INSERT INTO chain VALUES ('user/alice', 5);
INSERT INTO cursor VALUES ('user/alice', -1, 8);
INSERT INTO fact VALUES ('producer.high', 1, NULL), ('producer.low', -2, NULL), ('last-id', 5, NULL), ('connect-number', 64, NULL),
    ('cursor-version', 4, NULL), ('user', NULL, X'616c696365'), ('opened', 1, NULL), ('resume-ticket', 0, X'0102');
INSERT INTO network VALUES ('app:home', 60000, 120000, 5);
