-- A client's storage as version 1 of its layout wrote it: a device of alice with two messages that wait, the cursor of a room,
-- and what the next connect needs.
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY, tag INTEGER NOT NULL, after INTEGER NOT NULL, channel TEXT NOT NULL,
    recipient TEXT, time_to_live INTEGER NOT NULL, queued_at INTEGER NOT NULL, payload BLOB NOT NULL
) STRICT;
CREATE TABLE chain (channel TEXT PRIMARY KEY, last INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE cursor (
    channel TEXT PRIMARY KEY, epoch INTEGER NOT NULL, offset INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE fact (name TEXT PRIMARY KEY, number INTEGER, bytes BLOB) STRICT, WITHOUT ROWID;
CREATE TABLE grdb_migrations (identifier TEXT NOT NULL PRIMARY KEY);
INSERT INTO grdb_migrations VALUES ('1');
INSERT INTO outbox VALUES (7, -5, 6, 'user/alice', 'bob', 0, 1700000000000, X'6f6c64'), (9, 11, 0, 'room/hall', NULL, 0, 1700000000001, X'726f6f6d');
INSERT INTO chain VALUES ('user/alice', 7), ('room/hall', 9);
INSERT INTO cursor VALUES ('room/hall', 77, 3);
INSERT INTO fact VALUES ('producer.high', 1, NULL), ('producer.low', -2, NULL), ('last-id', 9, NULL), ('connect-number', 64, NULL),
    ('cursor-version', 4, NULL), ('user', NULL, X'616c696365'), ('opened', 1, NULL), ('resume-ticket', 0, X'0102');
