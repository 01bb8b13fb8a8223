"""A fleet in PostgreSQL.

A member's lock is an advisory lock of two halves: the place, and the member. Its sessions have a name that begins in
the same way, by which others find and end them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import URL, Connection, text

from geartrain.jobserver.records import StoredJob
from geartrain.store.base import StoreError
from geartrain.store.sql.database import LOCKED_TIMEOUT, Step, bare, fields, this_process
from geartrain.store.sql.fleet_database import ADOPTER, IDLE_TIMEOUT, LOCK, PULSE, PULSE_TIMEOUT, WRITER, FleetDatabase
from geartrain.store.sql.fleet_tables import FleetTables
from geartrain.store.sql.postgresql import TYPES, PostgreSQL

OWNED_TYPES: Final = [*TYPES, "int8", "bytea"]
OLDEST: Final = (12,)
DEADLOCK: Final = "40P01"


class FleetPostgreSQL(PostgreSQL, FleetDatabase):
    clock = "extract(epoch FROM clock_timestamp())::float8"
    sharing = "FOR SHARE"
    number_sql = "('x' || encode({key}, 'hex'))::bit(64)::bigint"

    def __init__(self, url: URL, options: dict[str, str], tables: FleetTables) -> None:
        super().__init__(url, options, tables)
        self._place = (self.key >> 32) & 0x7FFFFFFF

    @classmethod
    def impatient_options(cls) -> dict[str, str]:
        return {"connect_timeout": str(PULSE_TIMEOUT), "tcp_user_timeout": str(PULSE_TIMEOUT * 1000)}

    def check_version(self, connection: Connection) -> None:
        version = connection.dialect.server_version_info or (0,)
        if version < OLDEST:
            raise StoreError(f"the store {self.shown}: a fleet needs PostgreSQL {OLDEST[0]} or newer")

    def connect_as(self, part: str) -> Connection:
        connection = self.connect()
        seconds = PULSE_TIMEOUT if part in (PULSE, LOCK) else LOCKED_TIMEOUT
        settings = {
            "application_name": f"{self._name(self.member)} {part}, {this_process()}",
            "lock_timeout": f"{seconds}s",
            "idle_in_transaction_session_timeout": f"{IDLE_TIMEOUT}s",
            "idle_session_timeout": "0",  # which PostgreSQL 14 and newer have
            "jit": "off",  # compiles for a second what runs for a millisecond
        }
        if part == PULSE:
            settings["statement_timeout"] = f"{seconds}s"
        if part in (WRITER, ADOPTER):
            # PostgreSQL does not know yet how large the tables are when it matters; each statement has its index.
            settings["enable_seqscan"] = "off"
        if part == ADOPTER:  # an estate is read in the order of its index, and no further
            settings.update(enable_bitmapscan="off", enable_sort="off")
        try:
            connection.execute(
                text(
                    "SELECT set_config(name, value, false) FROM unnest(CAST(:names AS text[]), CAST(:values AS text[]))"
                    " AS wanted (name, value) JOIN pg_settings USING (name)"
                ),
                {"names": list(settings), "values": list(settings.values())},
            )
        except BaseException:
            connection.close()
            raise
        return connection

    def take_lock(self, connection: Connection) -> bool:
        return bool(connection.exec_driver_sql(f"SELECT pg_try_advisory_lock({self._place}, {self.member})").scalar())

    def is_locked_sql(self, member_sql: str) -> str:
        return (
            "EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            f" AND classid = {self._place} AND objid::bigint = {member_sql})"
        )

    def end_sessions(self, connection: Connection, member: int) -> None:
        connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
            f" AND usename = current_user AND starts_with(application_name, '{self._name(member)} ')"
        )

    def _name(self, member: int) -> str:
        return f"geartrain {self._place:08x} member {member}"

    def started_sql(self) -> str:
        return "extract(epoch FROM pg_postmaster_start_time())::float8"

    def renew_and_look(self, connection: Connection, renewal: str, question: str) -> tuple[int, Sequence[Any]]:
        cursor: Any = connection.connection.cursor()
        try:
            cursor.execute(f"{renewal}; {question}", prepare=False)  # one message instead of two
            renewed = cursor.rowcount
            cursor.nextset()
            return renewed, cursor.fetchall()
        finally:
            cursor.close()

    def add_owned(self, jobs: Sequence[StoredJob], twins: Sequence[bytes | None]) -> list[Step]:
        if not jobs:
            return []
        columns = f"{self.columns_sql}, owner, twin"
        owner = self.member
        rows = ((*fields(job), owner, twin) for job, twin in zip(jobs, twins, strict=True))
        return [lambda connection: self._copy(connection, columns, OWNED_TYPES, rows)]

    def take_jobs(
        self, connection: Connection, estate: int, count: int, leave_above: int, ended: bool
    ) -> Sequence[Sequence[Any]]:
        attempts, begun = ("greatest(attempts, begun)", "begun") if ended else ("attempts", "0")
        columns = self.columns_sql.replace(
            "workload", f"CASE WHEN length(workload) <= {leave_above} OR \"unique\" = '-' THEN workload END"
        )
        own: Any = connection.connection.driver_connection
        # What is sent in binary need not be read from digits.
        with own.cursor(binary=True) as cursor:
            cursor.execute(
                f"UPDATE {self.jobs_sql} SET owner = {self.member}, attempts = {attempts}, begun = {begun}"
                # An array is made once, where a subquery might be asked again, and would then lock more.
                f" WHERE number = ANY (ARRAY(SELECT number FROM {self.jobs_sql} WHERE owner = {estate}"
                f" ORDER BY priority, place LIMIT {count} FOR UPDATE SKIP LOCKED))"
                f" RETURNING {columns}, length(workload), begun",
                prepare=False,
            )
            rows: Sequence[Sequence[Any]] = cursor.fetchall()
        return rows

    def literal(self, value: bytes) -> str:
        return f"'\\x{value.hex()}'::bytea"

    def is_conflict(self, error: Exception) -> bool:
        return self.is_duplicate(error) or getattr(bare(error), "sqlstate", "") == DEADLOCK
