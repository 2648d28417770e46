"""A client of the session protocol over aioquic, written from docs/protocol.md and from nothing of the package."""

import asyncio
import os
from collections import defaultdict

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration

import longline_wire as wire
from longline_wire import Incomplete, encode

PATIENCE = 20
UNKNOWN_EPOCH = "00" * 8
# Unknown types that are passed over wherever they stand (section 20).
GREASE = wire.raw(0x40 * 123456 + 0x2A, b"grease") + wire.raw(0x2A, b"")


def ignore(lane, epoch, name, frame):
    """What becomes of the frames of a link that is nobody's."""


class Link(QuicConnectionProtocol):
    """One connection. Its frames, by the name of their lane: "control", "datagram", "history" or a channel."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.bytes = defaultdict(bytes)
        self.names = {0: ("control", None)}
        self.frames = []
        self.take = ignore
        self.end = self.problem = None
        self.early_accepted = None
        self.changed = asyncio.Event()
        # A lane for each channel, and some more (section 1).
        self._quic._local_max_streams_uni.value = 4096

    def quic_event_received(self, event):
        try:
            self.handle(event)
        except Exception as error:
            # Raised where somebody waits.
            self.problem = self.problem or error
        self.changed.set()

    def handle(self, event):
        if isinstance(event, events.StreamDataReceived):
            self.bytes[event.stream_id] += event.data
            self.read(event.stream_id)
            assert not (event.end_stream and self.bytes[event.stream_id]), "a lane ends inside a frame"
        elif isinstance(event, events.DatagramFrameReceived):
            for name, frame in wire.frames_of(event.data):
                assert name == "SIGNAL", f"{name} in a datagram"
                self.took("datagram", None, name, frame)
        elif isinstance(event, events.HandshakeCompleted):
            self.early_accepted = event.early_data_accepted
        elif isinstance(event, events.ConnectionTerminated):
            self.end = event.error_code

    def read(self, stream):
        try:
            while self.bytes[stream]:
                frame, end = wire.next_frame(self.bytes[stream])
                self.bytes[stream] = self.bytes[stream][end:]
                if frame is None:
                    continue
                name, fields = frame
                if stream not in self.names:
                    assert name in ("LANE", "HISTORY_PAGE"), f"a lane begins with {name}"
                    history = ("history", None)
                    self.names[stream] = (fields["channel"], fields["epoch"]) if name == "LANE" else history
                self.took(*self.names[stream], name, fields)
        except Incomplete:
            pass

    def took(self, lane, epoch, name, frame):
        self.frames.append((lane, name, frame))
        self.take(lane, epoch, name, frame)

    async def until(self, found, or_end=False):
        """What `found` returns once it is true."""
        deadline = self._loop.time() + PATIENCE
        while not (result := found()):
            if self.problem:
                raise self.problem
            assert self.end is None or or_end, f"the link ended with {self.end}: {self.named('CLOSE')}"
            self.changed.clear()
            try:
                await asyncio.wait_for(self.changed.wait(), deadline - self._loop.time())
            except asyncio.TimeoutError:
                raise AssertionError(f"it does not come; the last was {self.frames[-3:]}") from None
        return result

    def named(self, name, **fields):
        return [
            frame for _, known, frame in self.frames
            if known == name and all(frame.get(field) == value for field, value in fields.items())
        ]

    async def expect(self, name, **fields):
        return (await self.until(lambda: self.named(name, **fields)))[0]

    async def closed(self):
        """The code with which the server closes, in CLOSE and, where both are seen, by the transport."""
        await self.until(lambda: self.end is not None, or_end=True)
        codes = {frame["code"] for frame in self.named("CLOSE")} | {self.end}
        assert len(codes) == 1, codes
        return self.end

    def send(self, stream, data, finish=False):
        self._quic.send_stream_data(stream, data, finish)
        self.transmit()

    def open_lane(self, channel, epoch=UNKNOWN_EPOCH):
        stream = self._quic.get_next_available_stream_id(is_unidirectional=True)
        self.send(stream, encode("LANE", channel=channel, epoch=epoch))
        return stream


class Device:
    """What outlives a link: credentials, the outbox, cursors, and what its app was given."""

    def __init__(self, command, user):
        self.port, self.authority, self.user, self.token = command["port"], command["authority"], user, command[user]
        self.ticket = self.session_ticket = None
        self.producer, self.number, self.last_id, self.previous_id = os.urandom(16).hex(), 0, 0, {}
        self.version, self.cursors, self.is_known = 0, {}, False
        self.last, self.given, self.link = {}, defaultdict(list), None
        self.inbox = f"user/{user}"

    def dial(self, early=False):
        made = QuicConfiguration(
            is_client=True, alpn_protocols=["longline/1"], server_name="localhost", cafile=self.authority,
            max_datagram_frame_size=1200, session_ticket=self.session_ticket if early else None)
        return connect(
            "127.0.0.1", self.port, configuration=made, create_protocol=Link, wait_connected=not early,
            session_ticket_handler=lambda ticket: setattr(self, "session_ticket", ticket))

    def begin(self, link, **changes):
        """Sends CONNECT, by the ticket where there is one; with all cursors until a CONNECTED came (section 12)."""
        self.number += 1
        before = GREASE if self.is_known else GREASE + encode("CURSORS", all=1, cursors=[])
        if self.link is not None:
            self.link.take = ignore
        # No part of a payload outlives its link.
        self.link, self.lanes, self.arriving, link.take = link, {}, {}, self.take
        fields = dict(
            versions=[1], kind=0 if self.ticket is None else 1, token=self.token, ticket=self.ticket,
            producer=self.producer, number=self.number, cursorVersion=self.version, cursors=list(self.cursors.items()),
            agent="longline.py/1")
        link.send(0, before + encode("CONNECT", **{**fields, **changes}) + GREASE)

    async def connected(self):
        connected = await self.link.expect("CONNECTED")
        self.version, self.is_known = connected["cursorVersion"], True
        self.ticket = (await self.link.expect("TICKET"))["ticket"]
        return connected

    # Receiving (section 11)

    def take(self, lane, epoch, name, frame):
        if lane == "history":
            return
        if name == "BATCH":
            for each in wire.unpack(frame):
                self.take(lane, epoch, *each)
        elif name == "DELIVER":
            if "following" in frame:
                self.arriving[lane] = {**frame, "end": len(frame["payload"]) + frame["following"]}
            else:
                self.entry(lane, epoch, frame["previous"], frame["offset"], frame)
        elif name == "PART":
            whole = self.arriving[lane]
            assert frame["offset"] == len(whole["payload"]) and frame["bytes"], "a part of something else"
            whole["payload"] += frame["bytes"]
            if len(whole["payload"]) == whole["end"]:
                self.entry(lane, epoch, whole["previous"], whole["offset"], self.arriving.pop(lane))
        elif name == "SKIP":
            self.entry(lane, epoch, frame["previous"], frame["to"], None)
        else:
            assert name != "GAP", "nothing was removed"

    def entry(self, channel, epoch, previous, offset, entry):
        known, last = self.last.get(channel, (epoch, 0))
        assert known == epoch and (offset <= last or previous <= last), "the chain is broken"
        assert entry is None or offset <= last or previous == last, "the chain is broken"
        if offset > last:
            self.last[channel] = (epoch, offset)
            if entry is not None:
                self.given[channel].append(entry)

    async def got(self, channel, *payloads):
        """Waits until the channel's newest entries are these; returns them."""
        def newest():
            return [entry["payload"] for entry in self.given[channel][-len(payloads) :]] == list(payloads)
        await self.link.until(newest)
        return self.given[channel][-len(payloads) :]

    def acknowledge(self, channel):
        """On a lane with the channel's epoch: everything published on the one before is answered (section 7)."""
        epoch, offset = self.cursors[channel] = self.last[channel]
        stream, known = self.lanes.pop(channel, (None, None))
        if stream is not None and known != epoch:
            self.link.send(stream, b"", finish=True)
            stream = None
        self.lanes[channel] = (stream or self.link.open_lane(channel, epoch), epoch)
        self.link.send(self.lanes[channel][0], encode("ACK", offset=offset))

    # Publishing (section 8)

    def row(self, channel, payload, to=None, kind=None, target=None):
        self.last_id += 1
        previous, self.previous_id[channel] = self.previous_id.get(channel, 0), self.last_id
        if kind == 8:
            target = (UNKNOWN_EPOCH, 0)
        return dict(
            channel=channel, id=self.last_id, tag=os.urandom(8).hex(), after=previous, recipient=to, kind=kind,
            target=target, timeToLive=30_000 if kind in (7, 8) else 0, whole=payload)

    def send_row(self, row, first=15360):
        stream, _ = self.lanes.get(row["channel"]) or (None, None)
        if stream is None:
            stream = self.link.open_lane(row["channel"])
            self.lanes[row["channel"]] = (stream, UNKNOWN_EPOCH)
        whole = row["whole"]
        given = (1 if row["recipient"] else 0) | (2 if row["kind"] else 0) | (4 if len(whole) > first else 0)
        data = encode("PUBLISH", **row, flags=given, following=len(whole) - first, payload=whole[:first])
        for offset in range(first, len(whole), 15360):
            data += encode("PART", offset=offset, bytes=whole[offset : offset + 15360])
        row["sent"] = len(self.link.frames)
        self.link.send(stream, GREASE + data)

    async def answer(self, row):
        def answers():
            return [
                (name, frame) for lane, name, frame in self.link.frames[row["sent"] :]
                if name in ("PUBLISHED", "REFUSED") and lane == row["channel"] and frame["id"] == row["id"]
            ]
        name, frame = (await self.link.until(answers))[0]
        if name == "REFUSED" and self.previous_id[row["channel"]] == row["id"]:
            self.previous_id[row["channel"]] = row["after"]
        return name, frame

    async def publish(self, channel, payload, **what):
        """Publishes and returns the entry's position."""
        row = self.row(channel, payload, **what)
        self.send_row(row)
        name, frame = await self.answer(row)
        assert name == "PUBLISHED", frame
        return frame["position"]

    async def refused(self, row):
        self.send_row(row)
        name, frame = await self.answer(row)
        return frame["code"] if name == "REFUSED" else name

    async def ask(self, question, answer, **fields):
        request = os.urandom(8).hex()
        self.link.send(0, encode(question, request=request, **fields))
        return await self.link.expect(answer, request=request)
