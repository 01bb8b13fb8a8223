"""The tables of a fleet: those of one job server with whose each row is, and the fleet's own.

``<namespace>_fleet`` has one row, with the version of all these tables. ``_members`` has a row per incarnation, which
each of its commits locks for reading. What changes often, or under the hands of others, therefore has tables of its
own: ``_leases``, and ``_arrivals`` for how often jobs were sent to a member. ``_blocks`` says who was given which
numbers, and ``_adoptions`` who has claimed how much of whom.

A job's ``twin`` is a digest of its function and unique. It is there once, so that of two members that insert the same
at once one fails. It is NULL for a job without a unique, for a dead letter, and for one that stood beside another when
the fleet got the place from a job server that was alone.
"""

from __future__ import annotations

import hashlib
from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    Index,
    Integer,
    LargeBinary,
    String,
    delete,
    func,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.schema import CreateColumn

from geartrain.jobserver.records import SHARED_KINDS, Record, StoredJob, number_of
from geartrain.store.base import StoreError, StoreInUseError
from geartrain.store.fleet import BLOCK, LOCAL_KINDS
from geartrain.store.record import NUMBERS_END, record_name, sound_next_number
from geartrain.store.sql.tables import FLEET, ONLY, Tables, prepare, version_of, within
from geartrain.store.sql.tables import VERSION as BASE_VERSION

FLEET_VERSION: Final = 1
LONGEST_NAME: Final = 50  # of a fleet
FAR: Final = 1000

TWIN_BYTES: Final = 16
TWIN: Final = LargeBinary().with_variant(mysql.BINARY(TWIN_BYTES), "mysql", "mariadb")


class FleetTables(Tables):
    """The tables of a namespace that a fleet shares."""

    def __init__(self, namespace: str) -> None:
        super().__init__(namespace)
        jobs, records = self.jobs, self.records
        jobs.append_column(Column("owner", BigInteger, nullable=False, server_default="0"))
        jobs.append_column(Column("begun", BigInteger, nullable=False, server_default="0"))
        jobs.append_column(Column("twin", TWIN))
        self.jobs_estate = Index(f"{namespace}_jobs_estate", jobs.c.owner, jobs.c.priority, jobs.c.position)
        Index(f"{namespace}_jobs_twin", jobs.c.twin, unique=True, postgresql_where=text("twin IS NOT NULL"))
        records.append_column(Column("owner", BigInteger, nullable=False, server_default="0"))
        records.append_column(Column("job", BigInteger, nullable=False, server_default="0"))
        self.records_estate = Index(f"{namespace}_records_estate", records.c.owner, records.c.job)
        self.fleet = self._table(
            f"{namespace}_fleet",
            Column("id", Integer, primary_key=True, autoincrement=False),
            Column("version", Integer, nullable=False),
            Column("name", String(LONGEST_NAME), nullable=False),
            Column("last_member", BigInteger, nullable=False),
            Column("shared", BigInteger, nullable=False),
        )
        self.members = self._table(
            f"{namespace}_members",
            Column("id", BigInteger, primary_key=True, autoincrement=False),
            Column("address", String(255), nullable=False),
            Column("state", String(8), nullable=False),
            Column("draining", Boolean, nullable=False),
            Column("joined", Double, nullable=False),
            Column("ended", Double, nullable=False),
            Column("version", String(64), nullable=False),
        )
        self.leases = self._table(
            f"{namespace}_leases",
            Column("id", BigInteger, primary_key=True, autoincrement=False),
            Column("lease_end", Double),  # NULL: there will be no other
        )
        self.arrivals = self._table(
            f"{namespace}_arrivals",
            Column("id", BigInteger, primary_key=True, autoincrement=False),
            Column("count", BigInteger, nullable=False),
        )
        self.blocks = self._table(
            f"{namespace}_blocks",
            Column("first", BigInteger, primary_key=True, autoincrement=False),
            Column("member", BigInteger, nullable=False),
        )
        self.adoptions = self._table(
            f"{namespace}_adoptions",
            Column("estate", BigInteger, primary_key=True, autoincrement=False),
            Column("heir", BigInteger, primary_key=True, autoincrement=False),
            Column("jobs", BigInteger, nullable=False),
            Column("first_at", Double, nullable=False),
            Column("last_at", Double, nullable=False),
        )


def twin_of(job: StoredJob) -> bytes | None:
    """What a job shares with those that it would be one with; the unique ``-`` stands for the workload."""
    if not job.unique:
        return None
    assert job.workload is not None
    # No function and no unique has a NUL.
    name = b"\0-" + job.workload if job.unique == b"-" else b"\0=" + job.unique
    return hashlib.blake2b(job.function + name, digest_size=TWIN_BYTES).digest()


