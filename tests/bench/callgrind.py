"""Counts the instructions and the system calls of one request, which do not depend on what else the machine does.

One Tollhouse runs under callgrind, one under strace; eight connections ask in lockstep. An instruction belongs to the
crate whose source line it was compiled from, also where it was inlined elsewhere; one of the standard library to the crate
of the function around it. The kernel's part is not counted.
"""

import collections
import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import FIELDS, Bench, credentials, wait_for

CONNECTIONS = 8
WARM, COUNTED = 100, 250  # requests of each connection
READS, WRITES = ("read", "readv", "recvfrom", "recvmsg"), ("write", "writev", "sendto", "sendmsg")
# Two reads and two writes; what is above is a timer's or the log's.
CALLS_MAX = 2.05


class Client:
    def __init__(self, port, path, credential):
        fields = {"Host": f"127.0.0.1:{port}", **FIELDS, **credential}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.head = f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode()
        self.sockets = [socket.create_connection(("127.0.0.1", port), 20) for _ in range(CONNECTIONS)]

    def ask(self, times):
        for _ in range(times):
            for each in self.sockets:
                each.sendall(self.head)
            for each in self.sockets:
                answer = b""
                while b"\r\n\r\n" not in answer:
                    answer += self.more(each)
                head, _, body = answer.partition(b"\r\n\r\n")
                if not head.startswith(b"HTTP/1.1 200 "):
                    sys.exit(f"not 200: {head!r}")
                length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
                while len(body) < length:
                    body += self.more(each)

    @staticmethod
    def more(each):
        data = each.recv(65536)
        if not data:
            sys.exit("a connection was closed")
        return data

    def close(self):
        for each in self.sockets:
            each.close()


def crate_of_symbol(name):
    """The first crate in a symbol that is not the standard library's."""
    for crate in re.findall(r"\b([a-z_][a-z0-9_]*)::", name):
        if crate not in ("core", "alloc", "std", "hashbrown"):
            return crate
    return "std"


def owner(source, function):
    """Whose instructions those of a source file are, inside a function."""
    if found := re.search(r"/registry/src/[^/]+/(.+?)-\d", source):
        return found[1].replace("-", "_")
    if re.search(r"(^|/)src/[a-z_/]+\.rs$", source) and "/rustc/" not in source and "/library/" not in source:
        return "tollhouse"
    name = function.partition("'")[0]
    if re.search(r"malloc|calloc|realloc|free|mi_|tcache|sbrk", name) and "::" not in name:
        return "allocator"
    if re.search(r"^_*mem(cpy|move|cmp|set|chr)|^bcmp", name):
        return "memory copied and compared"
    return crate_of_symbol(name) if "::" in name else "libc"


def costs(path):
    """Instructions of each (file, function) itself, without what it calls."""
    names = {"f": {}, "fn": {}}
    spent = collections.Counter()
    source = function = ""
    called = False

    def named(kind, text):
        number, _, name = text.partition(" ")
        if name:
            names[kind][number] = name
        return names[kind].get(number, name or number)

    for line in path.read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and key in ("fl", "fi", "fe"):
            source = named("f", value)
        elif equals and key in ("cfi", "cfl"):
            named("f", value)
        elif equals and key == "fn":
            function = named("fn", value)
        elif equals and key == "cfn":
            named("fn", value)
        elif equals and key == "calls":
            called = True
        elif line[:1] in "+-*0123456789" and line:
            if not called:
                spent[source, function] += int(line.split()[1])
            called = False
    return spent


def control(*arguments):
    done = subprocess.run(["callgrind_control", *arguments], capture_output=True, text=True)
    if done.returncode or "Error" in done.stdout:
        sys.exit(f"callgrind_control: {done.stdout}{done.stderr}")


