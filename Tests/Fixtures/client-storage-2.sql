-- A client's storage as the second published layout wrote it: with what was learned of networks, and with messages that name
-- others. A device of alice has an edit and a reaction that wait, and an inbox cursor.
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY, tag INTEGER NOT NULL, after INTEGER NOT NULL, channel TEXT NOT NULL,
    recipient TEXT, time_to_live INTEGER NOT NULL, queued_at INTEGER NOT NULL, payload BLOB NOT NULL
    , kind INTEGER NOT NULL DEFAULT 0, target_epoch INTEGER NOT NULL DEFAULT 0, target_offset INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE chain (channel TEXT PRIMARY KEY, last INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE cursor (
    channel TEXT PRIMARY KEY, epoch INTEGER NOT NULL, offset INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE fact (name TEXT PRIMARY KEY, number INTEGER, bytes BLOB) STRICT, WITHOUT ROWID;
CREATE TABLE network (
    name TEXT PRIMARY KEY, lived INTEGER, died INTEGER, last_use INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE grdb_migrations (identifier TEXT NOT NULL PRIMARY KEY);
INSERT INTO grdb_migrations VALUES ('1'), ('heartbeat-networks'), ('entries-that-name-another');
INSERT INTO outbox VALUES (3, -5, 2, 'user/alice', 'bob', 0, 1700000000000, X'6e6577', 4, -1, 8),
    (4, 11, 0, 'room/hall', NULL, 0, 1700000000001, X'2b31', 6, 77, 9);
INSERT INTO chain VALUES ('user/alice', 3), ('room/hall', 4);
INSERT INTO cursor VALUES ('user/alice', -1, 8);
INSERT INTO fact VALUES ('producer.high', 1, NULL), ('producer.low', -2, NULL), ('last-id', 4, NULL), ('connect-number', 64, NULL),
    ('cursor-version', 4, NULL), ('user', NULL, X'616c696365'), ('opened', 1, NULL), ('address-token/one:1', 0, X'07');
INSERT INTO network VALUES ('app:home', 60000, 120000, 5);
