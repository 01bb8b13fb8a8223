"""What a fleet asks of a database besides: a clock, locks that tell whether a session is there, and claims."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Final

from sqlalchemy import URL, Connection

from geartrain.jobserver.records import StoredJob
from geartrain.store.fleet import LEASE
from geartrain.store.sql.database import NUMBERS_AT_ONCE, Database, Step
from geartrain.store.sql.fleet_tables import FleetTables

# Seconds that a transaction may stand still: as long as its member could live without a sign.
IDLE_TIMEOUT: Final = int(LEASE)
PULSE_TIMEOUT: Final = 2  # seconds

# A member's sessions.
LOCK: Final = "lock"
PULSE: Final = "pulse"
WRITER: Final = "writer"
READER: Final = "reader"
ADOPTER: Final = "adopter"
PARTS: Final = (LOCK, PULSE, WRITER, READER, ADOPTER)


class FleetDatabase(Database):
    """One database that holds the tables of one fleet, as a member uses it."""

    clock: ClassVar[str]  # its Unix time
    sharing: ClassVar[str]  # locks the rows that are found against changes
    number_sql: ClassVar[str]  # the number that eight bytes in {key} make

    tables: FleetTables

    def __init__(self, url: URL, options: dict[str, str], tables: FleetTables) -> None:
        super().__init__(url, options, tables)
        self.member = 0
        # The tables' names, as they stand in statements.
        format_table = self.engine.dialect.identifier_preparer.format_table
        self.names = {
            name: format_table(getattr(tables, name))
            for name in ("jobs", "records", "meta", "fleet", "members", "leases", "arrivals", "blocks", "adoptions")
        }

    @classmethod
    @abstractmethod
    def impatient_options(cls) -> dict[str, str]:
        """Options of the library with which no answer is waited for longer than ``PULSE_TIMEOUT``."""

    @abstractmethod
    def check_version(self, connection: Connection) -> None:
        """Raise StoreError if the database is too old for a fleet."""

    @abstractmethod
    def connect_as(self, part: str) -> Connection:
        """A session of the member, which ``end_sessions`` finds."""

    @abstractmethod
    def take_lock(self, connection: Connection) -> bool:
        """Take the member's lock without waiting; whether it is ours."""

    @abstractmethod
    def is_locked_sql(self, member_sql: str) -> str:
        """Whether somebody holds the lock of a member."""

    @abstractmethod
    def end_sessions(self, connection: Connection, member: int) -> None:
        """End all sessions of a member, as far as we may."""

    @abstractmethod
    def started_sql(self) -> str:
        """Since when the database runs, by its clock."""

    @abstractmethod
    def renew_and_look(self, connection: Connection, renewal: str, question: str) -> tuple[int, Sequence[Any]]:
        """How many rows the one statement has changed, and the rows that the other one finds."""

    @abstractmethod
    def add_owned(self, jobs: Sequence[StoredJob], twins: Sequence[bytes | None]) -> list[Step]:
        """The steps that insert ``jobs`` as the member's; an error if a number or a twin is there already."""

    @abstractmethod
    def take_jobs(
        self, connection: Connection, estate: int, count: int, leave_above: int, ended: bool
    ) -> Sequence[Sequence[Any]]:
        """Make the best ``count`` jobs of an estate the member's, but for those that others have locked; their rows.

        A row is as ``job_of`` takes it, and ends with ``begun``. If the estate's owner has ``ended`` unplanned, the
        attempts that had begun count; else they are forgotten.
        """

    def by(self, table: str, index: str = "PRIMARY") -> str:
        """A table as it stands in a statement that finds its rows by this index: it must not lock any others."""
        return self.names[table]

    def deletion(self, table: str) -> str:
        """What begins the statement that removes rows of a table, which it finds by their names."""
        return f"DELETE FROM {self.by(table)}"

    @abstractmethod
    def literal(self, value: bytes) -> str:
        """Bytes as they stand in a statement."""

    @abstractmethod
    def is_conflict(self, error: Exception) -> bool:
        """Whether a transaction may succeed if it is done once more: others have inserted or locked the same."""

    def among(self, column: str, numbers: Sequence[int]) -> list[str]:
        """Conditions that together mean that a number is one of these."""
        return [
            f"{column} IN ({', '.join(map(str, numbers[n : n + NUMBERS_AT_ONCE]))})"
            for n in range(0, len(numbers), NUMBERS_AT_ONCE)
        ]

    def among_bytes(self, column: str, values: Sequence[bytes]) -> list[str]:
        """Conditions that together mean that these bytes are one of these."""
        return [
            f"{column} IN ({', '.join(map(self.literal, values[n : n + NUMBERS_AT_ONCE]))})"
            for n in range(0, len(values), NUMBERS_AT_ONCE)
        ]
