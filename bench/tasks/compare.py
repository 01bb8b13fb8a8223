#!/usr/bin/env python3
"""Tasks a second of one producer and one worker process, for geartrain and for others, in turn.

Each run has a fresh broker. The producer fills the queue, then the worker starts and empties it. Both are timed: the
producer by itself, the worker by marks among the tasks, before the first and behind the last one, so that nobody's
start counts. README.md beside this file says more.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from contenders import BARE, CONTENDERS, LEAST, TIMES, Contender

sys.path.append(str(Path(__file__).resolve().parents[1]))
from server import Server

PROGRAMS = Path(__file__).resolve().parent / "programs"
LIMIT = 120.0  # seconds that any part of a run may take


class RunFailed(Exception):
    """A run gave no figure; the text says what the program printed."""


@dataclass
class Run:
    """One queue, filled and emptied."""

    name: str
    concurrency: int
    produced: float  # tasks a second
    worked: float
    worker_cpu: float  # seconds of processor time for each second of work, of all the worker's processes


def measure(contender: Contender, pythons: dict[str, str], scale: float) -> Run:
    """Fill and empty one queue. Raises RunFailed."""
    count = max(int(contender.count * scale), 100)
    with Server(contender.broker.replace("{ours}", pythons["ours"])) as broker, tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "REDIS_URL": f"redis://127.0.0.1:{broker.port}/0",
            "GEARMAN_SERVERS": f"127.0.0.1:{broker.port}",
            "MARKS": folder,
            "PYTHONPATH": str(PROGRAMS),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        python = pythons["ours" if contender.is_ours else "others"]
        filled = subprocess.run(
            [python, contender.program, str(count)],
            cwd=PROGRAMS,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        if filled.returncode:
            raise RunFailed(f"the producer of {contender.name}: {filled.stderr[-2000:]}")
        command = [word.format(port=broker.port, **pythons) for word in shlex.split(contender.worker)]
        with _running(command, environment, Path(folder, "worker.log")) as worker:
            begin, before = worker.await_mark(Path(folder, "begin"))
            cpu = worker.processor_seconds()
            end, after = worker.await_mark(Path(folder, "end"))
            cpu = worker.processor_seconds() - cpu
    done = after - before - 1
    # Where several run at once the marks may overtake a few; of several processes each knows its own count.
    if contender.processes == 1 and abs(done - count) >= contender.concurrency:
        raise RunFailed(f"{contender.name} did {done} of {count} tasks")
    seconds = end - begin
    return Run(contender.name, contender.concurrency, count / float(filled.stdout), count / seconds, cpu / seconds)


class Worker:
    """A worker as a process, with all that it starts."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    def await_mark(self, path: Path) -> tuple[float, int]:
        """The moment at which the mark was reached, and the tasks done before."""
        deadline = time.monotonic() + LIMIT
        while not path.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RunFailed(f"{self._process.args} came to no mark {path.name}: {self._log.read_text()[-2000:]}")
            time.sleep(0.005)
        moment, done = path.read_text().split()
        return float(moment), int(done)

    def processor_seconds(self) -> float:
        """Of the process, its living descendants and its ended children."""
        ticks, waiting = 0, [self._process.pid]
        while waiting:
            pid = waiting.pop()
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += sum(int(field) for field in fields[11:15])
                for task in Path(f"/proc/{pid}/task").iterdir():
                    waiting += [int(child) for child in (task / "children").read_text().split()]
        return ticks / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def _running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[Worker]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=PROGRAMS, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield Worker(process, log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def table(rounds: list[list[Run]]) -> str:
    """The medians of each contender."""
    rows = [f"{'':32} {'at once':>8} {'produced/s':>11} {'worked/s':>9} {'worker cpu':>11}"]
    for runs in zip(*rounds, strict=True):
        produced, worked, cpu = (median(getattr(run, what) for run in runs) for what in _FIGURES)
        rows.append(f"{runs[0].name:32} {runs[0].concurrency:>8} {produced:>11,.0f} {worked:>9,.0f} {cpu:>11.0%}")
    return "\n".join(rows)


_FIGURES = ("produced", "worked", "worker_cpu")


def verdicts(rounds: list[list[Run]]) -> Iterator[str]:
    """How far the targets were reached: of each round the ratio to the faster of a rival's ways, then the median."""
    best = [{run.name: run.worked for run in sorted(runs, key=lambda run: run.worked)} for runs in rounds]
    for (name, concurrency), least in LEAST.items():
        ours = [run.worked for runs in rounds for run in runs if (run.name, run.concurrency) == (name, concurrency)]
        if not ours:
            continue
        what = f"{name}, {concurrency} at once"
        yield _verdict(f"{what}, tasks/s", median(ours), least)
        for rival, target in TIMES.items():
            if all(rival in one for one in best):
                yield _verdict(f"{what}, to {rival}", _ratio(ours, best, rival), target)
        if concurrency == 1 and all(BARE in one for one in best):
            yield f"{f'{what}, to a {BARE}':46} {_ratio(ours, best, BARE):>9,.1f}"


def _ratio(ours: list[float], best: list[dict[str, float]], rival: str) -> float:
    return median(one / runs[rival] for one, runs in zip(ours, best, strict=True))


def _verdict(what: str, reached: float, target: float) -> str:
    return f"{what:46} {reached:>9,.1f}  {'reached' if reached >= target else 'MISSED'}: at least {target:,}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--ours", default=sys.executable, metavar="PYTHON", help="has geartrain installed (default: this one)")
    add("--others", required=True, metavar="PYTHON", help="has requirements.txt installed")
    add("--rounds", type=int, default=3, help="runs of each (default: %(default)s)")
    add("--scale", type=float, default=1.0, help="of the number of tasks; 0.1 is a look, not a claim")
    add("--only", nargs="+", metavar="WORD", default=[""], help="measure those with such a word in their name")
    add("--json", type=Path, metavar="FILE", help="write every run to FILE")
    options = parser.parse_args()
    pythons = {"ours": os.path.abspath(options.ours), "others": os.path.abspath(options.others)}
    chosen = [one for one in CONTENDERS if any(word in one.name for word in options.only)]
    rounds: list[list[Run]] = []
    for number in range(options.rounds):
        rounds.append([])
        for contender in chosen:
            print(f"\r[{number + 1}/{options.rounds}] {contender.name:40}", end="", file=sys.stderr, flush=True)
            try:
                rounds[-1].append(measure(contender, pythons, options.scale))
            except RunFailed as error:
                print(f"\nFAILED: {error}", file=sys.stderr)
                return 1
    print("\r" + " " * 60 + "\r", end="", file=sys.stderr)
    print(table(rounds), *verdicts(rounds), sep="\n")
    if options.json:
        options.json.write_text(json.dumps([[asdict(run) for run in runs] for runs in rounds], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
