"""Of a fleet: what all members share, policies and pauses above all, follows what others have changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geartrain.jobserver.records import SHARED_KINDS, Record
from geartrain.jobserver.rules.policing import PAUSE_KIND, POLICY_KIND, restore, take_back

if TYPE_CHECKING:
    from geartrain.jobserver.state import State


def apply(state: State, records: list[Record]) -> None:
    """These are all the shared records; what has been changed here since, and is not stored yet, stays as it is."""
    theirs = {(record.kind, record.key): record for record in records}
    unstored = _unstored(state)
    for kind in SHARED_KINDS:
        for key in list(state.records.kinds.get(kind, ())):
            if (kind, key) not in theirs and (kind, key) not in unstored:
                take_back(state, kind, key)
    for kind in (POLICY_KIND, PAUSE_KIND, *sorted(SHARED_KINDS - {POLICY_KIND, PAUSE_KIND})):
        for (its_kind, key), record in theirs.items():
            if its_kind != kind or (kind, key) in unstored:
                continue
            mine = state.records.get(kind, key)
            if mine is None or mine.value != record.value or mine.expires != record.expires:
                restore(state, record)


def _unstored(state: State) -> set[tuple[str, bytes]]:
    """The records that have been changed here, and of which the store has not said that it has them."""
    changes = state.changes
    names = set(changes.records)
    names.update((record.kind, record.key) for record in changes.with_job.values())
    for batch in (state.store.under_way, state.store.late):
        if batch is not None:
            names.update((record.kind, record.key) for record in batch.records)
    return names
