"""Talks to a server as docs/protocol.md says, and looks whether it does as the page says: see runtime.py for the form of
commands. A command fails where it does anything else."""

import json
import os
import pathlib
from collections import defaultdict

import longline_wire as wire
from longline_client import GREASE, UNKNOWN_EPOCH, Device
from longline_wire import Incomplete, Refused, encode
from runtime import run

BEHIND_ALL = 2**62 - 1
devices = {}


async def talk(command):
    """Two users by token: direct messages, a room, what is said of messages, a large one, history, receipts, signals."""
    alice, bob = devices["alice"], devices["bob"] = Device(command, "alice"), Device(command, "bob")
    async with alice.dial() as to_alice, bob.dial() as to_bob:
        alice.begin(to_alice)
        bob.begin(to_bob)
        connected = await alice.connected()
        await bob.connected()
        assert connected["version"] == 1 and not connected["resumed"], connected
        assert [(name, recovery) for name, _, recovery in connected["channels"]] == [("user/alice", 2)], connected
        await direct(alice, bob)
        await ledger(alice)
        await in_room(alice, bob)
        await beside(alice, bob)
        for device in alice, bob:
            device.link.send(0, encode("CLOSE", code=1000, reason="", retryAfter=0, accessPoint=""))
            assert await device.link.closed() == 1000


async def direct(alice, bob):
    record = await alice.publish(alice.inbox, b"hello", to="bob")
    (copy,) = await bob.got(bob.inbox, b"hello")
    assert copy["origin"] == record and copy["producer"] == alice.producer and copy["id"] == 1, copy
    (entry,) = await alice.got(alice.inbox, b"hello")
    assert entry["recipient"] == "bob" and entry["offset"] == record[1], entry
    position = (bob.last[bob.inbox][0], copy["offset"])
    await bob.publish(bob.inbox, b"+1", to="alice", kind=6, target=position)
    assert (await alice.got(alice.inbox, b"+1"))[0]["target"] == record[1]
    asked = await alice.publish(alice.inbox, b"when?", to="bob", kind=8)
    question = (await bob.got(bob.inbox, b"when?"))[0]
    await bob.publish(bob.inbox, b"now", to="alice", kind=7, target=(position[0], question["offset"]))
    reply = (await alice.got(alice.inbox, b"now"))[0]
    assert reply["target"] == asked[1] and reply["expiry"] == question["expiry"] > 0, reply
    # How far bob came: a place in alice's inbox, at the last message or behind it.
    last = await alice.publish(alice.inbox, b"bye", to="bob")
    await bob.got(bob.inbox, b"bye")
    bob.link.send(0, encode("READ", flags=0, conversation="user/alice", position=bob.last[bob.inbox]))
    bob.acknowledge(bob.inbox)
    for kind in (0, 1):
        await alice.link.expect("RECEIPT", conversation="user/bob", user="bob", kind=kind, position=last)


async def ledger(alice):
    """The table of section 8."""
    row = alice.row(alice.inbox, b"once")
    alice.send_row(row)
    first = await alice.answer(row)
    alice.send_row(row)
    assert await alice.answer(row) == first, "a second entry"
    assert await alice.refused({**row, "tag": os.urandom(8).hex()}) == 2
    assert await alice.refused({**row, "id": row["id"] + 90, "after": row["id"] + 80}) == 1
    assert await alice.refused({**row, "id": row["id"] + 90, "after": row["id"] + 90}) == 11
    assert await alice.refused({**row, "id": 0, "after": 0}) == 11
    alice.previous_id[alice.inbox] = row["id"]


async def in_room(alice, bob):
    assert (await alice.ask("JOIN", "ROOM_ANSWER", room="team"))["refusal"] == 0
    assert alice.link.named("ROOM_SETTINGS", room="team", joining=0, publishing=0, role=1)
    joined = await bob.ask("JOIN", "ROOM_ANSWER", room="team")
    assert joined == {**await bob.ask("JOIN", "ROOM_ANSWER", room="team"), "request": joined["request"]}, "joined twice"
    message = await alice.publish("room/team", b"draft")
    await alice.publish("room/team", b"final", kind=4, target=message)
    await bob.got("room/team", b"draft", b"final")
    assert await bob.refused(bob.row("room/team", b"mine", kind=4, target=message)) == 17
    assert await bob.refused(bob.row("room/team", b"who?", to="alice")) == 10
    assert await bob.refused(bob.row("room/other", b"lost")) == 4
    large = os.urandom(100_000)
    await bob.publish("room/team", large)
    await alice.got("room/team", large)
    await alice.publish("room/team", b"", kind=5, target=message)
    assert [entry["kind"] for entry in await bob.got("room/team", large, b"")] == [0, 5]
    # Back from the end: the large one is alone in its page, and what was taken back is skipped.
    epoch, end = bob.last["room/team"]
    page = await history(bob, end)
    while page["more"]:
        page = await history(bob, page["start"] + 1)
    items = [(name, frame.get("kind")) for lane, name, frame in bob.link.frames if lane == "history"]
    assert page["epoch"] == epoch and ("DELIVER", 0) in items and ("SKIP", None) in items, items
    assert (await bob.ask("HISTORY", "HISTORY_PAGE", channel="room/team", epoch="01" * 8, direction=0, limit=9,
                          **{"from": BEHIND_ALL}))["refusal"] == 12


