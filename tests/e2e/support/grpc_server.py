"""The gRPC backend of the end-to-end tests, with grpcio and without generated code: messages are bytes.

    grpc_server.py PORT

The same methods are there for every service name that the gateway has a route for. When a call of `Wait` or `Hang` is
over is printed: `ended ID TIME`, with the ID that the client sent and the time in seconds since 1970.
"""

import json
import sys
import threading
import time
from concurrent import futures

import grpc


def unary(request, context):
    context.send_initial_metadata((("leading", "first"),))
    context.set_trailing_metadata((("trailing", "last"), ("trailing-bin", b"\x00\xff\x10")))
    return b"got " + request


def echo(request, context):
    return request


def not_found(request, context):
    context.set_trailing_metadata((("trailing", "with an error"),))
    context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: 100 % – ünknown")


def metadata(request, context):
    fields = [(name, value if isinstance(value, str) else value.hex()) for name, value in context.invocation_metadata()]
    return json.dumps(fields).encode()


def server_stream(request, context):
    for number in range(int(request)):
        yield b"%d" % number


def client_stream(requests, context):
    count = total = 0
    for request in requests:
        count, total = count + 1, total + len(request)
    return json.dumps({"count": count, "bytes": total}).encode()


def both_ways(requests, context):
    for request in requests:
        yield request


def over(request, context):
    """An event for the end of this call, however it ends."""
    event = threading.Event()

    def ended():
        print(f"ended {request.decode()} {time.time()}", flush=True)
        event.set()

    context.add_callback(ended)
    return event


def wait(request, context):
    """Answers long after every test has given up, and leaves as soon as the call is over."""
    over(request, context).wait(60)
    return b"too late"


def hang(request, context):
    """The same, after a first message."""
    end = over(request, context)
    yield b"a first message"
    end.wait(60)


methods = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Echo": grpc.unary_unary_rpc_method_handler(echo),
    "NotFound": grpc.unary_unary_rpc_method_handler(not_found),
    "Metadata": grpc.unary_unary_rpc_method_handler(metadata),
    "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
    "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
    "BothWays": grpc.stream_stream_rpc_method_handler(both_ways),
    "Wait": grpc.unary_unary_rpc_method_handler(wait),
    "Hang": grpc.unary_stream_rpc_method_handler(hang),
}
server = grpc.server(futures.ThreadPoolExecutor(16))
for service in ("door.Told", "door.Guessed", "door.Limited", "door.Admin"):
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
if not server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}"):
    sys.exit("cannot listen")
server.start()
print("listening", flush=True)
server.wait_for_termination()
