"""Who watches a job is told what happens to it; the other rules ask only whether the job is WATCHED."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geartrain.jobserver.model import DEAD, WATCHED
from geartrain.jobserver.watching import MAX_WATCHERS, MAX_WATCHES, WATCH_COST
from geartrain.native import i64, u8

if TYPE_CHECKING:
    from geartrain.jobserver.model import Job
    from geartrain.jobserver.state import State
    from geartrain.jobserver.watching import Watcher


def watch(state: State, number: i64, watcher: Watcher) -> bool:
    """Have a watcher told of a live job; False: there is none, or there is no room for another watch."""
    job = state.jobs.get(number)
    if job is None or job.state == DEAD:
        return False
    others = state.watchers.get(int(number), ())
    if any(other is watcher for other in others):
        return True
    if state.watches >= MAX_WATCHES or len(others) >= MAX_WATCHERS or not state.has_room(WATCH_COST):
        return False
    state.watchers[int(number)] = (*others, watcher)
    state.watches += 1
    state.memory += WATCH_COST
    job.flags = u8(job.flags | WATCHED)
    return True


def unwatch(state: State, number: i64, watcher: Watcher) -> None:
    """A watcher is told no more of a job."""
    watchers = state.watchers.get(int(number), ())
    left = tuple([other for other in watchers if other is not watcher])
    if len(left) == len(watchers):
        return
    state.watches -= 1
    state.memory -= WATCH_COST
    if left:
        state.watchers[int(number)] = left
    else:
        del state.watchers[int(number)]
        job = state.jobs.get(number)
        if job is not None:
            job.flags = u8(job.flags & (0xFF - WATCHED))


def tell(state: State, job: Job, event: bytes, data: bytes) -> None:
    """Something has happened to the job."""
    number = int(job.number)
    watchers = state.watchers.get(number)
    if watchers is not None:
        for watcher in watchers:
            _tell(state, job, watcher, event, data)


def tell_end(state: State, job: Job, event: bytes, data: bytes) -> None:
    """The last that its watchers are told of the job."""
    watchers = state.watchers.pop(int(job.number), None)
    if watchers is not None:
        job.flags = u8(job.flags & (0xFF - WATCHED))
        state.watches -= len(watchers)
        state.memory -= WATCH_COST * len(watchers)
        for watcher in watchers:
            _tell(state, job, watcher, event, data)


def tell_policy(state: State, job: Job, event: bytes, data: bytes) -> None:
    """A job has had its last event whose policy names a webhook."""
    if state.end_watcher is not None:
        _tell(state, job, state.end_watcher, event, data)


def _tell(state: State, job: Job, watcher: Watcher, event: bytes, data: bytes) -> None:
    state.cost += 20 + len(data) // 64
    try:
        watcher.tell(int(job.number), event, data)
    except Exception as error:  # of an extension, for which no job is to suffer
        unwatch(state, job.number, watcher)
        said = error.args[0] if error.args and isinstance(error.args[0], str) else ""
        fields: dict[str, object] = {"handle": state.shown_handle(job), "error": f"{type(error).__name__}: {said}"}
        state.event("watcher_failed", None, fields)
