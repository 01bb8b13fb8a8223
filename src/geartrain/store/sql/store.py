"""The store on a relational database: two connections, one that holds the place and writes, one that reads.

The writer's session, or for SQLite the file, is held by a lock, which keeps a second job server away. A lock can be
lost unnoticed: by a pooler that hands the session on, by a cluster whose nodes each have locks of their own. So each
user also signs the meta table, and each commit makes sure within its transaction that the signature is still its own.
The row is locked until the commit is over; so the one who signs next finds all that was acknowledged before. The same
question tells whether one of the jobs that must be there, the *witness*, still is: no database tells a session that
somebody else has emptied a table.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Row,
    Select,
    bindparam,
    delete,
    func,
    insert,
    literal,
    literal_column,
    make_url,
    not_,
    select,
    update,
)
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from geartrain.jobserver.records import Batch, Record, StoredJob
from geartrain.redaction import shown_url
from geartrain.store.base import (
    JobTooLargeError,
    Store,
    StoreDownError,
    StoreError,
    StoreFullError,
    Unreadable,
    fill,
)
from geartrain.store.options import UNREADABLE, Options
from geartrain.store.record import NUMBERS_END, latest, log_unreadable_record, record_of, sound_next_number
from geartrain.store.sql.connection import ReconnectingConnection
from geartrain.store.sql.database import COLUMNS, COMMITTED, UNSURE, Database, Step, bare, known_numbers
from geartrain.store.sql.mysql import MySQL
from geartrain.store.sql.postgresql import PostgreSQL
from geartrain.store.sql.reading import as_it_is, in_order
from geartrain.store.sql.sqlite import SQLite
from geartrain.store.sql.tables import ONLY, Tables, create_meta, prepare

RECORDS_AT_ONCE: Final = 500

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
        parsed, namespace, options = parsed_url(url)
        self._tables = self._new_tables(namespace)
        self._database = self._new_database(parsed, options)
        self.abilities = self._database.abilities
        self._user = uuid.uuid4().hex
        self._is_signed = False
        self._session = 0  # the writer's connection, as the database numbers it
        self._next_number = 1  # that the store is known to have
        self._witness: int | None = None  # the number of a job that the table has; None: it may be empty
        self._writer = ReconnectingConnection(self._database, self._hold)
        self._reader = ReconnectingConnection(self._database, self._database.connect)
        jobs = self._tables.jobs
        self._moving = (
            update(jobs)
            .where(jobs.c.number == bindparam("which"))
            .values(
                position=bindparam("to"), due=bindparam("when"), priority=bindparam("rank"), attempts=bindparam("after")
            )
        )
        # Every commit asks this, so it is put together once.
        meta = self._tables.meta.c
        there = select(jobs.c.number).where(jobs.c.number == literal_column("{witness}")).exists()
        asking = select(meta.user, there).where(meta.id == literal_column(str(ONLY))).with_for_update()
        self._asking = str(asking.compile(self._database.engine))
        self._looking_for_witness = select(func.max(jobs.c.number))

    def _new_tables(self, namespace: str) -> Tables:
        return Tables(namespace)

    def _new_database(self, url: URL, options: dict[str, str]) -> Database:
        return DATABASES[url.get_backend_name()](url, options, self._tables)

    def open(self) -> None:
        self._database.hold()
        try:
            self._writer.use(lambda connection: None)
            self._reader.use(lambda connection: None)  # now, since a file can be read after it has been taken away
            self._database.verify()
            self._database.open_committer(self._asking.format(witness="?"))
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
        asking = select(self._tables.meta.c.next_number).where(self._tables.meta.c.id == ONLY)
        return sound_next_number(self._reader.use(lambda connection: connection.execute(asking).scalar_one()))

    def records(self, kind: str = "") -> Iterator[Record]:
        table = self._tables.records.c
        now = time.time()
        asking = select(table.digest, *(as_it_is(table[name]) for name in ("kind", "key", "value", "expires")))
        asking = asking.where(*self._readable())
        if kind:
            asking = asking.where(table.kind == kind)
        asking = asking.order_by(table.digest).limit(RECORDS_AT_ONCE)
        behind = b""
        while True:
            page = asking.where(table.digest > behind)
            rows = self._reader.use(partial(_all_rows, page))
            for row in rows:
                try:
                    record = record_of(row.kind, row.key, row.value, row.expires)
                except ValueError as error:
                    log_unreadable_record(self, row.digest, error)
                    continue
                if record.expires == 0 or record.expires > now:
                    yield record
            if len(rows) < RECORDS_AT_ONCE:
                return
            behind = rows[-1].digest

    def _readable(self) -> list[ColumnElement[bool]]:
        """Which records are ours to read: all, where nobody else is."""
        return []

    def commit(self, batch: Batch) -> None:
        limit = self.abilities.max_workload
        if limit and max((job.size for job in batch.added), default=0) > limit:
            job = next(job for job in batch.added if job.size > limit)
            raise JobTooLargeError(
                job.number,
                f"the store {self._database.shown} takes workloads of up to {limit} bytes, and this one has {job.size}",
            )
        if not self._writer.use(lambda _: self._commit_alone(batch)):
            self._writer.use(lambda connection: self._commit(connection, batch))
            self._database.verify()
        self._next_number = max(self._next_number, batch.next_number)

    def rebuild(self, jobs: Iterable[StoredJob], next_number: int, records: Iterable[Record] = ()) -> int:
        if not self._database.is_file:
            self._writer.use(self._make_again)
            self._next_number = 1  # whatever was there
            return super().rebuild(jobs, next_number, records)
        # What the lost file still has is read from it, while a new one is filled.
        self._database.may_be_rebuilt()
        fresh = SqlStore(self.url)
        fresh.open()
        try:
            count = fill(fresh, jobs, next_number, self._read_if_left, records)
        except BaseException:
            fresh.close()
            self._database.remove_files()  # so that it may be tried again
            raise
        self.close()
        self._database, self._writer, self._reader = fresh._database, fresh._writer, fresh._reader
        self._next_number, self._user, self._is_signed = fresh._next_number, fresh._user, fresh._is_signed
        self._witness = fresh._witness
        return count

    def _read_if_left(self, number: int) -> bytes:
        try:
            return self.read(number)
        except StoreDownError:
            raise
        except StoreError as error:  # a damaged file gets no better, and must not keep the other jobs from being kept
            raise KeyError(f"{number}: {error}") from error

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
        steps = self._setting_aside(number, reason)
        self._writer.use(lambda connection: self._carry_out(connection, steps, (), (number,)))

    def _setting_aside(self, number: int, reason: str) -> list[Step]:
        jobs, aside = self._tables.jobs, self._tables.set_aside
        its_own = self._is_own_job(number)
        copying = insert(aside).from_select(
            ["reason", "at", *COLUMNS],
            select(literal(reason), literal(time.time()), *(jobs.c[name] for name in COLUMNS)).where(*its_own),
        )
        removing = delete(jobs).where(*its_own)
        return [lambda connection: connection.execute(copying), lambda connection: connection.execute(removing)]

    def _is_own_job(self, number: int) -> list[ColumnElement[bool]]:
        """Which row is that of our job of this number."""
        return [self._tables.jobs.c.number == number]

    def quarantined(self) -> Iterator[Unreadable]:
        columns = self._tables.set_aside.c
        asking = select(columns.number, columns.reason).order_by(columns.id)
        for number, reason in self._reader.use(lambda connection: connection.execute(asking).all()):
            yield Unreadable(number, reason)

    def close(self) -> None:
        self._database.before_close()
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
        if self._is_signed:
            self._check_owner(connection.exec_driver_sql(self._question()).first())
            return
        prepare(connection, self._tables, self._database.begin)
        records = self._tables.records
        try:
            self._write_signature(connection)
            self._is_signed = True
            meta = self._tables.meta
            unsound = not_(meta.c.next_number.between(1, NUMBERS_END))
            connection.execute(
                update(meta).where(meta.c.id == ONLY, unsound).values(next_number=1)
            )  # the jobs tell it then
            connection.execute(delete(records).where(records.c.expires > 0, records.c.expires <= time.time()))
            self._witness = connection.execute(self._looking_for_witness).scalar()
        except self._database.errors as error:
            # A job server starts on a full disk too; then the first commit signs.
            if self._database.kind_of(bare(error))[0] is not StoreFullError:
                raise

    def _write_signature(self, connection: Connection) -> None:
        meta = self._tables.meta
        connection.execute(update(meta).where(meta.c.id == ONLY).values(user=self._user))

    def _question(self) -> str:
        """Asks for the owner, and whether the witness is there."""
        return self._asking.format(witness=-1 if self._witness is None else self._witness)

    def _check_owner(self, found: Sequence[Any] | None) -> None:
        """Raises StoreInUseError if another one has signed, StoreError if nobody has, or the table was emptied."""
        owner, is_there = found or ("", False)
        if owner == self._user and (is_there or self._witness is None):
            return
        if owner not in ("", self._user):
            raise self._database.in_use("it came while the connection was lost")
        table = self._tables.jobs.name if owner else self._tables.meta.name
        raise StoreError(f"the store {self._database.shown}: the table {table} was emptied: {self._database.remedy}")

    def _make_again(self, connection: Connection) -> None:
        """Make what there is no more of the tables, unless somebody else has made them."""
        meta = self._tables.meta
        self._tables.metadata.create_all(connection)
        self._witness = None
        owner = connection.execute(select(meta.c.user).where(meta.c.id == ONLY)).scalar()
        if owner is None:
            create_meta(connection, self._tables)
        elif owner not in ("", self._user):
            raise self._database.in_use("it came while the tables were away")
        self._write_signature(connection)

    def _commit_alone(self, batch: Batch) -> bool:
        """Whether the batch has been committed and verified by the database's shorter way, for the plain ones."""
        if not self._is_signed or batch.changed or batch.records or batch.next_number > self._next_number:
            return False
        before = self._witness
        after, find_another = self._next_witness(batch.added, batch.removed)
        outcome, found = self._database.commit_alone(batch.added, batch.removed, self._user, before, find_another)
        if outcome == COMMITTED:
            self._witness = found if find_another else after
        elif outcome == UNSURE and after != before:
            self._witness = None
        return outcome == COMMITTED

    def _next_witness(self, added: Sequence[StoredJob], removed: Collection[int]) -> tuple[int | None, bool]:
        """Who is witness after such a commit, or whether another one is to be looked for.

        One stays witness as long as it may, since a DELETE leaves what is committed while it runs.
        """
        witness = self._witness
        if witness is not None and witness not in removed:
            return witness, False
        if added and added[-1].number not in removed:
            return added[-1].number, False
        return None, witness is not None or bool(added)

    def _commit(self, connection: Connection, batch: Batch) -> None:
        try:
            self._carry_out(connection, self._steps(batch, batch.added), batch.added, batch.removed)
        except self._database.errors as error:
            if not self._database.is_duplicate(error):
                raise
            # An earlier try has arrived after all.
            known = known_numbers(connection, self._tables, batch.added)
            steps = self._steps(batch, [job for job in batch.added if job.number not in known])
            self._carry_out(connection, steps, batch.added, batch.removed)

    def _steps(self, batch: Batch, added: list[StoredJob]) -> list[Step]:
        steps = self._database.add(added)
        if batch.changed:
            moves = [
                {
                    "which": each.number,
                    "to": each.position,
                    "when": each.due,
                    "rank": each.priority,
                    "after": each.attempts,
                }
                for each in batch.changed
            ]
            steps.append(lambda connection: connection.execute(self._moving, moves))
        steps += self._database.remove(batch.removed)
        if batch.records:
            steps += self._record_steps(batch.records)
        if batch.next_number > self._next_number:
            meta = self._tables.meta
            behind = meta.c.id == ONLY, meta.c.next_number < batch.next_number
            counting = update(meta).where(*behind).values(next_number=batch.next_number)
            steps.append(lambda connection: connection.execute(counting))
        return steps

    def _record_steps(self, records: list[Record]) -> list[Step]:
        table = self._tables.records
        named = {hashlib.sha256(name).digest(): record for name, record in latest(records).items()}
        former = [{"which": digest} for digest in named]
        removing = delete(table).where(table.c.digest == bindparam("which"))
        steps: list[Step] = [lambda connection: connection.execute(removing, former)]
        rows: list[dict[str, Any]] = [
            {"digest": digest, "kind": each.kind, "key": each.key, "value": each.value, "expires": each.expires}
            for digest, each in named.items()
            if each.value is not None
        ]
        if rows:
            steps.append(lambda connection: connection.execute(insert(table), rows))
        if before := self._sweep_before():
            expired = delete(table).where(table.c.expires > 0, table.c.expires <= before)
            steps.append(lambda connection: connection.execute(expired))
        return steps

    def _carry_out(
        self, connection: Connection, steps: list[Step], added: Sequence[StoredJob], removed: Collection[int]
    ) -> None:
        """All of the steps or none, if the place is still ours. ``added`` and ``removed`` tell what they do."""
        # Every commit pays for these, so the library is asked itself.
        cursor: Any = connection.connection.cursor()
        try:
            found = self._database.begin_and_ask(cursor, self._question())
            if self._is_signed:
                self._check_owner(found)
            else:
                self._write_signature(connection)
            for step in steps:
                step(connection)
            witness, find_another = self._next_witness(added, removed)
            if witness != self._witness:
                self._witness = None  # until it is known whether the commit was done
            if find_another:
                witness = connection.execute(self._looking_for_witness).scalar()
            cursor.execute("COMMIT")
            self._is_signed = True
            self._witness = witness
        except BaseException:
            with suppress(SQLAlchemyError):  # the transaction, or the connection, may have ended by itself
                connection.exec_driver_sql("ROLLBACK")
            raise
        finally:
            # What has failed keeps it until the garbage is collected, and SQLite keeps its file open as long.
            with suppress(*self._database.errors):
                cursor.close()


def _all_rows(statement: Select[Any], connection: Connection) -> Sequence[Row[Any]]:
    return connection.execute(statement).all()


def parsed_url(url: str) -> tuple[URL, str, dict[str, str]]:
    """The URL, the namespace, and the options that are the database's."""
    try:
        parsed = make_url(url)
        options = Options(url)
        credentials = url.partition("://")[2].partition("@")[0]
        if "@" in (parsed.host or "") or (parsed.password is not None and "?" in credentials):
            raise ValueError("the password ends at the first @, and the options begin at the first ?")
    except (ArgumentError, ValueError):
        # Its text is not shown: a password with unquoted signs may be what makes it unreadable.
        raise StoreError(f"the store {shown_url(url)}: {UNREADABLE}") from None
    namespace = options.namespace()
    return parsed, namespace, options.left
