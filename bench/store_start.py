#!/usr/bin/env python3
"""How long a job server with many stored jobs takes until it answers, and what memory they take.

Jobs are submitted to a job server with a store, it is killed, and another one is started on the same store. Its memory
is compared with that of the first, which got the same jobs from clients.

    python bench/store_start.py                                 1,000,000 jobs of 100 bytes in SQLite
    python bench/store_start.py --stores postgresql mariadb redis memcached --jobs 100000
"""

from __future__ import annotations

import argparse
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

from places import PLACES, place
from server import Server

SERVE = "{python} -m geartrain serve --listen 127.0.0.1 --port {{port}} --store {store}"
ANSWER_LIMIT = 600.0  # seconds


def ask(port: int, command: str) -> str:
    """The first line that a text command is answered with."""
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_LIMIT) as connection:
        connection.sendall(command.encode() + b"\n")
        return connection.makefile().readline().strip()


def submit(load: Path, port: int, jobs: int, size: int) -> float:
    """Submit background jobs with a unique each; the seconds until the last one was acknowledged."""
    began = time.monotonic()
    options = f"--background --uniques --clients 4 --outstanding 1000 --refill 500 --jobs {jobs} --size {size}"
    subprocess.run([str(load), "--port", str(port), *options.split()], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def measure(name: str, python: str, load: Path, jobs: int, size: int) -> None:
    with place(name) as url:
        serve = SERVE.format(python=shlex.quote(python), store=shlex.quote(url))
        with Server(serve) as server:
            ask(server.port, "version")
            empty = server.memory()
            seconds = submit(load, server.port, jobs, size)
            live = server.memory() - empty
        began = time.monotonic()
        with Server(serve) as server:
            ask(server.port, "version")
            started = time.monotonic() - began
            stored = server.memory() - empty
            handle, total = ask(server.port, "status").split("\t")[:2]
            assert int(total) == jobs, f"{total} jobs of {handle} came back"
            file = Path(url.removeprefix("sqlite:///"))
            on_disk = sum(each.stat().st_size for each in file.parent.glob(f"{file.name}*")) if file.exists() else 0
            lines = [line for line in server.output().splitlines() if " loading " in line or " store_loaded " in line]
    print(f"{name}: {jobs:,} jobs of {size} bytes were acknowledged in {seconds:.1f} s")
    print(f"  started and answered after {started:.2f} s")
    if on_disk:
        print(f"  on the disk a job: {on_disk / jobs:.0f} bytes")
    print(f"  memory a job: {stored / jobs:.0f} bytes, and {live / jobs:.0f} when they came from clients")
    for line in lines:
        print(f"    {line}")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", nargs="+", default=["sqlite"], choices=PLACES)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--size", type=int, default=100, help="bytes of a workload")
    parser.add_argument("--python", default=sys.executable, help="the interpreter whose geartrain is measured")
    parser.add_argument("--load", type=Path, default=Path(__file__).parents[1] / "build" / "load")
    options = parser.parse_args()
    for name in options.stores:
        measure(name, options.python, options.load.resolve(), options.jobs, options.size)


if __name__ == "__main__":
    main()