def instructions(bench, ways, provider, upstream):
    out = bench.folder / "callgrind.out"
    # The C library copies and clears long pieces with one instruction that callgrind would count for each byte.
    vectors = "GLIBC_TUNABLES=" + ":".join(f"glibc.cpu.x86_rep_{what}_threshold=1000000000" for what in ("movsb", "stosb"))
    valgrind = ["env", vectors, "valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"]
    pid, port = bench.tollhouse(provider, upstream, valgrind)
    counted = {}
    for number, (way, path, credential) in enumerate(ways, 1):
        client = Client(port, path, credential)
        client.ask(WARM)
        control("-i", "on", str(pid))
        client.ask(10)  # the translations of the code are made again
        control("-z", str(pid))
        client.ask(COUNTED)
        control("-d", str(pid))
        control("-i", "off", str(pid))
        client.close()
        dump = Path(f"{out}.{number}")
        counted[way] = {place: cost / COUNTED / CONNECTIONS for place, cost in costs(dump).items()}
    return counted


def system_calls(bench, ways, provider, upstream):
    pid, port = bench.tollhouse(provider, upstream)
    counted = {}
    for way, path, credential in ways:
        client = Client(port, path, credential)
        client.ask(WARM)
        out = bench.folder / "strace.out"
        tracer = subprocess.Popen(["strace", "-f", "-c", "-o", out, "-p", str(pid)], stderr=subprocess.DEVNULL)
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        until = time.monotonic() + 10
        while any("TracerPid:\t0" in (task / "status").read_text() for task in tasks):
            if time.monotonic() > until:
                sys.exit("strace may not trace")
            time.sleep(0.05)
        client.ask(COUNTED)
        tracer.send_signal(signal.SIGINT)
        tracer.wait(10)
        client.close()
        lines = [line.split() for line in out.read_text().splitlines()]
        counted[way] = {
            words[-1] if words[-1] != "total" else None: int(words[3]) / COUNTED / CONNECTIONS
            for words in lines
            if len(words) >= 5 and words[3].isdigit()
        }
        counted[way].pop(None, None)
    return counted


def table(title, columns, rows):
    print(f"{title:30}" + "".join(f"{column:>16}" for column in columns))
    for name, values in rows:
        print(f"{name:30}" + "".join(f"{value:16}" for value in values))


def main():
    binary, *flags = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(binary, folder)
        try:
            upstream, provider, _, as_cookie, as_bearer = credentials(bench)
            ways = [("public", "/public/x", as_cookie), ("session cookie", "/x", as_cookie), ("Bearer", "/x", as_bearer)]
            calls = system_calls(bench, ways, provider, upstream)
            counted = instructions(bench, ways, provider, upstream)
        finally:
            bench.stop()
    columns = [way for way, *_ in ways]
    owners = {way: collections.Counter() for way in columns}
    for way in columns:
        for (source, function), cost in counted[way].items():
            owners[way][owner(source, function)] += cost
    totals = {way: sum(owners[way].values()) for way in columns}
    names = [name for name, _ in sum(owners.values(), collections.Counter()).most_common() if name]
    shown = [name for name in names if max(owners[way][name] / totals[way] for way in columns) >= 0.01]
    rest = [name for name in names if name not in shown]
    cell = lambda way, cost: f"{cost:9.0f} {cost / totals[way]:5.0%}"
    rows = [(name, [cell(way, owners[way][name]) for way in columns]) for name in shown]
    rows.append(("others", [cell(way, sum(owners[way][name] for name in rest)) for way in columns]))
    rows.append(("all", [cell(way, totals[way]) for way in columns]))
    table("instructions a request", columns, rows)
    if "--places" in flags:
        for way in columns:
            print(f"\n{way}: the dearest places")
            for (source, function), cost in sorted(counted[way].items(), key=lambda item: -item[1])[:70]:
                print(f"{cost:8.0f}  {owner(source, function):12} {source[-60:]:60}  {function[:110]}")
    print()
    kinds = sorted({name for way in columns for name, count in calls[way].items() if count >= 0.005})
    table("system calls a request", columns, [(name, [f"{calls[way].get(name, 0):.2f}" for way in columns]) for name in kinds])
    for way in columns:
        for what, of in (("reads", READS), ("writes", WRITES)):
            if (count := sum(calls[way].get(name, 0) for name in of)) > CALLS_MAX:
                sys.exit(f"{way}: {count:.2f} {what} a request, more than 2")


if __name__ == "__main__":
    main()
