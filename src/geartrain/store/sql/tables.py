"""The tables of one namespace, and how those of an older geartrain become those of this one.

``<namespace>_jobs`` has a row per job, ``<namespace>_set_aside`` the rows that could not be read, as they were, and
``<namespace>_meta`` one row: the version of the tables, the first number not given out, and whose they are.
``<namespace>_records`` has the small records, under a digest of kind and key: keys may be long, and MySQL's indexes
are not.

Names and payloads are bytes in every database: no character set has a say in them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Double,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.dialects import mysql, sqlite

from geartrain.store.base import StoreError, StoreInUseError

VERSION: Final = 2
FLEET: Final = 1000  # instead of the version, where the tables are a fleet's, which has a version of its own
ONLY: Final = 1  # the id of the meta table's row

# SQLite keeps a table by its key only if the key is called INTEGER.
NUMBER: Final = BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
# A plain BLOB of MySQL ends at 64 KiB.
NAME: Final = LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql", "mariadb")
DIGEST: Final = LargeBinary().with_variant(mysql.BINARY(32), "mysql", "mariadb")
PAYLOAD: Final = LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")


class Tables:
    """The tables of a namespace."""

    def __init__(self, namespace: str) -> None:
        self.metadata = MetaData()
        self.jobs = self._table(
            f"{namespace}_jobs", Column("number", NUMBER, primary_key=True, autoincrement=False), *_job_columns(False)
        )
        self.set_aside = self._table(
            f"{namespace}_set_aside",
            Column("id", NUMBER, primary_key=True, autoincrement=True),
            Column("reason", Text, nullable=False),
            Column("at", Double, nullable=False),
            Column("number", NUMBER, nullable=False),
            *_job_columns(True),
        )
        self.meta = self._table(
            f"{namespace}_meta",
            Column("id", Integer, primary_key=True, autoincrement=False),
            Column("version", Integer, nullable=False),
            Column("next_number", BigInteger, nullable=False),
            Column("user", String(64), nullable=False),
        )

        self.records = self._table(
            f"{namespace}_records",
            Column("digest", DIGEST, primary_key=True),
            Column("kind", String(64), nullable=False),
            Column("expires", Double, nullable=False, index=True),
            Column("key", NAME, nullable=False),
            Column("value", PAYLOAD, nullable=False),
        )

    def _table(self, name: str, *columns: Column[object]) -> Table:
        return Table(
            name, self.metadata, *columns, mysql_engine="InnoDB", mysql_row_format="DYNAMIC",
            mariadb_engine="InnoDB", mariadb_row_format="DYNAMIC",
        )  # fmt: skip


def _job_columns(nullable: bool) -> list[Column[object]]:
    return [
        Column("place", BigInteger, key="position", nullable=nullable),
        Column("function", NAME, nullable=nullable),
        Column("unique", NAME, nullable=nullable),
        Column("workload", PAYLOAD, nullable=nullable),
        Column("size", BigInteger, nullable=nullable),
        Column("priority", SmallInteger, nullable=nullable),
        Column("due", Double, nullable=nullable),
        Column("reducer", NAME, nullable=nullable),
        Column("attempts", BigInteger, nullable=nullable),
        Column("created", Double, nullable=nullable),
    ]


Migration = Callable[[Connection, Tables], None]

# From a version to the next one. Each runs in a transaction of its own, together with the change of the version; since
# MySQL ends that transaction at each change of a table, it must also be able to run on what it has left half done.
MIGRATIONS: Final[dict[int, Migration]] = {
    1: lambda connection, tables: tables.records.create(connection, checkfirst=True),
}


def prepare(connection: Connection, tables: Tables, begin: str) -> None:
    """Make the tables if there are none, or bring them to ``VERSION``.

    ``connection`` commits by itself; ``begin`` starts a transaction. Raises StoreInUseError if they are a fleet's,
    StoreError if they are from a newer geartrain.
    """
    version = version_of(connection, tables)
    if version == FLEET:
        user = connection.execute(select(tables.meta.c.user).where(tables.meta.c.id == ONLY)).scalar()
        raise StoreInUseError(
            f"the tables {tables.jobs.name} and others are those of the {user}: start this job server with --{user},"
            " or give it another namespace"
        )
    if version is not None and version > VERSION:
        raise StoreError(
            f"the tables {tables.jobs.name} and others have version {version}, and this geartrain knows them up to"
            f" {VERSION}: start the newer geartrain that has written them, or give this one another namespace"
        )
    if version is None:
        within(connection, begin, lambda: _create(connection, tables))
        return
    for older in range(version, VERSION):
        within(connection, begin, partial(_migrate, connection, tables, older))


def version_of(connection: Connection, tables: Tables) -> int | None:
    """The version of the tables; None: there are none."""
    if not inspect(connection).has_table(tables.meta.name):
        return None
    version: object = connection.execute(select(tables.meta.c.version).where(tables.meta.c.id == ONLY)).scalar()
    if version is None or (type(version) is int and version >= 1):
        return version
    raise StoreError(  # SQLite keeps any type in any column
        f"the table {tables.meta.name} has version {version!r:.40}, which no geartrain has written: put back the right"
        " one, or give another namespace"
    )


def _create(connection: Connection, tables: Tables) -> None:
    tables.metadata.create_all(connection)
    create_meta(connection, tables)


def create_meta(connection: Connection, tables: Tables) -> None:
    """The one row of the meta table, signed by nobody."""
    connection.execute(insert(tables.meta).values(id=ONLY, version=VERSION, next_number=1, user=""))


def _migrate(connection: Connection, tables: Tables, older: int) -> None:
    MIGRATIONS[older](connection, tables)
    connection.execute(update(tables.meta).where(tables.meta.c.id == ONLY).values(version=older + 1))


def within(connection: Connection, begin: str, act: Callable[[], object]) -> None:
    """Do ``act`` in a transaction."""
    connection.exec_driver_sql(begin)
    try:
        act()
    except BaseException:
        connection.exec_driver_sql("ROLLBACK")
        raise
    connection.exec_driver_sql("COMMIT")
