"""A store in MySQL or MariaDB, by PyMySQL. Jobs arrive by one INSERT of many rows, written out with hexadecimal bytes.

PyMySQL fills in parameters one by one in Python, which costs more than all the rest; hexadecimal digits need no quoting
and are made by one call. They double the size of a workload, so it may be half of ``max_allowed_packet``.

A second user is kept out by a named lock of the writer's own session: what is committed is committed by the session
that holds the place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import repeat
from typing import Any, Final

from sqlalchemy import URL, Connection, text

from geartrain.jobserver.records import StoredJob
from geartrain.store.base import Abilities, JobTooLargeError, StoreDownError, StoreError, StoreFullError
from geartrain.store.sql.database import CONNECT_TIMEOUT, HOLD_TIMEOUT, LOCKED_TIMEOUT, BusyError, Database, Step
from geartrain.store.sql.tables import Tables

ANSWER_TIMEOUT: Final = 60  # seconds
ROOM_FOR_NAMES: Final = 64 << 10  # bytes of a packet that are no workload

SAFE: Final = "a crash of the job server, of the database, of the machine, and a power cut"
UNSAFE: Final = (
    "a crash of the job server; since innodb_flush_log_at_trx_commit is not 1, a crash of the database or a power cut"
    " may take the last second"
)

# Full disk, full table, no space for a temporary file; read-only in its several ways.
FULL: Final = {1021, 1114, 1290, 1792, 1836, 3100}
# No connection, a lost one, shut down, too many, killed, hosts blocked, packets that did not come.
LOST: Final = {0, 1040, 1053, 1077, 1080, 1129, 1152, 1158, 1159, 1160, 1161, 1203, 1226, 1927, 2002, 2003, 2006, 2013,
               2014, 2055, 4031}  # fmt: skip
BUSY: Final = {1205, 1213, 1317, 1969, 3024}  # locks, a deadlock, interrupted, taking too long
REFUSED: Final = {1044, 1045, 1049, 1142, 1698, 3118}


class MySQL(Database):
    driver = "mysql+pymysql"

    def __init__(self, url: URL, options: dict[str, str], tables: Tables) -> None:
        if not url.database:
            raise StoreError(f"the store {url.get_backend_name()}://{url.host}: the URL must name a database")
        super().__init__(url, options, tables)
        name = {"mysql": "MySQL", "mariadb": "MariaDB"}[url.get_backend_name()]
        self.abilities = Abilities(name, SAFE, shared=True)
        self.packet = 1 << 20

    def connect_arguments(self) -> dict[str, Any]:
        return {
            "connect_timeout": CONNECT_TIMEOUT,
            "read_timeout": ANSWER_TIMEOUT,
            "write_timeout": ANSWER_TIMEOUT,
            "init_command": f"SET SESSION sql_mode = 'STRICT_ALL_TABLES', lock_wait_timeout = {LOCKED_TIMEOUT},"
            f" innodb_lock_wait_timeout = {LOCKED_TIMEOUT}",
        }

    def take_hold(self, connection: Connection, former: int) -> int:
        lock = self._lock(connection)
        holder = connection.execute(text("SELECT IS_USED_LOCK(:name)"), {"name": lock}).scalar()
        if holder and holder == former:
            connection.exec_driver_sql(f"KILL {former}")
        taken = connection.execute(
            text("SELECT GET_LOCK(:name, :timeout)"), {"name": lock, "timeout": HOLD_TIMEOUT}
        ).scalar()
        if taken != 1:
            raise self.in_use(self._holder(connection, lock))
        number, self.packet, flush = connection.exec_driver_sql(
            "SELECT CONNECTION_ID(), @@max_allowed_packet, @@innodb_flush_log_at_trx_commit"
        ).one()
        self.abilities = replace(
            self.abilities,
            survives=SAFE if flush == 1 else UNSAFE,
            max_workload=(self.packet - ROOM_FOR_NAMES) // 2,
        )
        return int(number)

    def _lock(self, connection: Connection) -> str:
        """The lock's name: it is the server's, not the database's, may have 64 characters, and tells small letters.

        The database has the name that the server knows it by, whatever letters the URL has.
        """
        database = connection.exec_driver_sql(
            "SELECT IF(@@lower_case_table_names = 0, DATABASE(), LOWER(DATABASE()))"
        ).scalar_one()
        digest = hashlib.sha256(f"{database} {self.tables.jobs.name}".encode()).hexdigest()
        return f"geartrain {digest[:40]}"

    def _holder(self, connection: Connection, lock: str) -> str:
        found = connection.execute(
            text("SELECT ID, USER, HOST FROM information_schema.PROCESSLIST WHERE ID = IS_USED_LOCK(:name)"),
            {"name": lock},
        ).first()
        return f"connection {found.ID} of {found.USER} from {found.HOST}" if found else ""

    def add(self, jobs: Sequence[StoredJob]) -> list[Step]:
        return self._insertions(self.columns_sql, jobs, repeat(""))

    def _insertions(self, columns: str, jobs: Sequence[StoredJob], more: Iterable[str]) -> list[Step]:
        """The steps that insert ``jobs``, each with ``more`` values behind those that are its own."""
        steps: list[Step] = []
        rows: list[str] = []
        head = f"INSERT INTO {self.jobs_sql} ({columns}) VALUES "
        length = most = self.packet - len(head) - 1024
        for job, values in zip(jobs, more, strict=False):
            row = (
                f"({job.number},{job.position},x'{job.function.hex()}',x'{job.unique.hex()}',x'{_given(job).hex()}',"
                f"{job.size},{job.priority},{job.due!r},x'{job.reducer.hex()}',{job.attempts},{job.created!r}{values})"
            )
            if len(row) >= most:
                raise JobTooLargeError(
                    job.number, f"the store {self.shown}: a job is larger than max_allowed_packet allows"
                )
            length += len(row) + 1
            if length > most:
                rows = []
                steps.append(self._insertion(head, rows))
                length = len(row)
            rows.append(row)
        return steps

    @staticmethod
    def _insertion(head: str, rows: list[str]) -> Step:
        return lambda connection: connection.exec_driver_sql(head + ",".join(rows))

    def is_missing_table(self, error: Exception) -> bool:
        return bool(error.args) and error.args[0] == 1146

    def kind_of(self, error: Exception) -> tuple[type[StoreError], str]:
        code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        if code in FULL or (code in (1030, 3, 1026) and "28" in str(error)):
            return StoreFullError, "make room on its disk, and make sure that it may be written"
        if code in BUSY:
            return BusyError, "look for what keeps it busy, such as locks of other sessions"
        if code in LOST:
            return StoreDownError, "check that it runs and can be reached"
        if code in REFUSED:
            return StoreError, "check the user, the password, the database and the user's rights"
        return StoreError, f"look at the database's log (error {code})"


def _given(job: StoredJob) -> bytes:
    assert job.workload is not None, "a job is added with its workload"
    return job.workload
