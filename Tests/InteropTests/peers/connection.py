"""aioquic's connections and server, with what the tests want to do to them and see of them."""

import asyncio
import os
from collections import Counter

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import QuicServer
from aioquic.buffer import Buffer
from aioquic.quic import events
from aioquic.quic.packet import QuicFrameType, QuicPacketType
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.tls import Epoch

from runtime import UDPSocket

EPOCHS = {
    "initial": (Epoch.INITIAL, QuicPacketType.INITIAL),
    "0rtt": (Epoch.ZERO_RTT, QuicPacketType.ZERO_RTT),
    "handshake": (Epoch.HANDSHAKE, QuicPacketType.HANDSHAKE),
    "1rtt": (Epoch.ONE_RTT, QuicPacketType.ONE_RTT),
}
TOKEN_LENGTH = 16


def count_frames(quic):
    """Counts the frames of some types that a connection receives, which aioquic itself doesn't tell."""
    seen = Counter()
    handlers = quic._QuicConnection__frame_handlers

    def counting(name, handler):
        def handle(context, frame_type, buf):
            seen[name] += 1
            handler(context, frame_type, buf)

        return handle

    for frame_type in (QuicFrameType.ACK_ECN, QuicFrameType.PATH_CHALLENGE):
        handler, epochs = handlers[frame_type]
        handlers[frame_type] = (counting(frame_type.name.lower(), handler), epochs)
    return seen


