#!/usr/bin/env python3
"""What a fleet costs, and what it is worth: each figure beside that of a job server that has the same database alone.

    make bench-fleet                                     PostgreSQL, some minutes
    python bench/fleet.py --stores postgresql mariadb --pairs 5

    member    submissions and a drain of one member, over those of a lone job server
    two       submissions of two members at once, over those of one
    adoption  jobs of a killed member that the survivor takes over, in a second
    idle      queries that the database gets from each of three members that have nothing to do, in a second

All databases wait for the disk at every commit. One or two members, their load and the database share the processors,
so that "two" says more on a machine with many.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Final

import places  # noqa: F401 - lets the tests' modules be found
from measure import number
from server import Server
from store_start import ask

from services import MariaDB, PostgreSQL, SqlService, running

ALONE: Final = "{python} -m geartrain serve --listen 127.0.0.1 --port {{port}} --store {store}"
MEMBER: Final = ALONE + " --fleet bench --advertise 127.0.0.1:{{port}}"
SUBMIT: Final = "--background --clients 4 --outstanding 64 --jobs 10000000 --seconds 3"
DRAIN: Final = "--uniques --clients 4 --outstanding 64 --workers 16 --queued 5000 --rounds 3"
TARGETS: Final = {"submit": 0.85, "uniques": None, "drain": 0.85, "two": 1.2}
SERVICES: Final[dict[str, type[SqlService]]] = {"postgresql": PostgreSQL, "mariadb": MariaDB}
ADOPTED: Final = 300_000  # jobs
IDLE_SECONDS: Final = 10.0
PATIENCE: Final = 120.0

_places = iter(range(1, 1000))


class Bench:
    """One database, on which each run has a place of its own."""

    def __init__(self, service: SqlService, python: str, load: Path) -> None:
        self._service = service
        self._python = python
        self._load = load

    def command(self, form: str, place: int) -> str:
        """What starts a job server at a place."""
        url = self._service.url(f"bench_{place}")
        return form.format(python=shlex.quote(self._python), store=shlex.quote(url))

    @contextlib.contextmanager
    def servers(self, form: str, count: int) -> Iterator[list[Server]]:
        """So many job servers at one new place, that know each other."""
        command = self.command(form, next(_places))
        with contextlib.ExitStack() as stack:
            servers = [stack.enter_context(Server(command)) for _ in range(count)]
            for server in servers:
                ask(server.port, "version")
            if form == MEMBER:
                until(lambda: all(len(listing(each.port, "fleet status")) == count for each in servers))
            yield servers

    def run(self, ports: Sequence[int], options: str) -> float:
        """Jobs in a second, over all of these job servers, each with such a load."""
        loads = [
            subprocess.Popen([str(self._load), "--port", str(port), *options.split()], stdout=subprocess.PIPE)
            for port in ports
        ]
        outputs = [each.communicate()[0] for each in loads]
        if any(each.returncode for each in loads):
            raise SystemExit(f"a load failed: {outputs}")
        return float(sum(json.loads(output.splitlines()[-1])["jobs_per_second"] for output in outputs))

    def pair(self, options: str) -> tuple[float, float]:
        """A lone job server's figure, and a member's."""
        found = []
        for form in (ALONE, MEMBER):
            with self.servers(form, 1) as (server,):
                found.append(self.run([server.port], options))
        return found[0], found[1]

    def two(self) -> tuple[float, float]:
        """Submissions of one member, and of two together."""
        found = []
        for count in (1, 2):
            with self.servers(MEMBER, count) as servers:
                found.append(self.run([server.port for server in servers], SUBMIT))
        return found[0], found[1]

    def adoption(self) -> float:
        """Jobs that a survivor has taken over in a second, from the first to the last."""
        with self.servers(MEMBER, 2) as (first, second):
            options = f"--background --clients 4 --outstanding 1000 --refill 500 --jobs {ADOPTED}"
            subprocess.run(
                [str(self._load), "--port", str(first.port), *options.split()], check=True, stdout=subprocess.DEVNULL
            )
            first.__exit__(None, None, None)
            began = 0.0
            before = 0
            while True:
                rows = listing(second.port, "status")
                count = int(rows[0].split("\t")[1]) if rows else 0
                now = time.monotonic()
                if count and not began:
                    began, before = now, count
                if count >= ADOPTED:
                    return (count - before) / (now - began)
                if began and now > began + PATIENCE:
                    raise SystemExit(f"only {count} of {ADOPTED} jobs were taken over")
                time.sleep(0.02)

    def idle(self) -> float:
        """Queries of an idle member in a second."""
        with self.servers(MEMBER, 3):
            time.sleep(3.0)  # whatever follows the start
            before = self._queries()
            time.sleep(IDLE_SECONDS)
            return (self._queries() - before) / IDLE_SECONDS / 3

    def _queries(self) -> int:
        if isinstance(self._service, PostgreSQL):
            # Each of a member's statements is a transaction of its own, or several of them are one.
            (row,) = self._service.sql(
                "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = 'geartrain'"
            )
            return int(row[0])
        (row,) = self._service.sql("SHOW GLOBAL STATUS LIKE 'Questions'")
        return int(row[1])


def listing(port: int, command: str) -> list[str]:
    """The lines of a listing."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(command.encode() + b"\n")
        lines: list[str] = []
        for line in connection.makefile():
            if line == ".\n":
                return lines
            lines.append(line.rstrip("\n"))
    raise SystemExit(f"{command}: the answer has no end: {lines}")


def until(condition: Callable[[], bool]) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("the members did not find each other")
        time.sleep(0.05)


def show(name: str, what: str, pairs: list[tuple[float, float]]) -> None:
    """A line of the table, with the median of the ratios."""
    ratios = sorted(second / first for first, second in pairs)
    target = TARGETS[what]
    cells = [
        name, what, number(median(first for first, _ in pairs)), number(median(second for _, second in pairs)),
        f"{median(ratios):.2f}", f"{ratios[0]:.2f} to {ratios[-1]:.2f}", f"{target:g}" if target else "",
    ]  # fmt: skip
    print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", nargs="+", default=["postgresql"], choices=list(SERVICES))
    parser.add_argument("--pairs", type=int, default=3, help="pairs of runs (default: %(default)s)")
    parser.add_argument("--python", default=sys.executable, help="the interpreter whose geartrain is measured")
    parser.add_argument("--load", type=Path, default=Path(__file__).parents[1] / "build" / "load")
    chosen = parser.parse_args()
    print("| store | run | before | after | ratio | from, to | target |")
    print("|---|---|---|---|---|---|---|")
    for name in chosen.stores:
        with running(SERVICES[name]) as service:
            bench = Bench(service, chosen.python, chosen.load.resolve())
            show(name, "submit", [bench.pair(SUBMIT) for _ in range(chosen.pairs)])
            show(name, "uniques", [bench.pair(SUBMIT + " --uniques") for _ in range(chosen.pairs)])
            show(name, "drain", [bench.pair(DRAIN) for _ in range(chosen.pairs)])
            show(name, "two", [bench.two() for _ in range(chosen.pairs)])
            rates = [bench.adoption() for _ in range(chosen.pairs)]
            print(f"| {name} | adoption | | {number(median(rates))} jobs/s | | | 60k |", flush=True)
            print(f"| {name} | idle | | {bench.idle():.1f} queries/s | | | under 5 |", flush=True)


if __name__ == "__main__":
    main()
