#!/usr/bin/env python3
"""Writes the test vectors of the session protocol beside this file.

It shares no code with the package: it follows docs/protocol.md, so that it also shows how little an encoder needs.
Run it after a change of the protocol; the Swift tests check what it wrote, both ways.
"""

import json
import pathlib
import zlib

MOST = (1 << 62) - 1


def varint(value, size=None):
    """RFC 9000 section 16; `size` asks for a longer form than needed."""
    value = int(value)
    for power, (length, limit) in enumerate([(1, 1 << 6), (2, 1 << 14), (4, 1 << 30), (8, 1 << 62)]):
        if value < limit and (size is None or size == length):
            return (value | power << (8 * length - 2)).to_bytes(length, "big")
    raise ValueError(value)


def counted(data):
    return varint(len(data)) + data


def string(text):
    return counted(text.encode())


def opaque(digits):
    assert len(digits) in (16, 32)
    return bytes.fromhex(digits)


def position(value):
    return opaque(value["epoch"]) + varint(value["offset"])


def listed(items, item):
    return varint(len(items)) + b"".join(item(each) for each in items)


KINDS = {
    "message": 0, "joined": 1, "left": 2, "changed": 3, "edited": 4, "retracted": 5, "reacted": 6, "reply": 7,
    "request": 8}
SETTINGS = {"mute": 0, "block": 1}
RECEIPTS = {"delivered": 0, "read": 1}
RECOVERIES = {"recovered": 0, "gap": 1, "fresh": 2}
MODES = {"foreground": 0, "background": 1, "lowPower": 2}
DIRECTIONS = {"older": 0, "newer": 1}
ACTIONS = {"add": 0, "remove": 1, "setRole": 2, "setJoining": 3, "setPublishing": 4, "delete": 5}
ROLES = {"member": 0, "owner": 1}
JOININGS = {"anyone": 0, "byOwners": 1, "nobody": 2}
PUBLISHINGS = {"members": 0, "owners": 1}
PRESENCES = {"offline": 0, "away": 1, "online": 2}
VISIBILITIES = {"everything": 0, "stateOnly": 1, "nothing": 2}
URGENCIES = {"control": 0, "chat": 1, "bulk": 2}
SKIPS = {"expired": 0, "retracted": 1, "trimmed": 2, "notEntitled": 3}


def connect(f):
    if "token" in f:
        credential = b"\0" + string(f["token"])
    else:
        credential = b"\1" + counted(bytes.fromhex(f["ticket"]))
    return (
        listed(f["versions"], varint) + credential + opaque(f["producer"]) + varint(f["connectNumber"])
        + varint(f["cursorVersion"]) + listed(f["cursors"], lambda c: string(c["channel"]) + position(c))
        + string(f["agent"]))


def connected(f):
    limits = ["maximumPayload", "channelWindow", "maximumUnacknowledged", "minimumHeartbeat", "idleTimeout"]
    return (
        varint(f["version"]) + opaque(f["session"]) + bytes([f["resumed"]]) + varint(f["serverTime"])
        + string(f["observedAddress"]) + varint(f["credentialExpiry"])
        + b"".join(varint(f["limits"][name]) for name in limits) + varint(f["cursorVersion"])
        + listed(
            f["channels"], lambda c: string(c["channel"]) + position(c) + bytes([RECOVERIES[c["recovery"]]])))


def publish(f):
    recipient = string(f["recipient"]) if "recipient" in f else b""
    kind = bytes([KINDS[f["kind"]]]) + position(f["target"]) if "kind" in f else b""
    return (
        bytes([(1 if recipient else 0) | (2 if kind else 0) | (4 if "following" in f else 0)]) + varint(f["id"])
        + opaque(f["tag"]) + varint(f["after"]) + recipient + kind + varint(f["timeToLive"])
        + (varint(f["following"]) if "following" in f else b"") + counted(bytes.fromhex(f["payload"])))


def signal(f):
    sender = string(f["sender"]) + string(f["device"]) if "sender" in f else b""
    return (
        bytes([1 if sender else 0]) + string(f["channel"]) + bytes([f["kind"]]) + varint(f["deadline"]) + sender
        + counted(bytes.fromhex(f["payload"])))


def deliver(f):
    flags = (1 if f["redelivered"] else 0) | (2 if "recipient" in f else 0) | (4 if "origin" in f else 0)
    flags |= 8 if "target" in f else 0
    flags |= 16 if "following" in f else 0
    return (
        bytes([flags, KINDS[f["kind"]]]) + varint(f["offset"]) + varint(f["previous"]) + string(f["sender"])
        + string(f["device"]) + opaque(f["producer"]) + varint(f["publishID"])
        + (string(f["recipient"]) if "recipient" in f else b"") + (position(f["origin"]) if "origin" in f else b"")
        + (varint(f["target"]) if "target" in f else b"") + varint(f["time"]) + varint(f["expiry"])
        + (varint(f["following"]) if "following" in f else b"") + counted(bytes.fromhex(f["payload"])))


def room(f):
    user = string(f["user"]) if "user" in f else b""
    return opaque(f["request"]) + string(f["room"]) + bytes([ACTIONS[f["action"]]]) + user + bytes([f["value"]])


def members_page(f):
    return (
        opaque(f["request"]) + varint(f["refusal"]) + varint(f["total"])
        + listed(f["members"], lambda m: string(m["user"]) + bytes([ROLES[m["role"]]])) + bytes([f["more"]]))


def conversation(f):
    return (
        string(f["channel"]) + position(f["last"]) + varint(f["time"]) + varint(f["unread"]) + varint(f["mutedUntil"])
        + bytes([f["blocked"]]) + varint(f["read"]) + varint(f["peerDelivered"]) + varint(f["peerRead"]))


def places(items):
    return listed(items, lambda c: string(c["channel"]) + position(c))


