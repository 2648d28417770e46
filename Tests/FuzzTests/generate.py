#!/usr/bin/env python3
"""Writes the seeds of the fuzz corpus beside this file, Corpus/TARGET/seed-NAME: generate.py [TARGET…].

An input is a list of choices that Tests/FuzzTargets reads; this file follows its order. Inputs whose names don't begin with
`seed-` were found by scripts/fuzz and stay as they are.
"""

import json
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
CORPUS = HERE / "Corpus"
VECTORS = HERE.parent / "Vectors"


def varint(value):
    for power, (length, limit) in enumerate([(1, 1 << 6), (2, 1 << 14), (4, 1 << 30), (8, 1 << 62)]):
        if value < limit:
            return (value | power << (8 * length - 2)).to_bytes(length, "big")
    raise ValueError(value)


def numbers(*values):
    return b"".join(varint(value) for value in values)


def u16(value):
    return value.to_bytes(2, "big")


def new_connection_id(sequence, retire_prior_to, length=8):
    cid = bytes([0xA0 + sequence % 64]) * length
    return numbers(0x18, sequence, retire_prior_to) + bytes([length]) + cid + bytes([0xB0 + sequence % 64]) * 16


def crypto(offset, data):
    return numbers(0x06, offset, len(data)) + data


def stream(identifier, offset, data, fin=False):
    return numbers(0x0E | fin, identifier, offset, len(data)) + data


def message(kind, body=b""):
    return bytes([kind]) + len(body).to_bytes(3, "big") + body


LARGEST = (1 << 62) - 1
TICKET = message(4, bytes(4) + bytes(4) + b"\x01\x00" + u16(32) + bytes(32) + u16(0))

# Plaintexts of packets, one list for a connection.
PLAINTEXTS = {
    "ping": [b"\x01"],
    "padding": [b""],
    "ack-of-what-was-never-sent": [numbers(0x02, 9000, 0, 0, 9000)],
    "ack-with-a-range-below-zero": [numbers(0x02, 3, 0, 1, 1, 0, 9)],
    "ack-with-ecn": [numbers(0x03, 1, 0, 0, 1, 1, 0, 0)],
    "ack-with-endless-ranges": [numbers(0x02, 1, 0, LARGEST, 0)],
    "reset-stream": [numbers(0x04, 0, 7, 0), numbers(0x04, 1, 7, 0), numbers(0x04, 2, 7, LARGEST)],
    "reset-unidirectional-first": [numbers(0x04, 6, 7, 0), numbers(0x04, 10, 7, 3) + stream(10, 0, b"abcd")],
    "stop-sending": [numbers(0x05, 0, 7), numbers(0x05, 2, 7), numbers(0x05, 400, 7)],
    "stop-sending-thirty-times": [b"".join(numbers(0x05, 4 * i, i) for i in range(30))],
    "crypto-key-update": [crypto(0, message(24, b"\x00"))],
    "crypto-ticket": [crypto(0, TICKET) + crypto(len(TICKET), TICKET)],
    "crypto-in-pieces": [crypto(0, b"\x04\x00"), crypto(2, b"\xff\xff"), crypto(4, bytes(900))],
    "crypto-far-ahead": [crypto(1 << 20, b"x"), crypto(LARGEST - 4, b"x")],
    "crypto-finished-again": [crypto(0, message(20, bytes(32)))],
    "crypto-client-hello": [crypto(0, message(1, bytes(200)))],
    "new-token": [numbers(0x07, 5) + b"token", numbers(0x07, 0), numbers(0x07, LARGEST)],
    "stream": [stream(0, 0, b"hello"), stream(0, 5, b"", True), stream(3, 0, b"x"), stream(2, 0, b"y", True)],
    "stream-over-its-window": [stream(0, 1 << 30, b"x")],
    "stream-at-the-largest-offset": [stream(0, LARGEST, b"")],
    "stream-beyond-the-limit": [stream(4 * 1000, 0, b"x")],
    "stream-of-the-victim": [stream(1, 0, b"x"), stream(0, 0, b"x")],
    "stream-with-two-final-sizes": [stream(8, 0, b"abc", True), stream(8, 0, b"abcd", True)],
    "stream-out-of-order": [stream(8, 100 * i, b"z" * 50) for i in range(20, 0, -1)],
    "stream-to-the-end": [numbers(0x08, 8) + b"x" * 100],
    "limits": [numbers(0x10, LARGEST), numbers(0x11, 0, LARGEST), numbers(0x12, 1 << 60), numbers(0x13, (1 << 60) + 1)],
    "blocked": [numbers(0x14, 1), numbers(0x15, 0, 1), numbers(0x16, 1), numbers(0x17, (1 << 60) + 1)],
    "connection-id-late": [
        new_connection_id(20, 20), new_connection_id(12, 0), new_connection_id(12, 0), new_connection_id(0, 0)],
    "connection-ids-too-many": [b"".join(new_connection_id(i, 0) for i in range(2 + 8 * n, 10 + 8 * n)) for n in range(6)],
    "connection-ids-retired-each-time": [new_connection_id(i, i) for i in range(2, 30)],
    "connection-ids-backwards": [new_connection_id(40, 40)] + [new_connection_id(i, 0) for i in range(39, 8, -1)],
    "connection-id-changed": [new_connection_id(9, 0), new_connection_id(9, 0, 12)],
    "connection-id-malformed": [new_connection_id(9, 10), new_connection_id(9, 0, 0), new_connection_id(9, 0, 21)],
    "retire-connection-id": [numbers(0x19, 0), numbers(0x19, 1), numbers(0x19, 2), numbers(0x19, LARGEST)],
    "path-challenge": [b"\x1a12345678" * 40, b"\x1b12345678"],
    "close": [numbers(0x1C, 1, 6, 3) + b"why"],
    "close-by-the-application": [numbers(0x1D, 1, 3) + b"why"],
    "handshake-done": [b"\x1e"],
    "datagram": [b"\x30" + bytes(500), numbers(0x31, 3) + b"abc", numbers(0x31, LARGEST)],
    "unknown": [numbers(0x21), numbers(LARGEST)],
    "type-longer-than-needed": [b"\x40\x01", b"\x40\x06\x00\x00"],
    "cut-off": [b"\x01" * 1190 + numbers(0x18, 20)],
}

