#!/usr/bin/env python3
"""Breaks a fleet of three job servers again and again, and counts what was lost.

Three job servers, each on a host of its own (a network namespace), one database, clients and workers in C, PHP and
Python, and a recorder that hears from these alone (see network.py, load.py, recorder.py). A round is one fault (see
faults.py), drawn by the seed so that each comes as often as the others; its jobs are awaited before the next one. At
the end there is a table. The exit status says whether a job was lost, a limit was missed, or a member did what it no
longer had the right to do.

    python chaos/run.py --rounds 20 --seed 1
    python chaos/run.py --store mariadb
    python chaos/run.py --only 'crash' 'cut off'

Needs root, for the namespaces. The time of day of a member is made wrong by a library that is loaded before the C
library (programs/wall_clock.c); clocks that count from a start stay right, as they do on such a host.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import network
from audit import audit, wrong_writes
from faults import FAULTS, Arena, Round
from hosts import Database, Member, running_database
from load import AT_ALL, PROGRAMS, Load, unheard
from recorder import Recorder, taken_over, wait_of

from geartrain.errors import GeartrainError

MEMBERS = 3
DISK_MEGABYTES = {"postgresql": 400, "mariadb": 500}
WAIT_LIMIT = 10.0
SETTLE = 20.0  # seconds that the jobs of a round are waited for
LAST_DRAIN = 60.0
POLICY = b"retry attempts=100 backoff=constant delay=200ms"


class Tally:
    """What came of the rounds of one fault."""

    def __init__(self) -> None:
        self.rounds = self.acknowledged = self.lost = self.late = self.duplicates = self.fenced = 0
        self.wrong_writes = self.wrong_hand_outs = self.unstored = self.broken = 0
        self.limit = 0.0
        self.taken: list[float] = []
        self.longest_wait = 0.0

    HEAD = ("fault", "rounds", "acknowledged", "lost", "begun twice", "elsewhere: median", "worst",
            "limit", "longest wait", "waited too long", "new ids", "wrong writes", "wrong hand-outs",
            "of what was not acknowledged",
            "other faults")  # fmt: skip

    def row(self, name: str) -> str:
        median, worst = (
            (f"{one:.2f} s" for one in (statistics.median(self.taken), max(self.taken))) if self.taken else "--"
        )
        counts = (self.rounds, self.acknowledged, self.lost, self.duplicates)
        words = (name, *(f"{count:,}" for count in counts), median, worst, f"{self.limit:g} s" if self.limit else "-",
                 f"{self.longest_wait:.1f} s", str(self.late), str(self.fenced), str(self.wrong_writes),
                 str(self.wrong_hand_outs), str(self.unstored), str(self.broken))  # fmt: skip
        return "| " + " | ".join(words) + " |"

    @property
    def is_good(self) -> bool:
        missed = self.limit and any(one > self.limit for one in self.taken)
        return not (missed or self.lost or self.late or self.wrong_writes or self.wrong_hand_outs or self.broken)


class Campaign:
    """All rounds of a run."""

    def __init__(self, arguments: argparse.Namespace, folder: Path, database: Database) -> None:
        self.seed = arguments.seed
        self.database = database
        self.net = network.Network()
        build = folder / "programs"
        build_programs(build)
        numbers = range(1, MEMBERS + 1)
        clock = build / "wall_clock.so"
        self.members = [Member(one, self.net, arguments.python, database, folder, clock) for one in numbers]
        self.recorder = Recorder(folder)
        self.tallies: dict[str, Tally] = defaultdict(Tally)
        self._judged: set[str] = set()
        self._seen_twice = 0
        self._seen_acknowledged = 0
        self._seen_writes = 0
        self._names = self._order(arguments.only or list(FAULTS))
        for member in self.members:
            member.start()
        chance = random.Random(self.seed)
        self.arena = Arena(self.net, self.members, database, None, self.recorder, chance)  # type: ignore[arg-type]
        if not self.is_whole(60.0):
            raise SystemExit("the fleet did not come up:\n" + self.members[0].log.read_text()[-3000:])
        self.members[0].ask(b"policy set " + POLICY)
        if not self.arena.wait_until(self._has_policy):
            raise SystemExit("a policy has not come to all members")
        audit(database, unheard(self.members[0]))
        self.arena.load = Load(self.net, self.members, self.recorder, folder, build)

    def _order(self, names: list[str]) -> itertools.chain[str]:
        """Each once in an order by chance, and again."""
        chance = random.Random(f"{self.seed} order")
        return itertools.chain.from_iterable(chance.sample(names, len(names)) for _ in itertools.count())

    def is_whole(self, seconds: float) -> bool:
        """Whether all members know that all live, within so many seconds."""

        def all_live() -> bool:
            try:
                answers = [member.ask(b"fleet status", 2.0) for member in self.members]
            except GeartrainError:
                return False
            return all(answer.count(b"\tlive\t") == MEMBERS for answer in answers)

        return self.arena.wait_until(all_live, seconds)

    def _has_policy(self) -> bool:
        return all(b"attempts=100" in member.ask(b"policy show retry") for member in self.members)

    def round(self, number: int) -> None:
        """One fault, and what came of it."""
        name = next(self._names)
        self.arena.chance = random.Random(f"{self.seed} {number}")
        found = Round(name)
        ids = len(self.database.joined())
        began = time.monotonic()
        try:
            FAULTS[name](self.arena, found)
        except (OSError, AssertionError) as error:  # what is broken may be in our way too
            found.faults.append(f"{type(error).__name__}: {error}")
        if not self.is_whole(30.0):
            found.faults.append("the fleet did not come together again")
            self._bring_back()
        for member in self.members:
            if not self.arena.wait_until(lambda each=member: bool(self.arena.load.burst(each, "burst", 1, 1)), 10.0):  # type: ignore[misc]
                found.faults.append(f"{member} acknowledges nothing any more")
        for program in self.arena.load.died():
            found.faults.append(f"{program} has ended")
        self._settle(found)
        self._judge(found, number, time.monotonic() - began, len(self.database.joined()) - ids)

    def _bring_back(self) -> None:
        """Go on after what should not have been."""
        for member in self.members:
            if member.has_died() or not member.answers(5.0):
                say(f"{member} is started again; its log ends:\n{member.log.read_text()[-1500:]}")
                member.kill()
                member.start()
        self.is_whole(60.0)

    def _settle(self, found: Round) -> None:
        """Wait until all is done that could be done by now."""
        until = time.monotonic()

        def all_done() -> bool:
            self.recorder.read()
            return all(self.recorder.jobs[id].told for id in self.recorder.waiting(until))

        self.arena.wait_until(all_done, SETTLE)

    def _judge(self, found: Round, number: int, seconds: float, new_ids: int) -> None:
        tally, recorder = self.tallies[found.fault], self.recorder
        tally.rounds += 1
        tally.limit = found.limit or tally.limit
        tally.fenced += new_ids
        acknowledged, twice = recorder.acknowledged(), recorder.duplicates()
        tally.acknowledged += acknowledged - self._seen_acknowledged
        tally.duplicates += twice - self._seen_twice
        words = [f"{acknowledged - self._seen_acknowledged:,} acknowledged, {twice - self._seen_twice} begun twice"]
        self._seen_acknowledged, self._seen_twice = acknowledged, twice
        if found.limit:
            victims = {str(victim) for victim in found.victims}
            others = tuple(f"-{member}" for member in self.members if str(member) not in victims)
            taken = taken_over((recorder.jobs[id] for id in found.jobs), found.at, others)
            if taken is None:
                found.faults.append(f"none of {len(found.jobs)} jobs of {found.victims[0]} ran elsewhere")
            else:
                tally.taken.append(taken)
                words.append(f"elsewhere after {taken:.2f} s" + ("  TOO LATE" if taken > found.limit else ""))
        for member, start, end in found.quiet:
            handed = [(at, job) for job in recorder.jobs.values() for at, worker in job.begun
                      if start < at < end and worker.endswith(f"-{member}")]  # fmt: skip
            # What was not acknowledged may never have been stored: then nobody else has it, and it is this member's.
            wrong = [at for at, job in handed if job.acknowledged or len(job.begun) > 1]
            tally.wrong_hand_outs += len(wrong)
            tally.unstored += len(handed) - len(wrong)
            if wrong:
                words.append(f"{member} HANDED OUT {len(wrong)} after {min(wrong) - start:.3f} s")
            if len(handed) > len(wrong):
                words.append(f"{member} handed out {len(handed) - len(wrong)} that were not acknowledged")
        longest, longest_id = self._waits(found, tally)
        words.append(f"longest wait {longest:.1f} s ({longest_id})")
        self._count_lost(found, tally, time.monotonic() - SETTLE)
        writes = wrong_writes(self.database)
        if len(writes) > self._seen_writes:
            tally.wrong_writes += len(writes) - self._seen_writes
            words.append(f"WRONG WRITES {writes[self._seen_writes :][:5]}")
            self._seen_writes = len(writes)
        tally.broken += len(found.faults)
        words += found.faults
        victims_told = "+".join(map(str, found.victims))
        say(f"{number:4} {found.fault:17} {victims_told:6} {seconds:5.1f} s: {'; '.join(words)}")

    def _waits(self, found: Round, tally: Tally) -> tuple[float, str]:
        """Judge the waits of jobs whose first attempt came since the last round; the longest one, and whose it was."""
        longest = 0.0, ""
        for id, job in self.recorder.jobs.items():
            if id in self._judged or not job.begun or not job.acknowledged:
                continue
            self._judged.add(id)
            if job.kind == "bulk":  # its workers are busy
                continue
            excuses = list(self.database.outages)
            worker = min(job.begun)[1]
            excuses += [(at, end) for member, at, end in found.away if job.kind == f"own-{member}"]
            excuses += [(at, end) for member, at, end in found.cut_workers if worker.endswith(f"-{member}")]
            excuses += found.silent if worker in AT_ALL else []  # see load.py
            wait = wait_of(job, excuses)
            longest = max(longest, (wait, id))
            if wait > WAIT_LIMIT:
                tally.late += 1
                say(f"     {id} {job.handle} waited {wait:.1f} s, and was begun by {worker}")
        tally.longest_wait = max(tally.longest_wait, longest[0])
        return longest

    def _count_lost(self, found: Round, tally: Tally, ready_before: float) -> None:
        missing = [id for id in self.recorder.waiting(ready_before) if not self.recorder.jobs[id].told]
        tally.lost += len(missing)
        for id in missing:
            self.recorder.jobs[id].told = True
        for id in missing[:5]:
            self._tell_of(id)

    def _tell_of(self, id: str) -> None:
        """Say what is known of a job that was not done."""
        job = self.recorder.jobs[id]
        age = time.monotonic() - job.ready
        say(f"     {id} {job.handle} could run since {age:.1f} s, begun {job.begun}, failed {job.failed}")
        number = job.handle.rpartition(":")[2]
        say(f"     rows: {self.database.ask(f'SELECT number, owner, due FROM geartrain_jobs WHERE number = {number}')}")
        for member in self.members:
            with contextlib.suppress(GeartrainError):
                say(f"     {member}: {member.ask(b'why ' + job.handle.encode())!r}")

    def finish(self) -> bool:
        """Wait for all jobs, and print the table; whether all is well."""
        self.arena.load.stop_clients()
        time.sleep(5.0)

        def all_done() -> bool:
            self.recorder.read()
            return not self.recorder.open

        self.arena.wait_until(all_done, LAST_DRAIN)
        late = [job for id, job in self.recorder.jobs.items() if job.told and id not in self.recorder.open]
        say(f"{len(self.recorder.open)} jobs are lost; {len(late)} that were counted as lost were done later")
        for id in list(self.recorder.open)[:10]:
            self._tell_of(id)
        raised = [str(member) for member in self.members if "Traceback" in member.log.read_text(errors="replace")]
        if raised:
            say(f"there are tracebacks in the logs of {', '.join(raised)}")
        print("| " + " | ".join(Tally.HEAD) + " |")
        print("|" + "---|" * len(Tally.HEAD))
        for name in [name for name in FAULTS if name in self.tallies]:
            print(self.tallies[name].row(name), flush=True)
        good = bool(self.tallies) and all(tally.is_good for tally in self.tallies.values())
        return good and not self.recorder.open and not raised

    def close(self) -> None:
        """End all processes."""
        self.arena.load.stop()
        for member in self.members:
            member.kill()


def build_programs(folder: Path) -> None:
    """Compile what is in C."""
    folder.mkdir()
    flags = ["-O2", "-Wall", "-Wextra"]
    library = ["-shared", "-fPIC"]
    for source, name, options in (
        ("c_load.c", "c_load", ["-lgearman"]),
        ("wall_clock.c", "wall_clock.so", [*library, "-ldl", "-lm"]),
    ):
        subprocess.run(["cc", *flags, "-o", str(folder / name), str(PROGRAMS / source), *options], check=True)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=len(FAULTS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--store", default="postgresql", choices=DISK_MEGABYTES)
    parser.add_argument("--only", nargs="+", choices=FAULTS, metavar="FAULT", help=f"of these: {', '.join(FAULTS)}")
    parser.add_argument("--python", type=os.path.abspath, default=sys.executable,
                        help="the interpreter whose geartrain is broken")  # fmt: skip
    parser.add_argument(
        "--folder", type=Path, default=Path("build/chaos"), help="for logs, and what the recorder reads"
    )
    arguments = parser.parse_args()
    network.isolate()
    folder: Path = arguments.folder.absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    say(f"seed {arguments.seed}, {arguments.store}, {arguments.rounds} rounds; logs in {folder}")
    with running_database(arguments.store, folder, DISK_MEGABYTES[arguments.store]) as database:
        campaign = Campaign(arguments, folder, database)
        try:
            with contextlib.suppress(KeyboardInterrupt):
                for number in range(1, arguments.rounds + 1):
                    campaign.round(number)
            return 0 if campaign.finish() else 1
        finally:
            campaign.close()


if __name__ == "__main__":
    sys.exit(main())
