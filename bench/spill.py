#!/usr/bin/env python3
"""A queue that is larger than memory: 3 GB of workloads in a job server that may take 400 MB.

Workloads above --spill-above leave memory as soon as the store has them, and are read when their job is assigned.
Jobs are submitted, each with its own bytes, until so many are acknowledged; then the job server is killed and started
again, and workers take them all and compare every byte. The limit is a control group of the kernel (as root), in which
the job server would be killed; without one the most resident memory that it ever had is compared with it.

    python bench/spill.py
    python bench/spill.py --stores postgresql redis --jobs 3000
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from places import PLACES, place
from server import Server
from store_start import SERVE, ask

from geartrain.link.address import Address
from geartrain.link.blocking import BlockingLink
from geartrain.wire import Packet, Parser, pack_request
from geartrain.wire import packets as p

FUNCTION = b"spill"
WINDOW = 50  # submissions without an answer
WORKERS = 4
# Where groups are made, the file with their limit: version 2, version 1.
GROUPS = (("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"))


def workload_of(number: int, size: int) -> bytes:
    return hashlib.shake_128(b"%d" % number).digest(size)


@contextlib.contextmanager
def limited(limit: int) -> Iterator[Path | None]:
    """A control group whose processes may take ``limit`` bytes together; None where none can be made."""
    for parent, file in GROUPS:
        group = Path(parent, f"geartrain-bench-{os.getpid()}")
        if not Path(parent, "cgroup.procs").exists():
            continue
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            with (group / file).open("r+") as setting:
                setting.write(str(limit))
        except OSError:
            group.rmdir()
            continue
        try:
            yield group
        finally:
            deadline = time.monotonic() + 10
            while (group / "cgroup.procs").read_text() and time.monotonic() < deadline:
                time.sleep(0.05)
            group.rmdir()
        return
    yield None


class Talk:
    """A connection on which requests and answers alternate, several at a time."""

    def __init__(self, port: int) -> None:
        self.link = BlockingLink.connect(Address("127.0.0.1", port), timeout=10)
        self.parser = Parser()

    def answer(self) -> Packet:
        while (packet := self.parser.next_packet()) is None:
            data = self.link.receive(120)
            assert data, "the job server hung up"
            self.parser.feed(data)
        return packet


def submit(port: int, jobs: int, size: int) -> None:
    talk = Talk(port)
    for number in range(jobs + WINDOW):
        if number >= WINDOW:
            packet = talk.answer()
            assert packet.type == p.JOB_CREATED, packet
        if number < jobs:
            unique = b"%d" % number
            talk.link.send(pack_request(p.SUBMIT_JOB_BG, FUNCTION, unique, workload_of(number, size)), timeout=120)
    talk.link.close()


def drain(port: int, jobs: int, size: int) -> None:
    """Take every job, compare its workload, complete it."""
    talks = [Talk(port) for _ in range(WORKERS)]
    for talk in talks:
        talk.link.send(pack_request(p.CAN_DO, FUNCTION) + pack_request(p.GRAB_JOB_UNIQ))
    seen: set[int] = set()
    while len(seen) < jobs:
        for talk in talks:
            packet = talk.answer()
            done = b""
            if packet.type == p.JOB_ASSIGN_UNIQ:
                handle, _, unique, workload = packet.arguments
                assert workload == workload_of(int(unique), size), f"the workload of job {unique!r} is another"
                seen.add(int(unique))
                done = pack_request(p.WORK_COMPLETE, handle, b"")
            talk.link.send(done + pack_request(p.GRAB_JOB_UNIQ))
    assert seen == set(range(jobs))
    for talk in talks:
        talk.link.close()


def measure(name: str, python: str, jobs: int, size: int, limit: int) -> None:
    with place(name) as url, limited(limit) as group:
        serve = SERVE.format(python=shlex.quote(python), store=shlex.quote(url))
        if group is not None:
            enter = f"echo $$ > {group}/cgroup.procs; exec {serve}"
            serve = f"sh -c {shlex.quote(enter)}"
        with Server(serve) as server:
            began = time.monotonic()
            submit(server.port, jobs, size)
            submitted = time.monotonic()
            peak = server.peak_memory()
        with Server(serve) as server:
            ask(server.port, "version")
            started = time.monotonic()
            drain(server.port, jobs, size)
            drained = time.monotonic()
            peak = max(peak, server.peak_memory())
    total = jobs * size / 1e6
    how = f"in a control group of {limit / 1e6:.0f} MB" if group is not None else "without a control group"
    print(f"{name}: {jobs:,} jobs of {size:,} bytes, {total:,.0f} MB of workloads, {how}")
    print(f"  submitted and stored in {submitted - began:.1f} s ({total / (submitted - began):.0f} MB/s)")
    print(f"  killed, started again, and answering after {started - submitted:.1f} s")
    print(f"  drained, every byte compared, in {drained - started:.1f} s ({total / (drained - started):.0f} MB/s)")
    print(f"  most resident memory {peak / 1e6:.0f} MB: {'within' if peak < limit else 'ABOVE'} the limit", flush=True)
    if peak >= limit:
        raise SystemExit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", nargs="+", default=["sqlite"], choices=PLACES)
    parser.add_argument("--jobs", type=int, default=30_000)
    parser.add_argument("--size", type=int, default=100_000, help="bytes of a workload")
    parser.add_argument("--limit", type=int, default=400, metavar="MB", help="memory for the job server")
    parser.add_argument("--python", default=sys.executable, help="the interpreter whose geartrain is measured")
    options = parser.parse_args()
    for name in options.stores:
        measure(name, options.python, options.jobs, options.size, options.limit * 1_000_000)


if __name__ == "__main__":
    main()
