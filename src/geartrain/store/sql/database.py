"""What differs between relational databases: how they are reached, held against a second user, filled fast, and what
their errors mean. ``SqlStore`` does all the rest in the same way for each of them.
"""

from __future__ import annotations

import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, ClassVar, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from geartrain.jobserver.records import StoredJob
from geartrain.redaction import redacted, shown_url
from geartrain.store.base import REBUILD, Abilities, StoreDownError, StoreError, StoreInUseError
from geartrain.store.sql.tables import Tables

# The columns that are filled from a StoredJob, and the same fields of one as a tuple.
COLUMNS: Final = (
    "number", "position", "function", "unique", "workload", "size", "priority", "due", "reducer", "attempts", "created",
)  # fmt: skip
fields: Final[Callable[[StoredJob], tuple[Any, ...]]] = attrgetter(*COLUMNS)

# Seconds. A user that was killed may keep its hold until the database has noticed.
HOLD_TIMEOUT: Final = 2
CONNECT_TIMEOUT: Final = 10
LOCKED_TIMEOUT: Final = 10  # a row or table that somebody else has locked
NUMBERS_AT_ONCE: Final = 10_000

# What became of a commit by the shorter way.
COMMITTED: Final = 0
UNTOUCHED: Final = 1  # all is as it was
UNSURE: Final = 2  # it may be committed


Step = Callable[[Connection], object]
"""Part of a batch, which is given the connection in a transaction."""


class BusyError(StoreDownError):
    """The database answers, but something is in the way at the moment; the connection is sound."""


