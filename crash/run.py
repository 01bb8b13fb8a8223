#!/usr/bin/env python3
"""Kills job servers and stores under load and counts what was lost.

A campaign is some rounds of: traffic runs, ``kill -9`` at a random moment, start again. At its end everything is
drained by one worker, and the ledger is compared: every acknowledged job must have been done. A job may be done twice
(its worker had it, or its completion had not been stored yet, when the server died); jobs that nobody had begun must
come in the order of their submission.

    python crash/run.py --store sqlite --rounds 10
    python crash/run.py --store all --kill both
    python crash/run.py --store all --kill second  a second job server comes to the same store (see faults.py)
    python crash/run.py --store all --kill away    what is kept is taken away under the job server
    python crash/run.py --store all --traffic policies --kill both    functions with policies (see policies.py)
    python crash/run.py --store all --traffic both --kill both        without them, and then with them
    python crash/run.py --store full-disk          SQLite on a disk of 24 MB that is full most of the time; as root
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import policies
import pytest
from faults import aliases, break_hold, take_away, write_again
from traffic import Ledger, Traffic, take_jobs

from geartrain.errors import GeartrainError
from geartrain.link.address import Address
from geartrain.link.blocking import BlockingLink
from servers import RunningServer, free_port
from services import MariaDB, Memcached, PostgreSQL, Redis, Service, Valkey, running

START_SECONDS = 60.0
SMALL_DISK = "24m"


class Place:
    """A store under test: the URL for our server, and what can be killed of it."""

    def __init__(self, name: str, url: str, services: list[Service], options: tuple[str, ...] = ()) -> None:
        self.name = name
        self.url = url
        self.services = services
        self.options = options


@contextlib.contextmanager
def place(name: str, folder: Path) -> Iterator[Place]:
    """The store ``name``, with the real service behind it."""
    with contextlib.ExitStack() as stack:
        if name == "sqlite":
            (folder / "store").mkdir()
            stack.callback(uncover, folder / "store")
            yield Place(name, f"sqlite:///{folder / 'store/queue.sqlite'}", [])
        elif name == "full-disk":
            disk = stack.enter_context(small_disk(folder / "disk"))
            yield Place(name, f"sqlite:///{disk / 'queue.sqlite'}", [])
        elif name == "memcached":
            nodes = [stack.enter_context(running(Memcached, "-M", "-m", "512", "-I", "8m")) for _ in range(3)]
            url = "memcached://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)
            yield Place(name, url, list(nodes))
        elif name in ("redis", "valkey"):
            kind = Redis if name == "redis" else Valkey
            service = stack.enter_context(running(kind, "--appendonly", "yes", "--appendfsync", "always"))
            yield Place(name, service.url(), [service])
        else:
            sql = stack.enter_context(running(PostgreSQL if name == "postgresql" else MariaDB))
            yield Place(name, sql.url(), [sql])


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A folder on a disk that has room for a few thousand jobs."""
    if os.geteuid() != 0:
        raise SystemExit("a disk that is full is made by mounting a small one: run this as root")
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def uncover(folder: Path) -> None:
    """Unmount what a fault has mounted over a folder."""
    while folder.is_mount():
        subprocess.run(["umount", str(folder)], check=True)


class JobServer:
    """Our daemon as a process that may be killed and started again at the same port and store."""

    def __init__(self, python: str, store: Place, folder: Path) -> None:
        self.port = free_port()
        self.command = [
            python, "-m", "geartrain", "serve", "--listen", "127.0.0.1", "--port", str(self.port), "--store", store.url,
            "--store-timeout", "1s", *store.options,
        ]  # fmt: skip
        self.log = folder / f"server-{self.port}.log"
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        self.longest_start = 0.0
        self.kills = 0

    def start(self) -> None:
        if not self.has_started():
            raise SystemExit(f"the job server did not start:\n{self.log.read_text()[-3000:]}")

    def has_started(self) -> bool:
        """Start it; whether it runs."""
        began = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, cwd=self.folder, stdout=log, stderr=log)
        while True:
            try:
                link = BlockingLink.connect(Address("127.0.0.1", self.port), timeout=1)
                link.send(b"version\n")
                link.receive(START_SECONDS)  # it listens before the store is loaded, and answers afterwards
                link.close()
                break
            except GeartrainError:
                if self.process.poll() is not None or time.monotonic() > began + START_SECONDS:
                    return False
                time.sleep(0.02)
        self.longest_start = max(self.longest_start, time.monotonic() - began)
        return True

    def kill(self) -> None:
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        self.kills += 1

    @property
    def running(self) -> RunningServer:
        """The process, to be asked for something."""
        assert self.process is not None
        return RunningServer("geartrain", self.port, self.process, self.log)

    def ask(self, command: str) -> list[str]:
        """The lines that answer a text command."""
        return self.running.ask(command)

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


