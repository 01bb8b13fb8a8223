#!/usr/bin/env python3
"""A day of a large site in a minute: six million background jobs through the default store, and what that takes.

    make bench-day                             compiles build/load; JOBS=1000000 for fewer
    python bench/day.py --jobs 1000000
    python bench/day.py --backlog 1000         submitters that stay just ahead of the workers

The job server is the one that ``geartrain serve`` starts without a word about its store: SQLite, which waits for the
disk at every commit. Each job has 100 bytes and a unique of its own, and is acknowledged when it is committed. The
peers are those of ``compare.py --only background``: four submitters with 64 jobs unacknowledged each, which go as fast
as they are answered, beside 16 workers. The clock runs from the first submission until every job is acknowledged and
done and the last one is gone from the file. It fails if a job was not done just once, or came damaged, or is still in
the file at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from server import Server

# STATE_DIRECTORY is where a server that is told nothing else keeps its jobs.
SERVE = "env STATE_DIRECTORY={{dir}} {python} -m geartrain serve --listen 127.0.0.1 --port {{port}}"
LOAD = "--background --uniques --clients 4 --workers 16 --progress 1 --limit 1800"
EMPTY_LIMIT = 20.0  # seconds after the last job until the file must be empty
MB = 1e6


class RunFailed(Exception):
    """Something was wrong with what the job server did."""


def lines(command: list[str]) -> Iterator[str]:
    """What the load generator prints, line by line."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as load:
        assert load.stdout
        try:
            yield from load.stdout
        finally:
            load.kill()
    if load.returncode:
        raise RunFailed(shlex.join(command))


def wait_until_empty(file: Path) -> None:
    """Wait for the last removals, which no client hears of."""
    deadline = time.monotonic() + EMPTY_LIMIT
    store = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    try:
        while True:
            left = store.execute("SELECT count(*) FROM (SELECT 1 FROM geartrain_jobs LIMIT 1000)").fetchone()[0]
            if not left:
                return
            if time.monotonic() > deadline:
                raise RunFailed(f"{left} jobs or more are left in the file")
            time.sleep(0.01)
    finally:
        store.close()


def measure(server: Server, load: list[str], jobs: int) -> None:
    began = said = time.monotonic()
    acknowledged = done = 0
    report: dict[str, Any] = {}
    for line in lines(load):
        if not line.startswith("progress "):
            report = json.loads(line)
            continue
        now = time.monotonic()
        before = acknowledged, done
        acknowledged, done = map(int, line.split()[1:])
        speeds = [(new - old) / (now - said) for new, old in zip((acknowledged, done), before, strict=True)]
        said = now
        print(
            f"{now - began:6.1f} s  {acknowledged:>9,} acknowledged {speeds[0]:>9,.0f}/s"
            f"  {done:>9,} done {speeds[1]:>9,.0f}/s  {server.memory() / MB:5.0f} MB",
            flush=True,
        )
    wait_until_empty(server.folder / "queue.sqlite")
    seconds = time.monotonic() - began
    if report["done_once"] != jobs:
        raise RunFailed(f"{report['done_once']} of {jobs} jobs were done")
    on_disk = sum(each.stat().st_size for each in server.folder.glob("queue.sqlite*"))
    print(
        f"{jobs:,} jobs were acknowledged once stored, done just once, and removed in {seconds:.1f} s"
        f" ({jobs / seconds:,.0f}/s)\n"
        f"most resident memory {server.peak_memory() / MB:.0f} MB; file and log {on_disk / MB:.0f} MB\n"
        f"processor time: job server {server.cpu_seconds():.1f} s, load generator {report['load_cpu_seconds']:.1f} s",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=6_000_000)
    parser.add_argument("--size", type=int, default=100, help="bytes of a workload (default: %(default)s)")
    parser.add_argument("--outstanding", type=int, default=64, help="jobs that a submitter has unacknowledged")
    parser.add_argument("--refill", type=int, default=1, help="it submits again when so many are free")
    parser.add_argument("--backlog", type=int, default=0, help="submit no more while so many wait (0: no limit)")
    parser.add_argument("--python", default=sys.executable, help="the interpreter whose geartrain is measured")
    parser.add_argument("--load", type=Path, default=Path(__file__).parents[1] / "build" / "load")
    options = parser.parse_args()
    with Server(SERVE.format(python=shlex.quote(os.path.abspath(options.python)))) as server:
        load = [str(options.load.resolve()), "--port", str(server.port), *LOAD.split()]
        for name in ("jobs", "size", "outstanding", "refill", "backlog"):
            load += [f"--{name}", str(getattr(options, name))]
        try:
            measure(server, load, options.jobs)
        except RunFailed as error:
            raise SystemExit(f"FAILED: {error}\nthe job server printed:\n{server.output()}") from None


if __name__ == "__main__":
    main()
