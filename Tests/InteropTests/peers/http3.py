"""An HTTP/3 peer made of aioquic, client and server, driven over standard input: see runtime.py for the form of commands."""

import asyncio
import hashlib

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import QuicServer
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, ProtocolNegotiated, StreamReset

from runtime import UDPSocket, run

clients = {}
servers = []


class Exchange:
    """What was received of one message, or of a request and its answer."""

    def __init__(self, done=None):
        self.headers = []
        self.interim = []
        self.trailers = []
        self.body = bytearray()
        self.done = done

    def header(self, name):
        return next((value.decode("latin-1") for key, value in self.headers if key == name.encode()), None)

    def take(self, event):
        if isinstance(event, DataReceived):
            self.body += event.data
        elif isinstance(event, HeadersReceived):
            fields = event.headers
            if not self.headers and dict(fields).get(b":status", b"").startswith(b"1"):
                self.interim.append(fields)
            elif self.headers:
                self.trailers = fields
            else:
                self.headers = fields
        return event.stream_ended


class HTTP3(QuicConnectionProtocol):
    def __init__(self, quic, stream_handler=None):
        super().__init__(quic)
        self.http = None
        self.exchanges = {}
        self.ready = self._loop.create_future()
        self.ended = self._loop.create_future()

    def quic_event_received(self, event):
        if isinstance(event, ProtocolNegotiated):
            self.http = H3Connection(self._quic)
        elif isinstance(event, HandshakeCompleted) and not self.ready.done():
            self.ready.set_result(True)
        elif isinstance(event, ConnectionTerminated) and not self.ended.done():
            self.ended.set_result(event)
        elif isinstance(event, StreamReset):
            exchange = self.exchanges.get(event.stream_id)
            if exchange is not None and exchange.done is not None and not exchange.done.done():
                exchange.done.set_exception(ConnectionError(f"reset with {event.error_code:#x}"))
        if self.http is None:
            return
        for happened in self.http.handle_event(event):
            if isinstance(happened, (HeadersReceived, DataReceived)):
                self.http_event(happened)

    def http_event(self, event):
        if self._quic._is_client:
            exchange = self.exchanges[event.stream_id]
            if exchange.take(event) and not exchange.done.done():
                exchange.done.set_result(True)
            return
        exchange = self.exchanges.setdefault(event.stream_id, Exchange())
        if exchange.take(event):
            self.answer(event.stream_id, exchange)

    # Server: /echo sends back what came, other paths so many bytes as they say.

    def answer(self, stream, exchange):
        path = exchange.header(":path")
        body = bytes(exchange.body) if path == "/echo" else b"x" * int(path[1:] or 0)
        self.http.send_headers(stream, [(b":status", b"103"), (b"link", b"</style.css>")])
        self.http.send_headers(
            stream,
            [
                (b":status", b"200"),
                (b"server", b"aioquic"),
                (b"x-method", exchange.header(":method").encode()),
                (b"content-length", str(len(body)).encode()),
            ],
        )
        # aioquic has trailers, and no frame to end a stream with but one of data.
        self.http.send_data(stream, body, end_stream=False)
        trailers = exchange.trailers or [(b"x-checksum", hashlib.sha256(body).hexdigest().encode())]
        self.http.send_headers(stream, trailers, end_stream=True)
        self.transmit()

    # Client

    async def request(self, method, path, body, fields, trailers):
        stream = self._quic.get_next_available_stream_id()
        exchange = self.exchanges[stream] = Exchange(self._loop.create_future())
        head = [
            (b":method", method.encode()),
            (b":scheme", b"https"),
            (b":authority", b"localhost"),
            (b":path", path.encode()),
        ]
        head += [(name.encode(), value.encode()) for name, value in fields.items()]
        self.http.send_headers(stream, head, end_stream=not body and not trailers)
        if body or trailers:
            self.http.send_data(stream, body, end_stream=not trailers)
        if trailers:
            self.http.send_headers(stream, [(b"x-trailer", b"sent")], end_stream=True)
        self.transmit()
        await asyncio.wait([exchange.done, self.ended], return_when=asyncio.FIRST_COMPLETED)
        if not exchange.done.done():
            raise ConnectionError(f"the connection ended: {self.ended.result()}")
        exchange.done.result()
        return exchange


def configuration(is_client):
    return QuicConfiguration(is_client=is_client, alpn_protocols=H3_ALPN)


async def listen(command):
    made = configuration(is_client=False)
    made.load_cert_chain(command["certificate"], command["key"])
    server = QuicServer(configuration=made, create_protocol=HTTP3)
    socket = UDPSocket(server.datagram_received)
    server.connection_made(socket)
    servers.append(server)
    return {"port": socket.port}


async def connect(command):
    made = configuration(is_client=True)
    made.server_name = "localhost"
    made.cafile = command["authority"]
    client = HTTP3(QuicConnection(configuration=made))
    socket = UDPSocket(client.datagram_received)
    client.connection_made(socket)
    client.connect(("127.0.0.1", command["port"]))
    await asyncio.wait([client.ready, client.ended], return_when=asyncio.FIRST_COMPLETED)
    if not client.ready.done():
        raise ConnectionError(f"no handshake: {client.ended.result()}")
    clients["client"] = client


async def request(command):
    body = b"b" * command.get("size", 0)
    exchange = await clients["client"].request(
        command.get("method", "GET"), command["path"], body, command.get("fields", {}), command.get("trailers", False)
    )
    return {
        "status": int(exchange.header(":status")),
        "length": len(exchange.body),
        "whole": command["path"] != "/echo" or bytes(exchange.body) == body,
        "interim": len(exchange.interim),
        "fields": {name.decode(): value.decode("latin-1") for name, value in exchange.headers},
        "trailers": {name.decode(): value.decode() for name, value in exchange.trailers},
    }


async def requests(command):
    """Many at once. Returns how many were answered as they should."""
    client = clients["client"]
    limit = asyncio.Semaphore(command.get("atOnce", 50))

    async def one(number):
        async with limit:
            body = str(number).encode() * command["size"]
            exchange = await client.request("POST", "/echo", body, {"user-agent": "aioquic"}, False)
            return exchange.header(":status") == "200" and bytes(exchange.body) == body

    return {"whole": sum(await asyncio.gather(*(one(number) for number in range(command["count"]))))}


async def close(command):
    clients["client"].close()


if __name__ == "__main__":
    run({"listen": listen, "connect": connect, "request": request, "requests": requests, "close": close})
