"""Runs each proxy in turn against one nginx as upstream and prints what a request costs the proxy's processes in CPU time.

Each round visits every candidate once, so that whatever else the machine does hits all of them alike. The median of
the rounds is printed, and its ratio to the plain nginx of the same run.
"""

import base64
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
CONNECTIONS = 32
# What a browser sends.
FIELDS = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36",
    "Accept": "application/json, text/plain, */*",
    "Accept-Language": "en-US,en;q=0.9",
    "Accept-Encoding": "gzip, deflate, br",
    "Sec-Fetch-Mode": "cors",
    "Sec-Fetch-Site": "same-origin",
}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port):
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"nothing listens on port {port}")


def pids(root):
    """A process and its children: nginx and HAProxy work in children."""
    found = [root]
    for task in Path(f"/proc/{root}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


def cpu_seconds(root):
    total = 0
    for pid in pids(root):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def request(url, data=None, headers=None):
    asked = urllib.request.Request(url, data=data, headers=headers or {})
    with urllib.request.urlopen(asked) as answer:
        return answer.read().decode()


def public_key(jwks):
    """The P-256 key of a key set as PEM: a fixed DER head and the point."""
    key = json.loads(jwks)["keys"][0]
    decode = lambda text: base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    head = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
    der = head + b"\x04" + decode(key["x"]) + decode(key["y"])
    text = base64.encodebytes(der).decode()
    return f"-----BEGIN PUBLIC KEY-----\n{text}-----END PUBLIC KEY-----\n"


PIECES = """
import asyncio, sys

class Pieces(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.rest = transport, b""

    def data_received(self, data):
        *heads, self.rest = (self.rest + data).split(b"\\r\\n\\r\\n")
        for _ in heads:
            head = b"HTTP/1.1 200 OK\\r\\ncontent-type: text/plain\\r\\ntransfer-encoding: chunked\\r\\n\\r\\n"
            self.transport.write(head + b"a\\r\\na part of \\r\\n")
            asyncio.get_running_loop().call_later(0.001, self.transport.write, b"9\\r\\nan answer\\r\\n0\\r\\n\\r\\n")

async def main():
    server = await asyncio.get_running_loop().create_server(Pieces, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()

asyncio.run(main())
"""


class Bench:
    def __init__(self, binary, folder):
        self.binary, self.folder, self.running = binary, Path(folder), []

    def file(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return str(path)

    def start(self, name, *command):
        log = open(self.folder / f"{name}.log", "wb")
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        self.running.append(process)
        return process.pid

    def stop(self):
        for process in reversed(self.running):
            process.send_signal(signal.SIGTERM)
        for process in self.running:
            process.wait(10)

    def nginx(self, name, server):
        port = free_port()
        conf = self.file(
            f"{name}.conf",
            f"""worker_processes 1; daemon off; pid {self.folder}/{name}.pid; error_log stderr;
            events {{ worker_connections 4096; }}
            http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {self.folder}; proxy_temp_path {self.folder};
            fastcgi_temp_path {self.folder}; uwsgi_temp_path {self.folder}; scgi_temp_path {self.folder};
            {server.replace("PORT", str(port))} }}""",
        )
        nginx = "/usr/sbin/nginx" if Path("/usr/sbin/nginx").exists() else "nginx"
        pid = self.start(name, nginx, "-c", conf)
        wait_for(port)
        return pid, port

    def haproxy(self, name, rules, upstream):
        port = free_port()
        conf = self.file(
            f"{name}.cfg",
            f"""global
  nbthread 1
  maxconn 4096
defaults
  mode http
  timeout client 30s
  timeout server 30s
  timeout connect 5s
frontend f
  bind 127.0.0.1:{port}
{rules}  default_backend b
backend b
  server s 127.0.0.1:{upstream} maxconn 256
""",
        )
        haproxy = "/usr/sbin/haproxy" if Path("/usr/sbin/haproxy").exists() else "haproxy"
        pid = self.start(name, haproxy, "-f", conf)
        wait_for(port)
        return pid, port

    def demo(self):
        port = free_port()
        self.start("demo", self.binary, "demo", "--listen", f"127.0.0.1:{port}")
        wait_for(port)
        log = self.folder / "demo.log"
        until = time.monotonic() + 10
        said = r"ada@example\.com\s+(\S+).*\s(sb_publishable_[a-z0-9]+)\n"
        while not (found := re.search(said, log.read_text(), re.DOTALL)):
            if time.monotonic() > until:
                sys.exit("the demo printed no password and no key")
            time.sleep(0.05)
        base = f"http://127.0.0.1:{port}"
        self.key = found[2]
        self.login = json.dumps({"email": "ada@example.com", "password": found[1]}).encode()
        headers = {"apikey": self.key, "content-type": "application/json"}
        session = request(f"{base}/auth/v1/token?grant_type=password", self.login, headers)
        return base, session, request(f"{base}/auth/v1/.well-known/jwks.json")

    def redis(self):
        port = free_port()
        self.start("redis", "redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
        wait_for(port)
        return port

    def pieces(self):
        """An upstream whose answers come in two chunks, the second a moment later: whoever passes them on has to wait."""
        port = free_port()
        self.start("pieces", sys.executable, "-c", PIECES, str(port))
        wait_for(port)
        return port

    def signed_in(self, port):
        """The fields of a browser that has logged in at the gateway."""
        origin = f"http://127.0.0.1:{port}"
        headers = {"content-type": "application/json", "origin": origin}
        asked = urllib.request.Request(f"{origin}/.auth/login", data=self.login, headers=headers)
        with urllib.request.urlopen(asked) as answer:
            pairs = [field.partition(";")[0] for field in answer.headers.get_all("set-cookie")]
        return {"Cookie": "; ".join(["theme=dark", *pairs])}

    def tollhouse(self, provider, upstream, under=(), mode="shared", redis=None, pieces=None):
        """`redis`: the port of the store of mode `stored`. `pieces`: the port of an upstream for `/pieces/*`."""
        port = free_port()
        key = base64.b64encode(b"0123456789abcdef" * 2).decode().rstrip("=")
        more = ""
        if redis:
            more += f'[redis]\nurl = "redis://127.0.0.1:{redis}"\n'
        if pieces:
            more += f'[upstreams.pieces]\nurl = "http://127.0.0.1:{pieces}"\n'
            more += '[[routes]]\npath = "/pieces/*"\nupstream = "pieces"\n'
        routed = 'upstream = "app"\n' if pieces else ""
        conf = self.file(
            f"tollhouse-{mode}.toml",
            f"""[server]
listen = "127.0.0.1:{port}"
workers = 1
[admin]
listen = "off"
[log]
access = false
[providers.main]
kind = "supabase"
url = "{provider}"
{"" if mode == "shared" else f'publishable_key = "{self.key}"'}
[session]
mode = "{mode}"
{"" if mode == "shared" else f'keys = ["{key}"]'}
[upstreams.app]
url = "http://127.0.0.1:{upstream}"
[[routes]]
path = "/public/*"
auth = "public"
{routed}[[routes]]
path = "/*"
{routed}{more}""",
        )
        pid = self.start(f"tollhouse-{mode}", *under, self.binary, "run", "-c", conf)
        wait_for(port)
        return pid, port

    def load(self, url, credential, seconds, changing):
        fields = {**FIELDS, **credential}
        lua = "".join(f"wrk.headers[{json.dumps(n)}] = {json.dumps(v)}\n" for n, v in fields.items())
        if changing:
            lua += f"""local count = 0
            request = function()
                count = count + 1
                wrk.headers["Cookie"] = "count=" .. count .. "; " .. {json.dumps(fields["Cookie"])}
                return wrk.format()
            end"""
        script = self.file("load.lua", lua)
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", script, url]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        if "Non-2xx" in out or "Socket errors" in out:
            sys.exit(f"errors under load:\n{out}")
        return int(re.search(r"(\d+) requests in", out)[1])


def credentials(bench):
    """The upstream's port, the provider, its keys, and the fields of a signed-in browser and of a program."""
    _, upstream = bench.nginx(
        "upstream", 'server { listen 127.0.0.1:PORT; location / { return 200 "a small answer of the upstream\\n"; } }'
    )
    provider, session, jwks = bench.demo()
    token = json.loads(session)["access_token"]
    cookie = "sb-127-auth-token=base64-" + base64.urlsafe_b64encode(session.encode()).decode().rstrip("=")
    return upstream, provider, jwks, {"Cookie": f"theme=dark; {cookie}"}, {"Authorization": f"Bearer {token}"}


def main():
    binary, *flags = sys.argv[1:]
    rounds, seconds = (3, 2) if "--quick" in flags else (5, 5)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(binary, folder)
        try:
            upstream, provider, jwks, as_cookie, as_bearer = credentials(bench)
            plain = bench.nginx(
                "nginx",
                f"""upstream u {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 100000000; }}
                server {{ listen 127.0.0.1:PORT; location / {{ proxy_pass http://u; proxy_http_version 1.1;
                proxy_set_header Connection ""; proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr; }} }}""",
            )
            pem = bench.file("key.pem", public_key(jwks))
            jwt = bench.haproxy(
                "haproxy",
                "  http-request set-var(txn.jwt) http_auth_bearer\n"
                f'  http-request deny unless {{ var(txn.jwt),jwt_verify("ES256","{pem}") -m int 1 }}\n',
                upstream,
            )
            own = bench.tollhouse(provider, upstream, pieces=bench.pieces())
            sealed = bench.tollhouse(provider, upstream, mode="sealed")
            stored = bench.tollhouse(provider, upstream, mode="stored", redis=bench.redis())
            candidates = [
                ("nginx, plain proxy", plain, "/x", as_cookie),
                ("HAProxy, jwt_verify ES256", jwt, "/x", as_bearer),
                ("Tollhouse, public route", own, "/public/x", as_cookie),
                ("Tollhouse, session cookie", own, "/x", as_cookie),
                # The session is the same, the field is not: the connection does not know it, the process does.
                ("Tollhouse, changing cookies", own, "/x", as_cookie),
                ("Tollhouse, Bearer", own, "/x", as_bearer),
                ("Tollhouse, sealed session", sealed, "/x", bench.signed_in(sealed[1])),
                ("Tollhouse, stored session", stored, "/x", bench.signed_in(stored[1])),
                # Not to be compared with the rows above: each answer takes two reads and two writes more.
                ("Tollhouse, in two pieces", own, "/pieces/x", as_cookie),
            ]
            measured = {name: [] for name, *_ in candidates}
            for _ in range(rounds):
                for name, (pid, port), path, credential in candidates:
                    before = cpu_seconds(pid)
                    changing = name.endswith("changing cookies")
                    count = bench.load(f"http://127.0.0.1:{port}{path}", credential, seconds, changing)
                    measured[name].append((cpu_seconds(pid) - before) / count * 1e6)
        finally:
            bench.stop()
    base = statistics.median(measured["nginx, plain proxy"])
    print(f"{'CPU µs per request':28} {'median':>7} {'lowest':>7} {'highest':>8} {'to nginx':>9}")
    for name, values in measured.items():
        middle = statistics.median(values)
        print(f"{name:28} {middle:7.1f} {min(values):7.1f} {max(values):8.1f} {middle / base:9.2f}")


if __name__ == "__main__":
    main()