REPLACE_ALL, REPLACE_BEGINNING, CHANGE, PASS = range(4)
INITIAL, HANDSHAKE, ONE_RTT, ZERO_RTT = range(4)
TRACES = 0x80


def edits(plaintexts):
    return b"".join(bytes([REPLACE_ALL]) + u16(len(text)) + text for text in plaintexts)


def frames():
    for victim, name in ((0, "server"), (1, "client")):
        for case, plaintexts in PLAINTEXTS.items():
            yield f"{name}-{case}", bytes([victim | ONE_RTT << 1]) + edits(plaintexts)
            yield f"{name}-returned-{case}", bytes([victim | ZERO_RTT << 1]) + edits(plaintexts)
        for case in ("stream", "reset-stream", "close", "close-by-the-application", "new-token", "path-challenge", "datagram",
                     "connection-id-late", "ack-with-ecn", "limits", "crypto-key-update", "unknown"):
            yield f"{name}-traced-{case}", bytes([victim | ONE_RTT << 1 | TRACES]) + edits(PLAINTEXTS[case])
        for offset in (0, 1, 3, 10, 40, 300):
            yield f"{name}-returned-changed-{offset}", (
                bytes([victim | ZERO_RTT << 1 | TRACES]) + (bytes([CHANGE, 1]) + u16(offset) + b"\xff") * 3)
        for level, at in ((INITIAL, "initial"), (HANDSHAKE, "handshake")):
            flags = bytes([victim | level << 1])
            for case in ("ping", "stream", "crypto-key-update", "crypto-far-ahead", "connection-id-late", "handshake-done",
                         "close-by-the-application", "new-token", "datagram", "unknown", "path-challenge"):
                yield f"{name}-{at}-{case}", flags + edits(PLAINTEXTS[case] * 4)
            for offset in (5, 8, 40, 60, 90, 120, 160, 200, 240, 280):
                yield f"{name}-{at}-changed-{offset}", flags + bytes([CHANGE, 1]) + u16(offset) + b"\xff"
            yield f"{name}-{at}-changed-later", flags + bytes([PASS, CHANGE, 2]) + u16(4) + b"\x18" + u16(20) + b"\x00"


def frame_guard():
    for case, plaintexts in PLAINTEXTS.items():
        yield case, b"".join(u16(len(text)) + text for text in plaintexts)


RETRY, RETURNS, TRACED = 1, 2, 4
BYTES, LONG, SHORT, CHANGED, REPEATED, TO_CLIENT, WAIT, WRITE = range(8)


