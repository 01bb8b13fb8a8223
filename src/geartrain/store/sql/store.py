"""The store on a relational database: two connections, one that holds the place and writes, one that reads.

The writer's session is also what keeps a second job server away, so nobody can write without holding the place. Each
user signs the meta table, so that after a lost connection it notices if another has been there meanwhile.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final

from sqlalchemy import URL, Connection, bindparam, delete, func, insert, literal, make_url, select, update
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from geartrain.jobserver.records import Batch, StoredJob
from geartrain.store.base import JobTooLargeError, Store, StoreError, StoreFullError, Unreadable, fill
from geartrain.store.options import Options
from geartrain.store.sql.connection import ReconnectingConnection
from geartrain.store.sql.database import Database, Step, known_numbers
from geartrain.store.sql.mysql import MySQL
from geartrain.store.sql.postgresql import PostgreSQL
from geartrain.store.sql.reading import as_it_is, in_order
from geartrain.store.sql.sqlite import SQLite
from geartrain.store.sql.tables import Tables, prepare

DATABASES: Final[dict[str, type[Database]]] = {
    "sqlite": SQLite,
    "postgresql": PostgreSQL,
    "mysql": MySQL,
    "mariadb": MySQL,
}


class SqlStore(Store):
    """Jobs in SQLite, PostgreSQL, MySQL or MariaDB; see ``Store`` for what it does.

    In the URL, ``?namespace=name`` (``geartrain`` if not given) begins the names of its tables, ``?synchronous=normal``
    lets SQLite wait less for the disk, and other options go to the database's library.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        parsed, namespace, options = _parsed(url)
        self._tables = Tables(namespace)
        self._database = DATABASES[parsed.get_backend_name()](parsed, options, self._tables)
        self.abilities = self._database.abilities
        self._user = uuid.uuid4().hex
        self._signed = False
        self._session = 0  # the writer's connection, as the database numbers it
        self._next_number = 1  # that the store is known to have
        self._writer = ReconnectingConnection(self._database, self._hold)
        self._reader = ReconnectingConnection(self._database, self._database.connect)
        jobs = self._tables.jobs
        self._moving = (
            update(jobs)
            .where(jobs.c.number == bindparam("which"))
            .values(position=bindparam("to"), attempts=bindparam("after"))
        )

    def open(self) -> None:
        self._database.hold()
        try:
            self._writer.use(lambda connection: None)
            self._reader.use(lambda connection: None)  # now, since a file can be read after it has been taken away
        except BaseException:
            self._database.let_go()
            raise

    def load(self, leave_above: int) -> Iterator[StoredJob | Unreadable]:
        found = in_order(
            self._tables,
            leave_above,
            lambda statement: self._reader.use(lambda connection: connection.execute(statement).all()),
        )
        for job in found:
            if isinstance(job, Unreadable):
                with suppress(StoreFullError):  # then it is met again at the next start
                    self.quarantine(job.number, job.reason)
            yield job

    def count(self) -> int:
        counting = select(func.count()).select_from(self._tables.jobs)
        return self._reader.use(lambda connection: connection.execute(counting).scalar_one())

    def next_number(self) -> int:
        asking = select(self._tables.meta.c.next_number)
        return int(self._reader.use(lambda connection: connection.execute(asking).scalar_one()))

    def commit(self, batch: Batch) -> None:
        limit = self.abilities.max_workload
        if limit and max((job.size for job in batch.added), default=0) > limit:
            job = next(job for job in batch.added if job.size > limit)
            raise JobTooLargeError(
                job.number,
                f"the store {self._database.shown} takes workloads of up to {limit} bytes, and this one has {job.size}",
            )
        self._writer.use(lambda connection: self._commit(connection, batch))
        self._database.verify()
        self._next_number = max(self._next_number, batch.next_number)

    def rebuild(self, jobs: Iterable[StoredJob], next_number: int) -> int:
        self._database.may_be_rebuilt()
        fresh = SqlStore(self.url)
        fresh.open()
        try:
            count = fill(fresh, jobs, next_number, self.read)
        except BaseException:
            fresh.close()
            raise
        self.close()
        self._database, self._writer, self._reader = fresh._database, fresh._writer, fresh._reader
        self._next_number = fresh._next_number
        return count

    def read(self, number: int) -> bytes:
        jobs = self._tables.jobs.c
        asking = select(as_it_is(jobs.workload), as_it_is(jobs.size)).where(jobs.number == number)
        row = self._reader.use(lambda connection: connection.execute(asking).first())
        if row is None:
            raise KeyError(f"{number}: it is not there")
        workload, size = row
        if type(workload) is not bytes or len(workload) != size:
            raise KeyError(f"{number}: its workload is not there as it was")
        return workload

    def quarantine(self, number: int, reason: str) -> None:
        jobs, aside = self._tables.jobs, self._tables.set_aside
        copying = insert(aside).from_select(
            ["reason", "at", *jobs.c.keys()],
            select(literal(reason), literal(time.time()), *jobs.c).where(jobs.c.number == number),
        )
        removing = delete(jobs).where(jobs.c.number == number)
        steps = [
            Step(lambda connection: connection.execute(copying)),
            Step(lambda connection: connection.execute(removing)),
        ]
        self._writer.use(lambda connection: self._carry_out(connection, steps))

    def quarantined(self) -> Iterator[Unreadable]:
        columns = self._tables.set_aside.c
        asking = select(columns.number, columns.reason).order_by(columns.id)
        for number, reason in self._reader.use(lambda connection: connection.execute(asking).all()):
            yield Unreadable(number, reason)

    def close(self) -> None:
        self._reader.close()
        self._writer.close()
        self._database.let_go()

    def _hold(self) -> Connection:
        """A connection that holds the place."""
        connection = self._database.connect()
        try:
            self._session = self._database.take_hold(connection, self._session)
            self._sign(connection)
        except BaseException:
            connection.close()
            raise
        self.abilities = self._database.abilities
        return connection

    def _sign(self, connection: Connection) -> None:
        """Say whose the place is now; or after a lost connection, make sure that nobody else has said so since."""
        meta = self._tables.meta
        if self._signed:
            if connection.execute(select(meta.c.user)).scalar() != self._user:
                raise self._database.in_use("it came while the connection was lost")
            return
        prepare(connection, self._tables, self._database.begin)
        if self._database.may_be_lost:
            connection.execute(update(meta).values(user=self._user))
            self._signed = True

    def _commit(self, connection: Connection, batch: Batch) -> None:
        try:
            self._carry_out(connection, self._steps(batch, batch.added))
        except self._database.errors as error:
            if not self._database.is_duplicate(error):
                raise
            # An earlier try has arrived after all.
            known = known_numbers(connection, self._tables, batch.added)
            self._carry_out(connection, self._steps(batch, [job for job in batch.added if job.number not in known]))

    def _steps(self, batch: Batch, added: list[StoredJob]) -> list[Step]:
        steps = self._database.add(added)
        if batch.changed:
            moves = [{"which": each.number, "to": each.position, "after": each.attempts} for each in batch.changed]
            steps.append(Step(lambda connection: connection.execute(self._moving, moves), whole=False))
        steps += self._database.remove(batch.removed)
        if batch.next_number > self._next_number:
            meta = self._tables.meta
            counting = update(meta).where(meta.c.next_number < batch.next_number).values(next_number=batch.next_number)
            steps.append(Step(lambda connection: connection.execute(counting)))
        return steps

    def _carry_out(self, connection: Connection, steps: list[Step]) -> None:
        """All of the steps or none."""
        if not steps:
            return
        if len(steps) == 1 and steps[0].whole:
            steps[0].act(connection)
            return
        connection.exec_driver_sql(self._database.begin)
        try:
            for step in steps:
                step.act(connection)
            connection.exec_driver_sql("COMMIT")
        except BaseException:
            with suppress(SQLAlchemyError):  # the transaction, or the connection, may have ended by itself
                connection.exec_driver_sql("ROLLBACK")
            raise


def _parsed(url: str) -> tuple[URL, str, dict[str, str]]:
    """The URL, the namespace, and the options that are the database's."""
    try:
        parsed = make_url(url)
        options = Options(url)
    except (ArgumentError, ValueError):
        # Its text is not shown: a password with unquoted signs may be what makes it unreadable.
        raise StoreError(
            f"the store's URL that begins with {url.partition(':')[0]}: can't be read: write"
            " scheme://user:password@host:port/database, and @ : / % in the password as %40 %3A %2F %25"
        ) from None
    namespace = options.namespace()
    return parsed, namespace, options.left
