"""The load: clients and workers in three languages, on hosts of their own, and jobs for one member in a burst.

A workload is ``id:milliseconds:fails``: how long a worker takes for it, and whether its first attempt by each worker is
to fail. What they tell of it goes into files that the recorder reads.

    quick, retry    submitted all the time by all clients to all members, some for later, of all priorities, some with a
                    unique. Three workers, one of each language, are at all members; each member has another one, in
                    Python. First attempts of retry fail
    burst, bulk     for a worker at each member, in C
    own-m1 ...      for the worker in Python that is at this member alone

A worker on libgearman that waits for the answer of a member that is frozen stands still, and with it a job that another
member has given it meanwhile; ours does so for ten seconds. They are not what a job may be said to wait beside.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import network
from hosts import PORT, Member
from network import FRONT, Network
from recorder import Recorder

from geartrain.errors import GeartrainError
from geartrain.link.address import Address
from geartrain.link.blocking import BlockingLink
from geartrain.wire import Parser, pack_request
from geartrain.wire import packets as p

PROGRAMS = Path(__file__).parent / "programs"
AT_ALL = ("c-worker", "php-worker", "python-worker")
PAUSE = 40  # milliseconds between two submissions of a client
WINDOW = 500  # submissions of a burst that are not answered


class Load:
    """The programs that run, and the bursts."""

    def __init__(self, net: Network, members: list[Member], recorder: Recorder, folder: Path, build: Path) -> None:
        self.recorder = recorder
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._numbers = itertools.count(1)
        self._programs = {
            "c": [str(build / "c_load")],
            "php": ["php", str(PROGRAMS / "php_load.php")],
            "python": [sys.executable, str(PROGRAMS / "python_load.py")],
        }
        everyone = ",".join(member.address for member in members)
        for number, language in enumerate(self._programs):
            net.add(language, 11 + number, FRONT)
            self._start(language, language, "worker", f"{language}-worker", everyone, "quick", "retry")
            self._start(language, language, "client", f"{language}", everyone, str(PAUSE))
        for member in members:
            host = worker_host(member)
            net.add(host, 20 + member.number, FRONT)
            self._start(host, "c", "worker", f"burst-{member}", member.address, "burst", "bulk")
            self._start(host, "python", "worker", f"own-{member}", member.address, f"own-{member}", "quick", "retry")

    def _start(self, host: str, language: str, role: str, name: str, *words: str) -> None:
        command = [*self._programs[language], role, name, str(self.folder / f"{name}.tale"), *words]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = network.start(host, command, log, self.folder)

    def stop(self, roles: str = "") -> None:
        """End the programs whose names end so."""
        for name, process in self.processes.items():
            if name.endswith(roles):
                process.kill()
                process.wait()

    def stop_clients(self) -> None:
        """Have nothing more submitted."""
        for name, process in self.processes.items():
            if name in self._programs:
                process.kill()
                process.wait()

    def died(self) -> list[str]:
        """Programs that have ended by themselves."""
        return [name for name, process in self.processes.items() if process.poll() is not None]

    def burst(self, member: Member, function: str, count: int, milliseconds: int, padding: int = 0) -> list[str]:
        """Submit so many jobs to one member; the ids of those that it has acknowledged."""
        return burst(self.recorder, self._numbers, member, function, count, milliseconds, padding)


def unheard(member: Member) -> int:
    """Submit a job that nobody ever does; its number."""
    recorder = Recorder(Path())
    (id,) = burst(recorder, itertools.count(1), member, "never", 1, 0, 0)
    return int(recorder.jobs[id].handle.rpartition(":")[2])


def burst(
    recorder: Recorder,
    numbers: Iterator[int],
    member: Member,
    function: str,
    count: int,
    milliseconds: int,
    padding: int,
) -> list[str]:
    """See ``Load.burst``."""
    ids: list[str] = []
    waiting: list[str] = []
    parser = Parser()
    try:
        link = BlockingLink.connect(Address(member.host, PORT), timeout=3)
    except GeartrainError:
        return ids
    try:
        while count or waiting:
            packets = []
            while count and len(waiting) < WINDOW:
                id = f"{function}-{next(numbers)}"
                workload = f"{id}:{milliseconds}:0" + (":" + "x" * padding if padding else "")
                packets.append(pack_request(p.SUBMIT_JOB_BG, function.encode(), b"", workload.encode()))
                waiting.append(id)
                count -= 1
            link.send(b"".join(packets), timeout=5)
            parser.feed(link.receive(5))
            while (packet := parser.next_packet()) is not None:
                id, now = waiting.pop(0), time.monotonic()
                if packet.type == p.JOB_CREATED:
                    recorder.promise(id, now, now, packet.arguments[0].decode(), str(member))
                    ids.append(id)
    except (GeartrainError, IndexError):
        pass
    finally:
        link.close()
    return ids


def worker_host(member: Member) -> str:
    """Where the workers are that only this member has."""
    return f"w{member.number}"
