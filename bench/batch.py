#!/usr/bin/env python3
"""Rows that jobs insert into PostgreSQL, one job a call and in batches of 64: tasks a second of the same worker.

    python bench/batch.py

For each way the queue is filled, then one blocking worker with one thread empties it; from its first call to the end of
its last. Both ways take turns, in the same run, with the same job server, database and connection. PostgreSQL is as it
comes: every commit waits for the disk.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable
from statistics import median

import places  # noqa: F401 - lets the tests' modules be found
import psycopg
from server import Server

from geartrain import Client, Worker
from services import PostgreSQL, running

SIZE = 64
TARGET = 8.0
INSERT = "INSERT INTO readings (sensor, value) VALUES (%s, %s)"
Reading = tuple[str, float]


class Stopwatch:
    """From the first call to the end of the one that brings the rows to ``count``."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._began: float | None = None
        self.seconds = 0.0
        self.done = threading.Event()

    def call(self, insert: Callable[[], object], rows: int) -> None:
        self._began = self._began or time.perf_counter()
        insert()
        self._left -= rows
        if self._left == 0:
            self.seconds = time.perf_counter() - self._began
            self.done.set()


def tasks_a_second(address: str, database: psycopg.Connection[Reading], count: int, *, in_batches: bool) -> float:
    """Fill the queue of one way with so many jobs, and empty it. Raises TimeoutError."""
    worker = Worker(address, middleware=[])
    watch = Stopwatch(count)

    def insert(sensor: str, value: float) -> None:
        watch.call(lambda: database.execute(INSERT, (sensor, value)), 1)

    def insert_all(sensors: list[str], values: list[float]) -> None:
        def insert() -> None:
            with database.transaction(), database.cursor() as cursor:
                cursor.executemany(INSERT, zip(sensors, values, strict=True))

        watch.call(insert, len(sensors))

    if in_batches:
        worker.batch("insert", size=SIZE)(insert_all)
    else:
        worker.function("insert")(insert)
    with Client(address) as client:
        for _ in client.map_background("insert", (b'["sensor %d",%d.5]' % (n % 100, n) for n in range(count))):
            pass
    with worker:
        if not watch.done.wait(60):
            raise TimeoutError("the queue was not empty within 60 s")
    return count / watch.seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="turns of both ways (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2000, help="jobs one by one in a turn (default: %(default)s)")
    options = parser.parse_args()
    serve = f"{sys.executable} -m geartrain serve --listen 127.0.0.1 --port {{port}} --store memory:"
    with running(PostgreSQL) as postgresql, Server(serve) as server, postgresql.connect() as database:
        database.execute("CREATE TABLE readings (sensor text, value double precision)")
        address = f"127.0.0.1:{server.port}"
        rounds = []
        for _ in range(options.rounds):
            single = tasks_a_second(address, database, options.jobs, in_batches=False)
            batched = tasks_a_second(address, database, options.jobs * 8, in_batches=True)
            rounds.append((single, batched))
        (rows,) = database.execute("SELECT count(*) FROM readings").fetchone() or (0,)
    if rows != options.rounds * options.jobs * 9:
        print(f"FAILED: {rows} rows were inserted")
        return 1
    ratio = median(batched / single for single, batched in rounds)
    print(f"one job a call    {median(single for single, _ in rounds):>9,.0f} tasks/s")
    print(f"batches of {SIZE}     {median(batched for _, batched in rounds):>9,.0f} tasks/s")
    print(f"ratio             {ratio:>9.1f}    {'reached' if ratio >= TARGET else 'MISSED'}: at least {TARGET:g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