async def history(device, start):
    """A page, with all that belongs to it."""
    page = await device.ask(
        "HISTORY", "HISTORY_PAGE", channel="room/team", epoch=UNKNOWN_EPOCH, direction=0, limit=100, **{"from": start})
    assert page["refusal"] == 0, page

    def is_whole():
        frames = [(name, frame) for lane, name, frame in device.link.frames if lane == "history"]
        rest = frames[frames.index(("HISTORY_PAGE", page)) + 1 :]
        items = [(name, frame) for name, frame in rest if name != "PART"]
        arrived = sum(len(frame["bytes"]) for name, frame in rest if name == "PART")
        return len(items) == page["items"] and arrived == sum(frame.get("following", 0) for _, frame in items)

    await device.link.until(is_whole)
    return page


async def beside(alice, bob):
    """What is on lane 0 and in datagrams."""
    assert (await bob.ask("SUBSCRIBE", "PRESENCE_ANSWER", users=["alice", "nobody"]))["refusal"] == 0
    await bob.link.expect("PRESENCE", user="alice", state=2, lastSeen=0)
    await bob.link.expect("PRESENCE", user="nobody", state=0, lastSeen=0)
    fields = dict(flags=0, channel="user/bob", deadline=30_000, payload=b"", sender=None, device=None)
    alice.link._quic.send_datagram_frame(GREASE + encode("SIGNAL", kind=0, **fields))
    alice.link.send(0, encode("SIGNAL", kind=200, **fields))
    for kind in (0, 200):
        await bob.link.expect("SIGNAL", channel="user/bob", kind=kind, sender="alice", device="phone")
    alice.link.send(0, encode("PING", nonce="ab" * 8, answerAfter=0))
    await alice.link.expect("PONG", nonce="ab" * 8, address=alice.link.named("CONNECTED")[0]["address"])
    alice.link.send(0, encode("REFRESH", token=alice.token))
    await alice.link.expect("REFRESHED")


async def come_back(command):
    """By ticket in 0-RTT with a publish in the first flight, on a newer link of the same device, and as one that lost all."""
    alice, bob = devices["alice"], devices["bob"]
    async with bob.dial() as to_bob:
        bob.begin(to_bob)
        await bob.connected()
        await bob.publish(bob.inbox, b"missed", to="alice")
        async with alice.dial(early=True) as to_alice:
            alice.begin(to_alice)
            row = alice.row(alice.inbox, b"early", to="bob")
            alice.send_row(row)
            assert (await alice.connected())["resumed"] == 1
            assert (await alice.answer(row))[0] == "PUBLISHED"
            assert to_alice.early_accepted, "early data was refused"
            await bob.got(bob.inbox, b"early")
            await alice.got(alice.inbox, b"missed", b"early")
            async with alice.dial() as newer:
                alice.begin(newer)
                await alice.connected()
                assert await to_alice.closed() == 5005
                for number in range(30):
                    await alice.publish(alice.inbox, b"note %d" % number)
                await alice.got(alice.inbox, b"note 29")
                given = len(alice.given[alice.inbox])
                alice.last, alice.given = {}, defaultdict(list)
                alice.cursors, alice.is_known = {}, False
        async with alice.dial() as lost:
            alice.begin(lost)
            lost.send(0, encode("ENCODINGS", encodings=[1], plain=[]))
            await alice.connected()
            await lost.until(lambda: len(alice.given[alice.inbox]) >= given)
            assert all(entry["flags"] & 1 for entry in alice.given[alice.inbox]), "not marked as redelivered"
            assert any(group[0] == 1 for batch in lost.named("BATCH") for group in batch["groups"]), "nothing was compressed"
        async with alice.dial() as stale:
            alice.number -= 2
            alice.begin(stale)
            assert await stale.closed() == 1006


