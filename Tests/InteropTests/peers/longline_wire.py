"""The frames of the session protocol, written from docs/protocol.md (sections 2 to 4 and 24) and from nothing of the package.

A field is a pair: what writes its value, and what reads it. Opaque values are hexadecimal text, positions (epoch, offset), rows of
lists tuples in the order of the page.
"""

import re
import zlib


class Refused(Exception):
    """Bytes that are no frame, with the close code for them."""

    def __init__(self, code, what):
        super().__init__(f"{code}: {what}")
        self.code = code


class Incomplete(Exception):
    """The bytes end inside a frame."""


class Reader:
    def __init__(self, body):
        self.body, self.at = body, 0

    def take(self, count):
        if self.at + count > len(self.body):
            raise Refused(5000, "a field goes beyond the body")
        self.at += count
        return self.body[self.at - count : self.at]

    def varint(self, limit=None):
        try:
            value, self.at = read_varint(self.body, self.at)
        except Incomplete:
            raise Refused(5000, "a field goes beyond the body") from None
        if limit is not None and value > limit:
            raise Refused(5004, "over the field's limit")
        return value


def write_varint(value):
    for size, bits in ((1, 6), (2, 14), (4, 30), (8, 62)):
        if value < 1 << bits:
            return (value | (size.bit_length() - 1) << (8 * size - 2)).to_bytes(size, "big")
    raise ValueError(value)


def read_varint(data, at):
    """A number and where it ends."""
    size = 1 << (data[at] >> 6) if at < len(data) else 1
    if at + size > len(data):
        raise Incomplete
    return int.from_bytes(data[at : at + size], "big") & ((1 << (8 * size - 2)) - 1), at + size


# Fields

VARINT = (write_varint, Reader.varint)


def checked(field, is_good):
    """A field of which some values are malformed."""
    write, read = field

    def reading(reader):
        value = read(reader)
        if not is_good(value):
            raise Refused(5000, f"a field can't be {value!r}")
        return value

    return write, reading


U32 = checked(VARINT, lambda value: value < 1 << 32)
CODE = checked(U32, lambda value: value > 0)
BYTE = (lambda value: bytes([value]), lambda reader: reader.take(1)[0])


def byte(highest, lowest=0):
    return checked(BYTE, lambda value: lowest <= value <= highest)


def flags(known):
    return checked(BYTE, lambda value: value & ~known == 0)


def opaque(size):
    return bytes.fromhex, lambda reader: reader.take(size).hex()


def octets(limit=None):
    return lambda value: write_varint(len(value)) + value, lambda reader: reader.take(reader.varint(limit))


def string(limit, rule=None):
    write, read = octets(limit)

    def reading(reader):
        try:
            text = read(reader).decode()
        except UnicodeDecodeError:
            raise Refused(5000, "no UTF-8") from None
        if rule is not None and not re.fullmatch(rule, text):
            raise Refused(5000, "a name breaks its rule")
        return text

    return lambda value: write(value.encode()), reading


def row(*fields):
    return (
        lambda values: b"".join(write(value) for (write, _), value in zip(fields, values, strict=True)),
        lambda reader: tuple(read(reader) for _, read in fields),
    )


def listing(limit, field, least=0):
    write, read = field

    def reading(reader):
        count = reader.varint(limit)
        if count < least:
            raise Refused(5000, "an empty list")
        return [read(reader) for _ in range(count)]

    return lambda values: write_varint(len(values)) + b"".join(map(write, values)), reading


NAME = string(64, "[A-Za-z0-9._~@+-]{1,64}")
NAME_OR_NONE = string(64, "[A-Za-z0-9._~@+-]{0,64}")
CHANNEL = string(69, "(user|room|all)/[A-Za-z0-9._~@+-]{1,64}")
ID = opaque(8)
POSITION = row(ID, VARINT)
CURSORS = listing(96, row(CHANNEL, POSITION))
BOOL = byte(1)
GROUP = checked(row(U32, VARINT, VARINT, octets(16000)), lambda group: len(group[3]) <= group[2])
CONVERSATION = row(CHANNEL, POSITION, VARINT, VARINT, VARINT, BOOL, VARINT, VARINT, VARINT)


def bit(number):
    return lambda frame: frame["flags"] >> number & 1


