"""How many jobs a second each store keeps and forgets, and how long it takes to give a million back.

    python bench/store.py                       all that are installed
    python bench/store.py --engines sqlite --batches 256 --load 1000000

It measures the store alone: batches as the job server's writer makes them, committed one after the other as safely as
the engine can (synchronous=FULL, fsync on, innodb_flush_log_at_trx_commit=1, appendfsync=always unless it says
redis-everysec; memcached: two copies on two servers, no disk). ``cpu`` is what a row costs in the
committing thread, which the event loop has to do without. Databases are started for it and gone afterwards.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from geartrain.jobserver.records import POSITION_BITS, Batch, StoredJob
from geartrain.store import Store, engine
from services import MariaDB, Memcached, PostgreSQL, Redis, running

CREATED = 1.7e9
ENGINES = ["sqlite", "sqlite-normal", "postgresql", "mariadb", "redis", "redis-everysec", "memcached"]


@contextlib.contextmanager
def place(name: str, folder: str | None) -> Iterator[str]:
    """The URL of an empty place of this engine."""
    if name.startswith("sqlite"):
        with tempfile.TemporaryDirectory(dir=folder) as made:
            yield f"sqlite:///{made}/jobs.sqlite" + ("?synchronous=normal" if name == "sqlite-normal" else "")
    elif name == "postgresql":
        with running(PostgreSQL) as service:
            yield service.url()
    elif name.startswith("redis"):
        with running(Redis, "--appendfsync", name.partition("-")[2] or "always") as service:
            yield service.url()
    elif name == "memcached":
        with running(Memcached, "-M", "-m", "4096") as one, running(Memcached, "-M", "-m", "4096") as other:
            yield f"memcached://127.0.0.1:{one.port},127.0.0.1:{other.port}"
    else:
        with running(MariaDB, "--max-allowed-packet=16M", "--innodb-buffer-pool-size=256M") as service:
            yield service.url()


def batches(rows: int, size: int, payload: int, first: int = 1) -> list[Batch]:
    """``rows`` jobs with a unique each, ``size`` to a batch."""
    workload = os.urandom(payload)
    made = []
    for start in range(first, first + rows, size):
        batch = Batch((start // 100_000 + 2) * 100_000)  # numbers are reserved, a hundred thousand at a time
        batch.added = [
            StoredJob(n, n << POSITION_BITS, b"resize", b"unique %d" % n, workload, payload, 1, 0.0, b"", 0, CREATED)
            for n in range(start, start + size)
        ]
        made.append(batch)
    return made


def removals(added: list[Batch]) -> list[Batch]:
    made = []
    for batch in added:
        removal = Batch(1)
        removal.removed = [job.number for job in batch.added]
        made.append(removal)
    return made


def both(added: list[Batch], before: list[Batch]) -> list[Batch]:
    """Batches that add as many as they remove, as when workers keep up."""
    made = []
    for new, old in zip(added, before, strict=True):
        batch = Batch(new.next_number)
        batch.added, batch.removed = new.added, [job.number for job in old.added]
        made.append(batch)
    return made


def timed(store: Store, what: list[Batch], rows: int, seconds: float) -> tuple[str, int]:
    """Commit until ``seconds`` are over: the figures, and how many batches were done."""
    done = 0
    cpu = time.thread_time()
    start = time.perf_counter()
    for batch in what:
        store.commit(batch)
        done += 1
        if time.perf_counter() - start > seconds:
            break
    wall = time.perf_counter() - start
    cpu = time.thread_time() - cpu
    count = done * rows
    return f"{count / wall:>10,.0f}/s {cpu / count * 1e6:6.1f} µs", done


def measure(name: str, size: int, payload: int, seconds: float, folder: str | None) -> None:
    with place(name, folder) as url:
        store = engine(url)
        store.open()
        rows = min(400_000, size * max(200, int(seconds * 3000)), (256 << 20) // max(payload, 1))
        first = batches(rows, size, payload)
        second = batches(rows, size, payload, first=rows + 1)
        for batch in batches(10 * size, size, payload, first=3 * rows):  # warm up
            store.commit(batch)
        gc.collect()
        add, done = timed(store, first, size, seconds)
        mixed, mixed_done = timed(store, both(second[:done], first[:done]), 2 * size, seconds)
        remove, _ = timed(store, removals(second[:mixed_done]), size, seconds)
        print(f"{name:14} {size:6} {payload:7} | add {add} | add and remove {mixed} | remove {remove}", flush=True)
        store.close()


def measure_load(name: str, rows: int, payload: int, folder: str | None) -> None:
    with place(name, folder) as url:
        store = engine(url)
        store.open()
        for start in range(1, rows, 10_000):
            for batch in batches(10_000, 1000, payload, first=start):
                store.commit(batch)
        store.close()
        store = engine(url)
        start_at = time.perf_counter()
        store.open()
        count = store.count()
        counted = time.perf_counter()
        loaded = sum(1 for _ in store.load(1 << 16))
        end = time.perf_counter()
        print(f"{name:14} open and count {counted - start_at:.2f} s, load of {loaded:,} {end - counted:.2f} s"
              f" ({count:,} counted)", flush=True)  # fmt: skip
        store.close()


def disk(folder: str | None) -> float:
    """Milliseconds that the disk takes to make 32 KiB safe at the moment: the price of a commit that nothing beats."""
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        start = time.perf_counter()
        for _ in range(100):
            os.write(file.fileno(), bytes(32 << 10))
            os.fdatasync(file.fileno())
        return (time.perf_counter() - start) * 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", default=ENGINES)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16, 64, 256, 1000], help="jobs in a batch")
    parser.add_argument("--payload", type=int, default=100, help="bytes of a workload")
    parser.add_argument("--seconds", type=float, default=2.0, help="at most, of one measurement")
    parser.add_argument("--load", type=int, default=0, help="jobs to load instead of measuring batches")
    parser.add_argument("--folder", help="where SQLite's file lies (a temporary folder)")
    options = parser.parse_args()
    for name in options.engines:
        if options.load:
            measure_load(name, options.load, options.payload, options.folder)
        else:
            for size in options.batches:
                print(f"(a write of 32 KiB takes the disk {disk(options.folder):.2f} ms)", file=sys.stderr)
                measure(name, size, options.payload, options.seconds, options.folder)


if __name__ == "__main__":
    main()