async def refusals(command):
    """Bytes that are wrong, each on a link of its own, while another goes on. Returns what got another code than said."""
    ping = encode("PING", nonce="00" * 8, answerAfter=0)
    lane = encode("LANE", channel="user/alice", epoch=UNKNOWN_EPOCH)
    publish = dict(flags=4, id=1, tag="00" * 8, after=0, timeToLive=0, payload=b"x")
    head = encode("PUBLISH", **publish, following=9)
    control = {
        "an unknown odd type": (5003, b"\x3f\x00"), "a giant": (5001, b"\x07\xbf\xff\xff\xff"),
        "a byte more": (5000, wire.raw(0x07, bytes(10))), "no UTF-8": (5000, wire.raw(0x21, bytes(8) + b"\x01\xff")),
        "a long name": (5004, wire.raw(0x21, bytes(8) + b"\x40\x41" + b"x" * 65)),
        "a PONG": (5002, encode("PONG", nonce="00" * 8, address="")),
        "a second CONNECT": (5002, None), "an ACK on lane 0": (5002, encode("ACK", offset=1)),
        "a late answer": (5004, encode("PING", nonce="00" * 8, answerAfter=2**40)),
    }
    lanes = {
        "no LANE": (5002, head), "a PING": (5002, lane + ping), "a second LANE": (5002, lane + lane),
        "a part of nothing": (5002, lane + encode("PART", offset=0, bytes=b"x")),
        "a hole between parts": (5002, lane + head + encode("PART", offset=2, bytes=b"x")),
        "a publish inside another": (5002, lane + head + head), "an end inside a frame": (5000, lane + head[:5]),
    }
    first = {"a PING": (5002, ping), "no version in common": (4000, {"versions": [2]}), "no token": (3001, {"token": "x.y.z"}),
             "no ticket": (3003, {"kind": 1, "ticket": b"no"})}
    wrong = []

    async def check(what, code, act):
        device = Device(command, "alice")
        async with device.dial() as link:
            await act(device, link)
            if (got := await link.closed()) != code:
                wrong.append(f"{what}: {got}, not {code}")

    def behind_connect(data, on_lane):
        async def act(device, link):
            device.begin(link)
            await device.connected()
            if data is None:
                return device.begin(link)
            stream = link._quic.get_next_available_stream_id(is_unidirectional=True) if on_lane else 0
            link.send(stream, data, finish=on_lane)
        return act

    def as_first(data):
        async def act(device, link):
            device.begin(link, **data) if isinstance(data, dict) else link.send(0, data)
        return act

    watcher = Device(command, "bob")
    async with watcher.dial() as link:
        watcher.begin(link)
        await watcher.connected()
        for what, (code, data) in control.items():
            await check(what, code, behind_connect(data, on_lane=False))
        for what, (code, data) in lanes.items():
            await check(f"{what}, on a lane", code, behind_connect(data, on_lane=True))
        for what, (code, data) in first.items():
            await check(f"{what}, first", code, as_first(data))
        await watcher.publish(watcher.inbox, b"still here")
    return {"wrong": wrong, "tried": len(control) + len(lanes) + len(first)}


async def vectors(command):
    """Reads and writes all test vectors. Returns how many."""
    checked = 0
    for file in ("frames", "streams", "batches", "invalid"):
        for vector in json.loads(pathlib.Path(command["folder"], f"{file}.json").read_text())["vectors"]:
            if not vector.get("tagged"):
                check_vector(vector, bytes.fromhex(vector["hex"]))
                checked += 1
    return {"checked": checked}


def check_vector(vector, data):
    code, frames = None, []
    try:
        frames = wire.frames_of(data)
        if frames[:1] and frames[0][0] == "BATCH" and "frame" not in vector:
            frames = wire.unpack(frames[0][1])
    except Refused as refused:
        code = refused.code
    except Incomplete:
        code = 5000
    assert code == vector.get("closeCode"), (vector, code)
    if "frame" in vector:
        ((name, fields),) = frames
        assert name == vector["frame"] and encode(name, **fields) == data, vector
    elif code is None:
        assert vector["frames"] in ([name for name, _ in frames], [encode(name, **f).hex() for name, f in frames]), vector


run({"talk": talk, "come_back": come_back, "refusals": refusals, "vectors": vectors})
