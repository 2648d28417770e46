"""A QUIC peer made of aioquic, client and server, driven over standard input: see runtime.py for the form of commands."""

import asyncio

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.tls import Epoch

from connection import Connection, Server
from runtime import UDPSocket, run

connections = {}
servers = []
accepted = asyncio.Queue()
# What a client keeps of earlier connections, and a server of the tickets it gave.
memory = {"ticket": None, "token": b""}
tickets_given = {}


def configuration(command, is_client):
    made = QuicConfiguration(
        is_client=is_client,
        alpn_protocols=command.get("alpn", ["test/1"]),
        idle_timeout=command.get("idle", 30),
        max_datagram_frame_size=command.get("datagrams", 65535),
    )
    if "versions" in command:
        made.supported_versions = command["versions"]
    if command.get("keylog"):
        made.secrets_log_file = open(command["keylog"], "a")
    return made


def described(connection, event):
    quic = connection._quic
    return {
        "name": next(name for name, known in connections.items() if known is connection),
        "alpn": event.alpn_protocol,
        "resumed": event.session_resumed,
        "earlyAccepted": event.early_data_accepted,
        "version": quic._version,
        "retried": quic._retry_count > 0 or quic._retry_source_connection_id is not None,
    }


async def outcome(connection):
    """The handshake's result, or how it failed."""
    await asyncio.wait([connection.handshake, connection.ended], return_when=asyncio.FIRST_COMPLETED)
    if connection.handshake.done():
        return {"handshake": described(connection, connection.handshake.result())}
    return {"end": ended(connection)}


def ended(connection):
    end = connection.ended.result()
    return {"code": end.error_code, "frame": end.frame_type, "reason": end.reason_phrase}


# Client


def remember_ticket(ticket):
    memory["ticket"] = ticket


def remember_token(token):
    memory["token"] = token


def make_client(command):
    made = configuration(command, is_client=True)
    made.server_name = command.get("serverName", "localhost")
    made.cafile = command["authority"]
    if command.get("resume"):
        made.session_ticket = memory["ticket"]
    if command.get("token"):
        made.token = bytes.fromhex(command["token"])
    elif command.get("withToken"):
        made.token = memory["token"]
    quic = QuicConnection(configuration=made, session_ticket_handler=remember_ticket, token_handler=remember_token)
    # Transport parameters that don't belong there.
    extra = bytes.fromhex(command.get("parameters", ""))
    serialize = quic._serialize_transport_parameters
    quic._serialize_transport_parameters = lambda: serialize() + extra
    return quic


async def connect(command):
    connection = Connection(make_client(command))
    if "inject" in command:
        connection.injections.append((command["inject"]["level"], bytes.fromhex(command["inject"]["frames"])))
    connections[command.get("name", "client")] = connection
    socket = UDPSocket(connection.datagram_received, command.get("local", "127.0.0.1"), ecn=command.get("ecn", 0))
    connection.connection_made(socket)
    connection.connect((command.get("host", "127.0.0.1"), command["port"]), transmit=False)
    early = [connection.begin_echo(bytes(command["early"], "utf8"))] if "early" in command else []
    connection.transmit()
    connection._inject_what_is_possible()
    result = await outcome(connection)
    for stream in early if "handshake" in result else []:
        result["earlyEchoed"] = (await connection.finish_echo(stream)).decode("utf8")
    return result


async def first_flight(command):
    """The datagrams with which a client would begin. Nothing is sent."""
    quic = make_client(command)
    quic.connect(("127.0.0.1", 1), now=0)
    if "early" in command:
        stream = quic.get_next_available_stream_id()
        quic.send_stream_data(stream, bytes(command["early"], "utf8"), end_stream=True)
    datagrams = [data.hex() for data, _ in quic.datagrams_to_send(now=0)]
    return {"datagrams": datagrams}


async def move(command):
    connection = connections[command["name"]]
    old = connection._transport
    if command.get("newID"):
        connection._quic.change_connection_id()
    connection.move(UDPSocket(connection.datagram_received, command.get("local", "127.0.0.1")))
    if command.get("closeOld", True):
        old.close()
    await connection.ping()
    return {"port": connection._transport.port}


