"""One member among the others: how it joins and leaves, renews its lease, looks at the others and judges them.

A lease is renewed in one row that nobody locks for long. It is ended in the same row: who has waited for that row's
lock finds that there is no lease to renew any more. So once a member is dead, it has no longer been told that it lives.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Table, delete, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from geartrain.jobserver.records import SHARED_KINDS
from geartrain.store.base import StoreDownError, StoreError, StoreInUseError
from geartrain.store.fleet import (
    BLOCK,
    DEAD,
    GONE,
    LEASE,
    LEFT,
    LIVE,
    LOCAL_KINDS,
    SHOWN,
    Adoption,
    FencedError,
    Member,
    View,
)
from geartrain.store.sql.connection import ReconnectingConnection
from geartrain.store.sql.database import bare
from geartrain.store.sql.fleet_database import LOCK, PULSE, FleetDatabase
from geartrain.store.sql.fleet_tables import LONGEST_NAME, FleetTables, belongs_to, prepare_again, prepare_fleet
from geartrain.store.sql.tables import ONLY
from geartrain.version import VERSION

T = TypeVar("T")

NAME: Final = re.compile(f"[A-Za-z0-9._-]{{1,{LONGEST_NAME}}}")

JOIN_TIMEOUT: Final = 30.0  # seconds for which others may be joining


class Membership:
    """This member, through two sessions: one that renews and asks, and one that does nothing but hold its lock."""

    def __init__(self, database: FleetDatabase, tables: FleetTables) -> None:
        """``database`` is one that waits for no answer for long."""
        self._database = database
        self._tables = tables
        self._pulse = ReconnectingConnection(database, lambda: database.connect_as(PULSE))
        self._lock: Connection | None = None
        self._locked_again = 0.0  # monotonic; when the lock had to be taken again
        self.id = 0
        self.name = ""

    # ── joining ─────────────────────────────────────────────────────────────────────────────────────────────────

    def join(self, patient: FleetDatabase, name: str, address: str) -> int:
        """Become a member; ``patient`` waits longer for answers, as the making of tables does."""
        if not NAME.fullmatch(name):
            raise StoreError(
                f"a fleet can't be called {name!r:.60}: use up to {LONGEST_NAME} letters, digits and . - _"
            )
        self.name = name

        def enter(connection: Connection) -> None:
            prepare_fleet(connection, self._tables, patient.begin, name, patient.number_sql)
            in_transaction(patient, connection, lambda own: self._enter(patient, own, address))

        self._alone(patient, enter, lambda connection: bool(belongs_to(connection, self._tables)))
        return self.id

    def restore(self, patient: FleetDatabase, address: str) -> None:
        """Make the tables again, and the member's rows, after they have been taken away or emptied."""

        def enter(connection: Connection) -> None:
            prepare_again(connection, self._tables, patient.begin, self.name, patient.number_sql)
            state = self._state(connection, self.id)
            if state not in ("", LIVE):
                raise self.fenced()
            in_transaction(patient, connection, lambda own: self._write(own, address))

        self._alone(patient, enter, lambda connection: True)

    def _alone(
        self, database: FleetDatabase, act: Callable[[Connection], None], may_wait: Callable[[Connection], bool]
    ) -> None:
        """Do ``act`` while we hold the place, as one holds it that is alone: so no two do so at once."""
        give_up_at = time.monotonic() + JOIN_TIMEOUT
        try:
            with database.connect() as connection:
                database.check_version(connection)
                while True:
                    try:
                        database.take_hold(connection, 0)
                        break
                    except StoreInUseError:
                        if not may_wait(connection) or time.monotonic() > give_up_at:
                            raise
                act(connection)
        except database.errors as error:
            raise database.translate(error) from bare(error)

    def _enter(self, patient: FleetDatabase, connection: Connection, address: str) -> None:
        """Make the rows of a new member, whose lock is held before anybody sees it."""
        fleet = self._tables.fleet
        last: int = connection.execute(select(fleet.c.last_member).with_for_update()).scalar_one()
        self.id = patient.member = self._database.member = last + 1
        self._take_lock()
        connection.execute(update(fleet).values(last_member=self.id))
        self._write(connection, address)

    def _write(self, connection: Connection, address: str) -> None:
        """Write the member's rows, as if it had just joined."""
        tables = self._tables
        now = self._now(connection)
        rows: list[tuple[Table, dict[str, Any]]] = [
            (
                tables.members,
                {"address": address, "state": LIVE, "draining": False, "joined": now, "ended": 0.0, "version": VERSION},
            ),
            (tables.leases, {"lease_end": now + LEASE}),
            (tables.arrivals, {"count": 0}),
        ]
        for table, values in rows:
            connection.execute(delete(table).where(table.c.id == self.id))
            connection.execute(insert(table).values(id=self.id, **values))

    def _take_lock(self) -> None:
        """Hold the member's lock in a session of its own. Raises StoreDownError."""
        self._let_go()
        try:
            self._lock = self._database.connect_as(LOCK)
            self._database.take_lock(self._lock)
        except self._database.errors as error:
            raise self._database.translate(error) from bare(error)

    def _let_go(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            with suppress(*self._database.errors):
                lock.close()

    def _now(self, connection: Connection) -> float:
        return float(connection.exec_driver_sql(f"SELECT {self._database.clock}").scalar_one())

    # ── the lease ───────────────────────────────────────────────────────────────────────────────────────────────

    def pulse(self) -> View:
        """Renew the lease, and look at the fleet."""
        names, clock = self._database.names, self._database.clock
        renewal = (
            f"UPDATE {names['leases']} SET lease_end = {clock} + {LEASE} WHERE id = {self.id} AND lease_end IS NOT NULL"
        )
        renewed, rows = self._pulse.use(
            lambda connection: self._database.renew_and_look(
                connection, renewal, self._looking(f"state <> '{GONE}' ORDER BY m.id")
            )
        )
        if not renewed:
            self._explain(rows)
        at, started, shared, arrivals = rows[0][-4:]
        members = tuple(map(_member, rows))
        uptime = float(at) - float(started)
        if not next(member.locked for member in members if member.id == self.id):
            with suppress(StoreDownError):  # then at the next pulse
                self._take_lock()
                self._locked_again = time.monotonic()
        if self._locked_again:
            # Another database may answer now, which has run for long, but where nobody holds a lock yet.
            uptime = min(uptime, time.monotonic() - self._locked_again)
        return View(self.id, float(at), uptime, members, int(shared), int(arrivals))

    def _looking(self, condition: str) -> str:
        database = self._database
        names = database.names
        return (
            f"SELECT m.id, address, state, lease_end, {database.is_locked_sql('m.id')}, draining, joined, ended,"
            f" m.version, (SELECT sum(jobs) FROM {names['adoptions']} WHERE estate = m.id),"
            f" {database.clock}, {database.started_sql()}, shared,"
            f" (SELECT a.count FROM {names['arrivals']} a WHERE a.id = {self.id})"
            f" FROM {names['fleet']} f, {names['members']} m LEFT JOIN {names['leases']} l ON l.id = m.id"
            f" WHERE {condition}"
        )

    def _explain(self, rows: Any) -> None:
        """Raise for a lease that could not be renewed."""
        for member in map(_member, rows):
            if member.id == self.id and member.state == LIVE:
                raise StoreDownError(f"the store {self._database.shown}: the lease has just been renewed or ended")
        raise self.fenced()

    def fenced(self) -> FencedError:
        """The error that tells us that we are not live."""
        return FencedError(
            f"the store {self._database.shown}: the fleet {self.name} has judged its member {self.id}, which is this"
            " job server, while its lease was over or its lock lost: others have its jobs now"
        )

    def judge(self, id: int) -> bool:
        """See ``FleetStore.judge``."""
        database, names = self._database, self._database.names

        def end(connection: Connection) -> bool:
            is_over = f"(lease_end < {database.clock} OR NOT ({database.is_locked_sql(str(id))}))"
            ending = (
                f"UPDATE {names['leases']} SET lease_end = NULL WHERE id = {id} AND lease_end IS NOT NULL AND {is_over}"
            )
            if connection.exec_driver_sql(ending).rowcount:
                database.end_sessions(connection, id)
                self._end(connection, id, DEAD)
            return self._state(connection, id) != LIVE

        return self._transaction(end)

    def leave(self) -> None:
        """See ``FleetStore.leave``."""
        leases = self._tables.leases

        def end(connection: Connection) -> None:
            connection.execute(update(leases).where(leases.c.id == self.id).values(lease_end=None))
            self._end(connection, self.id, LEFT)

        self._transaction(end)
        self._let_go()

    def _end(self, connection: Connection, id: int, state: str) -> None:
        members = self._tables.members
        connection.execute(
            update(members)
            .where(members.c.id == id, members.c.state == LIVE)
            .values(state=state, ended=self._now(connection))
        )

    def _state(self, connection: Connection, id: int) -> str:
        """The state of a member; empty: there is none."""
        members = self._tables.members.c
        return connection.execute(select(members.state).where(members.id == id)).scalar() or ""

    # ── the others ──────────────────────────────────────────────────────────────────────────────────────────────

    def bury(self, id: int) -> bool:
        """See ``FleetStore.bury``."""
        tables = self._tables
        jobs, records, members = tables.jobs.c, tables.records.c, tables.members
        left = (
            select(jobs.number).where(jobs.owner.in_((id, -id))).exists()
            | select(records.owner).where(records.owner.in_((id, -id)), is_claimable(tables)).exists()
        )
        burying = update(members).where(members.c.id == id, members.c.state.in_((DEAD, LEFT)), ~left).values(state=GONE)

        def act(connection: Connection) -> bool:
            return connection.execute(burying).rowcount > 0 or self._state(connection, id) in (GONE, "")

        return self._pulse.use(act)

    def forget(self, id: int) -> bool:
        """See ``FleetStore.forget``."""
        tables = self._tables
        members, leases, arrivals, adoptions = tables.members, tables.leases, tables.arrivals, tables.adoptions
        records = tables.records

        def drop(connection: Connection) -> bool:
            if not connection.execute(delete(members).where(members.c.id == id, members.c.state == GONE)).rowcount:
                return False
            connection.execute(delete(leases).where(leases.c.id == id))
            connection.execute(delete(arrivals).where(arrivals.c.id == id))
            connection.execute(delete(adoptions).where(adoptions.c.estate == id))
            connection.execute(delete(records).where(records.c.owner == id))  # those it kept for itself
            return True

        if self._transaction(drop):
            return True
        return self._pulse.use(lambda connection: self._state(connection, id)) == LIVE and self.judge(id)

    def drain(self, id: int, on: bool) -> bool:
        """See ``FleetStore.drain``."""
        members = self._tables.members
        draining = update(members).where(members.c.id == id, members.c.state == LIVE).values(draining=on)

        def act(connection: Connection) -> bool:
            connection.execute(draining)
            return self._state(connection, id) == LIVE

        return self._pulse.use(act)

    def members(self) -> list[Member]:
        """See ``FleetStore.members``."""
        rows = self._pulse.use(
            lambda connection: connection.exec_driver_sql(self._looking(f"true ORDER BY m.id DESC LIMIT {SHOWN}")).all()
        )
        return [_member(row) for row in rows]

    def adoptions(self) -> list[Adoption]:
        """See ``FleetStore.adoptions``."""
        adoptions = self._tables.adoptions.c
        asking = select(
            adoptions.estate, adoptions.heir, adoptions.jobs, adoptions.first_at, adoptions.last_at
        ).order_by(adoptions.last_at.desc())
        rows = self._pulse.use(lambda connection: connection.execute(asking.limit(SHOWN)).all())
        return [Adoption(*row) for row in rows]

    # ── numbers ─────────────────────────────────────────────────────────────────────────────────────────────────

    def numbers(self) -> int:
        """See ``FleetStore.numbers``."""
        meta, blocks = self._tables.meta, self._tables.blocks

        def take(connection: Connection) -> int:
            first: int = connection.execute(
                select(meta.c.next_number).where(meta.c.id == ONLY).with_for_update()
            ).scalar_one()
            connection.execute(update(meta).where(meta.c.id == ONLY).values(next_number=first + BLOCK))
            connection.execute(insert(blocks).values(first=first, member=self.id))
            return first

        return self._transaction(take)

    def born_at(self) -> dict[int, int]:
        """See ``FleetStore.born_at``."""
        blocks = self._tables.blocks.c
        asking = select(blocks.first, blocks.member)
        rows = self._pulse.use(lambda connection: connection.execute(asking).all())
        return {row.first: row.member for row in rows}

    def _transaction(self, act: Callable[[Connection], T]) -> T:
        return self._pulse.use(lambda connection: in_transaction(self._database, connection, act))

    def close(self) -> None:
        """End both sessions, and with them the lock."""
        self._pulse.close()
        self._let_go()


def in_transaction(database: FleetDatabase, connection: Connection, act: Callable[[Connection], T]) -> T:
    """Do ``act`` in a transaction of its own."""
    connection.exec_driver_sql(database.begin)
    try:
        done = act(connection)
        connection.exec_driver_sql("COMMIT")
    except BaseException:
        with suppress(SQLAlchemyError):  # the connection may be lost
            connection.exec_driver_sql("ROLLBACK")
        raise
    return done


def is_claimable(tables: FleetTables) -> Any:
    """Whether a record is one that an heir claims."""
    return tables.records.c.kind.not_in(SHARED_KINDS | LOCAL_KINDS)


def _member(row: Any) -> Member:
    id, address, state, lease_end, locked, draining, joined, ended, version, adopted, at = row[:11]
    lease = (ended if lease_end is None else lease_end) - float(at)
    return Member(
        id, address, state, lease, bool(locked), bool(draining), joined, ended, version, int(adopted or 0)
    )  # fmt: skip
