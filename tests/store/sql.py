"""Places of the stores in relational databases, and the tests they share beyond the contract."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from contract import StoreContract
from geartrain.jobserver.journal import PLACE_BITS
from geartrain.store import Store, StoreDown, StoreError, StoreFull, StoreInUse, Unreadable, engine
from geartrain.store.sql import tables
from place import NO_LIMIT, Place, batch, job, kept, numbers, opened
from servers import free_port, missing
from services import SECRETS, MariaDB, PostgreSQL

NewNamespace = Callable[[], str]


class SqlPlace(Place):
    """A place whose tables can be looked at and meddled with behind the store's back."""

    namespace: str

    def sql(self, *statements: str) -> list[Any]:
        """Execute; the rows of the last one. ``{jobs}``, ``{meta}`` and ``{set_aside}`` stand for the tables."""
        names = {table: f"{self.namespace}_{table}" for table in ("jobs", "meta", "set_aside")}
        return self.execute([statement.format(**names) for statement in statements])

    @abstractmethod
    def execute(self, statements: list[str]) -> list[Any]: ...

    def spoil(self, number: int) -> None:
        self.sql(f"UPDATE {{jobs}} SET priority = 77 WHERE number = {number}")


class SqlitePlace(SqlPlace):
    def __init__(self, file: Path, new_namespace: NewNamespace) -> None:
        self.file = file
        self.namespace = new_namespace()
        super().__init__(f"sqlite:///{file}?namespace={self.namespace}", f"sqlite:///{file}?namespace={new_namespace()}")

    def execute(self, statements: list[str]) -> list[Any]:
        with contextlib.closing(sqlite3.connect(self.file, isolation_level=None)) as connection:
            for statement in statements:
                rows = connection.execute(statement).fetchall()
            return rows

    @contextlib.contextmanager
    def cramped(self) -> Iterator[tuple[str, Callable[[], None]]]:
        with small_disk(8) as (folder, enlarge):
            yield f"sqlite:///{folder}/jobs.sqlite", enlarge


class DatabasePlace(SqlPlace):
    """A place in a database server."""

    def __init__(self, service: PostgreSQL | MariaDB, new_namespace: NewNamespace) -> None:
        self.service = service
        self.namespace = new_namespace()
        super().__init__(service.url(self.namespace), service.url(new_namespace()), SECRETS)

    def execute(self, statements: list[str]) -> list[Any]:
        return self.service.sql(*statements)

    def cut(self) -> None:
        self.service.drop_connections()

    def crash(self) -> None:
        self.service.kill()

    def revive(self) -> None:
        self.service.start()

    def nowhere(self) -> str:
        return self.url.replace(f":{self.service.port}/", f":{free_port()}/")

    def wrong_password(self) -> str:
        user, _, rest = self.url.partition("@")
        return user.rpartition(":")[0] + ":guessed@" + rest

    @contextlib.contextmanager
    def cramped(self) -> Iterator[tuple[str, Callable[[], None]]]:
        with small_disk(self.service.small_megabytes) as (folder, enlarge):
            self.service.make_database(self.namespace, folder)
            try:
                yield self.service.url(database=self.namespace), enlarge
            finally:
                self.service.drop_database(self.namespace)


@contextlib.contextmanager
def small_disk(megabytes: int) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A folder on a disk of its own, and what makes that disk large."""
    if os.geteuid() != 0:
        missing("needs to be root, to mount a small disk")
    folder = Path(tempfile.mkdtemp(prefix="geartrain-small-"))

    def mount(option: str) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", option, "tmpfs", folder], check=True)

    try:
        try:
            mount(f"size={megabytes}m,mode=755")
        except subprocess.CalledProcessError:
            missing("needs the right to mount a small disk")
        try:
            yield folder, lambda: mount(f"remount,size={megabytes + 100}m")
        finally:
            subprocess.run(["umount", folder], check=True)
    finally:
        folder.rmdir()


class SqlContract(StoreContract):
    """The contract, and what else relational databases are asked."""
