"""A client and a worker on geartrain; the same words and files as c_load.c, told in load.py."""

from __future__ import annotations

import itertools
import os
import sys
import time
from datetime import timedelta
from typing import Literal

from geartrain import AssignedJob, Client, Worker
from geartrain.errors import GeartrainError

TIMEOUT = 2.0


def tell(file: int, *words: object) -> None:
    os.write(file, f"{time.monotonic():.6f} {' '.join(map(str, words))}\n".encode())


def be_client(name: str, file: int, servers: list[str], pause: float) -> None:
    """Submit for ever; to one server at a time, each in its turn, and the next one after a failure."""
    priorities: tuple[Literal["high", "low", "normal"], ...] = ("high", "low", "normal", "normal")
    numbers = itertools.count(1)
    for first in itertools.count():
        turned = servers[first % len(servers) :] + servers[: first % len(servers)]
        with Client(turned, resend=0, patience=TIMEOUT, connect_timeout=TIMEOUT) as client:
            for number in itertools.islice(numbers, 200):
                job = f"{name}-{number}"
                fails = int(number % 7 == 0)
                seconds = 1 + number % 3 if number % 10 == 1 else 0
                slow = 300 if number % 20 == 2 else number % 5
                begins = time.monotonic()
                try:
                    handle = client.submit_background(
                        "retry" if fails else "quick",
                        f"{job}:{slow}:{fails}".encode(),
                        unique=job if number % 3 else None,
                        priority="normal" if seconds else priorities[number % 4],
                        when=timedelta(seconds=seconds) if seconds else None,
                        timeout=TIMEOUT,
                    )
                except GeartrainError:
                    time.sleep(pause)
                    break
                due = begins + seconds + 1 if seconds else 0.0  # a time is in whole seconds, rounded up
                tell(file, "A", job, handle.decode(), f"{max(due, time.monotonic()):.6f}")
                time.sleep(pause)


def be_worker(name: str, file: int, servers: list[str], functions: list[str]) -> None:
    """Do what comes, for ever."""
    worker = Worker(servers, id=name, middleware=[])
    failed: set[str] = set()

    def work(job: AssignedJob) -> bytes:
        id, milliseconds, fails = job.workload.decode().split(":")[:3]
        handle = job.handle.decode()
        tell(file, "B", id, handle)
        time.sleep(int(milliseconds) / 1000)
        if fails == "1" and id not in failed:
            failed.add(id)
            tell(file, "F", id, handle)
            raise RuntimeError("the first attempt fails")
        tell(file, "D", id, handle)
        return b""

    for function in functions:
        worker.function(function)(work)
    worker.run()


if __name__ == "__main__":
    _, role, name, path, among, *rest = sys.argv
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    if role == "client":
        be_client(name, file, among.split(","), int(rest[0]) / 1000)
    else:
        be_worker(name, file, among.split(","), rest)
