"""What a client is told of one job (section 3.11)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from geartrain.jobserver.chores import Chore
from geartrain.jobserver.model import DEAD, MOVING, RUNNING
from geartrain.jobserver.rules.long_work import begin
from geartrain.native import i64
from geartrain.wire.packets import STATUS_RES, STATUS_RES_UNIQUE, pack_response

if TYPE_CHECKING:
    from geartrain.jobserver.model import Job, Peer
    from geartrain.jobserver.state import State

_AT_ONCE: Final = 1000  # functions asked in one slice
_ANSWER: Final = 8  # cost of one answer, beside what each packet costs


def send_status(state: State, peer: Peer, asked: bytes) -> None:
    """GET_STATUS: STATUS_RES with the handle that was asked for, up to its first NUL."""
    state.cost += _ANSWER
    handle = asked.partition(b"\0")[0]
    number = state.handles.number(handle)
    job = state.jobs.get(number) if number >= 0 else None
    answer = pack_response(STATUS_RES, handle, *status_of(job))
    elsewhere = state.elsewhere
    if elsewhere is not None and (job is None or job.flags & MOVING):
        elsewhere.ask(peer, number, handle, b"", answer)
    else:
        peer.send(answer)


def send_status_of_unique(state: State, peer: Peer, asked: bytes) -> None:
    """GET_STATUS_UNIQUE: of several functions' jobs with this unique, the most recent one."""
    begin(state, StatusOfUnique(state, peer, asked.partition(b"\0")[0]))


@final
class StatusOfUnique(Chore):
    """Asks every function for a unique, since each keeps its own, some at a time."""

    def __init__(self, state: State, peer: Peer, unique: bytes) -> None:
        super().__init__(peer)
        self.state: State = state
        self.peer: Peer = peer
        self.unique: bytes = unique
        self.at: i64 = 0  # the place of the last function that was asked
        self.until: i64 = state.function_roll.last_place
        self.number: int = -1  # of the most recent job that was found

    def step(self) -> bool:
        state = self.state
        asked = state.function_roll.page(self.at, self.until, _AT_ONCE)
        for function in asked:
            job = function.uniques.get(self.unique)
            if job is not None and job.number > self.number:
                self.number = job.number
        state.cost += _ANSWER + len(asked)
        if asked and asked[-1].place < self.until:
            self.at = asked[-1].place
            return False
        latest = state.jobs.get(self.number) if self.number >= 0 else None
        clients = b"0" if latest is None else b"%d" % latest.subscriber_count
        if not (self.peer.gone or self.peer.closing):
            self.peer.send(pack_response(STATUS_RES_UNIQUE, self.unique, *status_of(latest), clients))
        return True


def status_of(job: Job | None) -> tuple[bytes, bytes, bytes, bytes]:
    """What STATUS_RES says of a job: known, running, numerator, denominator."""
    if job is None or job.state == DEAD:
        return b"0", b"0", b"0", b"0"
    running = b"1" if job.state == RUNNING else b"0"
    return b"1", running, b"%d" % unsigned(job.numerator), b"%d" % unsigned(job.denominator)


def unsigned(value: int) -> int:
    """The unsigned 32-bit number that a job keeps in a signed field."""
    return value % 0x100000000
