"""What the faults happen to: the members of a fleet, and their database.

Each member is a host with a job server; the database stands at the bridges. A member may be killed, frozen, cut off and
started again at the same address, as which it comes back with another id.
"""

from __future__ import annotations

import contextlib
import mmap
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import network
from network import BASE, FRONT, HUB, Network

from geartrain.errors import GeartrainError
from geartrain.link.address import Address
from geartrain.link.blocking import BlockingLink
from services import MariaDB, PostgreSQL, SqlService

PORT = 4730
START_SECONDS = 60.0
FLEET = "chaos"
NAMESPACE = "geartrain"


class Database:
    """The database of the fleet, on a disk of its own that may be filled."""

    megabytes: ClassVar[int]
    ballast: Path

    def __init__(self, service: SqlService, disk: Path) -> None:
        self.service = service
        self.disk = disk
        self.ballast = disk / "ballast"
        self.outages: list[tuple[float, float]] = []
        """When it did not answer, or nothing could be written (monotonic)."""

    @property
    def url(self) -> str:
        """As ``--store`` takes it."""
        return self.service.url(NAMESPACE).replace("127.0.0.1", network.address(BASE, HUB))

    def stop(self, now: bool) -> None:
        """Stop it as its administrator does, or as a crash does, with all its sessions."""
        if now:
            self.service.kill()
            return
        process = self.service.process
        assert process is not None
        process.send_signal(signal.SIGINT if isinstance(self.service, PostgreSQL) else signal.SIGTERM)
        process.wait(60)

    def fill(self) -> None:
        """Leave no room on its disk."""
        with contextlib.suppress(OSError), self.ballast.open("wb", buffering=0) as file:
            while file.write(bytes(1 << 16)):
                pass

    def free(self) -> None:
        """Give the room back, and return when it answers; started again if it has ended for lack of it."""
        self.ballast.unlink(missing_ok=True)
        give_up_at = time.monotonic() + START_SECONDS
        while not self.joined():
            if self.service.has_ended():
                self.service.start()
            if time.monotonic() > give_up_at:
                raise AssertionError("the database does not answer again, though its disk has room")
            time.sleep(0.1)

    @contextlib.contextmanager
    def outage(self) -> Iterator[None]:
        """Remember that it is away meanwhile."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.outages.append((began, time.monotonic()))

    def ask(self, statement: str) -> list[Any]:
        """The rows that answer this; none while it does not answer."""
        try:
            return self.service.sql(statement)
        except Exception:
            return []

    def joined(self) -> dict[int, tuple[str, str, float]]:
        """Of each member its address, its state, and when it joined (Unix time)."""
        rows = self.ask(f"SELECT id, address, state, joined FROM {NAMESPACE}_members")
        return {int(id): (str(address), str(state), float(joined)) for id, address, state, joined in rows}


@contextlib.contextmanager
def running_database(store: str, folder: Path, megabytes: int) -> Iterator[Database]:
    """A database of this kind at the bridges."""
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(disk)], check=True)
    service: SqlService
    if store == "postgresql":
        options = ("listen_addresses=*", "min_wal_size=32MB", "max_wal_size=64MB", "max_connections=60")
        service = PostgreSQL(disk, *(word for option in options for word in ("-c", option)))
    else:
        service = MariaDB(disk, "--bind-address=0.0.0.0", "--innodb-log-file-size=16M")
    service.give(disk)
    service.prepare()
    if store == "postgresql":
        with (disk / "data/pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {network.address(BASE, 0)}/24 scram-sha-256\n")
    service.start()
    try:
        yield Database(service, disk)
    finally:
        if not service.has_ended():
            service.kill()


class Member:
    """A job server of the fleet, on a host of its own."""

    def __init__(self, number: int, net: Network, python: str, database: Database, folder: Path, library: Path) -> None:
        self.number = number
        self.name = f"m{number}"
        self.net = net
        self.host = network.address(FRONT, number)
        self.address = f"{self.host}:{PORT}"
        self.log = folder / f"{self.name}.log"
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        clock = folder / f"{self.name}.clock"
        clock.write_bytes(bytes(mmap.PAGESIZE))
        self._clock = clock.open("r+b")
        self._preload = {"LD_PRELOAD": str(library), "WALL_CLOCK_FILE": str(clock)}
        self._command = [
            python, "-m", "geartrain", "serve", "--listen", "0.0.0.0", "--port", str(PORT), "--store", database.url,
            "--store-timeout", "2s", "--fleet", FLEET, "--advertise", self.address,
            "--keepalive-idle", "3", "--keepalive-interval", "1", "--keepalive-count", "2",
        ]  # fmt: skip
        net.add(self.name, number, BASE, FRONT)

    def start(self) -> None:
        """Start it; returns at once."""
        with self.log.open("ab") as log:
            self.process = network.start(self.name, self._command, log, self.folder, **self._preload)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def has_died(self) -> bool:
        """Whether it has ended."""
        return self.process is None or self.process.poll() is not None

    def set_clock(self, seconds: float) -> None:
        """Let its time of day be wrong by so much."""
        self._clock.seek(0)
        self._clock.write(struct.pack("d", seconds))
        self._clock.flush()

    def answers(self, seconds: float = 1.0) -> bool:
        """Whether it answers within so many seconds."""
        try:
            return bool(self.ask(b"version", seconds))
        except GeartrainError:
            return False

    def ask(self, line: bytes, seconds: float = 5.0) -> bytes:
        """What answers a text command of one line, or of lines up to a dot. Raises GeartrainError."""
        link = BlockingLink.connect(Address(self.host, PORT), timeout=seconds)
        try:
            link.send(line + b"\n")
            answer = b""
            while not (answer.endswith(b"\n.\n") or answer == b".\n" or answer.startswith((b"OK", b"ERR"))):
                data = link.receive(seconds)
                if not data:
                    break
                answer += data
            return answer
        finally:
            link.close()

    def __repr__(self) -> str:
        return self.name
