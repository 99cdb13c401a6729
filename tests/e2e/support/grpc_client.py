"""One exchange over gRPC, with grpcio and without generated code; what came of it is the last line, as JSON.

    grpc_client.py '{"target": "127.0.0.1:8080", "service": …, "do": …, "metadata": [[name, value], …], "ca": FILE, …}'

`do` is the name of a function below. A call that failed is told as {"status": …, "details": …, "trailing": …}.
"""

import json
import queue
import signal
import sys
import time

import grpc

SECONDS = 20
order = json.loads(sys.argv[1])
metadata = [tuple(pair) for pair in order.get("metadata", [])]
options = [("grpc.enable_http_proxy", 0), ("grpc.enable_retries", 0)]
if "ca" in order:
    with open(order["ca"], "rb") as file:
        channel = grpc.secure_channel(order["target"], grpc.ssl_channel_credentials(file.read()), options)
else:
    channel = grpc.insecure_channel(order["target"], options)


def method(kind, name):
    return getattr(channel, kind)(f"/{order['service']}/{name}")


def plain(fields):
    return {name: value if isinstance(value, str) else value.hex() for name, value in fields or ()}


def unary():
    answer, call = method("unary_unary", "Unary").with_call(b"a question", SECONDS, metadata)
    return {"got": answer.decode(), "leading": plain(call.initial_metadata()), "trailing": plain(call.trailing_metadata())}


def not_found():
    return method("unary_unary", "NotFound")(b"", SECONDS, metadata)


def large():
    sent = bytes(range(256)) * (3 << 12)  # 3 MiB
    got = method("unary_unary", "Echo")(sent, SECONDS, metadata)
    return {"length": len(got), "same": got == sent}


def server_stream():
    got = [int(message) for message in method("unary_stream", "ServerStream")(b"1000", SECONDS, metadata)]
    return {"count": len(got), "in_order": got == list(range(1000))}


def client_stream():
    messages = (b"x" * number for number in range(1000))
    return json.loads(method("stream_unary", "ClientStream")(messages, SECONDS, metadata))


def both_ways():
    """Everything is sent without waiting for anything."""
    sent = [b"%d" % number * 100 for number in range(1000)]
    got = list(method("stream_stream", "BothWays")(iter(sent), SECONDS, metadata))
    return {"count": len(got), "same": got == sent}


def ping_pong():
    """Each side waits for the other: whoever buffers in between never gets here."""
    outgoing = queue.SimpleQueue()
    incoming = method("stream_stream", "BothWays")(iter(outgoing.get, None), SECONDS, metadata)
    rounds = 0
    for number in range(100):
        outgoing.put(b"%d" % number)
        rounds += next(incoming) == b"%d" % number
    outgoing.put(None)
    return {"rounds": rounds, "more": len(list(incoming))}


def unimplemented():
    return method("unary_unary", "NoSuchMethod")(b"", SECONDS, metadata)


def received():
    return {"metadata": json.loads(method("unary_unary", "Metadata")(b"", SECONDS, metadata))}


def deadline():
    try:
        method("unary_unary", "Wait")(order["id"].encode(), 0.5, metadata)
    except grpc.RpcError as error:
        return {"status": error.code().name, "time": time.time()}


def cancel():
    call = method("unary_stream", "Hang")(order["id"].encode(), SECONDS, metadata)
    first = next(call)
    call.cancel()
    return {"first": first.decode(), "status": call.code().name, "time": time.time()}


try:
    result = globals()[order["do"]]()
except grpc.RpcError as error:
    result = {"status": error.code().name, "number": error.code().value[0], "details": error.details(), "trailing": plain(error.trailing_metadata())}
print(json.dumps(result), flush=True)
if order["do"] == "cancel":
    # The connection must not end with the call: the server is to hear of the cancellation, not of a client that is gone.
    signal.pause()