@dataclass
class Report:
    """The outcome of one campaign."""

    store: str
    kill: str
    rounds: int
    promised: int
    refused: int
    done: int
    lost: int
    twice: int
    out_of_order: int
    damaged: int
    longest_start: float

    HEAD = ("store", "killed", "rounds", "acknowledged", "refused", "done", "lost", "twice", "out of order", "damaged",
            "longest start")  # fmt: skip

    def row(self) -> tuple[str, ...]:
        counts = (self.rounds, self.promised, self.refused, self.done)
        faults = (self.lost, self.twice, self.out_of_order, self.damaged)
        numbers = (f"{number:,}" for number in (*counts, *faults))
        return (self.store, self.kill, *numbers, f"{self.longest_start:.1f} s")

    @property
    def good(self) -> bool:
        return not (self.lost or self.damaged or self.out_of_order) and self.promised > 0


def campaign(python: str, name: str, kill: str, rounds: int, seconds: float, chance: random.Random) -> Report:
    """One store, some rounds."""
    with tempfile.TemporaryDirectory() as made, place(name, Path(made)) as store, contextlib.ExitStack() as running_now:
        folder = Path(made)
        folder.chmod(0o755)
        # What is in the store alone is lost with it, but for a file that can still be read.
        spill_above = "1MiB" if kill == "away" and name != "sqlite" else "16KiB"
        store.options = (*store.options, "--spill-above", spill_above)
        server = JobServer(python, store, folder)
        running_now.callback(server.kill)
        ledger = Ledger(largest=100_000)
        server.start()
        traffic = Traffic(Address("127.0.0.1", server.port), ledger)
        traffic.start(submitters=3, workers=2, pause=0.001)
        for round_number in range(1, rounds + 1):
            time.sleep(chance.uniform(0.2, 1.0) * seconds)
            if kill == "second":
                _second(python, server, store, folder, ledger)
            elif kill == "away":
                say(f"{name:10} {take_away(store.url, store.services, chance)}")
                time.sleep(seconds)  # of traffic that must be refused
                write_again(server, store.url, store.services)
            else:
                _kill(kill, server, store, chance)
            say(f"{name:10} kill {kill:6} round {round_number:3} of {rounds}: {len(ledger.promised):,} acknowledged, "
                f"{len(ledger.done):,} done")  # fmt: skip
        traffic.stop()
        server.kill()
        began = {number for number, times in ledger.started.items() if times}
        server.start()
        drain(server, ledger)
        server.stop()
        if "Traceback" in server.log.read_text():
            raise SystemExit(f"the job server failed inside:\n{server.log.read_text()[-5000:]}")
        lost = [number for number in ledger.promised if not ledger.done[number]]
        if lost or ledger.damaged:
            say(f"lost: {lost[:20]} damaged: {ledger.damaged[:5]}\n{server.log.read_text()[-2000:]}")
        return Report(
            name, kill, rounds, len(ledger.promised), ledger.refused, len(ledger.done), len(lost),
            sum(1 for times in ledger.done.values() if times > 1), _inversions(ledger, began), len(ledger.damaged),
            server.longest_start,
        )  # fmt: skip


