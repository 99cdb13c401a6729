"""The WebSocket backend of the end-to-end tests, with the package `websockets`.

    ws_server.py PORT

The last segment of the path says what a connection does:
    echo       each message comes back as it came, text as text, bytes as bytes
    fragments  each message comes back in the pieces in which it came
    about      one text message: what the handshake said, as JSON
    pings      the pings that arrived and were answered, as JSON, on each message
    ping       the server pings on each message and says when the pong is here
    close      on a message the server closes, with 4001 and "the server has had enough"
    refuse     the handshake is answered with 403, by this server

`GET /control/closes`, which is for the test alone, lists how the connections of `echo` were closed.
"""

import asyncio
import json
import sys
from collections import Counter

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

closes: list[dict] = []


class Counting(ServerConnection):
    """The library answers pings by itself; this one counts them as well."""

    def process_event(self, event):
        if isinstance(event, Frame) and event.opcode is Opcode.PING:
            self.pings[bytes(event.data).decode()] += 1
        super().process_event(event)

    def connection_made(self, transport):
        self.pings = Counter()
        super().connection_made(transport)


async def echo(socket):
    async for message in socket:
        await socket.send(message)


async def fragments(socket):
    while True:
        pieces = [piece async for piece in socket.recv_streaming()]
        # The library ends each such message with an empty piece of its own.
        await socket.send(pieces[:-1])


async def about(socket):
    headers = [(name.lower(), value) for name, value in socket.request.headers.raw_items()]
    extensions = [extension.name for extension in socket.protocol.extensions]
    await socket.send(json.dumps({"path": socket.request.path, "headers": headers, "extensions": extensions}))
    await socket.wait_closed()


async def pings(socket):
    async for _ in socket:
        await socket.send(json.dumps(socket.pings))


async def ping(socket):
    async for _ in socket:
        await (await socket.ping("from the server"))
        await socket.send("the pong is here")


async def close(socket):
    await socket.recv()
    await socket.close(4001, "the server has had enough")


exchanges = {"echo": echo, "fragments": fragments, "about": about, "pings": pings, "ping": ping, "close": close}


async def handle(socket):
    exchange = socket.request.path.partition("?")[0].rsplit("/", 1)[-1]
    try:
        await exchanges[exchange](socket)
    except ConnectionClosed:
        pass
    finally:
        if exchange == "echo":
            await socket.wait_closed()
            closes.append({"code": socket.close_code, "reason": socket.close_reason})


def before_handshake(socket, request):
    if request.path == "/control/closes":
        return socket.respond(200, json.dumps(closes))
    if request.path.endswith("/refuse"):
        refusal = socket.respond(403, "the server lets nobody in here\n")
        refusal.headers["X-Refused-By"] = "server"
        return refusal
    return None


async def main(port):
    options = {"create_connection": Counting, "process_request": before_handshake, "max_size": 8 << 20, "ping_interval": None}
    async with serve(handle, "127.0.0.1", port, **options):
        print("listening", flush=True)
        await asyncio.get_running_loop().create_future()


asyncio.run(main(int(sys.argv[1])))