FRAMES = {
    "CONNECT": (0x01, connect),
    "CONNECTED": (0x03, connected),
    "CLOSE": (0x05, lambda f: varint(f["code"]) + string(f["reason"]) + varint(f["retryAfter"])
              + string(f["accessPoint"])),
    "PING": (0x07, lambda f: opaque(f["nonce"]) + varint(f["answerAfter"])),
    "PONG": (0x09, lambda f: opaque(f["nonce"]) + string(f["observedAddress"])),
    "TICKET": (0x0B, lambda f: counted(bytes.fromhex(f["ticket"])) + varint(f["expiry"])),
    "REFRESH": (0x0D, lambda f: string(f["token"])),
    "REFRESHED": (0x0F, lambda f: varint(f["credentialExpiry"])),
    "LANE": (0x11, lambda f: string(f["channel"]) + opaque(f["epoch"])),
    "PUBLISH": (0x13, publish),
    "PUBLISHED": (0x15, lambda f: varint(f["id"]) + position(f) + varint(f["time"])),
    "REFUSED": (0x17, lambda f: varint(f["id"]) + varint(f["code"]) + varint(f["lastID"]) + varint(f["retryAfter"])),
    "DELIVER": (0x19, deliver),
    "SKIP": (0x1B, lambda f: varint(f["previous"]) + varint(f["to"]) + bytes([SKIPS[f["reason"]]])),
    "GAP": (0x1D, lambda f: position(f["from"]) + varint(f["first"])),
    "ACK": (0x1F, lambda f: varint(f["offset"])),
    "JOIN": (0x21, lambda f: opaque(f["request"]) + string(f["room"])),
    "LEAVE": (0x23, lambda f: opaque(f["request"]) + string(f["room"])),
    "ROOM_ANSWER": (0x25, lambda f: opaque(f["request"]) + varint(f["refusal"]) + position(f)),
    "ROOM_SETTINGS": (0x5A, lambda f: string(f["room"]) + position(f) + bytes([
        JOININGS[f["joining"]], PUBLISHINGS[f["publishing"]], ROLES[f["role"]]])),
    "MODE": (0x27, lambda f: bytes([MODES[f["mode"]]])),
    "HISTORY": (0x29, lambda f: opaque(f["request"]) + string(f["channel"]) + opaque(f["epoch"]) + varint(f["from"])
                + bytes([DIRECTIONS[f["direction"]]]) + varint(f["limit"])),
    "HISTORY_PAGE": (0x2B, lambda f: opaque(f["request"]) + varint(f["refusal"]) + varint(f["retryAfter"])
                     + opaque(f["epoch"]) + varint(f["start"]) + varint(f["end"]) + bytes([f["more"]])
                     + varint(f["items"])),
    "ROOM": (0x2D, room),
    "MEMBERS": (0x2F, lambda f: opaque(f["request"]) + string(f["room"]) + string(f["after"]) + varint(f["limit"])),
    "MEMBERS_PAGE": (0x31, members_page),
    "LOGOUT": (0x37, lambda f: b""),
    "ERASE_ACCOUNT": (0x53, lambda f: b""),
    "ERASURE_REFUSED": (0x54, lambda f: varint(f["code"]) + varint(f["retryAfter"])),
    "STOPPED": (0x38, lambda f: string(f["channel"])),
    "CURSORS": (0x56, lambda f: bytes([f["all"]]) + places(f["cursors"])),
    "AHEAD": (0x58, lambda f: places(f["records"])),
    "BEHIND": (0x52, lambda f: string(f["channel"]) + position(f) + bytes([f["behind"]])),
    "CONVERSATIONS": (0x33, lambda f: opaque(f["request"]) + counted(bytes.fromhex(f["after"])) + varint(f["limit"])),
    "CONVERSATIONS_PAGE": (0x35, lambda f: opaque(f["request"]) + varint(f["refusal"]) + varint(f["retryAfter"])
                           + counted(bytes.fromhex(f["next"])) + listed(f["items"], conversation)),
    "READ": (0x39, lambda f: bytes([f["private"]]) + string(f["channel"]) + position(f)),
    "CONVERSATION_SET": (0x3B, lambda f: opaque(f["request"]) + string(f["channel"]) + bytes([SETTINGS[f["setting"]]])
                         + varint(f["value"])),
    "RECEIPT": (0x3C, lambda f: string(f["channel"]) + string(f["user"]) + bytes([RECEIPTS[f["kind"]]]) + position(f)),
    "CONVERSATION": (0x3E, lambda f: opaque(f["request"]) + varint(f["refusal"]) + string(f["channel"])
                     + varint(f["mutedUntil"]) + bytes([f["blocked"]])),
    "SIGNAL": (0x47, signal),
    "SUBSCRIBE": (0x49, lambda f: opaque(f["request"]) + listed(f["users"], string)),
    "PRESENCE": (0x4A, lambda f: string(f["user"]) + bytes([PRESENCES[f["state"]]]) + varint(f["lastSeen"])),
    "UNSUBSCRIBE": (0x4B, lambda f: listed(f["users"], string)),
    "PRESENCE_ANSWER": (0x4C, lambda f: opaque(f["request"]) + varint(f["refusal"]) + varint(f["retryAfter"])),
    "VISIBILITY": (0x4D, lambda f: bytes([VISIBILITIES[f["visibility"]]])),
    "BATCH": (0x43, lambda f: listed(
        f["groups"], lambda g: varint(g["encoding"]) + varint(g["frames"]) + varint(g["length"])
        + counted(bytes.fromhex(g["bytes"])))),
    "ENCODINGS": (0x44, lambda f: listed(f["encodings"], varint) + listed(
        f["plain"], lambda c: string(c["channel"]))),
    "PART": (0x41, lambda f: varint(f["offset"]) + counted(bytes.fromhex(f["bytes"]))),
    "URGENCY": (0x3D, lambda f: string(f["channel"]) + bytes([URGENCIES[f["urgency"]]])),
}


def raw(kind, body, length=None):
    return varint(kind) + varint(len(body) if length is None else length) + body


def frame(name, fields):
    kind, body = FRAMES[name]
    return raw(kind, body(fields))


# The values that the vectors share.

EPOCH = "5f3c0a9d7e21b846"
PRODUCER = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
LARGEST = str(MOST)
LIMITS = {
    "maximumPayload": "15360", "channelWindow": "262144", "maximumUnacknowledged": "1024", "minimumHeartbeat": "5000",
    "idleTimeout": "600000"}

# What two users wrote, each compressed apart from the other: the second of three entries is alice's, and too short to shrink.
BOBS = b"".join(frame("DELIVER", {
    "redelivered": False, "kind": "message", "offset": offset, "previous": previous, "sender": "bob",
    "device": "phone", "producer": PRODUCER, "publishID": number, "time": "1767225600200", "expiry": "0",
    "payload": b"see you tomorrow".hex()}) for offset, previous, number in [("1302", "1299", "12"), ("1304", "1303", "13")])
LAST_SKIP = frame("SKIP", {"previous": "1304", "to": "1310", "reason": "expired"})
ALICES = frame("DELIVER", {
    "redelivered": False, "kind": "message", "offset": "1303", "previous": "1302", "sender": "alice",
    "device": "tablet", "producer": "f" * 32, "publishID": "1", "time": "1767225600201", "expiry": "0",
    "payload": b"bye".hex()}) + LAST_SKIP
# BOBS by zlib's deflate; written down, as another version may choose other bytes that mean the same.
BOBS_COMPRESSED = (
    "93b4666070157315664eca4f622dc8c8cf4be597d3b5f18ecaac689fb674cbe14b0f3ff01c60609c5d766bc5090681e2d454"
    "85cafc528592fcdcfca2a2fc72499066095771dc9a79716b0600")
if zlib.decompress(bytes.fromhex(BOBS_COMPRESSED), -15) != BOBS:
    raise SystemExit("BOBS_COMPRESSED is of other frames")