# Frames: type, name, and the fields, some with a condition.
TABLE = [
    (0x01, "CONNECT", ("versions", listing(8, U32, least=1)), ("kind", BOOL),
     ("token", string(7168), lambda f: f["kind"] == 0), ("ticket", octets(1024), lambda f: f["kind"] == 1),
     ("producer", opaque(16)), ("number", VARINT), ("cursorVersion", VARINT), ("cursors", CURSORS), ("agent", string(64))),
    (0x03, "CONNECTED", ("version", U32), ("session", ID), ("resumed", BOOL), ("serverTime", VARINT), ("address", string(80)),
     ("expiry", VARINT), ("maximumPayload", VARINT), ("window", VARINT), ("maximumUnacknowledged", VARINT),
     ("minimumHeartbeat", VARINT), ("idleTimeout", VARINT), ("cursorVersion", VARINT),
     ("channels", listing(96, row(CHANNEL, POSITION, byte(2))))),
    (0x05, "CLOSE", ("code", U32), ("reason", string(256)), ("retryAfter", VARINT), ("accessPoint", string(260))),
    (0x07, "PING", ("nonce", ID), ("answerAfter", VARINT)),
    (0x09, "PONG", ("nonce", ID), ("address", string(80))),
    (0x0B, "TICKET", ("ticket", octets(1024)), ("expiry", VARINT)),
    (0x0D, "REFRESH", ("token", string(7168))),
    (0x0F, "REFRESHED", ("expiry", VARINT)),
    (0x11, "LANE", ("channel", CHANNEL), ("epoch", ID)),
    (0x13, "PUBLISH", ("flags", flags(7)), ("id", VARINT), ("tag", ID), ("after", VARINT), ("recipient", NAME, bit(0)),
     ("kind", byte(8, lowest=4), bit(1)), ("target", POSITION, bit(1)), ("timeToLive", VARINT),
     ("following", checked(VARINT, bool), bit(2)), ("payload", octets())),
    (0x15, "PUBLISHED", ("id", VARINT), ("position", POSITION), ("time", VARINT)),
    (0x17, "REFUSED", ("id", VARINT), ("code", CODE), ("last", VARINT), ("retryAfter", VARINT)),
    (0x19, "DELIVER", ("flags", flags(31)), ("kind", byte(8)), ("offset", VARINT), ("previous", VARINT), ("sender", NAME),
     ("device", NAME), ("producer", opaque(16)), ("id", VARINT), ("recipient", NAME, bit(1)), ("origin", POSITION, bit(2)),
     ("target", VARINT, bit(3)), ("time", VARINT), ("expiry", VARINT), ("following", checked(VARINT, bool), bit(4)),
     ("payload", octets())),
    (0x1B, "SKIP", ("previous", VARINT), ("to", VARINT), ("reason", byte(3))),
    (0x1D, "GAP", ("from", POSITION), ("first", VARINT)),
    (0x1F, "ACK", ("offset", VARINT)),
    (0x21, "JOIN", ("request", ID), ("room", NAME)),
    (0x23, "LEAVE", ("request", ID), ("room", NAME)),
    (0x25, "ROOM_ANSWER", ("request", ID), ("refusal", U32), ("position", POSITION)),
    (0x27, "MODE", ("mode", byte(2))),
    (0x29, "HISTORY", ("request", ID), ("channel", CHANNEL), ("epoch", ID), ("from", VARINT), ("direction", BOOL),
     ("limit", VARINT)),
    (0x2B, "HISTORY_PAGE", ("request", ID), ("refusal", U32), ("retryAfter", VARINT), ("epoch", ID), ("start", VARINT),
     ("end", VARINT), ("more", BOOL), ("items", (write_varint, lambda reader: reader.varint(256)))),
    (0x2D, "ROOM", ("request", ID), ("room", NAME), ("action", byte(5)), ("user", NAME, lambda f: f["action"] < 3),
     ("value", BYTE)),
    (0x2F, "MEMBERS", ("request", ID), ("room", NAME), ("after", NAME_OR_NONE), ("limit", VARINT)),
    (0x31, "MEMBERS_PAGE", ("request", ID), ("refusal", U32), ("total", VARINT), ("members", listing(100, row(NAME, BOOL))),
     ("more", BOOL)),
    (0x33, "CONVERSATIONS", ("request", ID), ("after", octets(96)), ("limit", VARINT)),
    (0x35, "CONVERSATIONS_PAGE", ("request", ID), ("refusal", U32), ("retryAfter", VARINT), ("next", octets(96)),
     ("items", listing(50, CONVERSATION))),
    (0x37, "LOGOUT"),
    (0x38, "STOPPED", ("channel", CHANNEL)),
    (0x39, "READ", ("flags", flags(1)), ("conversation", CHANNEL), ("position", POSITION)),
    (0x3B, "CONVERSATION_SET", ("request", ID), ("conversation", CHANNEL), ("setting", BOOL), ("value", VARINT)),
    (0x3C, "RECEIPT", ("conversation", CHANNEL), ("user", NAME), ("kind", BOOL), ("position", POSITION)),
    (0x3D, "URGENCY", ("channel", CHANNEL), ("urgency", byte(2))),
    (0x3E, "CONVERSATION", ("request", ID), ("refusal", U32), ("conversation", CHANNEL), ("mutedUntil", VARINT),
     ("blocked", BOOL)),
    (0x41, "PART", ("offset", VARINT), ("bytes", octets(15360))),
    (0x43, "BATCH", ("groups", listing(256, GROUP))),
    (0x44, "ENCODINGS", ("encodings", listing(8, U32)), ("plain", listing(64, CHANNEL))),
    (0x47, "SIGNAL", ("flags", flags(1)), ("channel", CHANNEL), ("kind", BYTE), ("deadline", VARINT), ("sender", NAME, bit(0)),
     ("device", NAME, bit(0)), ("payload", octets(1000))),
    (0x49, "SUBSCRIBE", ("request", ID), ("users", listing(100, NAME, least=1))),
    (0x4A, "PRESENCE", ("user", NAME), ("state", byte(2)), ("lastSeen", VARINT)),
    (0x4B, "UNSUBSCRIBE", ("users", listing(100, NAME))),
    (0x4C, "PRESENCE_ANSWER", ("request", ID), ("refusal", U32), ("retryAfter", VARINT)),
    (0x4D, "VISIBILITY", ("visibility", byte(2))),
    (0x52, "BEHIND", ("channel", CHANNEL), ("head", POSITION), ("state", BOOL)),
    (0x53, "ERASE_ACCOUNT"),
    (0x54, "ERASURE_REFUSED", ("code", CODE), ("retryAfter", VARINT)),
    (0x56, "CURSORS", ("all", BOOL), ("cursors", CURSORS)),
    (0x58, "AHEAD", ("records", CURSORS)),
    (0x5A, "ROOM_SETTINGS", ("room", NAME), ("position", POSITION), ("joining", byte(2)), ("publishing", BOOL), ("role", BOOL)),
]
FRAMES = {kind: (name, [(*field, None)[:3] for field in fields]) for kind, name, *fields in TABLE}
TYPES = {name: kind for kind, (name, _) in FRAMES.items()}
HIGHEST_ROOM_VALUES = {2: 1, 3: 2, 4: 1}


