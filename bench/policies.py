#!/usr/bin/env python3
"""What policies cost: the same job server under the same load, with and without, in alternating pairs.

    python bench/policies.py --python .venv-native/bin/python

The first rows set a policy for the function of the load. ``many`` compares a server that holds very much under
policies with one that holds one of each. ``cache`` tells how many submissions a kept result answers a second.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from latency import Peer, packet
from server import Server

CAN_DO, SUBMIT, SUBMIT_BG, SUBMIT_EPOCH, ECHO = 1, 7, 18, 36, 16
FOREGROUND = "--clients 4 --outstanding 16 --workers 16 --jobs 4000000 --seconds 2"
DRAIN = "--clients 4 --outstanding 1000 --refill 500 --workers 16 --queued 20000 --rounds 8"
SUBMISSION = "--background --clients 4 --outstanding 1000 --refill 500 --jobs 1000000"
KEYS = "--background --uniques --clients 4 --outstanding 1000 --refill 500 --workers 16 --jobs 200000"
ATTEMPTS = "attempts=3"
LIMITS = "concurrency=100000 rate=1000000/s burst=1000000"


@dataclass(frozen=True)
class Row:
    """One pair of sides: what is done to a fresh server before the load, for the base and for the other side."""

    name: str
    load: str
    base: Callable[[Peer], None]
    policed: Callable[[Peer], None]
    target: float | None


def nothing(_: Peer) -> None:
    pass


def policy(words: str, function: str = "bench") -> Callable[[Peer], None]:
    def set_policy(peer: Peer) -> None:
        answer = peer.line(f"policy set {function} {words}".encode())
        assert answer == b"OK\r\n", answer

    return set_policy


def holding(delayed: int, functions: int, keys: int) -> Callable[[Peer], None]:
    """So many delayed jobs, functions with limits that are reached, and keys with theirs; the load has a limit too."""

    def hold(peer: Peer) -> None:
        policy("concurrency=100000")(peer)
        policy("concurrency=1 rate=1/h", "limited*")(peer)
        policy("key_concurrency=1", "keyed")(peer)
        policy("attempts=3", "delayed")(peer)
        peer.fill(packet(SUBMIT_EPOCH, b"delayed", b"", b"4000000000", b"w"), delayed, min(delayed, 2000))
        requests = [packet(SUBMIT_BG, b"limited%d" % n, b"", b"w") for n in range(functions) for _ in range(2)]
        requests += [packet(SUBMIT_BG, b"keyed", b"%d:%d" % (n, m), b"w") for n in range(keys) for m in range(2)]
        for at in range(0, len(requests), 2000):
            part = requests[at : at + 2000]
            peer.send(b"".join(part))
            peer.count(len(part))

    return hold


ROWS = (
    Row("attempts-foreground", FOREGROUND, nothing, policy(ATTEMPTS), 0.9),
    Row("attempts-drain", DRAIN, nothing, policy(ATTEMPTS), 0.9),
    Row("attempts-submit", SUBMISSION, nothing, policy(ATTEMPTS), 0.9),
    Row("limits-foreground", FOREGROUND, nothing, policy(LIMITS), None),
    Row("limits-drain", DRAIN, nothing, policy(LIMITS), None),
    Row("keys-background", KEYS, nothing, policy("key_concurrency=1"), None),
    Row("many-foreground", FOREGROUND, holding(1, 1, 1), holding(1_000_000, 10_000, 100_000), 0.85),
    Row("many-drain", DRAIN, holding(1, 1, 1), holding(1_000_000, 10_000, 100_000), 0.85),
)
CACHE_TARGET = 50_000


def jobs_a_second(command: str, load: Path, row: Row, prepare: Callable[[Peer], None]) -> float:
    """A fresh server, prepared, under the load of a row. Raises CalledProcessError if the load found fault."""
    with Server(command) as server:
        peer = Peer(server.port)
        prepare(peer)
        words = [str(load.resolve()), "--port", str(server.port), *row.load.split()]
        told = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return float(json.loads(told)["jobs_per_second"])


def cache_hits_a_second(command: str, count: int) -> float:
    """Submissions that one connection has answered from a kept result, pipelined."""
    with Server(command) as server:
        peer = Peer(server.port)
        policy("results=1h", "cached")(peer)
        peer.send(packet(CAN_DO, b"cached") + packet(SUBMIT_BG, b"cached", b"unique", b"w") + packet(9))
        peer.count(2)
        handle = b"H:bench:1"
        peer.send(packet(13, handle, b"r" * 100))
        request = packet(SUBMIT, b"cached", b"unique", b"w") * 500
        start = time.perf_counter()
        for _ in range(count // 500):
            peer.send(request)
            peer.count(1000)
        return count / (time.perf_counter() - start)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="the Python that has geartrain installed")
    parser.add_argument("--load", type=Path, default=Path("build/load"), help="the compiled load generator")
    parser.add_argument("--pairs", type=int, default=3, help="pairs of runs a row (3)")
    parser.add_argument("--only", default="", help="rows whose name begins so")
    chosen = parser.parse_args()
    serve = f"{shlex.quote(chosen.python)} -m geartrain serve --store memory: --port {{port}} --log-file none"
    command = f"{serve} --job-handle-prefix H:bench"
    missed = False
    for row in ROWS:
        if not row.name.startswith(chosen.only):
            continue
        pairs = []
        for _ in range(chosen.pairs):
            pairs.append([jobs_a_second(command, chosen.load, row, side) for side in (row.base, row.policed)])
            print(f"  {row.name}: {pairs[-1][0]:,.0f} {pairs[-1][1]:,.0f}", file=sys.stderr, flush=True)
        ratio = median(policed / base for base, policed in pairs)
        verdict = "-" if row.target is None else "reached" if ratio >= row.target else "MISSED"
        missed |= verdict == "MISSED"
        print(
            f"{row.name:22} {median(pair[1] for pair in pairs):>12,.0f} jobs/s  ratio {ratio:.2f}  {verdict}",
            flush=True,
        )
    if "cache".startswith(chosen.only):
        hits = median(cache_hits_a_second(command, 200_000) for _ in range(chosen.pairs))
        missed |= hits < CACHE_TARGET
        print(f"{'cache':22} {hits:>12,.0f} hits/s   {'reached' if hits >= CACHE_TARGET else 'MISSED'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