VALID = [
    ("connect with a token, first time", "CONNECT", {
        "versions": [1], "token": "eyJhbGciOiJFZERTQSJ9.e30.c2ln", "producer": PRODUCER, "connectNumber": "1",
        "cursorVersion": "0", "cursors": [], "agent": "vectors/1"}),
    ("connect with a ticket and two cursors", "CONNECT", {
        "versions": [2, 1], "ticket": "00ff10ef20df", "producer": PRODUCER, "connectNumber": "70",
        "cursorVersion": "16400",
        "cursors": [
            {"channel": "user/alice", "epoch": EPOCH, "offset": "1201"},
            {"channel": "room/team-7", "epoch": "0000000000000001", "offset": "1073741824"}],
        "agent": "Äpp/2.0"}),
    ("connect, largest numbers", "CONNECT", {
        "versions": [4294967295], "ticket": "", "producer": "f" * 32, "connectNumber": LARGEST,
        "cursorVersion": LARGEST, "cursors": [{"channel": "user/" + "n" * 64, "epoch": "f" * 16, "offset": LARGEST}],
        "agent": ""}),
    ("cursors, more follow", "CURSORS", {
        "all": False, "cursors": [
            {"channel": "room/team-8", "epoch": EPOCH, "offset": "31"},
            {"channel": "all/news", "epoch": "0000000000000001", "offset": "0"}]}),
    ("cursors, none, and these are all", "CURSORS", {"all": True, "cursors": []}),
    ("ahead", "AHEAD", {
        "records": [
            {"channel": "user/alice", "epoch": EPOCH, "offset": "1299"},
            {"channel": "room/" + "n" * 64, "epoch": "f" * 16, "offset": LARGEST}]}),
    ("connected, resumed", "CONNECTED", {
        "version": 1, "session": "00000000deadbeef", "resumed": True, "serverTime": "1767225600000",
        "observedAddress": "192.0.2.7:49152", "credentialExpiry": "1767229200000", "limits": LIMITS,
        "cursorVersion": "17",
        "channels": [
            {"channel": "user/alice", "epoch": EPOCH, "offset": "1300", "recovery": "recovered"},
            {"channel": "room/team-7", "epoch": "0000000000000002", "offset": "9", "recovery": "gap"},
            {"channel": "room/new", "epoch": "0000000000000003", "offset": "0", "recovery": "fresh"}]}),
    ("connected, new, no channels", "CONNECTED", {
        "version": 1, "session": "ffffffffffffffff", "resumed": False, "serverTime": "0",
        "observedAddress": "[2001:db8::1]:443", "credentialExpiry": LARGEST, "limits": LIMITS, "cursorVersion": "0",
        "channels": []}),
    ("close, nothing more to say", "CLOSE", {"code": 1000, "reason": "", "retryAfter": "0", "accessPoint": ""}),
    ("close, redirect", "CLOSE", {
        "code": 2000, "reason": "drained", "retryAfter": "2500", "accessPoint": "node2.example.com:4433"}),
    ("close, a code of a later version", "CLOSE", {
        "code": 4294967295, "reason": "später", "retryAfter": LARGEST, "accessPoint": ""}),
    ("ping", "PING", {"nonce": "0123456789abcdef", "answerAfter": "0"}),
    ("ping, to be answered later", "PING", {"nonce": "0123456789abcdef", "answerAfter": "270000"}),
    ("pong", "PONG", {"nonce": "0123456789abcdef", "observedAddress": "192.0.2.7:49152"}),
    ("ticket", "TICKET", {"ticket": "a0" * 70, "expiry": "1767830400000"}),
    ("refresh", "REFRESH", {"token": "eyJhbGciOiJFUzI1NiJ9.e30.c2ln"}),
    ("refreshed", "REFRESHED", {"credentialExpiry": "1767232800000"}),
    ("lane of an inbox", "LANE", {"channel": "user/alice", "epoch": EPOCH}),
    ("lane of a room, epoch not known yet", "LANE", {"channel": "room/a.b_c~d@e+f-9", "epoch": "0" * 16}),
    ("lane of a broadcast", "LANE", {"channel": "all/" + "n" * 64, "epoch": EPOCH}),
    ("publish into a room, the producer's first", "PUBLISH", {
        "id": "1", "tag": "8899aabbccddeeff", "after": "0", "timeToLive": "0", "payload": b"hello".hex()}),
    ("publish, a direct message with a time to live", "PUBLISH", {
        "id": "64", "tag": "0000000000000000", "after": "63", "recipient": "bob", "timeToLive": "86400000",
        "payload": ""}),
    ("publish, largest numbers", "PUBLISH", {
        "id": LARGEST, "tag": "f" * 16, "after": str(MOST - 1), "recipient": "r" * 64, "timeToLive": LARGEST,
        "payload": "5a" * 100}),
    ("publish, an edit in a room", "PUBLISH", {
        "id": "70", "tag": "8899aabbccddeeff", "after": "69", "kind": "edited",
        "target": {"epoch": EPOCH, "offset": "1302"}, "timeToLive": "0", "payload": b"hello!".hex()}),
    ("publish, a retraction of a direct message", "PUBLISH", {
        "id": "71", "tag": "8899aabbccddeeff", "after": "70", "recipient": "bob", "kind": "retracted",
        "target": {"epoch": EPOCH, "offset": "1303"}, "timeToLive": "0", "payload": ""}),
    ("publish, a reaction", "PUBLISH", {
        "id": "72", "tag": "8899aabbccddeeff", "after": "71", "kind": "reacted",
        "target": {"epoch": "f" * 16, "offset": LARGEST}, "timeToLive": "0", "payload": "👍".encode().hex()}),
    ("publish, a request", "PUBLISH", {
        "id": "73", "tag": "8899aabbccddeeff", "after": "72", "recipient": "bob", "kind": "request",
        "target": {"epoch": "0" * 16, "offset": "0"}, "timeToLive": "30000", "payload": "01"}),
    ("publish, a reply", "PUBLISH", {
        "id": "5", "tag": "8899aabbccddeeff", "after": "0", "recipient": "alice", "kind": "reply",
        "target": {"epoch": EPOCH, "offset": "79"}, "timeToLive": "0", "payload": "02"}),
    ("published", "PUBLISHED", {"id": "64", "epoch": EPOCH, "offset": "1301", "time": "1767225600123"}),
    ("refused, out of order", "REFUSED", {"id": "65", "code": 1, "lastID": "60", "retryAfter": "0"}),
    ("refused, storage full", "REFUSED", {"id": "66", "code": 7, "lastID": "0", "retryAfter": "5000"}),
    ("refused, a code of a later version", "REFUSED", {"id": "67", "code": 16384, "lastID": "0", "retryAfter": "0"}),
    ("deliver a room's message", "DELIVER", {
        "redelivered": False, "kind": "message", "offset": "1302", "previous": "1299", "sender": "bob",
        "device": "phone", "producer": PRODUCER, "publishID": "12", "time": "1767225600200", "expiry": "0",
        "payload": "héllo".encode().hex()}),
    ("deliver the sender's record of a direct message, again", "DELIVER", {
        "redelivered": True, "kind": "message", "offset": "1303", "previous": "1302", "sender": "alice",
        "device": "tablet", "producer": PRODUCER, "publishID": "13", "recipient": "bob", "time": "1767225600201",
        "expiry": "1767312000201", "payload": "00"}),
    ("deliver the recipient's copy of a direct message", "DELIVER", {
        "redelivered": False, "kind": "message", "offset": "77", "previous": "0", "sender": "alice",
        "device": "tablet", "producer": PRODUCER, "publishID": "13",
        "origin": {"epoch": EPOCH, "offset": "1303"}, "time": "1767225600201", "expiry": "1767312000201",
        "payload": "00"}),
    ("deliver a join", "DELIVER", {
        "redelivered": False, "kind": "joined", "offset": "5", "previous": "4", "sender": "carol", "device": "d1",
        "producer": "0" * 32, "publishID": "0", "time": "1767225600202", "expiry": "0", "payload": ""}),
    ("deliver a leave", "DELIVER", {
        "redelivered": False, "kind": "left", "offset": "16384", "previous": "5", "sender": "carol", "device": "d1",
        "producer": "0" * 32, "publishID": "0", "time": "1767225600203", "expiry": "0", "payload": ""}),
    ("deliver an edit of a direct message, the recipient's copy", "DELIVER", {
        "redelivered": False, "kind": "edited", "offset": "1400", "previous": "1398", "sender": "alice",
        "device": "tablet", "producer": PRODUCER, "publishID": "14", "origin": {"epoch": EPOCH, "offset": "1399"},
        "target": "77", "time": "1767225600204", "expiry": "1767312000201", "payload": "01"}),
    ("deliver a retraction in a room", "DELIVER", {
        "redelivered": False, "kind": "retracted", "offset": "1402", "previous": "1302", "sender": "bob",
        "device": "phone", "producer": PRODUCER, "publishID": "15", "target": "1302", "time": "1767225600205",
        "expiry": "0", "payload": ""}),
    ("deliver the record of a reaction", "DELIVER", {
        "redelivered": False, "kind": "reacted", "offset": "1403", "previous": "1303", "sender": "alice",
        "device": "tablet", "producer": PRODUCER, "publishID": "16", "recipient": "bob", "target": "1303",
        "time": "1767225600206", "expiry": "0", "payload": "👍".encode().hex()}),
    ("deliver a request", "DELIVER", {
        "redelivered": False, "kind": "request", "offset": "79", "previous": "78", "sender": "alice",
        "device": "tablet", "producer": PRODUCER, "publishID": "73", "origin": {"epoch": EPOCH, "offset": "78"},
        "time": "1767225600207", "expiry": "1767225630207", "payload": "01"}),
    ("deliver a reply", "DELIVER", {
        "redelivered": False, "kind": "reply", "offset": "82", "previous": "78", "sender": "bob", "device": "phone",
        "producer": PRODUCER, "publishID": "5", "origin": {"epoch": EPOCH, "offset": "81"}, "target": "78",
        "time": "1767225600208", "expiry": "1767225630207", "payload": "02"}),
    ("skip, expired", "SKIP", {"previous": "10", "to": "14", "reason": "expired"}),
    ("skip, retracted", "SKIP", {"previous": "14", "to": "15", "reason": "retracted"}),
    ("skip, trimmed", "SKIP", {"previous": "63", "to": "64", "reason": "trimmed"}),
    ("skip, not entitled", "SKIP", {"previous": "0", "to": LARGEST, "reason": "notEntitled"}),
    ("gap", "GAP", {"from": {"epoch": EPOCH, "offset": "100"}, "first": "5000"}),
    ("acknowledge", "ACK", {"offset": "1303"}),
    ("join", "JOIN", {"request": "0000000000000001", "room": "team-7"}),
    ("leave", "LEAVE", {"request": "0000000000000002", "room": "team-7"}),
    ("room answer, done", "ROOM_ANSWER", {
        "request": "0000000000000001", "refusal": 0, "epoch": EPOCH, "offset": "5"}),
    ("room answer, refused", "ROOM_ANSWER", {
        "request": "0000000000000002", "refusal": 4, "epoch": "0" * 16, "offset": "0"}),
    ("room settings, as a room begins, of a member", "ROOM_SETTINGS", {
        "room": "team-7", "epoch": EPOCH, "offset": "5", "joining": "anyone", "publishing": "members", "role": "member"}),
    ("room settings, owners add and publish, of an owner", "ROOM_SETTINGS", {
        "room": "r" * 64, "epoch": "f" * 16, "offset": LARGEST, "joining": "byOwners", "publishing": "owners",
        "role": "owner"}),
    ("room settings, nobody may join", "ROOM_SETTINGS", {
        "room": "team-7", "epoch": EPOCH, "offset": "16384", "joining": "nobody", "publishing": "owners",
        "role": "member"}),
    ("mode, foreground", "MODE", {"mode": "foreground"}),
    ("mode, background", "MODE", {"mode": "background"}),
    ("mode, low power", "MODE", {"mode": "lowPower"}),
    ("history, back from the end of a log not known yet", "HISTORY", {
        "request": "0000000000000003", "channel": "room/team-7", "epoch": "0" * 16, "from": LARGEST,
        "direction": "older", "limit": "50"}),
    ("history, on from a place", "HISTORY", {
        "request": "ffffffffffffffff", "channel": "user/" + "n" * 64, "epoch": EPOCH, "from": "1299",
        "direction": "newer", "limit": "100"}),
    ("history page with more before it", "HISTORY_PAGE", {
        "request": "0000000000000003", "refusal": 0, "retryAfter": "0", "epoch": EPOCH, "start": "1250",
        "end": "1303", "more": True, "items": 50}),
    ("history page, the most frames", "HISTORY_PAGE", {
        "request": "0000000000000004", "refusal": 0, "retryAfter": "0", "epoch": "f" * 16, "start": "0",
        "end": LARGEST, "more": False, "items": 256}),
    ("history, refused: another epoch", "HISTORY_PAGE", {
        "request": "ffffffffffffffff", "refusal": 12, "retryAfter": "0", "epoch": EPOCH, "start": "0", "end": "0",
        "more": False, "items": 0}),
    ("history, refused for now", "HISTORY_PAGE", {
        "request": "0000000000000005", "refusal": 8, "retryAfter": "1000", "epoch": "0" * 16, "start": "0", "end": "0",
        "more": False, "items": 0}),
    ("deliver a join that an owner made", "DELIVER", {
        "redelivered": False, "kind": "joined", "offset": "6", "previous": "5", "sender": "carol", "device": "d1",
        "producer": "0" * 32, "publishID": "0", "recipient": "dave", "time": "1767225600202", "expiry": "0",
        "payload": ""}),
    ("deliver a change of an owner", "DELIVER", {
        "redelivered": False, "kind": "changed", "offset": "7", "previous": "6", "sender": "carol", "device": "d1",
        "producer": "0" * 32, "publishID": "0", "recipient": "dave", "time": "1767225600202", "expiry": "0",
        "payload": "0201"}),
    ("deliver a change of a setting", "DELIVER", {
        "redelivered": False, "kind": "changed", "offset": "8", "previous": "7", "sender": "carol", "device": "d1",
        "producer": "0" * 32, "publishID": "0", "time": "1767225600202", "expiry": "0", "payload": "0401"}),
    ("room, add a member", "ROOM", {
        "request": "0000000000000006", "room": "team-7", "action": "add", "user": "dave", "value": 0}),
    ("room, remove a member", "ROOM", {
        "request": "0000000000000007", "room": "r" * 64, "action": "remove", "user": "u" * 64, "value": 0}),
    ("room, make an owner", "ROOM", {
        "request": "0000000000000008", "room": "team-7", "action": "setRole", "user": "dave", "value": 1}),
    ("room, nobody may join", "ROOM", {
        "request": "0000000000000009", "room": "team-7", "action": "setJoining", "value": 2}),
    ("room, owners may publish", "ROOM", {
        "request": "000000000000000a", "room": "team-7", "action": "setPublishing", "value": 1}),
    ("room, delete", "ROOM", {"request": "000000000000000b", "room": "team-7", "action": "delete", "value": 0}),
    ("members, the first page", "MEMBERS", {
        "request": "000000000000000c", "room": "team-7", "after": "", "limit": "100"}),
    ("members, another page", "MEMBERS", {
        "request": "000000000000000d", "room": "team-7", "after": "dave", "limit": "1"}),
    ("members page", "MEMBERS_PAGE", {
        "request": "000000000000000c", "refusal": 0, "total": "100000",
        "members": [{"user": "carol", "role": "owner"}, {"user": "dave", "role": "member"}], "more": True}),
    ("members page, refused", "MEMBERS_PAGE", {
        "request": "000000000000000d", "refusal": 4, "total": "0", "members": [], "more": False}),
    ("logout", "LOGOUT", {}),
    ("erase the account", "ERASE_ACCOUNT", {}),
    ("erasure refused, forbidden", "ERASURE_REFUSED", {"code": 5, "retryAfter": "0"}),
    ("erasure refused, overloaded", "ERASURE_REFUSED", {"code": 8, "retryAfter": "2000"}),
    ("stopped", "STOPPED", {"channel": "room/team-7"}),
    ("behind", "BEHIND", {"channel": "room/team-7", "epoch": EPOCH, "offset": "77", "behind": True}),
    ("not behind any more", "BEHIND", {"channel": "user/ann", "epoch": EPOCH, "offset": "1099511627776", "behind": False}),
    ("conversations, from the latest", "CONVERSATIONS", {
        "request": "0000000000000006", "after": "", "limit": "50"}),
    ("conversations, from a place", "CONVERSATIONS", {
        "request": "ffffffffffffffff", "after": "00ff" * 48, "limit": "1"}),
    ("conversations page, a direct one and a room", "CONVERSATIONS_PAGE", {
        "request": "0000000000000006", "refusal": 0, "retryAfter": "0", "next": "0102",
        "items": [
            {"channel": "user/bob", "last": {"epoch": EPOCH, "offset": "1303"}, "time": "1767225600201", "unread": "3",
             "mutedUntil": "0", "blocked": False, "read": "1290", "peerDelivered": "1303", "peerRead": "1288"},
            {"channel": "room/team-7", "last": {"epoch": "0000000000000002", "offset": "1302"},
             "time": "1767225600200", "unread": "1000", "mutedUntil": LARGEST, "blocked": False, "read": "0",
             "peerDelivered": "0", "peerRead": "0"}]}),
    ("conversations page, blocked, and the end", "CONVERSATIONS_PAGE", {
        "request": "0000000000000007", "refusal": 0, "retryAfter": "0", "next": "",
        "items": [
            {"channel": "user/eve", "last": {"epoch": EPOCH, "offset": "0"}, "time": "0", "unread": "0",
             "mutedUntil": "1767225600000", "blocked": True, "read": "0", "peerDelivered": "0", "peerRead": "0"}]}),
    ("conversations, refused for now", "CONVERSATIONS_PAGE", {
        "request": "0000000000000008", "refusal": 8, "retryAfter": "1000", "next": "", "items": []}),
    ("read a direct conversation", "READ", {
        "private": False, "channel": "user/bob", "epoch": EPOCH, "offset": "1303"}),
    ("read a room, told nobody else", "READ", {
        "private": True, "channel": "room/team-7", "epoch": EPOCH, "offset": "1302"}),
    ("conversation set, muted for ever", "CONVERSATION_SET", {
        "request": "0000000000000009", "channel": "room/team-7", "setting": "mute", "value": LARGEST}),
    ("conversation set, blocked", "CONVERSATION_SET", {
        "request": "000000000000000a", "channel": "user/eve", "setting": "block", "value": "1"}),
    ("receipt, delivered", "RECEIPT", {
        "channel": "user/bob", "user": "bob", "kind": "delivered", "epoch": EPOCH, "offset": "1303"}),
    ("receipt, read by a member", "RECEIPT", {
        "channel": "room/team-7", "user": "carol", "kind": "read", "epoch": EPOCH, "offset": "1302"}),
    ("conversation, muted", "CONVERSATION", {
        "request": "0000000000000009", "refusal": 0, "channel": "room/team-7", "mutedUntil": LARGEST,
        "blocked": False}),
    ("conversation, refused", "CONVERSATION", {
        "request": "000000000000000b", "refusal": 4, "channel": "room/other", "mutedUntil": "0", "blocked": False}),
    ("conversation, news", "CONVERSATION", {
        "request": "0000000000000000", "refusal": 0, "channel": "user/eve", "mutedUntil": "0", "blocked": True}),
    ("signal to a room: typing", "SIGNAL", {"channel": "room/team-7", "kind": 0, "deadline": "6000", "payload": ""}),
    ("signal of the app's to a user", "SIGNAL", {
        "channel": "user/bob", "kind": 128, "deadline": "500", "payload": "00ff10"}),
    ("signal from another device", "SIGNAL", {
        "channel": "room/team-7", "kind": 0, "deadline": "5970", "sender": "alice", "device": "tablet", "payload": ""}),
    ("signal, largest", "SIGNAL", {
        "channel": "room/" + "n" * 64, "kind": 255, "deadline": LARGEST, "sender": "s" * 64, "device": "d" * 64,
        "payload": "5a" * 1000}),
    ("subscribe to two users", "SUBSCRIBE", {"request": "0000000000000006", "users": ["bob", "carol"]}),
    ("subscribe, the most users", "SUBSCRIBE", {"request": "f" * 16, "users": ["n" * 64] * 100}),
    ("unsubscribe", "UNSUBSCRIBE", {"users": ["bob"]}),
    ("unsubscribe from all", "UNSUBSCRIBE", {"users": []}),
    ("presence, online", "PRESENCE", {"user": "bob", "state": "online", "lastSeen": "0"}),
    ("presence, away", "PRESENCE", {"user": "bob", "state": "away", "lastSeen": "1767225600000"}),
    ("presence, offline and hidden", "PRESENCE", {"user": "n" * 64, "state": "offline", "lastSeen": "0"}),
    ("presence answer, done", "PRESENCE_ANSWER", {"request": "0000000000000006", "refusal": 0, "retryAfter": "0"}),
    ("presence answer, too many", "PRESENCE_ANSWER", {"request": "0000000000000007", "refusal": 23, "retryAfter": "0"}),
    ("visibility, everything", "VISIBILITY", {"visibility": "everything"}),
    ("visibility, state only", "VISIBILITY", {"visibility": "stateOnly"}),
    ("visibility, nothing", "VISIBILITY", {"visibility": "nothing"}),
    ("publish, the first bytes of a large payload", "PUBLISH", {
        "id": "68", "tag": "8899aabbccddeeff", "after": "64", "recipient": "bob", "timeToLive": "0",
        "following": "1048576", "payload": "5a" * 40}),
    ("deliver the first bytes of a large payload", "DELIVER", {
        "redelivered": False, "kind": "message", "offset": "1310", "previous": "1303", "sender": "bob",
        "device": "phone", "producer": PRODUCER, "publishID": "14", "time": "1767225600300", "expiry": "0",
        "following": "15000", "payload": "a5" * 40}),
    ("batch of two senders", "BATCH", {"groups": [
        {"encoding": 1, "frames": 2, "length": len(BOBS), "bytes": BOBS_COMPRESSED},
        {"encoding": 0, "frames": 2, "length": len(ALICES), "bytes": ALICES.hex()}]}),
    ("batch of an encoding of a later version", "BATCH", {"groups": [
        {"encoding": 4294967295, "frames": 1, "length": 65536, "bytes": "00"}]}),
    ("batch of nothing", "BATCH", {"groups": []}),
    ("encodings, one", "ENCODINGS", {"encodings": [1], "plain": []}),
    ("encodings, with channels that are not compressed", "ENCODINGS", {
        "encodings": [7, 1], "plain": [{"channel": "user/alice"}, {"channel": "room/keys"}]}),
    ("encodings, none any more", "ENCODINGS", {"encodings": [], "plain": []}),
    ("part", "PART", {"offset": "40", "bytes": "0123456789abcdef" * 4}),
    ("part, the rest does not come", "PART", {"offset": "0", "bytes": ""}),
    ("part, largest offset", "PART", {"offset": LARGEST, "bytes": "00"}),
    ("urgency, control", "URGENCY", {"channel": "room/call-7", "urgency": "control"}),
    ("urgency, chat", "URGENCY", {"channel": "user/alice", "urgency": "chat"}),
    ("urgency, bulk", "URGENCY", {"channel": "room/files", "urgency": "bulk"}),
]

