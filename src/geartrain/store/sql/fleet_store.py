"""The store of one member of a fleet, in PostgreSQL, MariaDB or MySQL.

It is the store of a job server that is alone, but for who holds it: instead of a signature each commit finds the
member's own row, and locks it against being judged until the commit is over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final

from sqlalchemy import URL, ColumnElement, Connection, and_, func, or_, select, text

from geartrain.jobserver.records import SHARED_KINDS, Batch, Record, StoredJob
from geartrain.store.base import StoreError, Unreadable, fill
from geartrain.store.fleet import LIVE, Adoption, Claim, FleetStore, Member, View
from geartrain.store.sql import adoption
from geartrain.store.sql.connection import ReconnectingConnection
from geartrain.store.sql.fleet_commit import FleetCommit
from geartrain.store.sql.fleet_database import READER, WRITER, FleetDatabase
from geartrain.store.sql.fleet_mysql import FleetMySQL
from geartrain.store.sql.fleet_postgresql import FleetPostgreSQL
from geartrain.store.sql.fleet_tables import FleetTables
from geartrain.store.sql.membership import Membership
from geartrain.store.sql.reading import all_of, by_number
from geartrain.store.sql.store import SqlStore

DATABASES: Final[dict[str, type[FleetDatabase]]] = {
    "postgresql": FleetPostgreSQL,
    "mysql": FleetMySQL,
    "mariadb": FleetMySQL,
}
TRIES: Final = 5  # of a commit that others were in the way of


class SqlFleetStore(SqlStore, FleetStore):
    """One member's jobs; see ``FleetStore`` for what it does, and ``SqlStore`` for the URL."""

    _tables: FleetTables
    _database: FleetDatabase

    def __init__(self, url: str) -> None:
        super().__init__(url)
        database = self._database
        options = {name: str(value) for name, value in database.url.query.items()}
        impatient = type(database)(database.url, {**database.impatient_options(), **options}, self._tables)
        impatient.shown = database.shown
        self._membership = Membership(impatient, self._tables)
        self._writer = ReconnectingConnection(database, lambda: database.connect_as(WRITER))
        self._reader = ReconnectingConnection(database, lambda: database.connect_as(READER))
        self._adoption = adoption.Adoption(self, database, self._tables, self._membership.fenced, self._setting_aside)
        self._address = ""

    def _new_tables(self, namespace: str) -> FleetTables:
        return FleetTables(namespace)

    def _new_database(self, url: URL, options: dict[str, str]) -> FleetDatabase:
        return DATABASES[url.get_backend_name()](url, options, self._tables)

    def open(self) -> None:
        """See that the database can be reached; nothing is ours before ``join``."""
        self._reader.use(lambda connection: self._database.check_version(connection))
        self._reader.close()  # another one is made when the member has its id, and is called by it

    def join(self, name: str, address: str) -> int:
        me = self._membership.join(self._database, name, address)
        self._address = address
        self.abilities = self._database.abilities
        names, jobs = self._database.names, self._tables.jobs.c
        # Every commit asks this.
        self._asking = (
            f"SELECT state, EXISTS (SELECT 1 FROM {names['jobs']} WHERE number = {{witness}} AND owner = {me})"
            f" FROM {names['members']} WHERE id = {me} {self._database.sharing}"
        )
        self._looking_for_witness = (
            select(jobs.number)
            .where(jobs.owner == me)
            .order_by(jobs.owner.desc(), jobs.priority.desc(), jobs.position.desc())
            .limit(1)
        )
        self._is_signed = True
        return me

    # ── the rows of a member ────────────────────────────────────────────────────────────────────────────────────

    def load(self, leave_above: int) -> Iterator[StoredJob | Unreadable]:
        """Our own jobs; a new member has none before it claims some."""
        jobs = self._tables.jobs.c
        asking = select(jobs.number).where(jobs.owner == self._database.member).order_by(jobs.position)
        ours = [number for (number,) in self._ask(asking)]
        for job in by_number(all_of(self._tables, leave_above), self._tables, ours, self._ask):
            if isinstance(job, Unreadable):
                self.quarantine(job.number, job.reason)
            yield job

    def _ask(self, statement: Any) -> Sequence[Any]:
        rows: Sequence[Any] = self._reader.use(lambda connection: connection.execute(statement).all())
        return rows

    def count(self) -> int:
        jobs = self._tables.jobs
        counting = select(func.count()).select_from(jobs).where(jobs.c.owner == self._database.member)
        count: int = self._reader.use(lambda connection: connection.execute(counting).scalar_one())
        return count

    def owners(self, numbers: Sequence[int]) -> dict[int, int]:
        jobs = self._database.names["jobs"]
        found: dict[int, int] = {}
        for condition in self._database.among("number", numbers):
            asking = text(f"SELECT number, owner FROM {jobs} WHERE {condition}")
            found.update((number, owner) for number, owner in self._ask(asking))
        return found

    def _is_own_job(self, number: int) -> list[ColumnElement[bool]]:
        jobs = self._tables.jobs.c
        return [jobs.number == number, jobs.owner == self._database.member]

    def _readable(self) -> list[ColumnElement[bool]]:
        records = self._tables.records.c
        return [
            or_(
                records.owner == self._database.member,
                and_(records.owner == 0, records.job == 0, records.kind.in_(SHARED_KINDS)),
            )
        ]

    def _check_owner(self, found: Sequence[Any] | None) -> None:
        state, is_there = found or ("", False)
        if state and state != LIVE:
            raise self._membership.fenced()
        if state and (is_there or self._witness is None):
            return
        table = self._tables.jobs.name if state else self._tables.members.name
        raise StoreError(f"the store {self._database.shown}: the table {table} was emptied: {self._database.remedy}")

    def _commit(self, connection: Connection, batch: Batch) -> None:
        expired = self._sweep_before() if batch.records else 0.0
        for left in range(TRIES, -1, -1):
            commit = FleetCommit(self._database, self._tables, self._address, batch, is_again=left < TRIES)
            try:
                self._carry_out(connection, [partial(commit.carry_out, expired)], commit.added, commit.gone)
            except self._database.errors as error:
                if left == 0 or not self._database.is_conflict(error):
                    raise
            else:
                batch.twins, batch.moved = commit.twins, commit.moved
                return

    def rebuild(self, jobs: Iterable[StoredJob], next_number: int, records: Iterable[Record] = ()) -> int:
        self._membership.restore(self._database, self._address)
        self._witness = None
        return fill(self, jobs, next_number, self.read, records)

    # ── the others ──────────────────────────────────────────────────────────────────────────────────────────────

    def pulse(self) -> View:
        return self._membership.pulse()

    def judge(self, id: int) -> bool:
        return self._membership.judge(id)

    def claim(self, estate: int, count: int, leave_above: int) -> Claim:
        return self._adoption.claim(estate, count, leave_above)

    def claim_records(self, estate: int, count: int) -> list[Record]:
        return self._adoption.claim_records(estate, count)

    def bury(self, id: int) -> bool:
        return self._membership.bury(id)

    def adoptions(self) -> list[Adoption]:
        return self._membership.adoptions()

    def members(self) -> list[Member]:
        return self._membership.members()

    def numbers(self) -> int:
        return self._membership.numbers()

    def born_at(self) -> dict[int, int]:
        return self._membership.born_at()

    def shared_records(self) -> tuple[int, list[Record]]:
        return self._adoption.shared_records()

    def own_records(self) -> Iterator[Record]:
        return self._adoption.own_records(self._address)

    def drain(self, id: int, on: bool) -> bool:
        return self._membership.drain(id, on)

    def forget(self, id: int) -> bool:
        return self._membership.forget(id)

    def leave(self) -> None:
        self._membership.leave()

    def close(self) -> None:
        self._adoption.close()
        self._membership.close()
        super().close()
