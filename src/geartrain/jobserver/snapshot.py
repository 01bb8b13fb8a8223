"""What the job server looks like: frozen views of functions, jobs and peers, a page at a time.

Every listing reads these and nothing else, so the model may change without them. A view holds what was true when it
was made; a page is made when it is asked for, so a long listing takes no copy of everything. What comes or goes
between two pages may be missed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from geartrain.jobserver.links import registered_abilities
from geartrain.jobserver.model import RUNNING, Function, Job, Peer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from geartrain.jobserver.state import State


@final
class FunctionView:
    """One function: jobs by where they stand, and workers."""

    def __init__(self, function: Function) -> None:
        self.shown: bytes = function.shown
        self.high: int = function.high.count
        self.normal: int = function.normal.count
        self.low: int = function.low.count
        self.delayed: int = function.delayed
        self.running: int = function.running
        self.total: int = function.total
        self.workers: int = function.workers


@final
class JobView:
    """One job; it is unwanted if it runs in the foreground and no client waits for it any more."""

    def __init__(self, state: State, job: Job) -> None:
        self.handle: bytes = state.handles.make(job.number)
        self.unique: bytes = job.unique
        self.background: bool = job.background
        self.attempts: int = job.attempts
        self.is_unwanted: bool = job.state == RUNNING and not job.background and job.subscribers is None


@final
class PeerView:
    """One connection; ``abilities`` are function names as shown, in the order of their registration."""

    def __init__(self, peer: Peer) -> None:
        self.fd: int = peer.fd
        self.host: str = peer.host
        self.shown_id: bytes = peer.shown_id
        self.abilities: list[bytes] = [ability.function.shown for ability in registered_abilities(peer)]


def functions(state: State) -> Iterator[FunctionView]:
    """Every function, in the order in which they became known."""
    for function in state.listed_functions():
        yield FunctionView(function)


def jobs(state: State) -> Iterator[JobView]:
    """Every job, by number."""
    for job in state.jobs:
        yield JobView(state, job)


def peers(state: State) -> Iterator[PeerView]:
    """Every connection, oldest first."""
    for peer in list(state.peers):
        yield PeerView(peer)