PING = frame("PING", {"nonce": "0123456789abcdef", "answerAfter": "0"})
ACK = frame("ACK", {"offset": "7"})
LANE = frame("LANE", {"channel": "user/alice", "epoch": EPOCH})
NONCE = bytes.fromhex("0123456789abcdef")

# (name, bytes, the frames in them)
STREAMS = [
    ("nothing", b"", []),
    ("two frames", PING + ACK, ["PING", "ACK"]),
    ("unknown even types are skipped", raw(0x2A, b"") + PING + raw(0x6A, b"grease") + raw(MOST - 1, b"\xff" * 3) + ACK,
     ["PING", "ACK"]),
    ("an unknown even type with the largest body", raw(0x02, b"\0" * 16384) + ACK, ["ACK"]),
    ("numbers in longer forms than needed",
     varint(0x07, 2) + varint(10, 8) + NONCE + varint(0, 2) + varint(0x1F, 4) + varint(4, 2) + varint(7, 4), ["PING", "ACK"]),
]


def tag(lane, finished=False):
    return varint(2 * lane + finished)


# (name, bytes, the items in them)
TAGGED = [
    ("frames of two lanes", tag(0) + PING + tag(1) + LANE + tag(1) + ACK + tag(0) + PING,
     [[0, "PING"], [1, "LANE"], [1, "ACK"], [0, "PING"]]),
    ("a lane is finished", tag(3) + LANE + tag(3, True) + tag(0) + PING, [[3, "LANE"], [3, "FINISHED"], [0, "PING"]]),
    ("a large lane number", tag((1 << 40) + 1) + LANE, [[(1 << 40) + 1, "LANE"]]),
    ("unknown even types are skipped with their tag", tag(5) + raw(0x2A, b"x") + tag(0) + PING, [[0, "PING"]]),
]


