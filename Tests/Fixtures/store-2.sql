-- A store as the fifth layout wrote it: with owners, an edit, a reaction, and conversations with settings.
CREATE TABLE grdb_migrations (identifier TEXT NOT NULL PRIMARY KEY);
CREATE TABLE store (
    id INTEGER PRIMARY KEY CHECK (id = 1), identity TEXT NOT NULL, sequence INTEGER NOT NULL);
CREATE TABLE channels (
    id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, name TEXT NOT NULL, epoch INTEGER NOT NULL,
    head INTEGER NOT NULL DEFAULT 0, first INTEGER NOT NULL DEFAULT 0, time INTEGER NOT NULL DEFAULT 0,
    entries INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0, members INTEGER NOT NULL DEFAULT 0, owners INTEGER NOT NULL DEFAULT 0, deleted INTEGER NOT NULL DEFAULT 0, joining INTEGER NOT NULL DEFAULT 0, publishing INTEGER NOT NULL DEFAULT 0,
    UNIQUE (tenant, name));
CREATE TABLE entries (
    offset INTEGER PRIMARY KEY, channel INTEGER NOT NULL, previous INTEGER NOT NULL, kind INTEGER NOT NULL,
    sender TEXT NOT NULL, device TEXT NOT NULL, producer_high INTEGER NOT NULL, producer_low INTEGER NOT NULL,
    publish_id INTEGER NOT NULL, recipient TEXT, origin_epoch INTEGER, origin_offset INTEGER,
    time INTEGER NOT NULL, expiry INTEGER NOT NULL, payload BLOB NOT NULL, target INTEGER);
CREATE INDEX entries_by_channel ON entries (channel);
CREATE TABLE devices (
    id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, user TEXT NOT NULL, device TEXT NOT NULL,
    seen INTEGER NOT NULL, cursor_version INTEGER NOT NULL DEFAULT 0, producers INTEGER NOT NULL DEFAULT 0, "begin" INTEGER NOT NULL DEFAULT 0,
    UNIQUE (tenant, user, device));
CREATE TABLE producers (
    id INTEGER PRIMARY KEY, device INTEGER NOT NULL, high INTEGER NOT NULL, low INTEGER NOT NULL,
    seen INTEGER NOT NULL, connect_number INTEGER NOT NULL DEFAULT 0, UNIQUE (device, high, low));
CREATE TABLE ledgers (
    producer INTEGER NOT NULL, channel INTEGER NOT NULL, last_id INTEGER NOT NULL,
    remembered INTEGER NOT NULL, PRIMARY KEY (producer, channel)) WITHOUT ROWID;
CREATE TABLE answers (
    producer INTEGER NOT NULL, channel INTEGER NOT NULL, publish_id INTEGER NOT NULL, tag INTEGER NOT NULL,
    epoch INTEGER NOT NULL, offset INTEGER NOT NULL, time INTEGER NOT NULL,
    PRIMARY KEY (producer, channel, publish_id)) WITHOUT ROWID;
CREATE TABLE stints (
    tenant TEXT NOT NULL, user TEXT NOT NULL, room INTEGER NOT NULL, after INTEGER NOT NULL,
    joined INTEGER NOT NULL, "left" INTEGER, role INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (tenant, user, room)) WITHOUT ROWID;
CREATE TABLE cursors (
    device INTEGER NOT NULL, channel INTEGER NOT NULL, epoch INTEGER NOT NULL, offset INTEGER NOT NULL,
    PRIMARY KEY (device, channel)) WITHOUT ROWID;
CREATE TABLE generations (
    tenant TEXT NOT NULL, user TEXT NOT NULL, device TEXT NOT NULL, generation INTEGER NOT NULL,
    PRIMARY KEY (tenant, user, device)) WITHOUT ROWID;
CREATE TABLE revoked_tokens (
    tenant TEXT NOT NULL, token TEXT NOT NULL, until INTEGER NOT NULL, PRIMARY KEY (tenant, token))
    WITHOUT ROWID;
CREATE INDEX members_by_age ON stints (room, joined, user) WHERE "left" IS NULL;
CREATE INDEX members ON stints (room, user, joined, role) WHERE "left" IS NULL;
CREATE INDEX entries_by_target ON entries (channel, target) WHERE target IS NOT NULL;
CREATE TABLE conversations (
    owner INTEGER NOT NULL, name TEXT NOT NULL, last INTEGER NOT NULL, time INTEGER NOT NULL,
    incoming INTEGER NOT NULL, unread INTEGER NOT NULL, read INTEGER NOT NULL, shared INTEGER NOT NULL,
    muted_until INTEGER NOT NULL, blocked INTEGER NOT NULL, PRIMARY KEY (owner, name)) WITHOUT ROWID;