def raw(kind, body):
    return write_varint(kind) + write_varint(len(body)) + body


def encode(name, **values):
    fields = FRAMES[TYPES[name]][1]
    body = b"".join(write(values[field]) for field, (write, _), when in fields if when is None or when(values))
    return raw(TYPES[name], body)


def fits_together(name, frame):
    """What one field demands of another."""
    if name == "ROOM":
        return frame["value"] <= HIGHEST_ROOM_VALUES.get(frame["action"], 0)
    if name == "CONVERSATION_SET":
        return frame["setting"] == 0 or frame["value"] <= 1
    if name == "DELIVER":
        return ("target" in frame) == (4 <= frame["kind"] <= 7)
    if name in ("HISTORY_PAGE", "MEMBERS_PAGE", "CONVERSATIONS_PAGE"):
        return frame["refusal"] == 0 or not frame["members" if name == "MEMBERS_PAGE" else "items"]
    return True


def next_frame(data, at=0):
    """The frame that begins there, as (name, fields) or None where it is passed over, and where it ends."""
    kind, at = read_varint(data, at)
    if kind not in FRAMES and kind % 2 == 1:
        raise Refused(5003, f"type {kind:#x}")
    length, at = read_varint(data, at)
    if length > 16384:
        raise Refused(5001, "a body over the limit")
    if at + length > len(data):
        raise Incomplete
    if kind not in FRAMES:
        return None, at + length
    name, fields = FRAMES[kind]
    reader, frame = Reader(bytes(data[at : at + length])), {}
    for field, (_, read), when in fields:
        if when is None or when(frame):
            frame[field] = read(reader)
    if reader.at != length or not fits_together(name, frame):
        raise Refused(5000, name)
    if name == "BATCH":
        groups = frame["groups"]
        if sum(group[1] for group in groups) > 4096 or sum(group[2] for group in groups) > 65536:
            raise Refused(5004, name)
    return (name, frame), at + length


def frames_of(data):
    """All frames of a lane's bytes; Incomplete where they end inside one."""
    found, at = [], 0
    while at < len(data):
        frame, at = next_frame(data, at)
        if frame is not None:
            found.append(frame)
    return found


def unpack(batch):
    """The frames of a batch, in the order in which they count."""
    found = []
    for encoding, count, length, data in batch["groups"]:
        if encoding > 1:
            raise Refused(5000, "an encoding that nobody asked for")
        if encoding == 1:
            data = inflate(data, length)
        if len(data) != length:
            raise Refused(5000, "another length")
        try:
            frames = frames_of(data)
        except Incomplete:
            raise Refused(5000, "a group ends inside a frame") from None
        entries = [frame for name, frame in frames if name == "DELIVER"]
        if (
            len(frames) != count
            or any(name not in ("DELIVER", "SKIP") for name, _ in frames)
            or any("following" in entry for entry in entries)
            or len({entry["sender"] for entry in entries}) > 1
        ):
            raise Refused(5000, "a group of other frames")
        found += frames
    return sorted(found, key=lambda frame: frame[1].get("offset", frame[1].get("to")))


def inflate(data, length):
    stream = zlib.decompressobj(-15)
    try:
        # One byte more would be too many; with length 0 zlib would take no bound.
        text = stream.decompress(data, length + 1)
    except zlib.error as error:
        raise Refused(5000, str(error)) from None
    if not stream.eof or stream.unused_data:
        raise Refused(5000, "ends early, or goes on behind its end")
    return text
