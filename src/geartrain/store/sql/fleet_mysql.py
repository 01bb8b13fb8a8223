"""A fleet in MariaDB or MySQL.

A member's lock is a named lock, and each of its sessions holds one more, by which others find and end it: the numbers
of sessions begin anew when the database does.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from sqlalchemy import URL, Connection

from geartrain.jobserver.records import StoredJob
from geartrain.store.base import StoreError
from geartrain.store.sql.database import COLUMNS, Step, bare
from geartrain.store.sql.fleet_database import IDLE_TIMEOUT, LOCK, PARTS, PULSE, PULSE_TIMEOUT, FleetDatabase
from geartrain.store.sql.fleet_tables import FleetTables
from geartrain.store.sql.mysql import MySQL

# That can skip what is locked.
OLDEST_MARIADB: Final = (10, 6)
OLDEST_MYSQL: Final = (8, 0, 1)
DEADLOCK: Final = 1213
LONGEST_WAIT: Final = 2_147_483  # seconds that a session may do nothing: the most on any system


class FleetMySQL(MySQL, FleetDatabase):
    clock = "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) / 1e6)"  # not shifted by any time zone
    sharing = "LOCK IN SHARE MODE"
    number_sql = "CAST(CONV(HEX({key}), 16, 10) AS UNSIGNED)"

    def __init__(self, url: URL, options: dict[str, str], tables: FleetTables) -> None:
        super().__init__(url, options, tables)
        self._place = ""  # what begins the locks' names
        self._started = 0.0

    @classmethod
    def impatient_options(cls) -> dict[str, str]:
        return dict.fromkeys(("connect_timeout", "read_timeout", "write_timeout"), str(PULSE_TIMEOUT))

    def check_version(self, connection: Connection) -> None:
        version = connection.dialect.server_version_info or (0,)
        is_mariadb: bool = getattr(connection.dialect, "is_mariadb", False)
        if version < (OLDEST_MARIADB if is_mariadb else OLDEST_MYSQL):
            raise StoreError(f"the store {self.shown}: a fleet needs MariaDB 10.6, MySQL 8.0.1 or newer")

    def connect_as(self, part: str) -> Connection:
        connection = self.connect()
        try:
            self._set_up(connection, part)
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_up(self, connection: Connection, part: str) -> None:
        connection.exec_driver_sql("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        connection.exec_driver_sql(f"SET SESSION wait_timeout = {LONGEST_WAIT}")
        if getattr(connection.dialect, "is_mariadb", False):
            connection.exec_driver_sql(f"SET SESSION idle_transaction_timeout = {IDLE_TIMEOUT}")
        if part in (PULSE, LOCK):
            connection.exec_driver_sql(
                f"SET SESSION lock_wait_timeout = {PULSE_TIMEOUT}, innodb_lock_wait_timeout = {PULSE_TIMEOUT}"
            )
        if part == PULSE:
            _, uptime = connection.exec_driver_sql("SHOW GLOBAL STATUS LIKE 'Uptime'").one()
            self._started = float(connection.exec_driver_sql(f"SELECT {self.clock}").scalar_one()) - int(uptime)
        self._place = self._lock(connection)
        if part == LOCK:
            return  # that lock is the session's name as well
        name = self._name(self.member, part)
        if not self._get_lock(connection, name, 0):
            # A session of ours that was lost; the database does not know yet.
            self._end(connection, name)
            self._get_lock(connection, name, PULSE_TIMEOUT)

    def take_lock(self, connection: Connection) -> bool:
        return self._get_lock(connection, self._name(self.member, LOCK), 0)

    @staticmethod
    def _get_lock(connection: Connection, name: str, seconds: int) -> bool:
        return connection.exec_driver_sql(f"SELECT GET_LOCK('{name}', {seconds})").scalar() == 1

    def is_locked_sql(self, member_sql: str) -> str:
        return f"IS_USED_LOCK(CONCAT('{self._place} ', {member_sql})) IS NOT NULL"

    def end_sessions(self, connection: Connection, member: int) -> None:
        for part in PARTS:
            self._end(connection, self._name(member, part))

    def _name(self, member: int, part: str) -> str:
        return f"{self._place} {member}" + ("" if part == LOCK else part[0])

    def _end(self, connection: Connection, lock: str) -> None:
        holder = connection.exec_driver_sql(f"SELECT IS_USED_LOCK('{lock}')").scalar()
        if holder:
            with suppress(*self.errors):  # it may have ended, or be another user's
                connection.exec_driver_sql(f"KILL {holder}")

    def started_sql(self) -> str:
        return repr(self._started)

    def renew_and_look(self, connection: Connection, renewal: str, question: str) -> tuple[int, Sequence[Any]]:
        return connection.exec_driver_sql(renewal).rowcount, connection.exec_driver_sql(question).all()

    def add_owned(self, jobs: Sequence[StoredJob], twins: Sequence[bytes | None]) -> list[Step]:
        more = (f",{self.member},{'NULL' if twin is None else self.literal(twin)}" for twin in twins)
        return self._insertions(f"{self.columns_sql}, owner, twin", jobs, more)

    def take_jobs(
        self, connection: Connection, estate: int, count: int, leave_above: int, ended: bool
    ) -> Sequence[Sequence[Any]]:
        format_column = self.engine.dialect.identifier_preparer.format_column
        named = {name: format_column(self.tables.jobs.c[name]) for name in COLUMNS}
        named["workload"] = (
            f"CASE WHEN LENGTH(workload) <= {leave_above} OR {named['unique']} = '-' THEN workload END AS workload"
        )
        if ended:
            named["attempts"] = "GREATEST(attempts, begun)"
        # Rows are locked as they are read: in any order but the index's, all of them would be.
        rows = connection.exec_driver_sql(
            f"SELECT {', '.join(named.values())}, LENGTH(workload), {'begun' if ended else '0'} "
            f" FROM {self.by('jobs', str(self.tables.jobs_estate.name))} WHERE owner = {estate}"
            f" ORDER BY owner, priority, place LIMIT {count} FOR UPDATE SKIP LOCKED"
        ).all()
        attempts, begun = ("GREATEST(attempts, begun)", "begun") if ended else ("attempts", "0")
        for condition in self.among("number", [row[0] for row in rows]):
            connection.exec_driver_sql(
                f"UPDATE {self.by('jobs')} SET owner = {self.member}, attempts = {attempts}, begun = {begun}"
                f" WHERE {condition}"
            )
        return rows

    def by(self, table: str, index: str = "PRIMARY") -> str:
        return f"{self.names[table]} FORCE INDEX ({index})"

    def deletion(self, table: str) -> str:
        return f"DELETE {self.names[table]} FROM {self.by(table)}"

    def literal(self, value: bytes) -> str:
        return f"x'{value.hex()}'"

    def is_conflict(self, error: Exception) -> bool:
        found = bare(error)
        return self.is_duplicate(error) or bool(found.args and found.args[0] == DEADLOCK)
