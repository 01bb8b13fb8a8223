#!/usr/bin/env python3
"""Tasks a second of one producer and one worker process, for geartrain and for others, run by run in turn.

Each run has a fresh broker. The producer fills the queue; then the worker starts and drains it. Both are timed: the
producer by itself, the worker by marks in the queue before the first and behind the last task, so that nobody's start
counts. The workers' processor time is that of the whole worker, its parents and children included.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

sys.path.append(str(Path(__file__).resolve().parents[1]))
from server import Server  # noqa: E402

HERE = Path(__file__).resolve().parent
PROGRAMS = HERE / "programs"
LIMIT = 120.0  # seconds that a run may take


@dataclass(frozen=True)
class Contender:
    """Who is measured: ``broker`` and ``worker`` are commands, ``program`` fills the queue."""

    name: str
    broker: str
    program: str
    worker: str
    count: int  # tasks in the queue, so that a run takes a few seconds
    concurrency: str
    ours: bool = False


REDIS = "redis-server --bind 127.0.0.1 --port {port} --save '' --appendonly no --dir {dir}"
OURS = "{ours} -m geartrain serve --listen 127.0.0.1 --port {port}"
IN_MEMORY = f"{OURS} --store memory:"
ON_DISK = f"{OURS} --store sqlite:///{{dir}}/jobs.db"
CELERY = "{others} -m celery --app celery_tasks worker --loglevel WARNING --without-gossip --without-mingle"

CONTENDERS = (
    Contender("celery prefork", REDIS, "celery_tasks.py", f"{CELERY} --pool prefork --concurrency 1", 4000, "1"),
    Contender("celery prefork", REDIS, "celery_tasks.py", f"{CELERY} --pool prefork --concurrency 2", 4000, "2"),
    Contender("celery solo", REDIS, "celery_tasks.py", f"{CELERY} --pool solo", 4000, "1"),
    Contender(
        "rq simple", REDIS, "rq_tasks.py",
        "{others} -m rq.cli worker --quiet --url {redis} --worker-class rq.SimpleWorker", 2000, "1",
    ),
    Contender("dramatiq", REDIS, "dramatiq_tasks.py", "{others} -m dramatiq dramatiq_tasks -p 1 -t 8", 6000, "8"),
    Contender("gear", IN_MEMORY, "gear_tasks.py", "{others} gear_tasks.py work", 10_000, "1"),
    Contender(
        "geartrain", IN_MEMORY, "geartrain_tasks.py", "{ours} geartrain_tasks.py work blocking", 40_000, "1", True
    ),
    Contender(
        "geartrain asyncio", IN_MEMORY, "geartrain_tasks.py", "{ours} geartrain_tasks.py work asyncio", 60_000, "100", True
    ),
    Contender(
        "geartrain asyncio, kept on disk", ON_DISK, "geartrain_tasks.py", "{ours} geartrain_tasks.py work asyncio",
        60_000, "100", True,
    ),
)


@dataclass
class Run:
    name: str
    concurrency: str
    produced: float  # tasks a second
    worked: float
    worker_cpu: float  # seconds of processor time for each second of work


def processor_seconds(pid: int) -> float:
    """Of a process, its living descendants and its ended children."""
    total, waiting = 0, [pid]
    while waiting:
        pid = waiting.pop()
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += sum(int(field) for field in fields[11:15])
            for task in Path(f"/proc/{pid}/task").iterdir():
                waiting += [int(child) for child in (task / "children").read_text().split()]
    return total / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=PROGRAMS, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def await_file(path: Path, process: subprocess.Popen[bytes], log: Path) -> tuple[float, int]:
    deadline = time.monotonic() + LIMIT
    while not path.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"no mark {path.name}: the worker says\n{log.read_text()[-3000:]}")
        time.sleep(0.005)
    moment, done = path.read_text().split()
    return float(moment), int(done)


def measure(contender: Contender, pythons: dict[str, str], scale: float) -> Run:
    count = int(contender.count * scale)
    broker = contender.broker.replace("{ours}", pythons["ours"])
    with Server(broker) as server, tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "REDIS_URL": f"redis://127.0.0.1:{server.port}/0",
            "GEARMAN_SERVERS": f"127.0.0.1:{server.port}",
            "MARKS": folder,
            "PYTHONPATH": str(PROGRAMS),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        python = pythons["ours" if contender.ours else "others"]
        filled = subprocess.run(
            [python, contender.program, str(count)],
            cwd=PROGRAMS, env=environment, capture_output=True, text=True, timeout=LIMIT,
        )
        if filled.returncode:
            raise SystemExit(f"{contender.name}: the producer failed\n{filled.stderr[-3000:]}")
        command = [
            word.replace("{redis}", environment["REDIS_URL"]).format(**pythons) for word in contender.worker.split()
        ]
        log = Path(folder, "worker.log")
        with running(command, environment, log) as worker:
            begin, before = await_file(Path(folder, "begin"), worker, log)
            cpu = processor_seconds(worker.pid)
            end, after = await_file(Path(folder, "end"), worker, log)
            cpu = processor_seconds(worker.pid) - cpu
        slack = int(contender.concurrency)
        if slack != 2 and not count - slack <= after - before - 1 <= count + slack:
            raise SystemExit(f"{contender.name}: {after - before - 1} tasks of {count} were done")
        seconds = end - begin
        return Run(contender.name, contender.concurrency, count / float(filled.stdout), count / seconds, cpu / seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ours", required=True)
    parser.add_argument("--others", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    pythons = {"ours": os.path.abspath(options.ours), "others": os.path.abspath(options.others)}
    runs: list[Run] = []
    for _ in range(options.rounds):
        for contender in CONTENDERS:
            if options.only in contender.name:
                run = measure(contender, pythons, options.scale)
                print(f"{run.name:34} {run.concurrency:>4} {run.produced:8.0f} {run.worked:8.0f} {run.worker_cpu:.0%}", flush=True)
                runs.append(run)


if __name__ == "__main__":
    main()