class Database(ABC):
    """One database that holds the tables of one namespace."""

    driver: ClassVar[str]  # SQLAlchemy's name for it and its library
    begin: ClassVar[str] = "BEGIN"
    is_file: ClassVar[bool] = False

    abilities: Abilities

    def __init__(self, url: URL, options: dict[str, str], tables: Tables) -> None:
        """``options`` are those of the URL that are the library's."""
        self.url = url.set(drivername=self.driver, query=options)
        self.shown = shown_url(url.set(drivername=url.get_backend_name(), query={}).render_as_string())
        self.tables = tables
        self.remedy = f"put it back, or {REBUILD}"  # for a table that was dropped or emptied
        arguments = {name: value for name, value in self.connect_arguments().items() if name not in options}
        self.engine: Engine = create_engine(
            self.url,
            # Each statement is a transaction of its own unless one is begun in words.
            isolation_level="AUTOCOMMIT",
            execution_options={"no_parameters": True},
            poolclass=NullPool,
            hide_parameters=True,
            connect_args=arguments,
        )
        event.listen(self.engine, "connect", lambda connection, _record: self.greet(connection))
        preparer = self.engine.dialect.identifier_preparer
        self.jobs_sql = preparer.format_table(tables.jobs)
        self.columns_sql = ", ".join(preparer.format_column(tables.jobs.c[name]) for name in COLUMNS)
        # A library's own errors come bare where its own ways are used (COPY).
        self.errors: tuple[type[Exception], ...] = (DBAPIError, self.engine.dialect.loaded_dbapi.Error)

    @abstractmethod
    def connect_arguments(self) -> dict[str, Any]:
        """What the library's ``connect`` is given beside the URL."""

    def connect(self) -> Connection:
        """A new connection."""
        try:
            return self.engine.connect()
        except TypeError as error:  # what a library written in Python says to an option it does not know
            raise StoreError(f"the store {self.shown}: an option in its URL is not known: {error}") from error

    def greet(self, connection: Any) -> None:  # most have nothing to do
        """Set up a new connection of the library."""

    def hold(self) -> None:  # most have nothing to do
        """Hold what is held without a connection.

        Raises StoreInUseError, or StoreError if there can be no such place.
        """

    @abstractmethod
    def take_hold(self, connection: Connection, former: int) -> int:
        """Hold the namespace for as long as ``connection`` lasts, and return the connection's number.

        ``former`` is the number of our connection that held it before; the database may not know yet that it is lost.
        Raises StoreInUseError, naming the user if the database knows.
        """

    def open_committer(self, question: str) -> None:  # most have nothing to do
        """Make ready for ``commit_alone``; ``question`` asks for the owner, and whether the job ``?`` is there."""

    def commit_alone(
        self, added: list[StoredJob], removed: list[int], user: str, witness: int | None, find_witness: bool
    ) -> tuple[int, int | None]:
        """Commit what is added and removed by a shorter way than the steps, and verify it, if there is one.

        The outcome (if it is not ``COMMITTED``, the steps must do it again), and the witness, another one if it was to
        be found.
        """
        return UNTOUCHED, None

    def before_close(self) -> None:  # most have nothing to do
        """The connections are about to be closed."""

    def let_go(self) -> None:  # most have nothing to do
        """Give up what ``hold`` held."""

    def verify(self) -> None:  # only files can be taken away unnoticed
        """See that what was committed is where it will be looked for. Raises StoreError if it is not."""

    def may_be_rebuilt(self) -> None:  # most may at any time
        """Raises StoreError if a new store can't be made in the place of this one."""

    def remove_files(self) -> None:  # most have none
        """Remove the files of a store that could not be rebuilt."""

    @abstractmethod
    def add(self, jobs: Sequence[StoredJob]) -> list[Step]:
        """The steps that insert ``jobs``; IntegrityError if one is there already."""

    def begin_and_ask(self, cursor: Any, question: str) -> Any:
        """Begin a transaction and ask for one row; None if there is none."""
        cursor.execute(self.begin)
        cursor.execute(question)
        return cursor.fetchone()

    def remove(self, numbers: Sequence[int]) -> list[Step]:
        return [self._removal(numbers[n : n + NUMBERS_AT_ONCE]) for n in range(0, len(numbers), NUMBERS_AT_ONCE)]

    def _removal(self, numbers: Sequence[int]) -> Step:
        sql = f"DELETE FROM {self.jobs_sql} WHERE number IN ({', '.join(map(str, numbers))})"
        return lambda connection: connection.exec_driver_sql(sql)

    @abstractmethod
    def kind_of(self, error: Exception) -> tuple[type[StoreError], str]:
        """What an error of the library means: our class (BusyError if the connection is sound), and what to do."""

    def translate(self, error: Exception) -> StoreError:
        """Our words for an error of the library or of SQLAlchemy."""
        error = bare(error)
        kind, remedy = self.kind_of(error)
        words = redacted(str(error.args[-1] if error.args else error)).strip().partition("\n")[0]
        if self.is_missing_table(error):
            return StoreError(f"the store {self.shown}: {words}: {self.remedy}")
        return kind(f"the store {self.shown}: {words}: {remedy}")

    @abstractmethod
    def is_missing_table(self, error: Exception) -> bool:
        """Whether an error of the library says that a table is not there."""

    def is_duplicate(self, error: Exception) -> bool:
        return isinstance(bare(error), self.engine.dialect.loaded_dbapi.IntegrityError)

    def in_use(self, holder: str = "") -> StoreInUseError:
        by = f" ({holder})" if holder else ""
        namespace = self.tables.jobs.name.removesuffix("_jobs")
        return StoreInUseError(
            f"the store {self.shown}, namespace {namespace}, is in use by another job server{by}:"
            " stop that one, or give this one a namespace or a place of its own"
        )


def bare(error: Exception) -> Exception:
    """The library's error inside one of SQLAlchemy's, without the statement."""
    if isinstance(error, DBAPIError) and isinstance(error.orig, Exception):
        return error.orig
    return error


def this_process() -> str:
    """How this process is shown to others."""
    return f"geartrain, process {os.getpid()} on {socket.gethostname()}"


def known_numbers(connection: Connection, tables: Tables, jobs: Sequence[StoredJob]) -> set[int]:
    """The numbers of those of ``jobs`` that are in the table."""
    known: set[int] = set()
    for n in range(0, len(jobs), NUMBERS_AT_ONCE):
        asked = [job.number for job in jobs[n : n + NUMBERS_AT_ONCE]]
        known.update(connection.scalars(select(tables.jobs.c.number).where(tables.jobs.c.number.in_(asked))))
    return known