def record_digest(record: Record, address: str) -> bytes:
    """The key of a record; one of a job server's own is told from that of the others by the address."""
    name = record_name(record)
    if record.kind in LOCAL_KINDS:
        name += b"\0" + address.encode()
    return hashlib.sha256(name).digest()


def record_job(record: Record) -> int:
    """The job that a record goes with; 0: none."""
    return 0 if record.kind in SHARED_KINDS or record.kind in LOCAL_KINDS else number_of(record.key)


def belongs_to(connection: Connection, tables: FleetTables) -> str:
    """The name of the fleet that the tables are of; empty: they are no fleet's, or not there."""
    if version_of(connection, tables) != FLEET:
        return ""
    return str(connection.execute(select(tables.fleet.c.name)).scalar_one())


def prepare_fleet(connection: Connection, tables: FleetTables, begin: str, name: str, number_sql: str) -> None:
    """Make the tables, or those of a job server that was alone, the tables of the fleet ``name``.

    Nobody else does so at the same time. ``number_sql`` is the number that eight bytes in the column {key} make. Raises
    StoreError if they are another fleet's or from a newer geartrain.
    """
    namespace = tables.jobs.name.removesuffix("_jobs")
    if former := belongs_to(connection, tables):
        version: int = connection.execute(select(tables.fleet.c.version)).scalar_one()
        if former != name:
            raise StoreInUseError(
                f"the tables {tables.jobs.name} and others are those of the fleet {former}: start this job server with"
                f" --fleet {former}, or give it another namespace than {namespace}"
            )
        if version > FLEET_VERSION:
            raise StoreError(
                f"the tables of the fleet {name} have version {version}, and this geartrain knows them up to"
                f" {FLEET_VERSION}: start the newer geartrain that has written them"
            )
        return
    prepare(connection, tables, begin)
    within(connection, begin, lambda: _widen(connection, tables))
    within(connection, begin, lambda: _convert(connection, tables, name, number_sql))


def prepare_again(connection: Connection, tables: FleetTables, begin: str, name: str, number_sql: str) -> None:
    """Make what there is no more of the tables of a fleet that is at work.

    What members and numbers there have been may be known to nobody now, so the next ones are far from all those.
    """
    tables.metadata.create_all(connection)
    meta, fleet = tables.meta, tables.fleet
    if connection.execute(select(fleet.c.id)).first() is not None and version_of(connection, tables) == FLEET:
        return
    connection.execute(delete(fleet))
    connection.execute(update(meta).where(meta.c.id == ONLY, meta.c.version == FLEET).values(version=BASE_VERSION))
    prepare_fleet(connection, tables, begin, name, number_sql)
    connection.execute(update(meta).where(meta.c.id == ONLY).values(next_number=meta.c.next_number + BLOCK * FAR))
    connection.execute(update(fleet).values(last_member=fleet.c.last_member + FAR))


def _widen(connection: Connection, tables: FleetTables) -> None:
    """May find half of it done, for in MySQL each change of a table ends the transaction."""
    for table in (tables.jobs, tables.records):
        there = {column["name"] for column in inspect(connection).get_columns(table.name)}
        for column in table.columns:
            if column.name not in there:
                words = CreateColumn(column).compile(dialect=connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {words}")
        indexes = {index["name"] for index in inspect(connection).get_indexes(table.name)}
        for index in table.indexes:
            if index.name not in indexes:
                index.create(connection)
    tables.metadata.create_all(connection)


def _convert(connection: Connection, tables: FleetTables, name: str, number_sql: str) -> None:
    records, meta = tables.records.c, tables.meta
    keyed = func.length(records.key) == 8, records.kind.not_in(SHARED_KINDS | LOCAL_KINDS)
    number = text(number_sql.format(key=connection.dialect.identifier_preparer.format_column(records.key)))
    connection.execute(
        update(tables.records).where(*keyed, records.key < b"\x80").values(job=number)  # as number_of
    )
    highest = select(func.max(tables.jobs.c.number)).where(tables.jobs.c.number < NUMBERS_END)
    numbers = [
        sound_next_number(connection.execute(select(meta.c.next_number).where(meta.c.id == ONLY)).scalar()),
        (connection.execute(highest).scalar() or 0) + 1,
    ]
    first = -(-max(numbers) // BLOCK) * BLOCK
    connection.execute(insert(tables.fleet).values(id=ONLY, version=FLEET_VERSION, name=name, last_member=0, shared=1))
    connection.execute(
        update(meta).where(meta.c.id == ONLY).values(version=FLEET, next_number=first, user=f"fleet {name}")
    )