@dataclass
class PolicyReport:
    """The outcome of one campaign with policies."""

    store: str
    kill: str
    rounds: int
    ledger: policies.Ledger
    dead: int
    results: int
    longest_start: float

    HEAD = ("store", "killed", "rounds", "acknowledged", "refused", "attempts", "repeated", "dead letters", "results",
            "runs", "policies and pauses", "faults", "longest start")  # fmt: skip

    def row(self) -> tuple[str, ...]:
        ledger = self.ledger
        jobs = (len(ledger.promised), ledger.refused, sum(map(len, ledger.attempts.values())), ledger.repeated)
        kept = (self.dead, self.results, len(ledger.runs), len(ledger.policies) + len(ledger.pauses))
        numbers = (self.rounds, *jobs, *kept, len(ledger.faults))
        return (self.store, self.kill, *(f"{number:,}" for number in numbers), f"{self.longest_start:.1f} s")

    @property
    def good(self) -> bool:
        return not self.ledger.faults and bool(self.ledger.promised)


def policy_campaign(
    python: str, name: str, kill: str, rounds: int, seconds: float, chance: random.Random
) -> PolicyReport:
    """One store, some rounds, with policies; at their end what is dead is looked at, killed over, and tried again."""
    with tempfile.TemporaryDirectory() as made, place(name, Path(made)) as store, contextlib.ExitStack() as running_now:
        folder = Path(made)
        folder.chmod(0o755)
        server = JobServer(python, store, folder)
        running_now.callback(server.kill)
        server.start()
        ledger = policies.Ledger(lambda: server.kills)
        policies.set_up(ledger, server.ask)
        clients, workers = (policies.PolicyTraffic(Address("127.0.0.1", server.port), ledger) for _ in range(2))
        running_now.callback(workers.stop)
        clients.start(submitters=2, clerks=1)
        workers.start(workers=8)
        for round_number in range(1, rounds + 1):
            time.sleep(chance.uniform(0.2, 1.0) * seconds)
            _kill(kill, server, store, chance)
            policies.check_policies(ledger, server.ask)
            say(f"{name:10} kill {kill:6} round {round_number:3} of {rounds}: {len(ledger.promised):,} acknowledged, "
                f"{sum(map(len, ledger.attempts.values())):,} attempts")  # fmt: skip
        clients.stop()
        _kill("server", server, store, chance)
        policies.check_policies(ledger, server.ask)
        policies.resume(ledger, server.ask)
        ended_at = policies.end_schedule(server.ask)
        policies.await_ends(server.running)
        dead = policies.letters(server.ask)
        policies.check(ledger, dead)
        policies.check_runs(ledger, ended_at)
        for command in ("policy set crash-last attempts=1", "dead retry all function=crash-retry"):
            ledger.mercy = True
            say(" ".join(server.ask(command)))
            _kill("server", server, store, chance)
            policies.check_letters(ledger, dead, policies.letters(server.ask), retried="retry" in command)
        policies.await_ends(server.running)
        policies.check_letters(ledger, dead, policies.letters(server.ask), retried=True)
        policies.check_mercy(ledger, dead)
        results = policies.check_results(ledger, server.running.address)
        workers.stop()
        server.stop()
        if ledger.faults or "Traceback" in server.log.read_text():
            say("\n".join(ledger.faults[:20]) + f"\n{server.log.read_text()[-2000:]}")
        return PolicyReport(name, kill, rounds, ledger, len(dead), results, server.longest_start)


def _second(python: str, server: JobServer, store: Place, folder: Path, ledger: Ledger) -> None:
    """Let a second job server come, give both traffic if it could, and go on with one that is started after both."""
    for url in aliases(store.url, store.services, folder):
        if JobServer(python, Place(store.name, url, []), folder).has_started():
            raise SystemExit(f"a second job server came as {url}")
    second = JobServer(python, store, folder)
    break_hold(server, store.services, second.has_started)
    if second.process is not None:
        traffic = Traffic(Address("127.0.0.1", second.port), ledger)
        traffic.start(submitters=2, workers=1, pause=0.001)
        give_up_at = time.monotonic() + 20
        while "is in use by another job server" not in server.log.read_text():
            if time.monotonic() > give_up_at:
                raise SystemExit("the first job server did not say that its store was taken")
            time.sleep(0.1)
        traffic.stop()
        second.kill()
    server.kill()
    server.start()