CREATE INDEX conversations_by_time ON conversations (owner, time, name) WHERE name >= 'user/';
INSERT INTO grdb_migrations VALUES ('1'), ('2: owners and settings of rooms'), ('3: broadcasts'),
    ('4: entries that name another'), ('5: conversations');
INSERT INTO store (id, identity, sequence) VALUES (1, '', 0);
UPDATE store SET sequence = 1024;
INSERT INTO channels (id, tenant, name, epoch, head, first, time, entries, bytes, members) VALUES (1, 'acme', 'user/alice', 11, 1,
    0, 1001, 1, 2, 0), (2, 'acme', 'user/bob', -12, 2, 0, 1001, 1, 2, 0), (3, 'acme', 'room/hall', 13, 7, 0, 1007, 5, 11, 2);
INSERT INTO entries (offset, channel, previous, kind, sender, device, producer_high, producer_low, publish_id, recipient,
    origin_epoch, origin_offset, time, expiry, payload) VALUES (1, 1, 0, 0, 'alice', 'phone', -1, 7, 1, 'bob', NULL, NULL, 1001,
    0, X'6869'), (2, 2, 0, 0, 'alice', 'phone', -1, 7, 1, NULL, 11, 1, 1001, 0, X'6869'), (3, 3, 0, 1, 'alice', 'phone', 0, 0, 0,
    NULL, NULL, NULL, 1003, 0, X''), (4, 3, 3, 1, 'bob', 'phone', 0, 0, 0, NULL, NULL, NULL, 1004, 0, X''), (5, 3, 4, 1, 'carol',
    'phone', 0, 0, 0, NULL, NULL, NULL, 1005, 0, X''), (6, 3, 5, 2, 'carol', 'phone', 0, 0, 0, NULL, NULL, NULL, 1006, 0, X''),
    (7, 3, 6, 0, 'alice', 'phone', -1, 7, 1, NULL, NULL, NULL, 1007, 0, X'696e207468652068616c6c');
INSERT INTO devices (id, tenant, user, device, seen, cursor_version, producers) VALUES (1, 'acme', 'alice', 'phone', 1007, 0, 1),
    (2, 'acme', 'bob', 'phone', 1004, 3, 0);
INSERT INTO producers (id, device, high, low, seen, connect_number) VALUES (1, 1, -1, 7, 1007, 5);
INSERT INTO ledgers VALUES (1, 1, 1, 1), (1, 3, 2, 2);
INSERT INTO answers VALUES (1, 1, 1, -1152921504606846975, 11, 1, 1001), (1, 3, 1, -1152921504606846975, 13, 7, 1007);
INSERT INTO stints (tenant, user, room, after, joined, "left", role) VALUES ('acme', 'alice', 3, 0, 3, NULL, 1), ('acme', 'bob',
    3, 3, 4, NULL, 0), ('acme', 'carol', 3, 4, 5, 6, 0);
INSERT INTO cursors VALUES (2, 2, -12, 2), (2, 3, 13, 7);
INSERT INTO generations VALUES ('acme', 'alice', '', 2), ('acme', 'alice', 'phone', 1);
INSERT INTO revoked_tokens VALUES ('acme', 'token', 9000);
UPDATE channels SET owners = 1, publishing = 0, joining = 1, head = 9, time = 1009, entries = 7, bytes = 22 WHERE id = 3;
INSERT INTO entries (offset, channel, previous, kind, sender, device, producer_high, producer_low, publish_id, recipient,
    origin_epoch, origin_offset, time, expiry, payload, target) VALUES (8, 3, 7, 4, 'alice', 'phone', -1, 7, 2, NULL, NULL, NULL,
    1008, 0, X'696e2061206861', 7), (9, 3, 8, 6, 'bob', 'phone', 3, 4, 1, NULL, NULL, NULL, 1009, 0, X'2b312021', 7);
INSERT INTO answers VALUES (1, 3, 2, -1152921504606846974, 13, 8, 1008);
UPDATE devices SET "begin" = 1 WHERE id = 2;
INSERT INTO conversations VALUES (1, 'user/bob', 1, 1001, 0, 0, 0, 0, 0, 0), (2, 'user/alice', 2, 1001, 2, 1, 0, 0, 0, 0), (2,
    'user/carol', 0, 0, 0, 0, 0, 0, 0, 1), (2, 'room/hall', 0, 0, 0, 0, 7, 7, 5000, 0);
