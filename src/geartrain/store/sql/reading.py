"""All jobs of a table in the order of their positions, a page at a time.

The table's own order is by number, and that is the order of positions too for all jobs but those that were sent to the
end of a queue again. So jobs are read by number, and the moved ones, mostly few, are looked up by their positions first
and merged in. That saves an index on the position, which every change would have to keep up.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, and_, case, func, literal_column, or_, select, type_coerce
from sqlalchemy.types import NULLTYPE

from geartrain.jobserver.records import POSITION_BITS, StoredJob
from geartrain.store.base import Unreadable
from geartrain.store.record import flaw
from geartrain.store.sql.database import COLUMNS
from geartrain.store.sql.tables import Tables

PAGE: Final = 500  # jobs
LEAST: Final = -(2**63)
MOST: Final = 2**63 - 1

Ask = Callable[[Select[Any]], Sequence[Sequence[Any]]]

TYPES: Final = (int, int, bytes, bytes, bytes, int, int, float, bytes, int, float, int, int)
TYPES_WHERE_LEFT: Final = (*TYPES[:4], type(None), *TYPES[5:])


def in_order(tables: Tables, leave_above: int, ask: Ask) -> Iterator[StoredJob | Unreadable]:
    """Every job, as ``Store.load`` says; ``ask`` gives the rows a statement selects."""
    jobs = tables.jobs.c
    at_home = _is_at_home(tables)
    columns = all_of(tables, leave_above)
    moved_away = select(jobs.number).where(at_home == 0).order_by(jobs.position)
    away = array("q", (number for (number,) in ask(moved_away)))
    moved = by_number(columns, tables, away, ask)
    waiting = next(moved, None)
    for job in _at_home(columns, tables, ask):
        while waiting is not None and (isinstance(waiting, Unreadable) or _before(waiting, job)):
            yield waiting
            waiting = next(moved, None)
        yield job
    if waiting is not None:
        yield waiting
        yield from moved


def all_of(tables: Tables, leave_above: int) -> Select[Any]:
    """Selects what ``job_of`` makes a job from."""
    jobs = tables.jobs.c
    length = func.length(jobs.workload)
    chosen: dict[str, ColumnElement[Any]] = {name: as_it_is(jobs[name]) for name in COLUMNS}
    chosen["workload"] = case((or_(length <= leave_above, jobs.unique == b"-"), chosen["workload"]), else_=None)
    return select(*chosen.values(), length, _is_at_home(tables))


def _is_at_home(tables: Tables) -> ColumnElement[int]:
    """Judged by the database in both queries, so that no row is found by both or by none, whatever it holds."""
    jobs = tables.jobs.c
    its_own = jobs.position.bitwise_rshift(literal_column(str(POSITION_BITS))) == jobs.number
    return case((and_(its_own, jobs.position.bitwise_and((1 << POSITION_BITS) - 1) == 0), 1), else_=0)


def as_it_is(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """What a column holds, even if that is not of its type and can't be made so."""
    return type_coerce(column, NULLTYPE)


def _before(one: StoredJob, other: StoredJob | Unreadable) -> bool:
    return isinstance(other, StoredJob) and one.position < other.position


def _at_home(columns: Select[Any], tables: Tables, ask: Ask) -> Iterator[StoredJob | Unreadable]:
    number = tables.jobs.c.number
    first = LEAST
    while True:
        rows = ask(columns.where(number >= first).order_by(number).limit(PAGE))
        for row in rows:
            if row[-1]:
                yield job_of(row)
        if len(rows) < PAGE or rows[-1][0] == MOST:
            return
        first = rows[-1][0] + 1


def by_number(
    columns: Select[Any], tables: Tables, numbers: Sequence[int], ask: Ask
) -> Iterator[StoredJob | Unreadable]:
    """Those of the jobs ``numbers`` that are there, in that order."""
    for start in range(0, len(numbers), PAGE):
        page = list(numbers[start : start + PAGE])
        rows = {row[0]: row for row in ask(columns.where(tables.jobs.c.number.in_(page)))}
        for number in page:
            if number in rows:
                yield job_of(rows[number])


def job_of(row: Sequence[Any]) -> StoredJob | Unreadable:
    """The job of a row: the columns of ``COLUMNS``, how long the workload really is, and another whole number."""
    types = tuple(map(type, row))
    number, position, function, unique, workload, size, priority, due, reducer, attempts, created, length, _ = row
    if (
        types in (TYPES, TYPES_WHERE_LEFT)
        and size == length
        and not flaw(number, position, size, priority, due, attempts, created)
    ):
        return StoredJob(number, position, function, unique, workload, size, priority, due, reducer, attempts, created)
    return Unreadable(number, _flaw(row))


def _flaw(row: Sequence[Any]) -> str:
    """What keeps a row from being a job."""
    for name, wanted, value in zip(COLUMNS, TYPES, row, strict=False):
        left = name == "workload" and value is None and row[11] is not None
        if type(value) is not wanted and not left:
            return f"its {name} is {value!r:.60}, where {wanted.__name__} was expected"
    if row[5] != row[11]:
        return f"its workload has {row[11]} bytes, where {row[5]} were expected"
    number, position, _, _, _, size, priority, due, _, attempts, created = row[: len(COLUMNS)]
    return flaw(number, position, size, priority, due, attempts, created)
