"""gearmand's table in SQLite (libsqlite3), MySQL or MariaDB (MySQL) and PostgreSQL (Postgres), through SQLAlchemy Core.

A table has a row for each job: unique_key, function_name, priority, data, and when_to_run, which old ones lack. Names
are text there, so it is asked for the bytes that gearmand had, whatever the table's character set. The rows come in the
table's own order, which mostly is that of their insertion.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    MetaData,
    Table,
    create_engine,
    func,
    inspect,
    literal_column,
    make_url,
    select,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from geartrain.jobserver.records import StoredJob
from geartrain.redaction import redacted, shown_url
from geartrain.store.base import StoreError, Unreadable
from geartrain.store.gearmand.queue import GearmandQueue, about
from geartrain.store.options import UNREADABLE

ROWS_AT_ONCE: Final = 50
NEEDED: Final = {"unique_key", "function_name", "priority", "data"}

# dialect: (SQLAlchemy's name for it and its library, gearmand's default table, a column of text as bytes)
DIALECTS: Final = {
    "sqlite": ("sqlite+pysqlite", "gearman_queue", "{}"),
    "mysql": ("mysql+pymysql", "gearman_queue", "CAST(CONVERT({} USING utf8mb4) AS BINARY)"),
    "mariadb": ("mysql+pymysql", "gearman_queue", "CAST(CONVERT({} USING utf8mb4) AS BINARY)"),
    "postgresql": ("postgresql+psycopg", "queue", "convert_to({}, getdatabaseencoding())"),
}


class SqlQueue(GearmandQueue):
    """The jobs in one table."""

    def __init__(self, url: str, functions: Collection[bytes]) -> None:
        super().__init__(url, functions)
        self._shown = shown_url(url)
        try:
            parsed = make_url(url)
            if "@" in (parsed.host or ""):
                raise ValueError("the library ends the password at the first @")
        except (ArgumentError, ValueError):
            raise StoreError(f"gearmand's queue at {self._shown}: {UNREADABLE}") from None
        options: dict[str, Any] = dict(parsed.query)
        self._dialect = parsed.get_backend_name()
        driver, default_table, self._as_bytes = DIALECTS[self._dialect]
        self._table = options.pop("table", default_table)
        if self._dialect == "sqlite" and not Path(parsed.database or "").is_file():
            raise StoreError(f"gearmand's queue at {self._shown}: there is no file {parsed.database}")
        self._engine: Engine = create_engine(
            parsed.set(drivername=driver, query=options), poolclass=NullPool, hide_parameters=True
        )
        with self._translated():
            self._connection: Connection = self._engine.connect()
            self._columns = self._find_columns()

    def _find_columns(self) -> set[str]:
        here = inspect(self._connection)
        if not here.has_table(self._table):
            others = ", ".join(here.get_table_names()) or "none at all"
            raise StoreError(
                f"gearmand's queue at {self._shown}: there is no table {self._table}: name it by ?table=; there is"
                f" {others}"
            )
        columns = {column["name"] for column in here.get_columns(self._table)}
        if not columns >= NEEDED:
            missing = ", ".join(sorted(NEEDED - columns))
            raise StoreError(
                f"gearmand's queue at {self._shown}: the table {self._table} has no column {missing}, so it is not"
                " gearmand's: name another one by ?table="
            )
        return columns

    def count(self) -> int:
        with self._translated():
            counting = select(func.count()).select_from(Table(self._table, MetaData()))
            return self._connection.execute(counting).scalar_one()

    def jobs(self) -> Iterator[StoredJob | Unreadable]:
        with self._translated():
            empty = wrapped = 0
            for function, unique, workload, priority, when in self._rows():
                if self._dialect in ("mysql", "mariadb") and type(when) is int and when < 0:
                    when += 1 << 32  # gearmand binds 32 bits as if they had a sign
                    wrapped += 1
                empty += workload is None
                try:
                    yield self.job(function, unique, workload, priority, when)
                except ValueError as error:
                    yield about(function, unique, error)
            if empty:
                self.notes.append(f"{empty:,} rows have NULL for a workload, which is how gearmand keeps an empty one")
            if wrapped:
                self.notes.append(f"{wrapped:,} rows have a time after 2038 that has wrapped to a negative number")

    def _rows(self) -> Iterator[Any]:
        table = Table(self._table, MetaData())
        columns = [self._as_bytes.format(name) for name in ("function_name", "unique_key")]
        columns += ["data", "priority", "when_to_run" if "when_to_run" in self._columns else "0"]
        chosen: list[ColumnElement[Any]] = [literal_column(column) for column in columns]
        statement = select(*chosen).select_from(table)
        if self._dialect == "sqlite":
            statement = statement.order_by(literal_column("rowid"))
            raw: Any = self._connection.connection.dbapi_connection
            raw.text_factory = bytes
        options = {"stream_results": True, "yield_per": ROWS_AT_ONCE}
        return iter(self._connection.execute(statement, execution_options=options))

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
            words = redacted(str(cause.args[-1] if cause.args else cause)).strip().partition("\n")[0]
            raise StoreError(f"gearmand's queue at {self._shown}: {words}") from error
