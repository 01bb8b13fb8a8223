"""A store in PostgreSQL, by psycopg 3. Jobs arrive by COPY, which is several times faster than any INSERT.

A second user is kept out by an advisory lock of the writer's own session: what is committed is committed by the session
that holds the place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import URL, Connection, text

from geartrain.jobserver.records import StoredJob
from geartrain.store.base import Abilities, StoreDownError, StoreError, StoreFullError
from geartrain.store.sql.database import (
    CONNECT_TIMEOUT,
    HOLD_TIMEOUT,
    LOCKED_TIMEOUT,
    BusyError,
    Database,
    Step,
    bare,
    fields,
    this_process,
)
from geartrain.store.sql.tables import Tables

TYPES: Final = ["int8", "int8", "bytea", "bytea", "bytea", "int8", "int2", "float8", "bytea", "int8", "float8"]

SAFE: Final = "a crash of the job server, of the database, of the machine, and a power cut"
UNSAFE: Final = "a crash of the job server and of the database, but since fsync is off, of nothing more"

LOCK_TIMEOUT: Final = "55P03"
FULL: Final = {"53100", "25006"}  # disk_full, read_only_sql_transaction
# Connection exceptions; shut down, crashed, starting up; sessions ended since a transaction stood still or took long.
LOST: Final = ("08", "57P", "25P03", "25P04")
BUSY: Final = (
    "40",  # deadlock, serialization failure
    "53",  # insufficient resources, such as memory or connections
    "55",  # locks
    "57",  # cancelled by an operator
    "58",  # errors of the system
)
REFUSED: Final = {"28P01", "28000", "3D000"}  # password, authorization, no such database

WHO: Final = text(
    "SELECT activity.pid, application_name, client_addr FROM pg_locks JOIN pg_stat_activity AS activity USING (pid)"
    " WHERE locktype = 'advisory' AND granted AND pg_locks.database ="
    " (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND ((classid::bigint << 32) | objid::bigint) = :key AND objsubid = 1"
)


class PostgreSQL(Database):
    driver = "postgresql+psycopg"

    def __init__(self, url: URL, options: dict[str, str], tables: Tables) -> None:
        super().__init__(url, options, tables)
        # A bytea is sent as hexadecimal digits, and PostgreSQL sends no more than 1 GiB of them.
        self.abilities = Abilities("PostgreSQL", SAFE, shared=True, max_workload=(1 << 29) - (1 << 20))
        digest = hashlib.sha256(b"geartrain " + tables.jobs.name.encode()).digest()
        self.key = int.from_bytes(digest[:8], "big", signed=True)

    def connect_arguments(self) -> dict[str, Any]:
        return {
            "application_name": this_process(),
            "connect_timeout": CONNECT_TIMEOUT,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 20_000,  # milliseconds
        }

    def greet(self, connection: Any) -> None:
        connection.autocommit = True
        # The database is to notice within half a minute that our machine has gone, and to promise what it commits.
        connection.execute(
            "SELECT set_config('tcp_keepalives_idle', '15', false), set_config('tcp_keepalives_interval', '5', false),"
            " set_config('tcp_keepalives_count', '3', false), set_config('synchronous_commit',"
            " CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on'"
            " ELSE current_setting('synchronous_commit') END, false)"
        )

    def take_hold(self, connection: Connection, former: int) -> int:
        holder = connection.execute(WHO, {"key": self.key}).first()
        if holder and holder.pid == former:
            connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": former})
        connection.exec_driver_sql(f"SET lock_timeout = '{HOLD_TIMEOUT}s'")
        try:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": self.key})
        except self.errors as error:
            if getattr(bare(error), "sqlstate", "") != LOCK_TIMEOUT:
                raise
            holder = connection.execute(WHO, {"key": self.key}).first()
            where = f" at {holder.client_addr}" if holder and holder.client_addr else ""
            raise self.in_use(f"{holder.application_name}{where}" if holder else "") from None
        connection.exec_driver_sql(f"SET lock_timeout = '{LOCKED_TIMEOUT}s'")
        waits = connection.exec_driver_sql("SHOW fsync").scalar() == "on"
        self.abilities = replace(self.abilities, survives=SAFE if waits else UNSAFE)
        return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())

    def begin_and_ask(self, cursor: Any, question: str) -> Any:
        cursor.execute(f"BEGIN; {question}", prepare=False)  # one message instead of two
        cursor.nextset()
        return cursor.fetchone()

    def add(self, jobs: Sequence[StoredJob]) -> list[Step]:
        if not jobs:
            return []
        return [lambda connection: self._copy(connection, self.columns_sql, TYPES, map(fields, jobs))]

    def _copy(self, connection: Connection, columns: str, types: list[str], rows: Iterable[tuple[Any, ...]]) -> None:
        own: Any = connection.connection.driver_connection
        with own.cursor().copy(f"COPY {self.jobs_sql} ({columns}) FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(types)
            for row in rows:
                copy.write_row(row)

    def is_missing_table(self, error: Exception) -> bool:
        return getattr(error, "sqlstate", "") == "42P01"

    def kind_of(self, error: Exception) -> tuple[type[StoreError], str]:
        state = getattr(error, "sqlstate", None)
        if state in FULL:
            return StoreFullError, "make room on its disk, and make sure that it may be written"
        if state in REFUSED:
            return StoreError, "check the user, the password and the database in the URL"
        if state is None:
            # No answer came: the connection was lost, or there was none; but a refusal comes without a state too.
            if "authentication" in str(error) or "does not exist" in str(error):
                return StoreError, "check the user, the password and the database in the URL"
            return StoreDownError, "check that PostgreSQL runs and can be reached"
        if state.startswith(LOST):
            return StoreDownError, "it starts or stops, or has ended the session: see PostgreSQL's log"
        if state.startswith(BUSY):
            return BusyError, "look for what keeps it busy, such as locks of other sessions"
        if state == "42501":
            return StoreError, "the user needs the right to make and change tables there"
        return StoreError, f"look at PostgreSQL's log (state {state})"