def _kill(kill: str, server: JobServer, store: Place, chance: random.Random) -> None:
    """``kill -9``, and start again what died."""
    what = chance.choice(("server", "store")) if kill == "both" else kill
    if what == "server" or not store.services:
        server.kill()
        server.start()
        return
    service = chance.choice(store.services)
    service.kill()
    time.sleep(chance.uniform(0.0, 0.5))
    service.start()
    time.sleep(3.0 if store.name == "memcached" else 0.5)  # a node that comes back is filled again in that time


def drain(server: JobServer, ledger: Ledger) -> None:
    """Take everything that is left, by one worker, in order."""
    link = BlockingLink.connect(Address("127.0.0.1", server.port), timeout=5)
    idle = 0

    def enough() -> bool:
        return idle > 20

    for job in take_jobs(link, ledger, enough):
        idle = idle + 1 if job is None else 0
        if job is not None:
            ledger.drained.append(job)
    link.close()


def _inversions(ledger: Ledger, began: set[int]) -> int:
    """Jobs of the last drain that came before one submitted earlier on the same line; by handle, as submitters race."""
    latest: dict[tuple[bytes, int], int] = {}
    wrong = 0
    for function, priority, number in ledger.drained:
        handle = ledger.promised.get(number)
        if handle is None or number in began:
            continue
        order = int(handle.rpartition(b":")[2])
        if order < latest.get((function, priority), 0):
            wrong += 1
        latest[function, priority] = max(order, latest.get((function, priority), 0))
    return wrong


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = ("sqlite", "postgresql", "mariadb", "redis", "valkey", "memcached")
    parser.add_argument("--store", nargs="+", default=["sqlite"], choices=(*every, "full-disk", "all"))
    parser.add_argument("--kill", default="server", choices=("server", "store", "both", "second", "away"),
                        help="what is killed, or done otherwise")  # fmt: skip
    parser.add_argument("--traffic", default="jobs", choices=("jobs", "policies", "both"),
                        help="what goes on meanwhile; both: one after the other")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=1.0, help="longest time between two kills")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3), "big"))
    parser.add_argument(
        "--python", type=os.path.abspath, default=sys.executable, help="the interpreter whose geartrain is killed"
    )
    arguments = parser.parse_args()
    names = tuple(arguments.store)
    if "all" in names:
        names = (*every, *(["full-disk"] if os.geteuid() == 0 else []))
    with_policies = tuple(
        name for name in names if name != "full-disk" and arguments.kill in ("server", "store", "both")
    )
    bounds = "policies go with --kill server, store or both, and not with full-disk"
    if arguments.traffic == "policies" and not with_policies:
        parser.error(bounds)
    say(f"seed {arguments.seed}")
    chance = random.Random(arguments.seed)
    is_good = True
    if arguments.traffic != "policies":
        is_good = _tell(campaign, Report.HEAD, names, arguments, chance)
    if arguments.traffic != "jobs" and with_policies:
        is_good = _tell(policy_campaign, PolicyReport.HEAD, with_policies, arguments, chance) and is_good
    elif arguments.traffic != "jobs":
        say(f"policies were left out: {bounds}")
    return 0 if is_good else 1


def _tell(
    run: Callable[[str, str, str, int, float, random.Random], Report | PolicyReport],
    head: tuple[str, ...],
    names: tuple[str, ...],
    arguments: argparse.Namespace,
    chance: random.Random,
) -> bool:
    """Run the campaign at each store, and print a table of what came of it; whether all was well."""
    reports = []
    for name in names:
        try:
            reports.append(run(arguments.python, name, arguments.kill, arguments.rounds, arguments.seconds, chance))
        except pytest.skip.Exception as lack:
            say(f"{name}: left out: {lack}")
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for report in reports:
        print("| " + " | ".join(report.row()) + " |", flush=True)
    return bool(reports) and all(report.good for report in reports)


if __name__ == "__main__":
    threading.excepthook = lambda problem: say(f"a thread failed: {problem.exc_type.__name__}: {problem.exc_value}")
    sys.exit(main())