def datagrams():
    waits = bytes([WAIT, 4])
    garbage = bytes(range(200))
    for flags, name in ((0, ""), (RETRY, "retry-"), (RETURNS, "returns-"), (RETURNS | RETRY, "returns-retry-"),
                        (TRACED, "traced-"), (RETURNS | TRACED, "returns-traced-")):
        start = bytes([flags])
        yield name + "nothing", start
        yield name + "garbage", start + bytes([BYTES, 199]) + garbage + bytes([1]) + waits
        yield name + "one-byte", start + b"".join(bytes([BYTES, 0, first, 0]) for first in (0, 0x40, 0x80, 0xC0, 0xFF))
        for version in range(4):
            body = bytes([LONG, 0, 0xC0, version, 8, 0, 8, 0, 20, 0]) + u16(0) + bytes(17)
            yield f"{name}version-{version}", start + (body + bytes([1]) + u16(0)) * 3 + waits
        yield name + "short-headers", start + waits * 6 + (bytes([SHORT, 0, 60]) + garbage[:60]) * 4
        yield name + "changed", start + waits + bytes([CHANGED, 0, 1, 0, 1]) + u16(30) + b"\x01\x00" + waits * 3
        yield name + "cut-off", start + waits + bytes([CHANGED, 0, 1, 0, 0, 1]) + u16(700) + waits * 3
        yield name + "repeated", start + waits * 3 + bytes([REPEATED, 2, 0, REPEATED, 3, 1, REPEATED, 6, 2]) + waits * 3
        yield name + "overtaken", start + bytes([REPEATED, 1, 0]) + waits * 8
        yield name + "moved-by-others", (
            start + waits * 7 + (bytes([WRITE]) + u16(900) + b"\x00" + bytes([REPEATED, 1, 0]) + waits) * 4)
        # The whole first flight again, at once and later, as it was and changed behind its ClientHello.
        flight = b"".join(bytes([REPEATED, 1, back]) for back in (3, 2, 1, 0))
        yield name + "flight-repeated", start + flight + waits * 4 + flight + waits * 8 + flight
        yield name + "flight-changed", (
            start + b"".join(bytes([CHANGED, 0, 2, back, 1]) + u16(900) + b"\x01\x00" for back in range(4)) + waits * 3)
        yield name + "flight-cut-off", (
            start + b"".join(bytes([CHANGED, 0, 2, back, 0, 1]) + u16(1250 - 50 * back) for back in range(4)) + waits * 3)
        yield name + "to-the-client", start + waits + bytes([TO_CLIENT, 0, 40]) + garbage[:40] + bytes([TO_CLIENT, 1, 0, 0])
        yield name + "late", start + waits * 8 + bytes([WAIT, 13, REPEATED, 0, 0, REPEATED, 0, 3, SHORT, 0, 30]) + garbage[:30]


def wire():
    for file in ("frames", "invalid", "streams", "tagged-streams"):
        vectors = json.loads((VECTORS / f"{file}.json").read_text())["vectors"]
        for index, vector in enumerate(vectors):
            tagged = file == "tagged-streams" or vector.get("tagged", False)
            data = bytes.fromhex(vector["hex"])
            if len(data) <= 600:
                yield f"{file}-{index:03}", bytes([1 if tagged else 0, 2 + index % 7]) + data


SERVER, CLIENT = 0, 1


