"""How long others wait while one peer asks for the most that can be asked: an echo beside each of the longest works.

    python bench/latency.py --python .venv-native/bin/python

A probe in a process of its own sends one echo after the other, two milliseconds apart. For each work it tells the
answers' median, 99.9th percentile and worst, in milliseconds. No more than 50 at the 99.9th percentile is the target.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import shlex
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

from server import Server

TARGET = 50.0  # milliseconds
EVERY = 0.002  # seconds between two echoes


def packet(kind: int, *arguments: bytes) -> bytes:
    body = b"\0".join(arguments)
    return b"\0REQ" + struct.pack(">II", kind, len(body)) + body


SUBMIT, SUBMIT_BG, ECHO = 7, 18, 16


class Peer:
    """A connection that counts whole packets, and keeps none."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.settimeout(120)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rest = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def count(self, wanted: int) -> None:
        """Wait for so many packets."""
        while wanted > 0:
            data = self.rest + self.socket.recv(1 << 20)
            at = 0
            while len(data) - at >= 12:
                size = 12 + int.from_bytes(data[at + 8 : at + 12], "big")
                if len(data) - at < size:
                    break
                at += size
                wanted -= 1
            self.rest = data[at:]

    def fill(self, one: bytes, count: int, at_once: int = 2000) -> None:
        """Send a request so often, and wait for the answers."""
        for _ in range(count // at_once):
            self.send(one * at_once)
            self.count(at_once)

    def line(self, command: bytes) -> bytes:
        """The answer to a text command: one line."""
        self.send(command + b"\n")
        answer = b""
        while not answer.endswith(b"\n"):
            answer += self.socket.recv(1 << 16)
        return answer

    def close(self) -> None:
        self.socket.close()


def probe(port: int, pipe: Connection) -> None:
    """Echo after echo until told otherwise; at each question the times since the last one."""
    with contextlib.suppress(OSError):
        os.nice(-5)
    peer = Peer(port)
    times: list[float] = []
    while True:
        began = time.perf_counter()
        peer.send(packet(ECHO, b"x"))
        peer.count(1)
        times.append((time.perf_counter() - began) * 1000)
        if pipe.poll(EVERY):
            if not pipe.recv():
                return
            pipe.send(times)
            times = []


# ── the works: each prepares, then yields what is to be measured ────────────────────────────────────────────────────

Work = Callable[[int], Iterator[Callable[[], None]]]


def drop_queued(port: int) -> Iterator[Callable[[], None]]:
    peer = Peer(port)
    peer.fill(packet(SUBMIT_BG, b"f", b"", b"x" * 20), 500_000)
    yield lambda: _expect(peer.line(b"drop function f"), b"OK")


def drop_later(port: int) -> Iterator[Callable[[], None]]:
    peer = Peer(port)
    peer.fill(packet(36, b"g", b"", b"%d" % (time.time() + 9999), b"x"), 500_000)
    yield lambda: _expect(peer.line(b"drop function g"), b"OK")


def client_leaves(port: int) -> Iterator[Callable[[], None]]:
    peer = Peer(port)
    peer.fill(packet(SUBMIT, b"h", b"", b"y"), 300_000)
    yield peer.close


def worker_leaves(port: int) -> Iterator[Callable[[], None]]:
    client, worker = Peer(port), Peer(port)
    client.fill(packet(SUBMIT_BG, b"k", b"", b"y"), 200_000)
    worker.send(packet(1, b"k"))
    worker.fill(packet(9), 200_000)
    yield worker.close


def impossible_dates(port: int) -> Iterator[Callable[[], None]]:
    request = packet(35, b"f", b"", b"1", b"2", b"30", b"2", b"3", b"") * 6000
    peers = [Peer(port) for _ in range(12)]

    def flood() -> None:
        until = time.monotonic() + 5
        for peer in peers:
            threading.Thread(target=_read_on, args=(peer,), daemon=True).start()
            threading.Thread(target=_send_on, args=(peer, request, until), daemon=True).start()
        time.sleep(until - time.monotonic())

    yield flood


def fan_out(port: int) -> Iterator[Callable[[], None]]:
    client, worker = Peer(port), Peer(port)
    client.fill(packet(SUBMIT, b"f", b"u", b""), 40_000, 1000)
    worker.send(packet(1, b"f") + packet(9))
    head = _one(worker)
    handle = head[12:].split(b"\0")[0]
    threading.Thread(target=_read_on, args=(client,), daemon=True).start()
    yield lambda: worker.send(packet(28, handle, b"d" * 30_000))


def refusals(port: int) -> Iterator[Callable[[], None]]:
    peer = Peer(port)
    _expect(peer.line(b"maxqueue full 1"), b"OK")
    peer.fill(packet(SUBMIT_BG, b"full", b"", b"x"), 2, 1)
    threading.Thread(target=_read_on, args=(peer,), daemon=True).start()
    yield lambda: peer.send(packet(SUBMIT_BG, b"full", b"", b"x") * 200_000)


def listings(port: int) -> Iterator[Callable[[], None]]:
    worker = Peer(port)
    for start in range(0, 20_000, 1000):
        worker.send(b"".join(packet(1, b"function-%d" % number) for number in range(start, start + 1000)))
    worker.send(packet(ECHO, b""))
    worker.count(1)
    askers = [Peer(port) for _ in range(20)]
    for asker in askers:
        threading.Thread(target=_read_on, args=(asker,), daemon=True).start()

    def ask() -> None:
        for asker in askers:
            asker.send(b"workers\nstatus\n" * 20)

    yield ask


def abilities(port: int) -> Iterator[Callable[[], None]]:
    workers = [Peer(port) for _ in range(10)]
    for worker in workers:
        for start in range(0, 20_000, 1000):
            worker.send(b"".join(packet(1, b"function-%d" % number) for number in range(start, start + 1000)))
        worker.send(packet(ECHO, b""))
        worker.count(1)

    def go() -> None:
        for worker in workers:
            worker.send(packet(4) + packet(9) + packet(4) + packet(3))  # PRE_SLEEP, GRAB_JOB, again, RESET_ABILITIES
        for worker in workers:
            worker.close()

    yield go


def durable_jobs(port: int) -> Iterator[Callable[[], None]]:
    peer = Peer(port)
    threading.Thread(target=_read_on, args=(peer,), daemon=True).start()
    yield lambda: peer.send(packet(SUBMIT_BG, b"f", b"", b"x" * 20) * 900_000)


def limits_of_keys(port: int) -> Iterator[Callable[[], None]]:
    peer, worker = Peer(port), Peer(port)
    for start in range(0, 500_000, 2000):
        numbers = range(start, start + 2000)
        peer.send(b"".join(packet(SUBMIT_BG, b"f", b"%d:%d" % (n % 1000, n), b"") for n in numbers))
        peer.count(2000)
    worker.send(
        packet(1, b"f") + packet(9) * 100_000
    )  # CAN_DO, and as many GRAB_JOB as move most of them to their keys

    def go() -> None:
        _expect(peer.line(b"policy set f key_concurrency=1"), b"OK")
        worker.count(100_000)
        for change in (b"set f key_concurrency=100", b"set f key_concurrency=1", b"unset f"):
            while not peer.line(b"policy " + change).startswith(b"OK"):
                time.sleep(0.05)  # those of the change before are still on their way

    yield go


def many_letters(port: int, command: bytes) -> Iterator[Callable[[], None]]:
    peer, worker = Peer(port), Peer(port)
    _expect(peer.line(b"policy set f attempts=1 dead_count=1000000"), b"OK")
    peer.fill(packet(SUBMIT_BG, b"f", b"", b"y"), 100_000)
    worker.send(packet(1, b"f") + packet(9))
    prefix, _, first = _one(worker)[12:].split(b"\0")[0].rpartition(b":")
    worker.send(packet(9) * 99_999)
    worker.count(99_999)
    worker.send(b"".join(packet(14, prefix + b":%d" % number) for number in range(int(first), int(first) + 100_000)))
    while b"dead\t100000" not in _listing(peer, b"show function f"):
        time.sleep(0.05)
    yield lambda: _expect(peer.line(command), b"OK")


def letters_again(port: int) -> Iterator[Callable[[], None]]:
    return many_letters(port, b"dead retry all")


def letters_purged(port: int) -> Iterator[Callable[[], None]]:
    return many_letters(port, b"dead purge all")


def failing_jobs(port: int) -> Iterator[Callable[[], None]]:
    client, worker = Peer(port), Peer(port)
    _expect(client.line(b"policy set k attempts=3 delay=0"), b"OK")
    client.fill(packet(SUBMIT_BG, b"k", b"", b"y"), 200_000)
    worker.send(packet(1, b"k"))
    worker.fill(packet(9), 200_000)
    yield worker.close


def patterns(port: int) -> Iterator[Callable[[], None]]:
    peer = Peer(port)
    for start in range(0, 99_000, 1000):
        peer.send(b"".join(packet(SUBMIT_BG, b"f%d" % number, b"", b"") for number in range(start, start + 1000)))
        peer.count(1000)
    for number in range(500):
        _expect(peer.line(b"policy set x%d*y*z weight=2" % number), b"OK")

    def go() -> None:
        for number in range(20):
            _expect(peer.line(b"policy set f* key_concurrency=%d rate=%d/s" % (number + 1, number + 1)), b"OK")

    yield go


WORKS: dict[str, tuple[Work, str, float]] = {
    "drop function, 500,000 jobs wait": (drop_queued, "memory:", 2),
    "drop function, 500,000 jobs for later": (drop_later, "memory:", 2),
    "a client of 300,000 jobs leaves": (client_leaves, "memory:", 2),
    "a worker with 200,000 jobs leaves": (worker_leaves, "memory:", 2),
    "12 peers ask for impossible dates": (impossible_dates, "memory:", 0.1),
    "30 kB for 40,000 waiting clients": (fan_out, "memory:", 3),
    "200,000 refusals": (refusals, "memory:", 2),
    "20 peers list 20,000 functions, 40 times": (listings, "memory:", 4),
    "10 workers of 20,000 functions leave": (abilities, "memory:", 2),
    "limits of 1,000 keys, 500,000 jobs wait": (limits_of_keys, "memory:", 4),
    "dead retry all, 100,000 letters": (letters_again, "memory:", 2),
    "dead purge all, 100,000 letters": (letters_purged, "memory:", 2),
    "a worker with 200,000 jobs to retry leaves": (failing_jobs, "memory:", 3),
    "a pattern of 99,000 functions, 20 times": (patterns, "memory:", 4),
    "900,000 durable jobs at once": (durable_jobs, "sqlite:///{dir}/jobs.sqlite", 10),
}


def _one(peer: Peer) -> bytes:
    data = b""
    while len(data) < 12 or len(data) < 12 + int.from_bytes(data[8:12], "big"):
        data += peer.socket.recv(1 << 16)
    return data


def _listing(peer: Peer, command: bytes) -> bytes:
    peer.send(command + b"\n")
    answer = b""
    while not answer.endswith(b"\n.\n"):
        answer += peer.socket.recv(1 << 16)
    return answer


def _read_on(peer: Peer) -> None:
    with contextlib.suppress(OSError):
        while peer.socket.recv(1 << 20):
            pass


def _send_on(peer: Peer, data: bytes, until: float) -> None:
    with contextlib.suppress(OSError):
        while time.monotonic() < until:
            peer.send(data)
    peer.close()


def _expect(answer: bytes, start: bytes) -> None:
    if not answer.startswith(start):
        raise SystemExit(f"the job server answered {answer!r}")


def measure(python: str, work: Work, store: str, seconds: float) -> list[float]:
    """The times of the echoes beside one work, in milliseconds, in order of size."""
    command = f"{shlex.quote(python)} -m geartrain serve --listen 127.0.0.1 --port {{port}} --store {store}"
    with Server(command) as server:
        ours, theirs = multiprocessing.Pipe()
        prober = multiprocessing.Process(target=probe, args=(server.port, theirs), daemon=True)
        prober.start()
        for act in work(server.port):
            time.sleep(0.3)
            ours.send(True)
            ours.recv()
            act()
            time.sleep(seconds)
        ours.send(True)
        times = sorted(ours.recv())
        ours.send(False)
        prober.join()
        return list(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has geartrain installed")
    parser.add_argument("--only", nargs="*", metavar="WORD", help="works whose names hold one of these words")
    parser.add_argument("--json", metavar="FILE", help="write every figure there")
    options = parser.parse_args()
    python = os.path.abspath(options.python)
    figures: dict[str, dict[str, float]] = {}
    print(f"{'echo beside':42} {'median':>8} {'99.9 %':>8} {'worst':>8}  ms")
    for name, (work, store, seconds) in WORKS.items():
        if options.only and not any(word in name for word in options.only):
            continue
        times = measure(python, work, store, seconds)
        median, high, worst = times[len(times) // 2], times[int(len(times) * 0.999)], times[-1]
        figures[name] = {"median": median, "99.9 %": high, "worst": worst, "echoes": len(times)}
        print(f"{name:42} {median:8.2f} {high:8.1f} {worst:8.1f}  {'' if high <= TARGET else 'above the target'}")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(figures, file, indent=2)


if __name__ == "__main__":
    main()
