"""Places of stores in relational databases: what may happen to them, and ways behind the store's back."""

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
from place import Place

from geartrain.store import Store
from geartrain.store.sql import mysql, postgresql
from servers import free_port, missing
from services import SECRETS, MariaDB, PostgreSQL

NewNamespace = Callable[[], str]


TABLES = ("jobs", "meta", "set_aside", "records", "fleet", "members", "leases", "arrivals", "blocks", "adoptions")


class SqlPlace(Place):
    """A place whose tables can be looked at and changed behind the store's back."""

    namespace: str
    who: str
    """What the second user is told about the first, as a regular expression."""

    def sql(self, *statements: str) -> list[Any]:
        """Execute; the rows of the last one. ``{jobs}``, ``{meta}`` and so on stand for the tables."""
        names = {table: f"{self.namespace}_{table}" for table in TABLES}
        return self.execute([statement.format(**names) for statement in statements])

    @abstractmethod
    def execute(self, statements: list[str]) -> list[Any]: ...

    @abstractmethod
    def allow_null(self, column: str) -> None:
        """Let this column of the table of jobs be NULL."""

    def make_way(self) -> None:
        """Remove what a rebuild must not write over, once jobs alone were taken away."""

    def records_kept(self, store: Store) -> int:
        return int(self.sql("SELECT count(*) FROM {records}")[0][0])

    def steal(self) -> None:
        self.sql("UPDATE {meta} SET \"user\" = 'another'")

    def spoil(self, number: int) -> None:
        self.sql(f"UPDATE {{jobs}} SET priority = 77 WHERE number = {number}")