def sessions():
    """Steps of ServerSessionFuzzing and ClientSessionFuzzing, in the order in which they read their choices."""
    # Server: 0 frame(room, type, ..., lane), 6 handshake, 8 grant, 9 append, 10 read, 11 wake, 5 time.
    connect = bytes([0, 0, 0, 0, 0, 1, 0, 3, 0, 0])
    grant = bytes([8, 0x20]) + bytes([10, 0, 0, 1, 1, 1, 1] * 2) + bytes([5, 5, 5])
    publish = bytes([2, 1, 0, 3, 1, 1, 1, 0, 5, 10])
    yield "server-nothing", bytes([SERVER])
    yield "server-connects", bytes([SERVER, 6]) + connect + grant
    yield "server-publishes", bytes([SERVER, 6]) + connect + grant + publish * 3 + bytes([9, 0, 1, 1, 5]) * 3
    yield "server-early", bytes([SERVER]) + publish + connect + grant + bytes([6]) + publish
    yield "server-delivers", bytes([SERVER, 6]) + connect + grant + bytes([10, 0, 0x41]) + bytes([0, 1] * 8) + bytes([5, 9] * 3)
    yield "server-wakes", bytes([SERVER, 6]) + connect + grant + bytes([11, 0, 1, 30, 10, 0, 0x31] + [1] * 40)
    yield "server-rooms", bytes([SERVER, 6]) + connect + grant + bytes([0, 0, 8, 4, 0, 12, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 9, 4, 0])
    yield "server-refreshes", bytes([SERVER, 6]) + connect + grant + bytes([0, 0, 6, 0, 13, 1, 1])
    yield "server-bytes", bytes([SERVER, 6]) + connect + grant + bytes([3, 0, 10, 7, 8] + [1] * 8)
    yield "server-lanes", bytes([SERVER, 6]) + connect + grant + bytes([2, 241, 0, 3, 1, 1, 1, 0, 5, 10, 4, 1, 4, 1])
    # Places before CONNECT, which are all; too many of them, and behind it.
    cursors = bytes([0, 0, 44, 2, 0, 0, 3, 0, 1, 5, 1, 0])
    yield "server-cursors", bytes([SERVER, 6]) + cursors + connect + grant
    yield "server-cursors-too-many", bytes([SERVER, 6]) + bytes([0, 0, 44, 1, 0, 0, 3, 0, 0]) * 13 + connect + grant
    yield "server-cursors-late", bytes([SERVER, 6]) + connect + cursors + grant
    # 40 and 41: encodings and batches, 43: a room's settings, 44 and 45: cursors and what is ahead of them.
    for kind in (*range(20), 40, 41, 43, 44, 45):
        yield f"server-type-{kind:02}", bytes([SERVER, 6]) + connect + grant + bytes([0, 0, kind] + [3] * 12)
        yield f"server-lane-type-{kind:02}", bytes([SERVER, 6]) + connect + grant + publish + bytes([1, 0, kind] + [3] * 12)
    # Client: 11 link, 13 accept, 2 open(channel, epoch, lane), 7 publish, 8 confirm, 0 frame, 1 frameAgain.
    link = bytes([11, 0, 0])
    accept = bytes([13, 2] + [0, 1, 9, 0] * 2 + [1, 5, 1, 5, 0, 5])
    opened = bytes([2, 0, 1, 1])
    yield "client-nothing", bytes([CLIENT])
    yield "client-connects", bytes([CLIENT]) + link + accept
    yield "client-publishes", bytes([CLIENT]) + bytes([7, 0, 0, 1, 1, 1, 0, 5] * 3) + link + accept
    yield "client-receives", bytes([CLIENT]) + link + accept + opened + bytes([1, 0, 15] + [3, 1, 5, 5, 5] + [8, 0]) * 3
    yield "client-gap", bytes([CLIENT]) + link + accept + opened + bytes([1, 0, 17, 1, 3, 9, 8, 0, 5, 9])
    yield "client-link-again", bytes([CLIENT]) + (link + accept + opened) * 3
    ahead = bytes([0, 0, 45, 2, 0, 0, 60, 0, 1, 60, 0])
    yield "client-ahead", bytes([CLIENT]) + link + ahead + accept + opened + bytes([1, 0, 15] + [3, 1, 5, 5, 5] + [8, 0]) * 3 + link
    for kind in (*range(20), 40, 41, 43, 44, 45):
        yield f"client-type-{kind:02}", bytes([CLIENT]) + link + accept + bytes([0, 0, kind] + [3] * 12)
        yield f"client-lane-type-{kind:02}", bytes([CLIENT]) + link + accept + opened + bytes([1, 0, kind] + [3] * 12)


