"""What a peer process consists of: commands in and answers out as JSON lines, sockets, and a life that always ends.

A command is {"id": 1, "do": "connect", …}; its answer {"id": 1, "result": {…}} or {"id": 1, "error": "…"}. Commands run side
by side. The process ends when its standard input does, and LIFETIME seconds after the last command in any case.
"""

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import traceback
from collections import Counter

LIFETIME = 110
COMMAND_TIMEOUT = 40

# Linux's numbers; Python has no names for them on every version.
IP_RECVTOS = 13


class UDPSocket:
    """A UDP socket on the running event loop that sets and counts ECN marks (RFC 3168).

    It offers what aioquic asks of a datagram transport: sendto and close.
    """

    def __init__(self, receive, host="127.0.0.1", port=0, ecn=0):
        self.receive = receive
        self.marks = Counter()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.setsockopt(socket.IPPROTO_IP, IP_RECVTOS, 1)
        self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, ecn)
        self.socket.setblocking(False)
        self.socket.bind((host, port))
        asyncio.get_running_loop().add_reader(self.socket, self._readable)

    @property
    def port(self):
        return self.socket.getsockname()[1]

    def _readable(self):
        # A batch, so that timers get their turn in between.
        for _ in range(64):
            try:
                data, ancillary, _, address = self.socket.recvmsg(65536, 64)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                # An earlier datagram was refused at its destination.
                continue
            for level, kind, value in ancillary:
                if level == socket.IPPROTO_IP and kind == socket.IP_TOS:
                    self.marks[value[0] & 3] += 1
            self.receive(data, address)
            if self.socket.fileno() < 0:
                return

    def sendto(self, data, address):
        try:
            self.socket.sendto(data, address)
        except OSError:
            # As good as lost on the way.
            pass

    def close(self):
        if self.socket.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self.socket)
            self.socket.close()


async def _answer(handler, command):
    try:
        result = await asyncio.wait_for(handler(command), COMMAND_TIMEOUT)
        answer = {"id": command["id"], "result": result or {}}
    except asyncio.TimeoutError:
        answer = {"id": command["id"], "error": f"{command['do']} took longer than {COMMAND_TIMEOUT} s"}
    except Exception:
        answer = {"id": command["id"], "error": traceback.format_exc(limit=-3)}
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def _serve(commands):
    reader = asyncio.StreamReader(limit=16 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    running = set()
    while line := await reader.readline():
        signal.alarm(LIFETIME)
        command = json.loads(line)
        task = asyncio.create_task(_answer(commands[command["do"]], command))
        running.add(task)
        task.add_done_callback(running.discard)
    os._exit(0)


def run(commands):
    """Serves the commands, a dictionary of coroutine functions by name, until standard input ends."""
    # Warnings about a peer that breaks rules are what some tests are about.
    logging.basicConfig(level=os.environ.get("LONGLINE_PEER_LOG", "CRITICAL"))
    asyncio.run(_serve(commands))