class SqlitePlace(SqlPlace):
    who = f"process {os.getpid()} on "

    def __init__(self, file: Path, new_namespace: NewNamespace) -> None:
        self.file = file
        self.namespace = new_namespace()
        super().__init__(
            f"sqlite:///{file}?namespace={self.namespace}", f"sqlite:///{file}?namespace={new_namespace()}"
        )

    def aliases(self) -> list[str]:
        link = self.file.with_name("link.sqlite")
        link.symlink_to(self.file)
        turned = f"{self.file.parent}/../{self.file.parent.name}/{self.file.name}"
        return [self.url.replace(str(self.file), name) for name in (str(link), turned)]

    def empty(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self.file.with_name(self.file.name + suffix).unlink()

    def make_way(self) -> None:
        self.empty()

    def execute(self, statements: list[str]) -> list[Any]:
        with contextlib.closing(sqlite3.connect(self.file, isolation_level=None)) as connection:
            for statement in statements:
                rows = connection.execute(statement).fetchall()
            return rows

    def allow_null(self, column: str) -> None:
        self.sql(
            "PRAGMA writable_schema = ON",
            "UPDATE sqlite_schema SET sql = replace(sql, ' NOT NULL', '') WHERE name = '{jobs}'",
        )

    @contextlib.contextmanager
    def cramped(self) -> Iterator[tuple[str, Callable[[], None]]]:
        with small_disk(8) as (folder, enlarge):
            yield f"sqlite:///{folder}/jobs.sqlite", enlarge


class DatabasePlace(SqlPlace):
    """A place in a database that is a service."""

    service: PostgreSQL | MariaDB

    def __init__(self, service: PostgreSQL | MariaDB, new_namespace: NewNamespace) -> None:
        self.service = service
        self.namespace = new_namespace()
        super().__init__(service.url(self.namespace), service.url(new_namespace()), SECRETS)

    def execute(self, statements: list[str]) -> list[Any]:
        return self.service.sql(*statements)

    def empty(self) -> None:
        self.sql("DROP TABLE {jobs}", "DROP TABLE {meta}", "DROP TABLE {records}", "DROP TABLE {set_aside}")

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
    def impatient(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for module in (postgresql, mysql):
                patch.setattr(module, "HOLD_TIMEOUT", 0.1)
            yield

    @contextlib.contextmanager
    def cramped(self) -> Iterator[tuple[str, Callable[[], None]]]:
        with small_disk(self.service.small_megabytes) as (folder, enlarge):
            self.service.make_database(self.namespace, folder)
            try:
                yield self.service.url(database=self.namespace), enlarge
            finally:
                self.service.drop_database(self.namespace)

    @abstractmethod
    def read_only(self) -> contextlib.AbstractContextManager[None]:
        """The store may only read."""

    @abstractmethod
    def wait_for_disk(self, safe: bool) -> None:
        """Set whether a commit waits until the disk has it."""

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else may use the table of jobs."""
        with contextlib.closing(self.service.connect()) as connection, connection.cursor() as cursor:
            for statement in self.locking:
                cursor.execute(statement.format(jobs=f"{self.namespace}_jobs"))
            yield

    locking: tuple[str, ...]


class PostgreSQLPlace(DatabasePlace):
    service: PostgreSQL
    who = f"process {os.getpid()} on .* at 127.0.0.1"
    locking = ("BEGIN", "LOCK TABLE {jobs} IN ACCESS EXCLUSIVE MODE")

    def aliases(self) -> list[str]:
        return [self.url + "&options=-csearch_path%3Dpublic", self.url.replace("@127.0.0.1", "@localhost")]

    def allow_null(self, column: str) -> None:
        self.sql(f"ALTER TABLE {{jobs}} ALTER COLUMN {column} DROP NOT NULL")

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        self.sql("ALTER ROLE geartrain SET default_transaction_read_only = on")
        self.cut()
        try:
            yield
        finally:
            self.sql("ALTER ROLE geartrain RESET default_transaction_read_only")
            self.cut()

    def wait_for_disk(self, safe: bool) -> None:
        self.service.set_fsync(safe)


class MariaDBPlace(DatabasePlace):
    service: MariaDB
    who = "connection [0-9]+ of geartrain from 127.0.0.1"
    locking = ("LOCK TABLES {jobs} WRITE",)

    def aliases(self) -> list[str]:
        return [self.url.replace("mariadb:", "mysql:"), self.url + "&charset=latin1"]

    def allow_null(self, column: str) -> None:
        name = column.strip('"')
        ((kind,),) = self.sql(
            "SELECT COLUMN_TYPE FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = 'geartrain'"
            f" AND TABLE_NAME = '{{jobs}}' AND COLUMN_NAME = '{name}'"
        )
        self.sql(f"ALTER TABLE {{jobs}} MODIFY {column} {kind} NULL")

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        self.sql("SET GLOBAL read_only = 1")
        try:
            yield
        finally:
            self.sql("SET GLOBAL read_only = 0")

    @contextlib.contextmanager
    def all_connections(self) -> Iterator[None]:
        """No user but the administrator can connect."""
        import pymysql  # type: ignore[import-untyped]

        with contextlib.ExitStack() as held:
            with contextlib.suppress(pymysql.err.OperationalError):
                while True:
                    held.enter_context(contextlib.closing(self.service.connect_as_user()))
            yield

    def wait_for_disk(self, safe: bool) -> None:
        self.sql(f"SET GLOBAL innodb_flush_log_at_trx_commit = {1 if safe else 2}")


@contextlib.contextmanager
def small_disk(megabytes: int) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A folder on a disk of its own, and what makes that disk large."""
    folder = Path(tempfile.mkdtemp(prefix="geartrain-small-"))
    try:
        with disk_over(folder, megabytes):
            yield folder, lambda: _mount(folder, f"remount,size={megabytes + 100}m")
    finally:
        folder.rmdir()


@contextlib.contextmanager
def disk_over(folder: Path, megabytes: int) -> Iterator[None]:
    """An empty disk in the place of this folder, which is hidden by it."""
    if os.geteuid() != 0:
        missing("needs to be root, to mount a small disk")
    try:
        _mount(folder, f"size={megabytes}m,mode=755")
    except subprocess.CalledProcessError:
        missing("needs the right to mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def _mount(folder: Path, option: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", option, "tmpfs", folder], check=True)
