"""Where a job belongs in a distributed trace: its submitter's word, held for the worker that asks for it.

A client says ``traceparent=...`` (OPTION_REQ) ahead of a submission, and a worker with the option ``traces`` is told
the same (OPTION_RES) ahead of the JOB_ASSIGN. So nobody else's packets change, and a job server that knows nothing of
it answers the client with an ERROR that costs nothing. It is held in memory alone: a trace is no promise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from geartrain.native import i64
from geartrain.wire.packets import OPTION_RES, response_head

if TYPE_CHECKING:
    from geartrain.jobserver.model import Job
    from geartrain.jobserver.state import State

TRACES: Final = b"traces"
TRACEPARENT: Final = b"traceparent="
TRACE_COST: Final = 300  # bytes of memory
MAX_TRACES: Final = 100_000  # jobs; of others nothing is held
_SIZE: Final = 55  # of version 00: version, trace, parent and flags, in hexadecimal digits with a - between
_LETTERS: Final = b"0123456789abcdef-"


def is_traceparent(text: bytes) -> bool:
    """Whether it has the form of W3C's ``traceparent``; what it says is not looked at."""
    return len(text) == _SIZE and not text.strip(_LETTERS) and text.count(b"-") == 3


def hold(state: State, job: Job, traceparent: bytes) -> None:
    """Hold it until the job has ended, if there is room."""
    if len(state.traces) < MAX_TRACES and state.has_room(TRACE_COST):
        state.traces[int(job.number)] = traceparent
        state.memory += TRACE_COST


def let_go(state: State, number: i64) -> None:
    """The job has ended."""
    if state.traces.pop(int(number), None) is not None:
        state.memory -= TRACE_COST


def packet(state: State, job: Job) -> bytes:
    """What its worker is told ahead of the job; empty if it does not want to know, or there is nothing to tell."""
    worker = job.worker
    if worker is None or not worker.traces:
        return b""
    traceparent = state.traces.get(int(job.number))
    if traceparent is None:
        return b""
    return response_head(OPTION_RES, len(TRACEPARENT) + len(traceparent)) + TRACEPARENT + traceparent
