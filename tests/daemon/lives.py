"""Job servers that follow one another on the same store, those who talk to them, and what may happen to the store."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from servers import RunningServer, free_port, running_geartrain, wait_until
from services import SECRETS, PostgreSQL, Redis, Service, SqlService


def on(*stores: str) -> pytest.MarkDecorator:
    """Run a test that asks for a ``place`` on these stores alone."""
    return pytest.mark.parametrize("place", stores, indirect=True)


@contextlib.contextmanager
def life(place: Place, *options: str) -> Iterator[RunningServer]:
    """A job server on this store. However it ends, no log may tell a password or a failure inside."""
    with running_geartrain("--job-handle-prefix=H:t", *options, store=place.url) as server:
        try:
            server.ask("version")  # it takes connections before it has loaded what the store kept
            yield server
            if server.process.poll() is None:
                server.process.terminate()
            server.process.wait(15)
        finally:
            told = told_by(server)
            print(told)  # for whoever reads about a failed test
        assert "Traceback" not in told
        assert not any(secret in told for secret in SECRETS)


def refused_start(url: str, *options: str) -> str:
    """What a job server says that does not start on this store."""
    done = subprocess.run(
        [sys.executable, "-m", "geartrain", "serve", "--port=0", "--listen=127.0.0.1", f"--store={url}", *options],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1, done
    for text in (done.stdout, done.stderr):
        assert "Traceback" not in text
        assert not any(secret in text for secret in SECRETS)
    assert "geartrain: --store can't be used: " in done.stderr
    return done.stderr


def told_by(server: RunningServer) -> str:
    """All that the job server has logged and written so far."""
    return server.log.read_text() + server.log.with_suffix(".out").read_text()


def tells(server: RunningServer, words: str) -> None:
    """Wait for these words in the log, which is written a moment after what it tells."""
    wait_until(lambda: words in told_by(server), f"the log says {words!r}")


def kill(server: RunningServer) -> None:
    """As ``kill -9``."""
    server.process.kill()
    server.process.wait()


class Place(ABC):
    """One test's place in a store."""

    url: str

    @abstractmethod
    def held_back(self) -> contextlib.AbstractContextManager[None]:
        """The store is there, and nothing is committed."""

    @abstractmethod
    def spoil(self, number: int) -> None:
        """Damage what is kept of one job, so that it can't be made sense of."""


class FilePlace(Place):
    """A file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.url = f"sqlite:///{file}"

    def sql(self, statement: str) -> None:
        with contextlib.closing(sqlite3.connect(self.file, isolation_level=None)) as other:
            other.execute(statement)

    def spoil(self, number: int) -> None:
        self.sql(f"UPDATE geartrain_jobs SET size = -1 WHERE number = {number}")

    @contextlib.contextmanager
    def held_back(self) -> Iterator[None]:
        with contextlib.closing(sqlite3.connect(self.file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield


class ServicePlace(Place):
    """A namespace in one service, or in several that are one store."""

    def __init__(self, services: list[Service], url: str) -> None:
        self.services = services
        self.url = url
        self.namespace = url.rpartition("=")[2]

    @classmethod
    def of(cls, service: Service, namespace: str) -> ServicePlace:
        return cls([service], service.url(namespace))

    @contextlib.contextmanager
    def held_back(self) -> Iterator[None]:
        stopped: list[int] = []
        try:
            for service in self.services:
                assert service.process is not None
                _stop(service.process.pid, stopped)
            yield
        finally:
            for pid in reversed(stopped):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def spoil(self, number: int) -> None:
        (service,) = self.services
        if isinstance(service, SqlService):
            service.sql(f"UPDATE {self.namespace}_jobs SET size = -1 WHERE number = {number}")
        elif isinstance(service, Redis):
            with administrator(service) as client:
                client.hset(f"{{{self.namespace}}}:jobs", number.to_bytes(8), b"\xff" * 9)

    def empty(self) -> None:
        """Take away all that is kept."""
        (service,) = self.services
        if isinstance(service, SqlService):
            service.sql(*[f"DROP TABLE {self.namespace}_{name}" for name in ("jobs", "meta", "records", "set_aside")])
        elif isinstance(service, Redis):
            with administrator(service) as client:
                client.delete(*client.keys(f"{{{self.namespace}}}:*"))

    def cut(self) -> None:
        """End every connection to the service, which goes on."""
        for service in self.services:
            if isinstance(service, SqlService):
                service.drop_connections()
            elif isinstance(service, Redis):
                with administrator(service) as client:
                    client.client_kill_filter(_type="normal", skipme=True)

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        """The job server may only read."""
        (service,) = self.services
        assert isinstance(service, SqlService)
        if isinstance(service, PostgreSQL):
            on = "ALTER ROLE geartrain SET default_transaction_read_only = on"
            off = "ALTER ROLE geartrain RESET default_transaction_read_only"
        else:
            on, off = "SET GLOBAL read_only = 1", "SET GLOBAL read_only = 0"
        service.sql(on)
        self.cut()
        try:
            yield
        finally:
            service.sql(off)
            self.cut()

    def nowhere(self) -> str:
        """The URL of such a service where nothing answers."""
        url = self.url
        for service in self.services:
            url = url.replace(f":{service.port}", f":{free_port()}")
        return url

    @contextlib.contextmanager
    def down(self) -> Iterator[None]:
        """The service has been killed; at the end it is started again."""
        for service in self.services:
            service.kill()
        try:
            yield
        finally:
            for service in self.services:
                service.start()


def administrator(service: Redis) -> redis.Redis:
    """A connection to a Redis."""
    return redis.Redis.from_url(service.url().partition("?")[0])


def _stop(pid: int, stopped: list[int]) -> None:
    """Have a process and all its descendants stand still."""
    os.kill(pid, signal.SIGSTOP)
    stopped.append(pid)
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            if parent == pid:
                _stop(int(status.parent.name), stopped)
