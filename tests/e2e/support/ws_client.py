"""One exchange over WebSocket, with the package `websockets`; what came of it is the last line, as JSON.

    ws_client.py '{"url": …, "do": …, "origin": …, "headers": {…}, "ca": FILE, …}'

`do` is the name of a function below. A handshake that was refused is told as {"refused": {…}}.
"""

import asyncio
import hashlib
import json
import ssl
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus


def opening(order):
    options = {
        "origin": order.get("origin"),
        "additional_headers": order.get("headers", {}),
        "compression": order.get("compression"),
        "max_size": 8 << 20,
        "ping_interval": None,
        "open_timeout": 20,
        "proxy": None,
    }
    if "ca" in order:
        options["ssl"] = ssl.create_default_context(cafile=order["ca"])
    return connect(order["url"], **options)


async def text(order, socket):
    await socket.send("Grüße, 世界 🎫")
    return {"got": await socket.recv()}


async def binary(order, socket):
    """As many bytes as the order says, of which no two stretches are alike."""
    block = b"".join(hashlib.sha256(count.to_bytes(4, "big")).digest() for count in range(1 << 15))
    sent = (block * (order["bytes"] // len(block) + 1))[: order["bytes"]]
    await socket.send(sent)
    got = await socket.recv()
    return {"type": type(got).__name__, "length": len(got), "same": got == sent}


async def empty(order, socket):
    got = []
    for message in ("", b"", "after"):
        await socket.send(message)
        back = await socket.recv()
        got.append([type(back).__name__, len(back)])
    return {"got": got}


async def deflate(order, socket):
    sent = "the same again and again, " * 40_000
    await socket.send(sent)
    got = await socket.recv()
    return {"extensions": [extension.name for extension in socket.protocol.extensions], "same": got == sent}


async def fragments(order, socket):
    sent = ["one, ", "", "two, ", "x" * 100_000, "three"]
    await socket.send(sent)
    got = [piece async for piece in socket.recv_streaming()]
    # The library ends each such message with an empty piece of its own.
    return {"lengths": [len(piece) for piece in got], "same": got == [*sent, ""]}


async def pings(order, socket):
    """The pong of our ping, and what the server has seen of it."""
    await (await socket.ping("from the client"))
    await socket.send("which?")
    return {"seen": json.loads(await socket.recv())}


async def say(order, socket):
    """Sends one message and waits for one."""
    await socket.send("please")
    return {"got": await socket.recv()}


async def listen(order, socket):
    return {"got": json.loads(await socket.recv())}


async def closed(order, socket):
    """The other side closes: at once after a message, or when it wants to."""
    await socket.send("please")
    try:
        while True:
            print(f"received {await socket.recv()}", flush=True)
    except ConnectionClosed as end:
        frame = end.rcvd
        return {"code": frame and frame.code, "reason": frame and frame.reason}


async def close(order, socket):
    await socket.send("first")
    await socket.recv()
    await socket.close(4002, "the client has had enough")
    return {"code": socket.close_code, "reason": socket.close_reason}


async def silence(order, socket):
    await asyncio.sleep(order["seconds"])
    await socket.send("still here")
    return {"got": await socket.recv()}


async def many(order):
    """All are open before the first says a word, and all speak before the first listens."""
    sockets = await asyncio.gather(*(opening(order) for _ in range(order["sockets"])))
    await asyncio.gather(*(socket.send(f"I am {number}") for number, socket in enumerate(sockets)))
    answers = await asyncio.gather(*(socket.recv() for socket in sockets))
    await asyncio.gather(*(socket.close() for socket in sockets))
    return {"right": sum(answer == f"I am {number}" for number, answer in enumerate(answers))}


async def one_too_many(order):
    """Fills the room there is; then one more; then one more after another has left."""
    sockets = [await opening(order) for _ in range(order["sockets"])]
    try:
        await opening(order)
        third = None
    except InvalidStatus as refusal:
        third = told(refusal.response)
    await sockets.pop().close()
    for _ in range(100):
        try:
            sockets.append(await opening(order))
            break
        except InvalidStatus:
            await asyncio.sleep(0.05)
    works = []
    for socket in sockets:
        await socket.send("works")
        works.append(await socket.recv())
        await socket.close()
    return {"third": third, "works": works}


def told(response):
    headers = {name.lower(): value for name, value in response.headers.raw_items()}
    return {"status": response.status_code, "headers": headers, "text": response.body.decode()}


async def main(order):
    exchange = globals()[order["do"]]
    try:
        if exchange in (many, one_too_many):
            return await exchange(order)
        async with opening(order) as socket:
            return await exchange(order, socket)
    except InvalidStatus as refusal:
        return {"refused": told(refusal.response)}


print(json.dumps(asyncio.run(main(json.loads(sys.argv[1])))), flush=True)