def connect_body(versions=b"\1\1", credential=b"\0\0", cursors=b"\0", agent=b"\0"):
    return versions + credential + bytes(16) + b"\0\0" + cursors + agent


CURSOR = string("user/a") + bytes(8) + b"\0"
LIMIT_BYTES = b"\0" * 5
DELIVER_REST = b"\2\1" + string("a") + string("d") + bytes(16) + b"\1" + b"\0\0\0"

# (name, bytes, error)
INVALID = [
    ("unknown odd type", raw(0x3F, b""), "unknownType"),
    ("unknown odd type in two bytes", raw(0x4001, b"abc"), "unknownType"),
    ("unknown odd type before its length is known", varint(0x4003), "unknownType"),
    ("unknown odd type with a length over the limit", varint(0x4005) + varint(16385), "unknownType"),
    ("length over the limit", varint(0x07) + varint(16385), "tooLarge"),
    ("length over the limit of an unknown even type", varint(0x2A) + varint(MOST), "tooLarge"),
    ("empty body", raw(0x07, b""), "malformed"),
    ("body ends inside a fixed field", raw(0x07, NONCE[:7]), "malformed"),
    ("body ends inside a number", raw(0x1F, b"\xc0\0\0"), "malformed"),
    ("body ends inside a string", raw(0x09, NONCE + b"\5abcd"), "malformed"),
    ("bytes after the last field", raw(0x07, NONCE + b"\0\0"), "malformed"),
    ("the stream ends inside a header", b"\x07", "incomplete"),
    ("the stream ends inside a body", PING[:-1], "incomplete"),
    ("the stream ends inside a skipped frame", raw(0x2A, b"abc", 4), "incomplete"),
    ("string is not UTF-8", raw(0x09, NONCE + b"\2\xc3\x28"), "malformed"),
    ("string holds a surrogate", raw(0x09, NONCE + b"\3\xed\xa0\x80"), "malformed"),
    ("PONG: observed address over its limit", raw(0x09, NONCE + counted(b"a" * 81)), "limitExceeded"),
    ("CONNECT: no versions", raw(0x01, connect_body(versions=b"\0")), "malformed"),
    ("CONNECT: nine versions", raw(0x01, connect_body(versions=b"\x09" + b"\1" * 9)), "limitExceeded"),
    ("CONNECT: version over 2^32 - 1", raw(0x01, connect_body(versions=b"\1" + varint(1 << 32))), "malformed"),
    ("CONNECT: unknown credential kind", raw(0x01, connect_body(credential=b"\2\0")), "malformed"),
    ("CONNECT: token over its limit", raw(0x01, connect_body(credential=b"\0" + counted(b"t" * 7169))),
     "limitExceeded"),
    ("CONNECT: ticket over its limit", raw(0x01, connect_body(credential=b"\1" + counted(b"t" * 1025))),
     "limitExceeded"),
    ("CONNECT: 97 cursors", raw(0x01, connect_body(cursors=varint(97) + CURSOR * 97)), "limitExceeded"),
    ("CONNECT: more cursors announced than there are", raw(0x01, connect_body(cursors=varint(3) + CURSOR, agent=b"")),
     "malformed"),
    ("CONNECT: agent over its limit", raw(0x01, connect_body(agent=counted(b"a" * 65))), "limitExceeded"),
    ("CURSORS: neither all nor not", raw(0x56, b"\2\0"), "malformed"),
    ("CURSORS: 97 cursors", raw(0x56, b"\0" + varint(97) + CURSOR * 97), "limitExceeded"),
    ("CURSORS: more cursors announced than there are", raw(0x56, b"\1\2" + CURSOR), "malformed"),
    ("AHEAD: 97 records", raw(0x58, varint(97) + CURSOR * 97), "limitExceeded"),
    ("AHEAD: no channel", raw(0x58, b"\1" + string("a") + bytes(8) + b"\0"), "malformed"),
    ("CONNECTED: resumed is neither 0 nor 1", raw(0x03, b"\1" + bytes(8) + b"\2" + b"\0\0\0" + LIMIT_BYTES + b"\0\0"),
     "malformed"),
    ("CONNECTED: unknown recovery",
     raw(0x03, b"\1" + bytes(8) + b"\0" + b"\0\0\0" + LIMIT_BYTES + b"\0" + b"\1" + CURSOR + b"\3"), "malformed"),
    ("CLOSE: code over 2^32 - 1", raw(0x05, varint(1 << 32) + b"\0\0\0"), "malformed"),
    ("CLOSE: reason over its limit", raw(0x05, varint(1000) + counted(b"r" * 257) + b"\0\0"), "limitExceeded"),
    ("CLOSE: access point over its limit", raw(0x05, varint(1000) + b"\0\0" + counted(b"h" * 261)), "limitExceeded"),
    ("TICKET: over its limit", raw(0x0B, counted(b"t" * 1025) + b"\0"), "limitExceeded"),
    ("LANE: unknown kind of channel", raw(0x11, string("team/x") + bytes(8)), "malformed"),
    ("LANE: no name", raw(0x11, string("user/") + bytes(8)), "malformed"),
    ("LANE: a broadcast of no name", raw(0x11, string("all/") + bytes(8)), "malformed"),
    ("LANE: a broadcast with a name over its limit", raw(0x11, string("all/" + "n" * 65) + bytes(8)), "malformed"),
    ("LANE: a space in the name", raw(0x11, string("user/a b") + bytes(8)), "malformed"),
    ("LANE: a second slash", raw(0x11, string("room/a/b") + bytes(8)), "malformed"),
    ("LANE: a letter outside ASCII", raw(0x11, string("user/zoë") + bytes(8)), "malformed"),
    ("LANE: name over its limit", raw(0x11, string("user/" + "n" * 65) + bytes(8)), "limitExceeded"),
    ("PUBLISH: a kind that is entered by the server", raw(0x13, b"\2\1" + bytes(8) + b"\0\2" + bytes(9) + b"\0\0"),
     "malformed"),
    ("PUBLISH: a message with a target", raw(0x13, b"\2\1" + bytes(8) + b"\0\0" + bytes(9) + b"\0\0"), "malformed"),
    ("PUBLISH: unknown flag", raw(0x13, b"\x40\1" + bytes(8) + b"\0\0\0"), "malformed"),
    ("PUBLISH: empty recipient", raw(0x13, b"\1\1" + bytes(8) + b"\0" + b"\0" + b"\0\0"), "malformed"),
    ("PUBLISH: payload longer than the body", raw(0x13, b"\0\1" + bytes(8) + b"\0\0" + b"\6hello"), "malformed"),
    ("REFUSED: code 0", raw(0x17, b"\1\0\0\0"), "malformed"),
    ("DELIVER: unknown flag", raw(0x19, b"\x40\0" + DELIVER_REST), "malformed"),
    ("DELIVER: unknown kind", raw(0x19, b"\0\x3f" + DELIVER_REST), "malformed"),
    ("DELIVER: a message with a target", raw(0x19, b"\x08\0" + DELIVER_REST), "malformed"),
    ("DELIVER: an edit without a target", raw(0x19, b"\0\4" + DELIVER_REST), "malformed"),
    ("SKIP: unknown reason", raw(0x1B, b"\1\2\4"), "malformed"),
    ("JOIN: a room with its prefix", raw(0x21, bytes(8) + string("room/a")), "malformed"),
    ("MODE: unknown mode", raw(0x27, b"\3"), "malformed"),
    ("MODE: empty", raw(0x27, b""), "malformed"),
    ("ROOM_ANSWER: refusal over 2^32 - 1", raw(0x25, bytes(8) + varint(1 << 32) + bytes(8) + b"\0"), "malformed"),
    ("ROOM_SETTINGS: a room with its prefix",
     raw(0x5A, string("room/a") + bytes(8) + b"\1\0\0\0"), "malformed"),
    ("ROOM_SETTINGS: a name over its limit",
     raw(0x5A, string("n" * 65) + bytes(8) + b"\1\0\0\0"), "limitExceeded"),
    ("ROOM_SETTINGS: unknown joining", raw(0x5A, string("a") + bytes(8) + b"\1\3\0\0"), "malformed"),
    ("ROOM_SETTINGS: unknown publishing", raw(0x5A, string("a") + bytes(8) + b"\1\0\2\0"), "malformed"),
    ("ROOM_SETTINGS: unknown role", raw(0x5A, string("a") + bytes(8) + b"\1\0\0\2"), "malformed"),
    ("HISTORY: unknown direction", raw(0x29, bytes(8) + string("room/a") + bytes(8) + b"\1\2\1"), "malformed"),
    ("HISTORY: no channel", raw(0x29, bytes(8) + string("a") + bytes(8) + b"\1\0\1"), "malformed"),
    ("HISTORY: name over its limit", raw(0x29, bytes(8) + string("room/" + "n" * 65) + bytes(8) + b"\1\0\1"),
     "limitExceeded"),
    ("HISTORY_PAGE: refusal over 2^32 - 1",
     raw(0x2B, bytes(8) + varint(1 << 32) + b"\0" + bytes(8) + b"\0\0\0\0"), "malformed"),
    ("HISTORY_PAGE: more is neither 0 nor 1", raw(0x2B, bytes(8) + b"\0\0" + bytes(8) + b"\1\2\2\0"), "malformed"),
    ("HISTORY_PAGE: 257 items", raw(0x2B, bytes(8) + b"\0\0" + bytes(8) + b"\1\2\1" + varint(257)), "limitExceeded"),
    ("HISTORY_PAGE: a refusal with items", raw(0x2B, bytes(8) + b"\5\0" + bytes(8) + b"\0\0\0\1"), "malformed"),
    ("ROOM: unknown action", raw(0x2D, bytes(8) + string("a") + b"\6\0"), "malformed"),
    ("ROOM: a user where the action has none", raw(0x2D, bytes(8) + string("a") + b"\5" + string("u") + b"\0"),
     "malformed"),
    ("ROOM: no user where the action has one", raw(0x2D, bytes(8) + string("a") + b"\0\0"), "malformed"),
    ("ROOM: a value that the action doesn't have", raw(0x2D, bytes(8) + string("a") + b"\3\3"), "malformed"),
    ("ROOM: a value where the action has none", raw(0x2D, bytes(8) + string("a") + b"\0" + string("u") + b"\1"),
     "malformed"),
    ("MEMBERS: after is no name", raw(0x2F, bytes(8) + string("a") + string("u/v") + b"\1"), "malformed"),
    ("MEMBERS_PAGE: 101 members",
     raw(0x31, bytes(8) + b"\0\1" + varint(101) + (string("u") + b"\0") * 101 + b"\0"), "limitExceeded"),
    ("MEMBERS_PAGE: unknown role", raw(0x31, bytes(8) + b"\0\1\1" + string("u") + b"\2\0"), "malformed"),
    ("MEMBERS_PAGE: a refusal with members", raw(0x31, bytes(8) + b"\4\1\1" + string("u") + b"\0\0"), "malformed"),
    ("LOGOUT: a body", raw(0x37, b"\0"), "malformed"),
    ("ERASE_ACCOUNT: a body", raw(0x53, b"\0"), "malformed"),
    ("ERASURE_REFUSED: code 0", raw(0x54, b"\0\0"), "malformed"),
    ("ERASURE_REFUSED: no retry after", raw(0x54, b"\1"), "malformed"),
    ("STOPPED: no channel", raw(0x38, string("team-7")), "malformed"),
    ("CONVERSATIONS: a place over its limit", raw(0x33, bytes(8) + counted(bytes(97)) + b"\1"), "limitExceeded"),
    ("CONVERSATIONS_PAGE: 51 items", raw(0x35, bytes(8) + b"\0\0\0" + varint(51)), "limitExceeded"),
    ("CONVERSATIONS_PAGE: a refusal with items", raw(0x35, bytes(8) + b"\5\0\0\1"), "malformed"),
    ("READ: unknown flag", raw(0x39, b"\2" + string("user/a") + bytes(8) + b"\1"), "malformed"),
    ("CONVERSATION_SET: unknown setting", raw(0x3B, bytes(8) + string("user/a") + b"\2\0"), "malformed"),
    ("CONVERSATION_SET: neither blocked nor not", raw(0x3B, bytes(8) + string("user/a") + b"\1\2"), "malformed"),
    ("RECEIPT: unknown kind", raw(0x3C, string("user/a") + string("a") + b"\2" + bytes(8) + b"\1"), "malformed"),
    ("CONVERSATION: blocked is neither 0 nor 1", raw(0x3E, bytes(8) + b"\0" + string("user/a") + b"\0\2"), "malformed"),
    ("SIGNAL: unknown flag", raw(0x47, b"\2" + string("room/a") + b"\0\1\0"), "malformed"),
    ("SIGNAL: a sender without a device", raw(0x47, b"\1" + string("room/a") + b"\0\1" + string("a")), "malformed"),
    ("SIGNAL: payload over its limit",
     raw(0x47, b"\0" + string("room/a") + b"\0\1" + counted(b"p" * 1001)), "limitExceeded"),
    ("SUBSCRIBE: nobody", raw(0x49, bytes(8) + b"\0"), "malformed"),
    ("SUBSCRIBE: 101 users", raw(0x49, bytes(8) + varint(101) + string("a") * 101), "limitExceeded"),
    ("SUBSCRIBE: a channel for a user", raw(0x49, bytes(8) + b"\1" + string("user/a")), "malformed"),
    ("UNSUBSCRIBE: more users announced than there are", raw(0x4B, b"\2" + string("a")), "malformed"),
    ("PRESENCE: unknown state", raw(0x4A, string("a") + b"\3\0"), "malformed"),
    ("PRESENCE_ANSWER: refusal over 2^32 - 1", raw(0x4C, bytes(8) + varint(1 << 32) + b"\0"), "malformed"),
    ("VISIBILITY: unknown", raw(0x4D, b"\3"), "malformed"),
    ("PUBLISH: nothing follows", raw(0x13, b"\4\1" + bytes(8) + b"\0\0" + b"\0" + b"\1a"), "malformed"),
    ("PUBLISH: a payload longer than any body", raw(0x13, b"\0\1" + bytes(8) + b"\0\0" + varint(16385) + b"a"), "malformed"),
    ("PUBLISH: the longest payload that can be written", raw(0x13, b"\0\1" + bytes(8) + b"\0\0" + varint(MOST)), "malformed"),
    ("DELIVER: a payload longer than any body", raw(0x19, b"\0\0" + DELIVER_REST[:-1] + varint(16385) + b"a"), "malformed"),
    ("DELIVER: nothing follows", raw(0x19, b"\x10\0" + DELIVER_REST[:-1] + b"\0" + b"\1a"), "malformed"),
    ("BATCH: 257 groups", raw(0x43, varint(257)), "limitExceeded"),
    ("BATCH: groups over 65536 bytes before compression",
     raw(0x43, b"\2" + b"\1\1" + varint(65000) + b"\1x" + b"\1\1" + varint(537) + b"\1x"), "limitExceeded"),
    ("BATCH: groups of over 4096 frames",
     raw(0x43, b"\2" + b"\1" + varint(4000) + b"\1\1x" + b"\1" + varint(97) + b"\1\1x"), "limitExceeded"),
    ("BATCH: a group of over 16000 bytes", raw(0x43, b"\1\1\1\1" + counted(b"x" * 16001)), "limitExceeded"),
    ("BATCH: a group larger than before compression", raw(0x43, b"\1\1\1\1" + counted(b"xy")), "malformed"),
    ("BATCH: fewer groups than counted", raw(0x43, b"\2\1\1\1\1x"), "malformed"),
    ("ENCODINGS: nine", raw(0x44, b"\x09" + b"\1" * 9 + b"\0"), "limitExceeded"),
    ("ENCODINGS: 65 channels", raw(0x44, b"\0" + varint(65) + string("room/a") * 65), "limitExceeded"),
    ("ENCODINGS: no channel", raw(0x44, b"\0\1" + string("a")), "malformed"),
    ("PART: longer than its body", raw(0x41, b"\5\3ab"), "malformed"),
    ("PART: over its limit", raw(0x41, b"\5" + counted(b"a" * 15361)), "limitExceeded"),
    ("URGENCY: unknown urgency", raw(0x3D, string("room/a") + b"\3"), "malformed"),
    ("URGENCY: no urgency", raw(0x3D, string("room/a")), "malformed"),
]

