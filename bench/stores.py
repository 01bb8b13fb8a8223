#!/usr/bin/env python3
"""Our job server beside gearmand, each with its queue in the same database.

    make bench                        compiles build/load
    python bench/stores.py            all of them, three pairs of runs each: some minutes
    python bench/stores.py --stores sqlite mariadb --pairs 5

The databases are started anew for each pair of runs and gone afterwards; each run has a table or a namespace of its
own. All of them wait for the disk at every commit, as far as they have one. memcached: two servers; gearmand has one
copy of each job on them, ours has two. The runs are those of ``compare.py --only stored-submit stored-drain``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import places  # noqa: F401 - lets the tests' modules be found
from measure import number

from services import PASSWORD, USER, MariaDB, Memcached, PostgreSQL, Redis, running

HERE = Path(__file__).resolve().parent

# store: the least ratios to reach, of submissions and of a drain
TARGETS = {"sqlite": (40, 30), "mariadb": (8, 8), "postgresql": (8, 8), "memcached": (1.5, 1.5), "redis": (None, None)}


@contextlib.contextmanager
def options(name: str) -> Iterator[tuple[str, str]]:
    """gearmand's options and ours for this store; {port} makes each run's place a new one."""
    with contextlib.ExitStack() as stack:
        if name == "sqlite":
            yield "-q libsqlite3 --libsqlite3-db {dir}/jobs.db", "--store sqlite:///{dir}/queue.sqlite"
        elif name == "mariadb":
            mariadb = stack.enter_context(running(MariaDB))
            theirs = (
                f"-q MySQL --mysql-host 127.0.0.1 --mysql-port {mariadb.port} --mysql-user {USER}"
                f" --mysql-password {shlex.quote(PASSWORD)} --mysql-db geartrain --mysql-table queue_{{port}}"
            )
            yield theirs, f"--store {shlex.quote(mariadb.url('ours_{port}'))}"
        elif name == "postgresql":
            postgresql = stack.enter_context(running(PostgreSQL))
            place = f"host=127.0.0.1 port={postgresql.port} user={USER} password={PASSWORD} dbname=geartrain"
            theirs = f"-q Postgres --libpq-conninfo {shlex.quote(place)} --libpq-table queue_{{port}}"
            yield theirs, f"--store {shlex.quote(postgresql.url('ours_{port}'))}"
        elif name == "redis":
            redis = stack.enter_context(running(Redis))
            theirs = (
                f"-q redis --redis-server 127.0.0.1 --redis-port {redis.port}"
                f" --redis-password {shlex.quote(PASSWORD)} --redis-prefix queue_{{port}}"
            )
            yield theirs, f"--store {shlex.quote(redis.url('ours_{port}'))}"
        else:
            nodes = [stack.enter_context(running(Memcached, "-M", "-m", "4096")) for _ in range(2)]
            servers = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
            theirs = f"-q libmemcached --libmemcached-servers {servers} --libmemcached-prefix queue_{{port}}_"
            yield theirs, f"--store {shlex.quote(f'memcached://{servers}?namespace=ours_{{port}}')}"


def compare(name: str, pairs: int, rest: list[str]) -> dict[str, Any]:
    """The pairs of runs of both workloads, by name; how they went is shown as it comes."""
    found: dict[str, Any] = {"stored-submit": [], "stored-drain": []}
    for workload, runs in found.items():
        for _ in range(pairs):
            with options(name) as (theirs, ours), tempfile.TemporaryDirectory() as folder:
                file = Path(folder, "figures.json")
                command = [sys.executable, str(HERE / "compare.py"), "--only", workload, "--pairs", "1", "--json",
                           str(file), "--theirs-options", theirs, "--ours-options", ours, *rest]  # fmt: skip
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                runs += json.loads(file.read_text())["results"][0]["pairs"]
    return found


def row(name: str, found: dict[str, Any]) -> str:
    cells = [name]
    for pairs, target in zip(found.values(), TARGETS[name], strict=True):
        theirs, ours = ([pair[side]["value"] for pair in pairs] for side in (0, 1))
        ratio = median(second / first for first, second in zip(theirs, ours, strict=True))
        cells += [number(median(theirs)), number(median(ours)), f"{ratio:.1f}", f"{target:g}" if target else ""]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Further options, such as --python and --patience, are those of compare.py.",
    )
    parser.add_argument("--stores", nargs="+", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--pairs", type=int, default=3, help="pairs of runs (default: %(default)s)")
    chosen, rest = parser.parse_known_args()
    rows = [row(name, compare(name, chosen.pairs, rest)) for name in chosen.stores]
    print("| store | gearmand submits/s | ours | ratio | target | gearmand drains/s | ours | ratio | target |")
    print("|---|---|---|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
