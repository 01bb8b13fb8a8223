"""How a member takes over rows of others: in short transactions that see to it that it is live, and that whose rows
they are isn't.

Whether a transaction was done may remain unknown, if the connection is lost at its end. Then its rows would be ours
without our knowing them. So they are remembered until the next claim has found out, with a lock that waits for the end
of that transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import Column, Connection, and_, insert, select, update

from geartrain.jobserver.records import DEAD_KIND, SHARED_KINDS, Record, StoredJob, number_of
from geartrain.store.base import Store, StoreError, Unreadable
from geartrain.store.fleet import DEAD, LIVE, LOCAL_KINDS, Claim, FencedError
from geartrain.store.record import log_unreadable_record, record_of
from geartrain.store.sql.connection import ReconnectingConnection
from geartrain.store.sql.database import Step
from geartrain.store.sql.fleet_database import ADOPTER, FleetDatabase
from geartrain.store.sql.fleet_tables import FleetTables, record_digest, twin_of
from geartrain.store.sql.membership import in_transaction, is_claimable
from geartrain.store.sql.reading import as_it_is, job_of

T = TypeVar("T")

TRIES: Final = 5  # of a transaction that others were in the way of
RECORD: Final = ("kind", "key", "value", "expires")
AT_ONCE: Final = 500  # rows of a statement


class Adoption:
    """The adopter's side of a store, with a session of its own."""

    def __init__(
        self,
        store: Store,
        database: FleetDatabase,
        tables: FleetTables,
        fenced: Callable[[], FencedError],
        setting_aside: Callable[[int, str], list[Step]],
    ) -> None:
        self._store = store
        self._database = database
        self._tables = tables
        self._fenced = fenced
        self._setting_aside = setting_aside
        self._session = ReconnectingConnection(database, lambda: database.connect_as(ADOPTER))
        format_column = database.engine.dialect.identifier_preparer.format_column
        records = tables.records.c
        self._fields = ", ".join(map(format_column, (records[name] for name in ("digest", *RECORD))))
        # What was claimed, and a row that tells whether it was, as long as nobody knows.
        self._unsure_jobs = _Unsure[Claim](tables.jobs.c.owner, tables.jobs.c.number)
        self._unsure_records = _Unsure[list[Record]](tables.records.c.owner, tables.records.c.digest)

    def close(self) -> None:
        """End the session."""
        self._session.close()

    # ── jobs ────────────────────────────────────────────────────────────────────────────────────────────────────

    def claim(self, estate: int, count: int, leave_above: int) -> Claim:
        """See ``FleetStore.claim``."""

        def take(connection: Connection) -> Claim:
            state = self._check(connection, estate)
            rows = self._database.take_jobs(connection, estate, count, leave_above, state == DEAD and estate > 0)
            if not rows:
                return Claim([], [])
            found = sorted(map(_job, rows), key=_rank)
            records = self._take_records(connection, estate, [row[0] for row in rows])
            for job in found:
                if isinstance(job, Unreadable):
                    for step in self._setting_aside(job.number, job.reason):
                        step(connection)
            if estate == 0:
                self._know_twins(connection, found, records)
            if estate != -self._database.member:
                self._note(connection, abs(estate), len(rows))
            claimed = Claim(found, records)
            if isinstance(found[-1], StoredJob):  # what can't be read comes first
                self._unsure_jobs.remember(claimed, found[-1].number)
            return claimed

        return self._claim(self._unsure_jobs, take)

    def _take_records(self, connection: Connection, estate: int, numbers: Sequence[int]) -> list[Record]:
        """Take the records about these jobs over as well."""
        records = self._tables.records.c
        any_there = select(records.owner).where(records.owner == estate, records.job > 0).limit(1)
        if connection.execute(any_there).first() is None:
            return []
        return [
            record
            for condition in self._database.among("job", numbers)
            for record in self._take(
                connection, f"owner = {estate} AND {condition}", str(self._tables.records_estate.name)
            )
        ]

    def _know_twins(
        self, connection: Connection, jobs: Sequence[StoredJob | Unreadable], records: list[Record]
    ) -> None:
        """Jobs of a job server that was alone: let those with a unique be found that are not there yet."""
        dead = {number_of(record.key) for record in records if record.kind == DEAD_KIND}
        first: dict[bytes, int] = {}
        for job in jobs:
            # One that has left its workload in the store is not found by it.
            if isinstance(job, StoredJob) and job.number not in dead and job.unique and job.workload is not None:
                twin = twin_of(job)
                assert twin is not None
                first.setdefault(twin, job.number)
        table = self._database.names["jobs"]
        for condition in self._database.among_bytes("twin", list(first)):
            for (twin,) in connection.exec_driver_sql(f"SELECT twin FROM {table} WHERE {condition}"):
                first.pop(bytes(twin), None)
        known = [(number, self._database.literal(twin)) for twin, number in first.items()]
        for n in range(0, len(known), AT_ONCE):
            cases = " ".join(f"WHEN {number} THEN {twin}" for number, twin in known[n : n + AT_ONCE])
            (condition,) = self._database.among("number", [number for number, _ in known[n : n + AT_ONCE]])
            connection.exec_driver_sql(
                f"UPDATE {self._database.by('jobs')} SET twin = CASE number {cases} END WHERE {condition}"
            )

    def _note(self, connection: Connection, estate: int, count: int) -> None:
        """Write down who has claimed how much."""
        adoptions, clock = self._tables.adoptions, self._database.clock
        now = float(connection.exec_driver_sql(f"SELECT {clock}").scalar_one())
        ours = adoptions.c.estate == estate, adoptions.c.heir == self._database.member
        adding = update(adoptions).where(*ours).values(jobs=adoptions.c.jobs + count, last_at=now)
        if not connection.execute(adding).rowcount:
            connection.execute(
                insert(adoptions).values(
                    estate=estate, heir=self._database.member, jobs=count, first_at=now, last_at=now
                )
            )

    # ── records ─────────────────────────────────────────────────────────────────────────────────────────────────

    def claim_records(self, estate: int, count: int) -> list[Record]:
        """See ``FleetStore.claim_records``."""
        records, jobs = self._tables.records.c, self._tables.jobs.c
        of_a_job = select(jobs.number).where(jobs.number == records.job, jobs.owner == estate).exists()
        picking = (
            select(records.digest)
            .where(records.owner == estate, is_claimable(self._tables), ~of_a_job)
            .limit(count)
            .with_for_update(skip_locked=True)
        )

        def take(connection: Connection) -> list[Record]:
            self._check(connection, estate)
            digests = [bytes(row.digest) for row in connection.execute(picking)]
            found = [
                record
                for condition in self._database.among_bytes("digest", digests)
                for record in self._take(connection, condition)
            ]
            if digests:
                self._unsure_records.remember(found, digests[0])
            return found

        return self._claim(self._unsure_records, take)

    def _take(self, connection: Connection, condition: str, index: str = "PRIMARY") -> Iterator[Record]:
        """Make the records of a condition ours, which are found by an index."""
        table = self._database.by("records", index)
        rows = connection.exec_driver_sql(f"SELECT {self._fields} FROM {table} WHERE {condition} FOR UPDATE").all()
        connection.exec_driver_sql(f"UPDATE {table} SET owner = {self._database.member} WHERE {condition}")
        for digest, *fields in rows:
            try:
                yield record_of(*fields)
            except ValueError as error:
                log_unreadable_record(self._store, digest, error)

    def own_records(self, address: str) -> Iterator[Record]:
        """See ``FleetStore.own_records``; those of a job server that was alone are the first one's who asks."""
        records, members = self._tables.records, self._tables.members.c
        former = select(members.id).where(members.address == address, members.state != LIVE)
        theirs = and_(
            records.c.kind.in_(LOCAL_KINDS), (records.c.owner == 0) | records.c.owner.in_(former), records.c.job == 0
        )
        columns = [as_it_is(records.c[name]) for name in RECORD]
        asking = select(records.c.digest, *columns).where(theirs).limit(AT_ONCE).with_for_update(skip_locked=True)

        def take(connection: Connection) -> list[Record]:
            self._check(connection, 0)
            found = []
            for row in connection.execute(asking).all():
                try:
                    record = record_of(row.kind, row.key, row.value, row.expires)
                except ValueError as error:
                    log_unreadable_record(self._store, row.digest, error)
                    digest = row.digest
                else:
                    digest = record_digest(record, address)
                    found.append(record)
                moving = update(records).where(records.c.digest == row.digest)
                connection.execute(moving.values(owner=self._database.member, digest=digest))
            return found

        while page := self._session.use(lambda connection: in_transaction(self._database, connection, take)):
            yield from page

    def shared_records(self) -> tuple[int, list[Record]]:
        """See ``FleetStore.shared_records``."""
        records, fleet = self._tables.records, self._tables.fleet
        columns = [as_it_is(records.c[name]) for name in RECORD]
        shared = and_(records.c.owner == 0, records.c.job == 0, records.c.kind.in_(SHARED_KINDS))
        # One statement, so that all of it is as it was at one moment.
        asking = select(fleet.c.shared, records.c.digest, *columns).select_from(fleet.outerjoin(records, shared))
        rows = self._session.use(lambda connection: connection.execute(asking).all())
        found = []
        for _, digest, *fields in rows:
            if digest is not None:
                try:
                    found.append(record_of(*fields))
                except ValueError as error:
                    log_unreadable_record(self._store, digest, error)
        return rows[0].shared, found

    # ── what all have in common ─────────────────────────────────────────────────────────────────────────────────

    def _check(self, connection: Connection, estate: int) -> str:
        """See to it that we stay live and that nobody lives whose estate this would be; the state of that one."""
        me, owner = self._database.member, abs(estate)
        members = self._database.names["members"]
        state, its_state = connection.exec_driver_sql(
            f"SELECT state, (SELECT e.state FROM {members} e WHERE e.id = {owner}) FROM {members} WHERE id = {me}"
            f" {self._database.sharing}"
        ).first() or ("", "")
        if state != LIVE:
            raise self._fenced()
        if its_state == LIVE and estate != -me:
            raise StoreError(f"the store {self._database.shown}: the member {owner} is live: it leaves no estate")
        return str(its_state or "")

    def _claim(self, unsure: _Unsure[T], take: Callable[[Connection], T]) -> T:
        def act(connection: Connection) -> T:
            if (done := unsure.resolve(connection, self._database.member)) is not None:
                return done
            for left in range(TRIES, -1, -1):
                try:
                    return in_transaction(self._database, connection, take)
                except self._database.errors as error:
                    if left == 0 or not self._database.is_conflict(error):
                        raise
                    unsure.forget()
            raise AssertionError("unreachable")

        done = self._session.use(act)
        unsure.forget()
        return done


class _Unsure(Generic[T]):
    """What a transaction has claimed of which nobody knows whether it was done, and a row that tells."""

    def __init__(self, owner: Column[Any], name: Column[Any]) -> None:
        self._owner = owner
        self._name = name
        self._claimed: T | None = None
        self._row: int | bytes = 0

    def remember(self, claimed: T, row: int | bytes) -> None:
        self._claimed = claimed
        self._row = row

    def forget(self) -> None:
        self._claimed = None

    def resolve(self, connection: Connection, member: int) -> T | None:
        """What was claimed after all, once that transaction has ended."""
        if self._claimed is None:
            return None
        asking = select(self._owner).where(self._name == self._row).with_for_update()
        is_ours = connection.execute(asking).scalar() == member
        claimed, self._claimed = self._claimed, None
        return claimed if is_ours else None


def _job(row: Sequence[Any]) -> StoredJob | Unreadable:
    job = job_of(row)
    if isinstance(job, StoredJob):
        job.begun = row[-1]
    return job


def _rank(job: StoredJob | Unreadable) -> tuple[int, int]:
    return (job.priority, job.position) if isinstance(job, StoredJob) else (-1, 0)
