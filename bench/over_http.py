#!/usr/bin/env python3
"""HTTP: submissions beside gearmand's own HTTP, and what Gearman's throughput loses to those who ask over HTTP.

    python bench/over_http.py --python .venv-native/bin/python

``submit`` has wrk (Debian: wrk) post foreground jobs over 16 connections that are kept, which workers in C echo:
gearmand with -r http and ours, in alternating pairs, and a server in C that answers every read at once, with no jobs
and no workers: what the machine and wrk can do at all. ``beside`` is the load of foreground jobs over the Gearman port
of one server with HTTP, alone and beside 50 open event streams and 20 requests a second.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from latency import Peer, packet
from server import Server

SUBMIT_TARGET, BESIDE_TARGET = 8.0, 0.95
STREAMS, REQUESTS = 50, 20
SUBMIT_BG = 18
FOREGROUND = "--clients 4 --outstanding 16 --workers 16 --jobs 4000000 --seconds 3"
PATHS = ("/api/v1/functions", "/api/v1/jobs?limit=20", "/metrics", "/api/v1/server")
GEARMAND = (
    "/usr/sbin/gearmand --threads 4 --listen 127.0.0.1 --port {port} --protocol http --http-port %d -l none "
    "-P {dir}/pid --backlog 4096"
)
# A unique of its own for each request: gearmand takes equal workloads for one job.
SCRIPT = """
wrk.method = "POST"
wrk.body = "hello world"
function request()
  return wrk.format(nil, nil, {["X-Gearman-Unique"] = tostring(math.random(1e15))})
end
function done(summary)
  io.write(string.format("result %d %d %d\\n", summary.requests, summary.duration, summary.errors.status))
end
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def workers(echo: Path, port: int) -> Iterator[None]:
    """Workers in C that echo, over four connections."""
    process = subprocess.Popen([str(echo.resolve()), str(port), "4"])
    try:
        time.sleep(0.5)  # they sleep
        yield
    finally:
        process.kill()
        process.wait()