class Connection(QuicConnectionProtocol):
    """One connection: echoes the peer's streams, and sends streams of its own to be echoed."""

    def __init__(self, quic, stream_handler=None):
        super().__init__(quic)
        self.seen = count_frames(quic)
        self.handshake = self._loop.create_future()
        self.ended = self._loop.create_future()
        self.echoes = {}
        self.datagrams = asyncio.Queue()
        self.resets = 0
        # What to send once keys of an encryption level are there: (level, bytes of frames).
        self.injections = []

    # Events

    def datagram_received(self, data, addr):
        if self._is_stateless_reset(data):
            self.resets += 1
        self._quic.receive_datagram(data, addr, now=self._loop.time())
        # A client's handshake ends with what it sends now, a server's keys are of use to the client only behind it.
        if self._quic._is_client:
            self._inject_what_is_possible()
        self._process_events()
        self.transmit()
        self._inject_what_is_possible()

    def transmit(self):
        super().transmit()
        # aioquic reports an end only after its draining period.
        end = self._quic._close_event
        if end is not None and not self.ended.done():
            self.ended.set_result(end)

    def quic_event_received(self, event):
        if isinstance(event, events.HandshakeCompleted):
            if not self.handshake.done():
                self.handshake.set_result(event)
        elif isinstance(event, events.DatagramFrameReceived):
            if self._quic._is_client:
                self.datagrams.put_nowait(event.data)
            else:
                self._quic.send_datagram_frame(event.data)
        elif isinstance(event, events.StreamDataReceived):
            self._stream_data(event)

    def _stream_data(self, event):
        if event.stream_id in self.echoes:
            received, done = self.echoes[event.stream_id]
            received += event.data
            if event.end_stream and not done.done():
                done.set_result(bytes(received))
        elif event.stream_id % 4 < 2:
            self._quic.send_stream_data(event.stream_id, event.data, event.end_stream)

    def _is_stateless_reset(self, data):
        if len(data) < 21 or data[0] & 0x80:
            return False
        tokens = [self._quic._peer_cid.stateless_reset_token]
        tokens += [known.stateless_reset_token for known in self._quic._peer_cid_available]
        return data[-TOKEN_LENGTH:] in [token for token in tokens if token]

    # Actions

    def begin_echo(self, data):
        stream = self._quic.get_next_available_stream_id()
        self.echoes[stream] = (bytearray(), self._loop.create_future())
        self._quic.send_stream_data(stream, data, end_stream=True)
        return stream

    async def finish_echo(self, stream):
        done = self.echoes[stream][1]
        await asyncio.wait([done, self.ended], return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            raise ConnectionError(f"the connection ended: {self.ended.result()}")
        del self.echoes[stream]
        return done.result()

    async def echo(self, streams, size, at_once=64):
        """Sends streams of random bytes and compares what comes back. Returns how many came back whole."""
        limit = asyncio.Semaphore(at_once)

        async def one():
            async with limit:
                data = os.urandom(size)
                stream = self.begin_echo(data)
                self._transmit_soon()
                return await self.finish_echo(stream) == data

        return sum(await asyncio.gather(*(one() for _ in range(streams))))

    def move(self, socket):
        """Goes on from another socket."""
        self._transport = socket
        socket.receive = self.datagram_received

    # Breaking rules

    def inject(self, level, frames):
        """Sends a packet with these bytes for frames, now or when the level's keys are there."""
        self.injections.append((level, frames))
        self._inject_what_is_possible()

    def _inject_what_is_possible(self):
        waiting = []
        for level, frames in self.injections:
            epoch, packet_type = EPOCHS[level]
            crypto = self._quic._cryptos.get(epoch)
            if crypto is None or not crypto.send.is_valid():
                waiting.append((level, frames))
                continue
            for datagram in self._datagrams_with(packet_type, crypto, frames):
                self._transport.sendto(datagram, self._quic._network_paths[0].addr)
        self.injections = waiting

    def _datagrams_with(self, packet_type, crypto, frames):
        quic = self._quic
        builder = QuicPacketBuilder(
            host_cid=quic.host_cid,
            is_client=quic._is_client,
            max_datagram_size=1200,
            packet_number=quic._packet_number,
            peer_cid=quic._peer_cid.cid,
            peer_token=quic._peer_token,
            version=quic._version,
        )
        builder.start_packet(packet_type, crypto)
        parsed = Buffer(data=frames)
        frame = builder.start_frame(parsed.pull_uint_var(), capacity=len(frames))
        frame.push_bytes(frames[parsed.tell() :])
        datagrams, _ = builder.flush()
        quic._packet_number = builder.packet_number
        return datagrams

    def send_handshake_bytes(self, data):
        """Sends bytes to the TLS stack of the peer, behind those that were sent already."""
        self._quic._crypto_streams[Epoch.ONE_RTT].sender.write(data)
        self.transmit()

    def send_bare_packet(self, flags, payload):
        """Sends a 1-RTT packet with these reserved bits and this payload, which may be empty."""
        quic = self._quic
        crypto = quic._cryptos[Epoch.ONE_RTT]
        # Four bytes of packet number, so that the header's protection finds enough to sample in an empty packet.
        number = quic._packet_number
        quic._packet_number += 1
        first = 0x40 | flags | crypto.key_phase << 2 | 0x03
        header = bytes([first]) + quic._peer_cid.cid + number.to_bytes(4, "big")
        self._transport.sendto(crypto.encrypt_packet(header, payload, number), quic._network_paths[0].addr)


class Server(QuicServer):
    """aioquic's server on a socket of ours. It can lose a connection's state, and says so by a stateless reset."""

    def __init__(self, host, port, ecn, accepted, injection=None, **arguments):
        super().__init__(create_protocol=self._make, **arguments)
        self._accepted = accepted
        self._injection = injection
        self._forgotten = {}
        self.socket = UDPSocket(self.datagram_received, host, port, ecn)
        self.connection_made(self.socket)

    def _make(self, quic, stream_handler=None):
        connection = Connection(quic)
        if self._injection is not None:
            connection.injections.append(self._injection)
        self._accepted(connection)
        return connection

    def forget(self, connection):
        for known in connection._quic._host_cids:
            self._forgotten[known.cid] = known.stateless_reset_token
        for cid in [cid for cid, owner in self._protocols.items() if owner is connection]:
            del self._protocols[cid]
        if connection._timer is not None:
            connection._timer.cancel()
        connection._transport = _Nowhere()

    def datagram_received(self, data, addr):
        token = self._forgotten.get(data[1:9]) if not data[0] & 0x80 else None
        if token is None:
            return super().datagram_received(data, addr)
        filler = bytearray(os.urandom(24))
        filler[0] = filler[0] & 0x3F | 0x40
        self.socket.sendto(bytes(filler) + token, addr)


class _Nowhere:
    def sendto(self, data, address):
        pass

    def close(self):
        pass
