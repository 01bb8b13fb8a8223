"""A store in one file. The write-ahead log lets the reader read while the writer writes.

A second user is kept out by a lock on the file itself (``file_lock``), under whatever name it comes. Before a commit is
said to be done, the file's name must still mean the file that was written: a store that was removed, replaced or
mounted over takes nothing more. The same file may have been emptied or cut short; SQLite does not notice, and writes on
at the place where it was, leaving a hole. So the file and its log are looked at: for the bytes that each must begin
with, and for the size that the log had.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from sqlalchemy import URL, Connection, event

from geartrain.jobserver.records import StoredJob
from geartrain.store.base import REBUILD, Abilities, StoreError, StoreFullError
from geartrain.store.sql.database import COLUMNS, UNTOUCHED, BusyError, Database, Step, fields
from geartrain.store.sql.file_lock import FileLock, identity
from geartrain.store.sql.tables import Tables

if TYPE_CHECKING:
    from geartrain.store.sql.sqlite_commit import Committer

log = logging.getLogger("geartrain.store")

# Many rows in one statement are one step of SQLite, so the interpreter's lock changes hands once and not once a row.
# But each number of rows is a text of its own to be parsed and remembered, so rows come in numbers of four binary
# digits and zeros: most batches are two statements, and all their texts, some 60, fit the library's memory for them.
MOST_ROWS: Final = 512
DIGITS: Final = 4
BUSY_SECONDS: Final = 5
SHARED_FIRST: Final = 0x40000002  # the bytes that SQLite locks to have a file for itself alone
SHARED_SIZE: Final = 510
FILE_BEGINS: Final = b"SQLite format 3\0"
LOG_BEGINS: Final = b"\x37\x7f\x06"  # and then 0x82 or 0x83
LOG_HEAD: Final = 32  # bytes
SALTS: Final = slice(16, 24)  # of them change whenever the log begins anew

SURVIVES: Final = {
    "FULL": "a crash of the job server, of the machine, and a power cut",
    "NORMAL": "a crash of the job server; a power cut or a crash of the machine may take the last moments",
}
BESIDE: Final = ("-wal", "-shm")  # the log and its index, after the file's name
EMPTIED: Final = 3  # what a Committer may say beside the outcomes
FULL: Final = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY}
BUSY: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PROTOCOL}


class SQLite(Database):
    driver = "sqlite+pysqlite"
    begin = "BEGIN IMMEDIATE"
    is_file = True

    def __init__(self, url: URL, options: dict[str, str], tables: Tables) -> None:
        self.synchronous = options.pop("synchronous", "full").upper()
        if self.synchronous not in SURVIVES:
            raise StoreError(f"synchronous={self.synchronous.lower()} is not known: it may be full or normal")
        if options:
            raise StoreError(f"an SQLite store has no option {next(iter(options))!r}: it has namespace and synchronous")
        if not url.database or url.database == ":memory:":
            raise StoreError("an SQLite store needs a file: sqlite:////absolute/path or sqlite:///relative/path")
        self.path = Path(url.database)
        self.uri = f"file:{quote(str(self.path.absolute()))}?mode=rw"
        self.lock: FileLock | None = None
        self.beside: list[tuple[int, int] | None] = []  # which files the log and its index are
        self.log: int | None = None  # a descriptor of the log
        self.log_salts, self.log_size = b"", 0  # when it was looked at last
        self.is_emptied = False  # the file or the log was, or was cut short
        self.most_rows = MOST_ROWS
        super().__init__(url, options, tables)
        self.remedy = f"put it back; or move {self.path}, its -wal and its -shm away, and {REBUILD}"
        self.abilities = Abilities("SQLite", SURVIVES[self.synchronous], max_workload=1_000_000_000 - (1 << 20))
        self._insertions: dict[int, str] = {}
        self._committer: Committer | None = None
        event.listen(self.engine, "do_connect", self._name_file)

    def connect_arguments(self) -> dict[str, Any]:
        # Each connection is used by one thread at a time, though not always the same one.
        return {"timeout": BUSY_SECONDS, "check_same_thread": False}

    def _name_file(self, _dialect: Any, _record: Any, words: list[Any], named: dict[str, Any]) -> None:
        """Never make the file: it is there when it is held, and one that has been taken away stays away."""
        words[:] = [self.uri]
        named["uri"] = True

    @property
    def greeting(self) -> tuple[str, ...]:
        """What is said first on each connection."""
        return (
            "PRAGMA journal_mode = WAL",
            f"PRAGMA synchronous = {self.synchronous}",
            "PRAGMA cache_size = -16384",  # KiB
            f"PRAGMA journal_size_limit = {64 << 20}",  # what a burst has made longer is given back
        )

    def greet(self, connection: Any) -> None:
        for pragma in self.greeting:
            connection.execute(pragma)
        # An old SQLite takes 999 values in a statement.
        while self.most_rows * len(COLUMNS) > connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER):
            self.most_rows //= 2

    def take_hold(self, connection: Connection, former: int) -> int:
        return 0  # the file is held already

    def hold(self) -> None:
        if self.lock is not None:
            return
        try:
            lock = FileLock(self.path)
        except FileNotFoundError:
            raise StoreError(f"the store {self.shown}: there is no folder {self.path.parent}: make it first") from None
        except BlockingIOError as error:
            raise self.in_use(str(error.strerror)) from None
        except OSError as error:
            raise StoreError(
                f"the store {self.shown}: {error.strerror}: it must be a writable file, where files can be locked"
            ) from error
        if lock.names > 1:
            lock.release()
            raise StoreError(
                f"the store {self.shown} is one of {lock.names} hard links to the same file, and its write-ahead log"
                " goes by the name, so jobs would be lost under another one: remove the other links"
            )
        if lock.mode & 0o077:
            log.warning("store_readable_by_others", extra={"fields": {"file": self.path, "mode": f"{lock.mode:o}"}})
        self.lock = lock

    def begin_and_ask(self, cursor: Any, question: str) -> Any:
        cursor.execute(self.begin)
        if self.lock is not None:
            self._see_that_they_are_whole(self.lock)  # after the commit, a hole may have taken the place of what is cut
        cursor.execute(question)
        return cursor.fetchone()

    def open_committer(self, question: str) -> None:
        assert self.lock is not None
        queries = (
            question,
            f"INSERT INTO {self.jobs_sql} ({self.columns_sql}) VALUES ({', '.join('?' * len(COLUMNS))})",
            f"DELETE FROM {self.jobs_sql} WHERE number BETWEEN ? AND ?",
            f"SELECT coalesce(max(number), -1) FROM {self.jobs_sql}",
        )
        # Where it was not compiled, or SQLite is a part of the interpreter, all goes the ordinary way.
        with suppress(ImportError, AttributeError, OSError):
            import _sqlite3

            from geartrain.store.sql.sqlite_commit import Committer

            self._committer = Committer(
                _sqlite3.__file__,
                self.uri,
                "; ".join(self.greeting),
                queries,
                [os.fsencode(f"{self.path}{suffix}") for suffix in ("", *BESIDE)],
                [self.lock.identity, *self.beside],
                self.lock.descriptor,
                -1 if self.log is None else self.log,
            )

    def commit_alone(
        self, added: list[StoredJob], removed: list[int], user: str, witness: int | None, find_witness: bool
    ) -> tuple[int, int | None]:
        if self._committer is None or self.is_emptied:
            return UNTOUCHED, None
        outcome, latest, self.log_salts, self.log_size = self._committer.commit(
            added, removed, user, -1 if witness is None else witness, find_witness, self.log_salts, self.log_size
        )
        self.is_emptied = outcome == EMPTIED
        return outcome, latest if latest >= 0 else None

    def before_close(self) -> None:
        # At the end of a file's last connection SQLite writes its log back and removes it, by its name. It sees to it
        # that the name still means the file, but looks at the inode alone, which a file on another disk may share.
        if self.lock is not None and identity(self.path) != self.lock.identity:
            self.lock.keep_from_being_locked(SHARED_FIRST, SHARED_SIZE)

    def let_go(self) -> None:
        if self._committer is not None:
            self._committer.close()
            self._committer = None
        if self.log is not None:
            os.close(self.log)
            self.log = None
        if self.lock is not None:
            self.lock.release()
            self.lock = None

    def verify(self) -> None:
        assert self.lock is not None
        beside = [identity(self.path.with_name(self.path.name + suffix)) for suffix in BESIDE]
        if not self.beside:
            self.beside = beside
            with suppress(FileNotFoundError):  # some file systems can't have one
                self.log = os.open(self.path.with_name(self.path.name + "-wal"), os.O_RDONLY | os.O_CLOEXEC)
        self._see_that_they_are_whole(self.lock)
        if identity(self.path) == self.lock.identity and beside == self.beside:
            return
        raise StoreError(
            f"the store {self.shown}: the file that this job server writes has been removed, replaced or mounted over:"
            f" put it back; or see that there is none, and {REBUILD}"
        )

    def _see_that_they_are_whole(self, lock: FileLock) -> None:
        """Raises StoreError if the file or its log was ever found emptied or cut short.

        A log of no bytes may also come from another program's checkpoint, after which SQLite begins it anew; a log that
        was written on after it was emptied begins with a hole. The next checkpoint may well write the first bytes
        again, but not what else was there, so what was seen once is not forgotten.
        """
        if self.log is not None:
            head, size = os.pread(self.log, LOG_HEAD, 0), os.fstat(self.log).st_size
            salts = head[SALTS]
            if head and (not head.startswith(LOG_BEGINS) or len(head) < LOG_HEAD):
                self.is_emptied = True
            if salts == self.log_salts and size < self.log_size:
                self.is_emptied = True
            self.log_salts, self.log_size = salts, size
        if lock.read_start(len(FILE_BEGINS)) != FILE_BEGINS:
            self.is_emptied = True
        if self.is_emptied:
            raise StoreError(
                f"the store {self.shown}: the file that this job server writes, or its -wal, has been emptied or cut"
                f" short: move both and the -shm away, and {REBUILD}"
            )

    def may_be_rebuilt(self) -> None:
        # SQLite would take an old log that was left for the new file's.
        for path in (self.path.with_name(self.path.name + suffix) for suffix in ("", *BESIDE)):
            if path.exists():
                raise StoreError(f"the store {self.shown}: there is still a file {path}: move it away first")

    def remove_files(self) -> None:
        for suffix in ("", *BESIDE):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    def add(self, jobs: Sequence[StoredJob]) -> list[Step]:
        steps = []
        start = 0
        while start < len(jobs):
            rows = min(self.most_rows, len(jobs) - start)
            zeros = max(rows.bit_length() - DIGITS, 0)
            rows = rows >> zeros << zeros
            steps.append(self._insertion(jobs[start : start + rows]))
            start += rows
        return steps

    def _insertion(self, jobs: Sequence[StoredJob]) -> Step:
        rows = len(jobs)
        if rows not in self._insertions:
            values = ", ".join([f"({', '.join('?' * len(COLUMNS))})"] * rows)
            self._insertions[rows] = f"INSERT INTO {self.jobs_sql} ({self.columns_sql}) VALUES {values}"
        sql = self._insertions[rows]

        def insert(connection: Connection) -> None:
            values: list[Any] = []
            for job in jobs:
                values += fields(job)
            connection.exec_driver_sql(sql, tuple(values))

        return insert

    def _removal(self, numbers: Sequence[int]) -> Step:
        # One text for any numbers, so that it is parsed once; a list of integers reads as JSON.
        sql = f"DELETE FROM {self.jobs_sql} WHERE number IN (SELECT value FROM json_each(?))"
        return lambda connection: connection.exec_driver_sql(sql, (str(numbers),))

    def is_missing_table(self, error: Exception) -> bool:
        return str(error).startswith("no such table")

    def kind_of(self, error: Exception) -> tuple[type[StoreError], str]:
        detail = getattr(error, "sqlite_errorcode", 0)
        code = detail & 0xFF
        if code in FULL or detail == sqlite3.SQLITE_IOERR_SHMSIZE:
            return (
                StoreFullError,
                f"make room, and make sure that {self.path} is there and may be written, and its folder too",
            )
        if code in BUSY:
            return BusyError, f"another program may have {self.path} locked, or its disk has failed"
        if code == sqlite3.SQLITE_CANTOPEN:
            return StoreError, f"{self.path} must be a file in a folder that may be written"
        if code == sqlite3.SQLITE_NOTADB:
            return StoreError, f"{self.path} is no SQLite database: give another path"
        if code == sqlite3.SQLITE_CORRUPT:
            return StoreError, f"{self.path} is damaged: stop the job server and save what can be saved by `.recover`"
        return StoreError, f"look at {self.path} with the program sqlite3"