def wrk(script: Path, http_port: int, seconds: int) -> tuple[int, float]:
    """How many requests were answered, and how many a second."""
    told = subprocess.run(
        ["wrk", "-t1", "-c16", f"-d{seconds}s", "-s", str(script), f"http://127.0.0.1:{http_port}/echo"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    found = re.search(r"result (\d+) (\d+) (\d+)", told)
    if found is None or int(found[3]) or not int(found[1]):
        raise SystemExit(f"wrk found fault:\n{told}")
    return int(found[1]), int(found[1]) / int(found[2]) * 1e6


def answers_at_once(bare: Path, http_port: int, script: Path) -> float:
    """Requests a second that are answered without any work."""
    process = subprocess.Popen([str(bare.resolve()), str(http_port)])
    try:
        time.sleep(0.5)
        return wrk(script, http_port, 2)[1]
    finally:
        process.kill()
        process.wait()


def submissions(command: str, http_port: int, echo: Path, script: Path, seconds: int) -> tuple[float, float]:
    """Jobs a second over HTTP, and the server's processor time for each, in microseconds."""
    with Server(command) as server, workers(echo, server.port):
        before = server.cpu_seconds()
        count, rate = wrk(script, http_port, seconds)
        return rate, (server.cpu_seconds() - before) / count * 1e6


@contextlib.contextmanager
def askers(http_port: int, handles: list[str]) -> Iterator[list[int]]:
    """Event streams of these jobs, and requests at their pace; counts the answers."""
    answered = [0]
    over = threading.Event()
    streams = []
    for handle in handles:
        stream = socket.create_connection(("127.0.0.1", http_port))
        stream.sendall(f"GET /api/v1/jobs/{handle}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        if not stream.recv(4096).startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"no event stream of {handle}")
        streams.append(stream)

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", http_port, timeout=30)
        due = time.monotonic()
        while not over.is_set():
            connection.request("GET", PATHS[answered[0] % len(PATHS)])
            response = connection.getresponse()
            response.read()
            if response.status != 200:
                raise SystemExit(f"HTTP answered {response.status}")
            answered[0] += 1
            due += 1 / REQUESTS
            over.wait(max(due - time.monotonic(), 0))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield answered
    finally:
        over.set()
        thread.join()
        for stream in streams:
            stream.close()


def beside(command: str, http_port: int, load: Path, are_there: bool) -> float:
    """Foreground jobs a second over the Gearman port, with those who ask over HTTP or without."""
    with Server(command) as server, contextlib.ExitStack() as stack:
        peer = Peer(server.port)
        peer.fill(packet(SUBMIT_BG, b"watched", b"", b"w"), STREAMS, STREAMS)
        answered = [1]
        if are_there:
            answered = stack.enter_context(askers(http_port, [f"H:bench:{n + 1}" for n in range(STREAMS)]))
        words = [str(load.resolve()), "--port", str(server.port), *FOREGROUND.split()]
        told = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        if not answered[0]:
            raise SystemExit("no request was answered meanwhile")
    return float(json.loads(told)["jobs_per_second"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="the Python that has geartrain installed")
    parser.add_argument("--load", type=Path, default=Path("build/load"), help="the compiled load generator")
    parser.add_argument("--echo", type=Path, default=Path("build/echo"), help="the compiled workers")
    parser.add_argument("--bare", type=Path, default=Path("build/bare"), help="the compiled server without jobs")
    parser.add_argument("--pairs", type=int, default=3, help="pairs of runs a row (3)")
    parser.add_argument("--only", default="", choices=("", "submit", "beside"))
    chosen = parser.parse_args()
    missed = False
    port = free_port()
    ours = (
        f"{shlex.quote(chosen.python)} -m geartrain serve --store memory: --listen 127.0.0.1 --port {{port}} "
        f"--log-file none --job-handle-prefix H:bench --http 127.0.0.1:{port}"
    )
    if chosen.only in ("", "submit"):
        if not shutil.which("wrk"):
            raise SystemExit("needs wrk: apt-get install wrk")
        with tempfile.TemporaryDirectory() as folder:
            script = Path(folder, "post.lua")
            script.write_text(SCRIPT)
            pairs = []
            bare = []
            for number in range(chosen.pairs):
                sides = [(GEARMAND % port, 0), (ours, 1)]
                pair = [(0.0, 0.0)] * 2
                for command, side in sides if number % 2 == 0 else sides[::-1]:
                    pair[side] = submissions(command, port, chosen.echo, script, 4)
                pairs.append(pair)
                bare.append(answers_at_once(chosen.bare, port, script))
                print(
                    f"  submit: gearmand {pair[0][0]:,.0f}, ours {pair[1][0]:,.0f}, none {bare[-1]:,.0f}",
                    file=sys.stderr,
                    flush=True,
                )
        ratio = median(mine[0] / theirs[0] for theirs, mine in pairs)
        missed |= ratio < SUBMIT_TARGET
        cpu = median(mine[1] for _, mine in pairs)
        verdict = "reached" if ratio >= SUBMIT_TARGET else "MISSED"
        rate = median(mine[0] for _, mine in pairs)
        print(
            f"{'submit':10} {rate:>10,.0f} jobs/s  {ratio:.1f} times gearmand  {cpu:.0f} us each  {verdict}\n"
            f"{'':10} {median(bare):>10,.0f} answers/s of a server that has no jobs",
            flush=True,
        )
    if chosen.only in ("", "beside"):
        ratios = []
        for number in range(chosen.pairs):
            sides_ = [False, True] if number % 2 == 0 else [True, False]
            rates = {are_there: beside(ours, port, chosen.load, are_there) for are_there in sides_}
            ratios.append(rates[True] / rates[False])
            print(f"  beside: alone {rates[False]:,.0f}, with {rates[True]:,.0f}", file=sys.stderr, flush=True)
        ratio = median(ratios)
        missed |= ratio < BESIDE_TARGET
        print(f"{'beside':10} ratio {ratio:.3f}  {'reached' if ratio >= BESIDE_TARGET else 'MISSED'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