INVALID_TAGGED = [
    ("lane 0 is finished", b"\1", "malformed"),
    ("unknown odd type on a lane", tag(1) + raw(0x3F, b""), "unknownType"),
    ("length over the limit on a lane", tag(1) + varint(0x13) + varint(16385), "tooLarge"),
    ("the stream ends behind a tag", tag(1), "incomplete"),
]



def delivered(sender, offset, previous, **more):
    return frame("DELIVER", {
        "redelivered": False, "kind": "message", "offset": str(offset), "previous": str(previous), "sender": sender,
        "device": "phone", "producer": PRODUCER, "publishID": "12", "time": "1767225600200", "expiry": "0",
        "payload": b"hello".hex(), **more})


def group(data, frames=1, encoding=0, length=None):
    return {"encoding": encoding, "frames": frames, "length": len(data) if length is None else length, "bytes": data.hex()}


def bobs(change=lambda data: data, **more):
    return [group(change(bytes.fromhex(BOBS_COMPRESSED)), **{"frames": 2, "encoding": 1, "length": len(BOBS), **more})]


# What a receiver that asked for encoding 1 takes out of a batch, in order, or the kind of error.
BATCHES = [
    ("two senders in turn", bobs() + [group(ALICES, 2)],
     [BOBS[:len(BOBS) // 2], ALICES[:-len(LAST_SKIP)], BOBS[len(BOBS) // 2:], LAST_SKIP]),
    ("nothing", [], []),
    ("a frame of an unknown even type is passed over", [group(raw(0x2F00, b"later") + ALICES, 2)],
     [ALICES[:-len(LAST_SKIP)], LAST_SKIP]),
    ("an encoding that nobody asked for", [group(ALICES, 2, encoding=2)], "malformed"),
    ("more than it says, compressed", bobs(length=len(BOBS) - 1), "malformed"),
    ("less than it says, compressed", bobs(length=len(BOBS) + 1), "malformed"),
    ("cut off, compressed", bobs(lambda data: data[:-1]), "malformed"),
    ("a byte behind the end, compressed", bobs(lambda data: data + b"\0"), "malformed"),
    ("not compressed, though it says so", [group(ALICES, 2, encoding=1)], "malformed"),
    ("nothing, compressed", [group(b"", 0, encoding=1)], "malformed"),
    ("a group of nothing", [group(b"", 0)], []),
    ("less than it says", [group(ALICES, 2, length=len(ALICES) + 1)], "malformed"),
    ("one frame more than it says", [group(ALICES, 1)], "malformed"),
    ("one frame less than it says", [group(ALICES, 3)], "malformed"),
    ("ends inside a frame", [group(ALICES[:-1], 2)], "malformed"),
    ("two senders in one group", [group(delivered("bob", 7, 6) + delivered("alice", 8, 7), 2)], "malformed"),
    ("an entry that goes on in parts", [group(delivered("bob", 7, 6, following="5"))], "malformed"),
    ("a gap", [group(frame("GAP", {"from": {"epoch": EPOCH, "offset": "0"}, "first": "5"}))], "malformed"),
    ("a batch", [group(frame("BATCH", {"groups": []}))], "malformed"),
    ("a frame of an unknown odd type", [group(raw(0x3F, b"later"))], "unknownType"),
    ("a frame whose field is over its limit", [group(raw(0x19, b"\0\0\1\0" + counted(b"s" * 65)))], "limitExceeded"),
]

CLOSE_CODES = {
    "malformed": 5000, "tooLarge": 5001, "unknownType": 5003, "limitExceeded": 5004, "incomplete": 5000}

VARINTS = [0, 1, 37, 63, 64, 15293, 16383, 16384, 494878333, (1 << 30) - 1, 1 << 30, 151288809941952652, MOST]


def write(name, note, vectors):
    path = pathlib.Path(__file__).parent / name
    text = json.dumps({"protocol": "longline/1", "note": note, "vectors": vectors}, indent=2, ensure_ascii=False)
    path.write_text(text + "\n")


def main():
    write(
        "varints.json", "hex <-> value. Where shortest is false, only reading is meant.",
        [{"value": str(value), "hex": varint(value).hex(), "shortest": True} for value in VARINTS]
        + [{"value": "37", "hex": varint(37, size).hex(), "shortest": False} for size in (2, 4, 8)])
    write(
        "frames.json",
        "One frame each, hex <-> fields. 64-bit numbers are decimal strings; epochs, tags, nonces, producers and bytes "
        "are hex strings; a field that is absent is left out.",
        [{"name": name, "frame": kind, "fields": fields, "hex": frame(kind, fields).hex()}
         for name, kind, fields in VALID])
    write(
        "streams.json", "The bytes of one lane and the names of the frames that a receiver sees in them.",
        [{"name": name, "hex": data.hex(), "frames": frames} for name, data, frames in STREAMS])
    write(
        "tagged-streams.json",
        "The bytes of a lane-tagged stream (TCP, WebSocket) and what a receiver sees in them, with the lane of each.",
        [{"name": name, "hex": data.hex(), "items": [{"lane": str(lane), "frame": kind} for lane, kind in items]}
         for name, data, items in TAGGED])
    write(
        "invalid.json",
        "Bytes that a receiver refuses, the kind of error, and the close code. incomplete: the bytes end too early, "
        "which is an error only when the stream ends there.",
        [{"name": name, "tagged": tagged, "hex": data.hex(), "error": error, "closeCode": CLOSE_CODES[error]}
         for tagged, vectors in ((False, INVALID), (True, INVALID_TAGGED)) for name, data, error in vectors])
    write(
        "batches.json",
        "One BATCH each, and the frames that a receiver which asked for encoding 1 takes out, in order; or the kind of error and "
        "the close code.",
        [{"name": name, "hex": frame("BATCH", {"groups": groups}).hex(),
          **({"error": inside, "closeCode": CLOSE_CODES[inside]} if isinstance(inside, str)
             else {"frames": [data.hex() for data in inside]})}
         for name, groups, inside in BATCHES])


if __name__ == "__main__":
    main()
