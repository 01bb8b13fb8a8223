"""What is to be kept over a restart and is no job: whether there is room for it, and when it goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from geartrain.jobserver.agenda import Source
from geartrain.jobserver.chores import ITERATION_COST
from geartrain.jobserver.kept import cost
from geartrain.jobserver.model import WAITING
from geartrain.jobserver.records import RESULT_KIND, Record, is_kind, number_of

if TYPE_CHECKING:
    from geartrain.jobserver.state import State


def keep(state: State, record: Record, number: int = 0) -> bool:
    """Hold a record in place of the one of its name and have it stored, or remove that; False: there is no room.

    With the ``number`` of a new job that is not stored yet it is stored in one commit with that job.
    """
    if not is_kind(record.kind):
        raise ValueError(f"{record.kind!r} can't be a kind of record: up to 64 small letters, digits and underscores")
    value = record.value
    if value is not None:
        if state.durable and state.store.trouble:
            return False
        if len(record.key) + len(value) > state.largest_record:
            return False
        if not state.has_room(cost(record) - cost(state.records.get(record.kind, record.key))):
            return False
    put(state, record, number)
    return True


def put(state: State, record: Record, number: int = 0) -> None:
    """As ``keep``, whether there is room or not: what must not be lost, and is bounded by whoever keeps it."""
    state.memory += state.records.put(record)
    record.in_memory = False
    if state.durable:
        job = state.jobs.get(number) if number > 0 else None
        if job is not None and job.stored == WAITING:
            state.changes.keep_with(number, record)
        else:
            state.changes.records[record.kind, record.key] = record


def put_in_memory(state: State, record: Record) -> None:
    """Hold a record that the store is not to have: it is about a job that is not there either, or comes too fast."""
    record.in_memory = True
    state.memory += state.records.put(record)


def forget(state: State, kind: str, key: bytes) -> None:
    """Keep a record no longer, if there is one."""
    record = state.records.get(kind, key)
    if record is None:
        return
    if record.in_memory:
        put_in_memory(state, Record(kind, key, None))
    else:
        put(state, Record(kind, key, None))


@final
class ExpiredRecords(Source):
    """Drops the records whose time has come; the store does so by itself."""

    def __init__(self, state: State) -> None:
        super().__init__()
        self.state: State = state

    def next_at(self) -> float:
        at = self.state.records.deadlines.next_at()
        return 0.0 if at == 0 else self.state.now + max(at - self.state.wall, 0.0)

    def run(self) -> None:
        state = self.state
        if state.records.deadlines.next_at() == 0:
            return
        record = state.records.drop_expired(state.wall)
        while record is not None:
            state.memory -= cost(record)
            state.cost += 20
            if record.kind == RESULT_KIND:
                state.results.drop(number_of(record.key))
            record = state.records.drop_expired(state.wall) if state.cost < ITERATION_COST else None
