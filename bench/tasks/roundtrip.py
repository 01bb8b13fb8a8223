#!/usr/bin/env python3
"""How much longer a blocking ``client.run`` takes than a bare socket: the same job, job server and worker for both.

The worker is a bare socket in a process of its own. Both clients take turns, a few hundred jobs each; of each turn the
median is taken, and of each pair of turns the ratio.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from geartrain import Client

sys.path += [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent / "programs")]
from bare import SUBMIT_JOB, WORK_COMPLETE, Wire, request, work
from server import Server

TARGET = 1.25


def times(run: Callable[[bytes], bytes], count: int) -> float:
    """The median of ``count`` round trips, in microseconds."""
    taken = []
    for number in range(count):
        workload = b"%d" % number
        started = time.perf_counter()
        result = run(workload)
        taken.append(time.perf_counter() - started)
        assert result == workload
    return median(taken) * 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=20, help="pairs of turns (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=500, help="jobs in a turn (default: %(default)s)")
    options = parser.parse_args()
    command = f"{sys.executable} -m geartrain serve --listen 127.0.0.1 --port {{port}} --store memory:"
    with Server(command) as server:
        worker = multiprocessing.Process(target=work, args=(server.port, b"echo", bytes), daemon=True)
        worker.start()
        wire = Wire(server.port)

        def bare(workload: bytes) -> bytes:
            wire.socket.sendall(request(SUBMIT_JOB, b"echo", b"", workload))
            while True:
                type, body = wire.packet()
                if type == WORK_COMPLETE:
                    return body.split(b"\0", 1)[1]

        with Client(f"127.0.0.1:{server.port}") as client:
            ways = [bare, lambda workload: client.run("echo", workload)]
            for way in ways:
                times(way, options.jobs)
            pairs = [[times(way, options.jobs) for way in ways] for _ in range(options.turns)]
        worker.terminate()
    ratio = median(ours / theirs for theirs, ours in pairs)
    print(f"{'round trip of a bare socket':46} {median(pair[0] for pair in pairs):>9,.0f} us")
    print(f"{'round trip of client.run':46} {median(pair[1] for pair in pairs):>9,.0f} us")
    verdict = "reached" if ratio <= TARGET else "MISSED"
    print(f"{'client.run to a bare socket':46} {ratio:>9,.2f}  {verdict}: at most {TARGET}")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    sys.exit(main())
