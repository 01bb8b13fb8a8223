"""What one commit of a member does beyond, and other than, that of a job server that is alone.

All that is changed must be the member's own. What is removed goes first, so that a job may come whose twin goes with
the same batch; a job that comes and goes in one batch is not written at all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, insert, update

from geartrain.jobserver.records import DEAD_KIND, SHARED_KINDS, Batch, Record, StoredJob, number_of
from geartrain.store.fleet import LIVE, LOCAL_KINDS
from geartrain.store.record import latest
from geartrain.store.sql.database import known_numbers
from geartrain.store.sql.fleet_database import FleetDatabase
from geartrain.store.sql.fleet_tables import FleetTables, record_digest, record_job, twin_of


class FleetCommit:
    """One try to commit a batch."""

    def __init__(
        self, database: FleetDatabase, tables: FleetTables, address: str, batch: Batch, is_again: bool
    ) -> None:
        """``is_again``: some of it may have been done before, or be there from others."""
        self._database = database
        self._tables = tables
        self._address = address
        self._batch = batch
        self._is_again = is_again
        self.gone = {*batch.removed, *(number for number, _ in batch.moved)}
        self.added: list[StoredJob] = []  # that were added indeed
        self.twins: dict[int, int] = {}
        self.moved: list[tuple[int, int]] = []

    def carry_out(self, expired: float, connection: Connection) -> None:
        """Do it. Records that have expired before ``expired`` are dropped."""
        batch = self._batch
        names = self._database.names
        self._own(connection, self._database.deletion("jobs"), batch.removed)
        dead = {number_of(each.key) for each in batch.records if each.kind == DEAD_KIND and each.value is not None}
        self._own(connection, f"UPDATE {self._database.by('jobs')} SET twin = NULL", [*dead])
        if batch.added:
            self._add(connection, dead)
        if batch.changed:
            self._change(connection)
        if batch.begun:
            by_count = defaultdict(list)
            for number, begun in batch.begun.items():
                by_count[begun].append(number)
            for begun, numbers in by_count.items():
                self._own(connection, f"UPDATE {self._database.by('jobs')} SET begun = {begun}", numbers)
        if batch.records:
            self._keep(connection, list(latest(batch.records).values()))
        if batch.moved:
            self._move(connection)
        if expired:
            connection.exec_driver_sql(
                f"DELETE FROM {names['records']} WHERE expires > 0 AND expires <= {expired!r}"
                f" AND owner IN (0, {self._database.member})"
            )

    def _own(self, connection: Connection, action: str, numbers: Sequence[int]) -> None:
        """Do something to those of these jobs that are ours."""
        # As a sum, the owner is no reason to look through all that is ours by the index of owners.
        for condition in self._database.among("number", numbers):
            connection.exec_driver_sql(f"{action} WHERE {condition} AND owner + 0 = {self._database.member}")

    def _add(self, connection: Connection, dead: set[int]) -> None:
        added = self._batch.added
        if self._batch.removed:
            removed = set(self._batch.removed)
            added = [job for job in added if job.number not in removed]
        if self._is_again:
            known = known_numbers(connection, self._tables, added)
            added = [job for job in added if job.number not in known]
        alone = [job for job in added if not job.unique or job.number in dead]
        twins: list[bytes | None] = [None] * len(alone)
        if len(alone) < len(added):
            by_twin = {twin: job for job in added if job.number not in dead and (twin := twin_of(job)) is not None}
            for number, twin in self._there(connection, list(by_twin)):
                job = by_twin.pop(twin)
                if job.number != number:
                    self.twins[job.number] = number
            # In the same order by all, so that no two wait for each other.
            alone += [by_twin[twin] for twin in sorted(by_twin)]
            twins += sorted(by_twin)
        for step in self._database.add_owned(alone, twins):
            step(connection)
        self.added += alone

    def _there(self, connection: Connection, twins: list[bytes]) -> list[tuple[int, bytes]]:
        """Which of these twins are there, and the numbers of their jobs."""
        return [
            (number, bytes(twin))
            for condition in self._database.among_bytes("twin", twins)
            for number, twin in connection.exec_driver_sql(
                f"SELECT number, twin FROM {self._database.names['jobs']} WHERE {condition}"
            )
        ]

    def _change(self, connection: Connection) -> None:
        jobs = self._tables.jobs
        moving = (
            update(jobs)
            .where(jobs.c.number == bindparam("which"), jobs.c.owner == bindparam("whose"))
            .values(
                position=bindparam("to"), due=bindparam("when"), priority=bindparam("rank"), attempts=bindparam("after")
            )
        )
        rows = [
            {
                "which": each.number,
                "whose": self._database.member,
                "to": each.position,
                "when": each.due,
                "rank": each.priority,
                "after": each.attempts,
            }
            for each in self._batch.changed
        ]
        connection.execute(moving, rows)

    # ── records ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _keep(self, connection: Connection, records: list[Record]) -> None:
        """Replace records, and remove those that are ours; what all members have is nobody's."""
        removing, me = self._database.deletion("records"), self._database.member
        replaced: list[bytes] = []
        removed: list[bytes] = []
        rows: list[dict[str, Any]] = []
        is_shared = False
        for each in records:
            if each.value is not None and record_job(each) in self.twins:
                continue  # that job is not there
            digest = record_digest(each, self._address)
            shared = each.kind in SHARED_KINDS
            is_shared = is_shared or shared
            if each.value is None and not shared and each.kind not in LOCAL_KINDS:
                removed.append(digest)
                continue
            replaced.append(digest)
            if each.value is not None:
                rows.append(
                    {
                        "digest": digest,
                        "kind": each.kind,
                        "key": each.key,
                        "value": each.value,
                        "expires": each.expires,
                        "owner": 0 if shared else me,
                        "job": record_job(each),
                    }
                )
        if is_shared:  # first, so that of those who write such records each waits for the other
            connection.exec_driver_sql(f"UPDATE {self._database.names['fleet']} SET shared = shared + 1")
        for condition in self._database.among_bytes("digest", replaced):
            connection.exec_driver_sql(f"{removing} WHERE {condition}")
        for condition in self._database.among_bytes("digest", removed):
            connection.exec_driver_sql(f"{removing} WHERE {condition} AND owner = {me}")
        if rows:
            connection.execute(insert(self._tables.records), rows)

    # ── jobs that go to others ──────────────────────────────────────────────────────────────────────────────────

    def _move(self, connection: Connection) -> None:
        """Send jobs to members that live; they must live until it is done. Others' jobs stay."""
        names, me = self._database.names, self._database.member
        by_target = defaultdict(list)
        for number, target in self._batch.moved:
            by_target[target].append(number)
        (condition,) = self._database.among("id", sorted(by_target))
        live = {
            row[0]
            for row in connection.exec_driver_sql(
                f"SELECT id FROM {names['members']} WHERE {condition} AND state = '{LIVE}' {self._database.sharing}"
            )
        }
        staying: set[int] = set()
        for target, numbers in by_target.items():
            if target in live:
                for condition in self._database.among("job", numbers):
                    connection.exec_driver_sql(
                        f"UPDATE {self._database.by('records', str(self._tables.records_estate.name))}"
                        f" SET owner = {-target} WHERE owner = {me} AND {condition}"
                    )
                self._own(connection, f"UPDATE {self._database.by('jobs')} SET owner = {-target}", numbers)
                continue
            # What an earlier try has sent there is ours no more.
            for condition in self._database.among("number", numbers):
                staying.update(
                    connection.exec_driver_sql(
                        f"SELECT number FROM {names['jobs']} WHERE {condition} AND owner = {me}"
                    ).scalars()
                )
        self.moved = [pair for pair in self._batch.moved if pair[0] not in staying]
        for target in sorted(live):
            connection.exec_driver_sql(f"UPDATE {names['arrivals']} SET count = count + 1 WHERE id = {target}")