async def datagram(command):
    """Sends a DATAGRAM frame, and returns what comes back in one."""
    connection = connections[command["name"]]
    connection._quic.send_datagram_frame(bytes(command["text"], "utf8"))
    connection.transmit()
    return {"text": (await connection.datagrams.get()).decode("utf8")}


# Server


def give_ticket(ticket):
    tickets_given[ticket.ticket] = ticket


async def listen(command):
    made = configuration(command, is_client=False)
    made.load_cert_chain(command["certificate"], command["key"])
    injection = command.get("inject")
    server = Server(
        command.get("host", "127.0.0.1"),
        command.get("port", 0),
        command.get("ecn", 0),
        accept,
        injection=(injection["level"], bytes.fromhex(injection["frames"])) if injection else None,
        configuration=made,
        session_ticket_fetcher=tickets_given.get,
        session_ticket_handler=give_ticket,
        retry=command.get("retry", False),
    )
    servers.append(server)
    return {"port": server.socket.port}


def accept(connection):
    connections[f"server{len(connections)}"] = connection
    accepted.put_nowait(connection)


async def accepted_connection(command):
    """The next connection that a server of ours accepted, once its handshake has ended."""
    return await outcome(await accepted.get())


async def forget(command):
    servers[-1].forget(connections[command["name"]])


async def forget_tickets(command):
    tickets_given.clear()


# Both


async def echo(command):
    whole = await connections[command["name"]].echo(command["streams"], command["size"])
    return {"whole": whole}


async def ping(command):
    connection = connections[command["name"]]
    if command.get("wait", True):
        await connection.ping()
    else:
        connection._quic.send_ping(0)
        connection.transmit()


async def update_key(command):
    connection = connections[command["name"]]
    # Not before a packet in the present keys was acknowledged (RFC 9001 section 6.1), which aioquic doesn't look after.
    await connection.ping()
    connection.request_key_update()


async def inject(command):
    connections[command["name"]].inject(command["level"], bytes.fromhex(command["frames"]))


async def handshake_bytes(command):
    connections[command["name"]].send_handshake_bytes(bytes.fromhex(command["bytes"]))


async def bare_packet(command):
    connections[command["name"]].send_bare_packet(command["flags"], bytes.fromhex(command["payload"]))


async def close(command):
    connections[command["name"]].close(command.get("code", 0), command.get("reason", ""))


async def end(command):
    connection = connections[command["name"]]
    await asyncio.wait([connection.ended], timeout=command.get("patience", 10))
    return ended(connection) if connection.ended.done() else {"code": -1, "frame": None, "reason": "still alive"}


async def state(command):
    connection = connections[command["name"]]
    quic = connection._quic
    marks = servers[-1].socket.marks if servers else connection._transport.marks
    return {
        "peerPort": quic.get_peer_address()[1],
        "peerHost": quic.get_peer_address()[0],
        "peerValidated": quic._network_paths[0].is_validated,
        "keyPhase": quic._cryptos[Epoch.ONE_RTT].recv.key_phase,
        "ended": connection.ended.done(),
        "statelessResets": connection.resets,
        "acksWithECN": connection.seen["ack_ecn"],
        "pathChallenges": connection.seen["path_challenge"],
        "markedECT0": marks[2],
        "unmarked": marks[0],
        "hasTicket": memory["ticket"] is not None,
        "token": memory["token"].hex(),
        "tokenInUse": quic._peer_token.hex(),
    }


if __name__ == "__main__":
    run(
        {
            "connect": connect,
            "firstFlight": first_flight,
            "move": move,
            "datagram": datagram,
            "listen": listen,
            "accepted": accepted_connection,
            "forget": forget,
            "forgetTickets": forget_tickets,
            "echo": echo,
            "ping": ping,
            "updateKey": update_key,
            "inject": inject,
            "handshakeBytes": handshake_bytes,
            "barePacket": bare_packet,
            "close": close,
            "end": end,
            "state": state,
        }
    )