def http3():
    """In the order in which HTTP3World.Setup and the steps read their choices."""
    # Steps of HTTP3Peer, and of HTTP3ServerFuzzing and HTTP3ClientFuzzing behind them. HOLD: their bytes arrive with the next step's;
    # LATER: tasks don't run before it.
    (CONTROL, UNIDIRECTIONAL, CONTROL_FRAME, ENCODER, DECODER, SECTION, REQUEST_FRAME, TRAILERS, ANY_BYTES, FINISH, RESET, STOP,
     ACKNOWLEDGE, ALLOW, REQUEST, HANDSHAKE) = range(16)
    SERVER_TIME, SERVER_DRAIN = 16, 17
    CLIENT_EARLY, CLIENT_TIME, CLIENT_CANCEL, CLIENT_SHUTDOWN, CLIENT_CLOSE, CLIENT_SERVER_REQUEST = range(16, 22)
    HOLD, LATER = 0x80, 0x40
    LITERAL, WITH_TABLE, REFERENCES = 0, 128, 240
    LATEST = 0
    CONTENT_LENGTH_5 = bytes([0, 1])

    def section(pseudo, fields=(), mode=LITERAL):
        return pseudo + bytes([len(fields)]) + b"".join(fields) + bytes([mode, 0])

    def request(method=0, fields=(), mode=LITERAL, how=0):
        return bytes([REQUEST | how, 0]) + section(bytes([method, 0, 0, 0]), fields, mode)

    def response(status=0, fields=(), mode=LITERAL):
        return bytes([SECTION, LATEST]) + section(bytes([status]), fields, mode)

    def data(count):
        return bytes([REQUEST_FRAME, LATEST, 0, count, 1])

    def trailers(fields=(bytes([5, 4]),), mode=LITERAL):
        return bytes([TRAILERS, LATEST]) + section(b"", fields, mode)

    finish = bytes([FINISH, 200, LATEST])
    settings = bytes([CONTROL, 0, 3, 0, 0, 2, 100, 1, 0xC8, 0x40, 0])
    acknowledge = bytes([ACKNOWLEDGE, 0])
    some = (bytes([5, 4]), bytes([6, 4]), bytes([7, 6]))
    for pieces, how in ((0x00, ""), (0x10, "-bytewise")):
        server = bytes([SERVER, 0, pieces])
        for behaviour in range(10):
            yield f"server{how}-behaviour-{behaviour}", (
                server + bytes([behaviour] * 4 + [HANDSHAKE]) + settings + request(1, (CONTENT_LENGTH_5,)) + data(5) + finish
                + acknowledge)
        start = server + bytes([0, 3, 1, 4, HANDSHAKE]) + settings
        yield f"server{how}-trailers", start + request(1) + data(100) + data(250) + trailers() + finish + acknowledge * 2
        yield f"server{how}-too-short", start + request(1, (CONTENT_LENGTH_5,)) + data(4) + finish + request() + finish
        yield f"server{how}-too-long", start + request(1, (CONTENT_LENGTH_5,)) + data(6) + finish + request() + finish
        yield f"server{how}-with-table", start + (request(0, some, WITH_TABLE) + finish) * 4 + trailers((), WITH_TABLE)
        yield f"server{how}-references", start + request(0, (), REFERENCES) + bytes([0, 0, 0, 1, 17, 0, 0, 0])
    start = bytes([SERVER, 0, 0, 0, 3, 1, 4, HANDSHAKE]) + settings
    yield "server-nothing", bytes([SERVER])
    yield "server-early", bytes([SERVER, 0, 0, 0, 0, 0, 0]) + settings + request() + finish + bytes([HANDSHAKE])
    yield "server-reset", start + request(1) + data(50) + bytes([RESET, 200, LATEST, 12]) + request() + finish
    yield "server-stop", start + request(1) + data(50) + bytes([STOP, 3, 12]) + request() + finish + acknowledge
    yield "server-all-at-once", start + request(1, some, WITH_TABLE, HOLD) * 3 + request(0, some, WITH_TABLE, LATER) + finish
    yield "server-drain", start + request(1) + data(50) + bytes([SERVER_DRAIN, SERVER_TIME, 8]) + finish + request() + acknowledge
    yield "server-impatient", bytes([SERVER, 0, 2, 0, 0, 0, 0, HANDSHAKE]) + request(1) + data(9) + bytes([SERVER_TIME, 11] * 3)
    yield "server-small-limits", bytes([SERVER, 0x55, 0x4D, 0, 0, 0, 0, HANDSHAKE]) + settings + (request(0, some * 2) + finish) * 2
    yield "server-reads-nothing", bytes([SERVER, 0, 0x08, 4, 4, 4, 4, HANDSHAKE]) + settings + (request() + finish) * 3 + acknowledge * 9
    yield "server-priorities", start + bytes([CONTROL_FRAME, 6, 0, 0, 0, CONTROL_FRAME, 6, 8, 1, 0]) + request() + finish
    for value, what in ((196, "user-information"), (197, "space"), (4, "name")):
        host = section(bytes([0, 0, 255, 0]), (bytes([2, value]),))
        yield f"server-host-{what}", start + bytes([REQUEST, 0]) + host + finish
        yield f"client-host-{what}", bytes([CLIENT, 0, 0, HANDSHAKE, REQUEST, 0]) + response(0, (bytes([2, value]),)) + finish
    for kind in range(12):
        yield f"server-control-{kind:02}", start + bytes([CONTROL_FRAME, kind] + [1, 2, 3] * 4) + request() + finish
        yield f"server-control-first-{kind:02}", bytes([SERVER, 0, 0x10] + [0] * 4 + [HANDSHAKE, CONTROL_FRAME, kind] + [1, 2, 3] * 4)
    for kind in range(10):
        yield f"server-frame-{kind}", start + request() + bytes([REQUEST_FRAME, LATEST, kind] + [3, 2, 1] * 4) + finish
    for kind in range(7):
        yield f"server-encoder-{kind}", start + bytes([ENCODER, 0, 5, 0] + [ENCODER, 1, 3, kind, 7] * 2) + request() + finish
    for kind in range(4):
        yield f"server-decoder-{kind}", start + request(0, some) + bytes([DECODER, 0, kind, 2, 1, 1]) + request() + finish
        yield f"server-stream-{kind}", start + bytes([UNIDIRECTIONAL, kind, 4, 1, 2, 3, 4]) * 2 + request()

    # The client's request is a step with its behaviour; the section that the peer sends is the response to the latest.
    start = bytes([CLIENT, 0, 0, HANDSHAKE]) + settings
    for behaviour in range(10):
        yield f"client-behaviour-{behaviour}", (
            start + bytes([REQUEST, behaviour]) + response(4) + response(0, (CONTENT_LENGTH_5,)) + data(5) + finish
            + acknowledge * 3)
    yield "client-nothing", bytes([CLIENT])
    yield "client-early", bytes([CLIENT, 0, 0, CLIENT_EARLY]) + bytes([REQUEST, 0, REQUEST, 1, HANDSHAKE]) + settings + response() + finish
    yield "client-trailers", start + bytes([REQUEST, 0]) + response() + data(100) + data(250) + trailers() + finish
    yield "client-bytewise", bytes([CLIENT, 0, 0x10, HANDSHAKE]) + settings + bytes([REQUEST, 0]) + response(0, some) + data(9) + finish
    yield "client-with-table", start + (bytes([REQUEST, 0]) + response(0, some, WITH_TABLE) + data(9) + finish) * 3
    yield "client-no-content", start + bytes([REQUEST, 4]) + response(0, (CONTENT_LENGTH_5,)) + finish
    yield "client-too-long", start + bytes([REQUEST, 0]) + response(0, (CONTENT_LENGTH_5,)) + data(6) + finish
    yield "client-goaway", start + bytes([REQUEST, 0, REQUEST, 3, CONTROL_FRAME, 2, 4, 0]) + response() + finish
    yield "client-cancelled", start + bytes([REQUEST, 2, CLIENT_CANCEL, 0, REQUEST, 0]) + response() + finish
    yield "client-cancelled-reading", start + bytes([REQUEST, 0]) + response() + data(50) + bytes([CLIENT_CANCEL, 0]) + data(50) + finish
    yield "client-shut-down", start + bytes([REQUEST, 0, CLIENT_SHUTDOWN]) + response() + finish + acknowledge
    yield "client-closed", start + bytes([REQUEST, 0, CLIENT_CLOSE, 200])
    yield "client-server-request", start + bytes([REQUEST, 0, CLIENT_SERVER_REQUEST, 255])
    yield "client-waits-for-streams", bytes([CLIENT, 0, 0xC0, HANDSHAKE] + [REQUEST, 0] * 12 + [ALLOW, 0x1F]) + settings + response() + finish
    yield "client-stopped", start + bytes([REQUEST, 2, STOP, 1, 12]) + response() + finish
    yield "client-reset", start + bytes([REQUEST, 0]) + response() + data(50) + bytes([RESET, 200, LATEST, 11])
    for kind in range(12):
        yield f"client-control-{kind:02}", start + bytes([REQUEST, 0, CONTROL_FRAME, kind] + [1, 2, 3] * 4) + response() + finish
    for kind in range(10):
        yield f"client-frame-{kind}", start + bytes([REQUEST, 0]) + response() + bytes([REQUEST_FRAME, LATEST, kind] + [3, 2, 1] * 4) + finish
    for kind in range(4):
        yield f"client-stream-{kind}", start + bytes([UNIDIRECTIONAL, kind, 4, 1, 2, 3, 4]) * 2 + bytes([REQUEST, 0])


for target, seeds in (("frames", frames()), ("frameGuard", frame_guard()), ("datagrams", datagrams()), ("wire", wire()),
                      ("sessions", sessions()), ("http3", http3())):
    if sys.argv[1:] and target not in sys.argv[1:]:
        continue
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("seed-*"):
        old.unlink()
    for name, data in seeds:
        (folder / f"seed-{name}").write_bytes(data)
