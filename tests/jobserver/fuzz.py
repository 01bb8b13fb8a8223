"""Bytes thrown at the rules: packets and lines of all sorts, most of them damaged, from many peers in any order.

Whatever comes, nothing is raised, the server's insides stay right (``structure``), each peer gets whole packets,
and a peer that behaves is answered all the while. ``python fuzz.py SECONDS [SEED]`` goes on for that long, and
tells the seed that repeats a failure.
"""

from __future__ import annotations

import random
import struct
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from structure import check

from geartrain.jobserver import JobServer, Peer, Settings
from geartrain.wire.packets import ECHO_REQ, ECHO_RES, LAYOUTS, pack_request, pack_response

STEPS = 200  # of a round, which begins with a new server
PEERS = 8
TYPES = [*LAYOUTS, 0, 5, 43, 99, 2**31, 2**32 - 1]
NAMES = [b"", b"a", b"b", b"-", b"x" * 64, b"x" * 65, b"f" * 513, b"H:t:1", b"H:t:2", b"H:t:30", b"H:t:", b"H:t:01"]
NUMBERS = [b"0", b"1", b"-1", b"3", b"1000", b"1e3", b"4294967296", b"9" * 30, b"1800000003", b"*", b"x", b" 7"]
WORDS = [
    b"status", b"prioritystatus", b"workers", b"show", b"jobs", b"unique", b"version", b"getpid", b"verbose", b"create",
    b"drop", b"function", b"maxqueue", b"cancel", b"job", b"shutdown", b"GET", b"/", b"a", b"b", b"H:t:1", b"H:t:2",
    b"0", b"2", b"-5", b"\xff", b"\x00", b"",
]  # fmt: skip


class Fuzz:
    """One round against one server."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        settings = Settings()
        settings.handle_prefix = b"H:t"
        settings.max_body = 4096
        settings.max_line = 128
        settings.max_memory = 100_000
        settings.max_functions = 20
        settings.packet_timeout = 5.0
        settings.job_retries = self.random.choice((0, 1, 2))
        settings.worker_wakeup = self.random.choice((0, 1, 2))
        settings.listed_order = self.random.random() < 0.5
        settings.exceptions = self.random.random() < 0.5
        self.server = JobServer(settings)
        self.now, self.wall = 1000.0, 1_800_000_000.0
        self.server.tick(self.now, self.wall)
        self.received: dict[Peer, bytearray] = {}
        self.peers = [self.connect() for _ in range(PEERS)]
        self.witness = self.connect()

    def connect(self) -> Peer:
        peer = self.server.connect("127.0.0.1", 10 + len(self.received))
        self.received[peer] = bytearray()
        return peer

    def run(self) -> None:
        for step in range(STEPS):
            place = self.random.randrange(PEERS)
            what = self.random.random()
            if what < 0.04:
                self.server.lost(self.peers[place])
                self.peers[place] = self.connect()
            elif what < 0.14:
                self.pass_time(self.random.choice((0.001, 0.5, 1.0, 3.0, 20.0)))
            else:
                self.send(self.peers[place], self.stream())
            self.settle()
            check(self.server)
            said = b"%d" % step
            self.send(self.witness, pack_request(ECHO_REQ, said))
            self.settle()
            assert self.received[self.witness].endswith(pack_response(ECHO_RES, said))
        for received in self.received.values():
            assert_whole(bytes(received))
        for peer in [*self.peers, self.witness]:
            self.server.lost(peer)
        check(self.server)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds
        self.server.tick(self.now, self.wall)

    def send(self, peer: Peer, data: bytes) -> None:
        while data and not peer.closing:
            cut = self.random.choice((1, 7, 12, 40, len(data)))
            self.server.receive(peer, data[:cut])
            data = data[cut:]

    def settle(self) -> None:
        """Take what every peer is to get, and hang up where that is wanted."""
        server = self.server
        server.take_notices()
        while server.touched:
            touched = list(server.touched)
            server.touched.clear()
            for peer in touched:
                self.received[peer] += b"".join(peer.take())
                if peer.closing and not peer.gone:
                    server.lost(peer)
                    self.peers[self.peers.index(peer)] = self.connect()
                elif peer.stalled:
                    server.receive(peer, b"")

    def stream(self) -> bytes:
        pick = self.random
        data = b"".join(self.packet() if pick.random() < 0.85 else self.line() for _ in range(pick.randrange(1, 5)))
        if pick.random() < 0.7:
            return data
        damaged = bytearray(data)
        for _ in range(pick.randrange(1, 4)):
            at = pick.randrange(len(damaged) + 1)
            cut = pick.randrange(4)
            damaged[at : at + cut] = pick.randbytes(pick.randrange(4))
        return bytes(damaged)

    def packet(self) -> bytes:
        pick = self.random
        type = pick.choice(TYPES)
        names = LAYOUTS[type][2] if type in LAYOUTS else ()
        count = len(names) if pick.random() < 0.9 else pick.randrange(7)
        body = b"\0".join(pick.choice(NAMES if pick.random() < 0.7 else NUMBERS) for _ in range(count))
        if pick.random() < 0.1:
            body += pick.randbytes(pick.choice((1, 100, 4096)))
        size = len(body) if pick.random() < 0.97 else pick.choice((0, 1, len(body) + 1, 5000, 2**32 - 1))
        magic = b"\0REQ" if pick.random() < 0.97 else pick.choice((b"\0RES", b"\0ABC"))
        return struct.pack(">4sII", magic, type, size) + body

    def line(self) -> bytes:
        pick = self.random
        words = (pick.choice(WORDS) for _ in range(pick.randrange(7)))
        return b" ".join(words) + pick.choice((b"\n", b"\r\n", b"\n", b"x" * 200))


def assert_whole(data: bytes) -> None:
    """What a peer got is a row of whole packets from the server, as far as the first line of text."""
    at = 0
    while at < len(data) and data[at] == 0:
        magic, type, size = struct.unpack_from(">4sII", data, at)
        assert magic == b"\0RES", data[at : at + 40]
        assert type in LAYOUTS, type
        at += 12 + size
    assert at <= len(data)


def main(seconds: float, seed: int) -> None:
    began = time.monotonic()
    rounds = 0
    while time.monotonic() - began < seconds:
        try:
            Fuzz(seed + rounds).run()
        except BaseException:
            print(f"repeat this by: {sys.executable} {__file__} 0.001 {seed + rounds}", file=sys.stderr)
            raise
        rounds += 1
    print(f"{rounds} rounds of {STEPS} steps, seeds {seed} to {seed + rounds - 1}: nothing was harmed")


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(2**32))
