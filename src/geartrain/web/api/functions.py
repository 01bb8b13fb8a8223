"""``/api/v1/functions``: functions with their jobs, limits and counters, and what can be done about them."""

from __future__ import annotations

import asyncio
import heapq
from typing import TYPE_CHECKING, Annotated, Final, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from geartrain.jobserver import snapshot
from geartrain.jobserver.ended import FAILURES_A_SECOND, KEPT, LONGEST_TEXT, LONGEST_UNIQUE, MOST_A_SECOND
from geartrain.jobserver.snapshot import FunctionView
from geartrain.web.api.asking import (
    MAX_PAGE,
    Done,
    Model,
    Operator,
    Reader,
    cursor,
    face_of,
    look_now,
    moment,
    no_cursor,
    order,
    problems,
    shown_cursor,
    word,
)
from geartrain.web.names import to_name, to_text
from geartrain.web.problems import Problem
from geartrain.wire.text import as_text

if TYPE_CHECKING:
    from geartrain.jobserver.ended import EndedJob, ErrorKind
    from geartrain.web.face import Face

AT_ONCE: Final = 200  # functions that are looked at in one go
router: Final = APIRouter(tags=["functions"])


class ByPriority(BaseModel):
    """A number for each priority."""

    high: int
    normal: int
    low: int


class FunctionRow(BaseModel):
    """A function: its jobs by where they stand, its workers, limits (0: none), and what was counted."""

    name: str = Field(examples=["resize"])
    queued: ByPriority = Field(description="Jobs that wait for a worker")
    blocked: int = Field(description="Jobs that a limit on keys keeps back")
    delayed: int
    running: int
    total: int
    dead: int = Field(description="Dead letters")
    workers: int
    idle: int = Field(description="Of the workers those that sleep")
    oldest_waiting: float = Field(description="Seconds that a job has waited at most; 0: none waits")
    paused: bool
    max_queue: ByPriority
    policy: str = Field(description="Its keys and values; empty: none", examples=["attempts=3 timeout=10s"])
    counters: dict[str, float] = Field(description="Since the job server started")


class FunctionPage(BaseModel):
    """Some functions."""

    functions: list[FunctionRow]
    next: str | None = Field(description="`after` of the next page; null: there is none")


class EndedRow(BaseModel):
    """A job that has ended, or is a dead letter."""

    handle: str = Field(examples=["H:here:7"])
    unique: str = Field(description=f"Its first {LONGEST_UNIQUE} bytes")
    state: str = Field(
        description="completed, cancelled, abandoned (no client waited for it any more), failed (its worker said no "
        "more than that), or the reason of the failure: exception, timeout, lost, retry, reject, expired, dropped"
    )
    submitted: float
    queued: float | None = Field(description="When it came into its queue last")
    started: float | None = Field(description="When its last attempt began; null: it never ran")
    ended: float
    worker: str | None = Field(description="What its last worker calls itself (`-`: it does not), and its host")
    attempts: int = Field(description="Those that did not succeed")
    error: str = Field(description=f"With what it failed, the first {LONGEST_TEXT} bytes")


class ErrorRow(BaseModel):
    """Failures that are told by the same words."""

    state: str = Field(description="As of a job")
    error: str = Field(description="The first line of the error; of a traceback that of the exception")
    count: int = Field(description="Of the failures that were looked at")
    first: float
    last: float
    handle: str = Field(description="The job that failed so last", examples=["H:here:7"])


class Latest(BaseModel):
    """Jobs of a function that have ended, as far as they were looked at."""

    jobs: list[EndedRow] = Field(description="The newest first")
    errors: list[ErrorRow] = Field(description="The most frequent first")
    failures: int = Field(
        description="How many failures were looked at since the function is kept here: "
        f"{FAILURES_A_SECOND} a second at most, {MOST_A_SECOND} of all functions"
    )


class LatestFilters(Model):
    """How many are meant."""

    limit: int = Field(2 * KEPT, ge=1, le=2 * KEPT)


class MaxQueue(Model):
    """How many jobs there may be for one more of each priority to be taken; 0: any number."""

    high: int = Field(0, ge=0, le=2**32)
    normal: int = Field(0, ge=0, le=2**32)
    low: int = Field(0, ge=0, le=2**32)


class FunctionChange(Model):
    """What is to change; what is left out stays as it is."""

    paused: bool | None = Field(None, description="Whether its jobs are handed out no more")
    reason: str = Field("", max_length=200, description="Why it is paused, for `why`")
    max_queue: MaxQueue | None = None


class FunctionFilters(Model):
    """Which functions are meant, and in which order."""

    prefix: str = Field("", description="How the name begins")
    sort: Literal["known", "name", "total", "waiting", "oldest_waiting", "running", "workers", "dead"] = Field(
        "known", description="known: as they became known; name: by name; else the largest first"
    )
    after: str = Field("", description="`next` of the page before")
    limit: int = Field(100, ge=1, le=MAX_PAGE)


def _row(view: FunctionView) -> FunctionRow:
    high, normal, low = view.limits
    return FunctionRow(
        name=to_text(view.name),
        queued=ByPriority(high=view.high, normal=view.normal, low=view.low),
        blocked=view.blocked,
        delayed=view.delayed,
        running=view.running,
        total=view.total,
        dead=view.dead,
        workers=view.workers,
        idle=view.idle,
        oldest_waiting=round(view.oldest_waiting, 3),
        paused=view.paused,
        max_queue=ByPriority(high=high, normal=normal, low=low),
        policy=to_text(view.policy.encode("utf-8", "surrogateescape")),
        counters={name.decode(): round(value, 3) for name, value in view.counters.rows},
    )


@router.get("/functions", operation_id="list_functions", summary="List functions", response_model=FunctionPage)
async def list_functions(request: Request, _: Reader, filters: Annotated[FunctionFilters, Query()]) -> FunctionPage:
    """Functions, a page at a time."""
    face = face_of(request)
    look_now(face)
    prefix = to_name(filters.prefix)
    if filters.sort == "known":
        return await _as_known(face, prefix, filters)
    sort = filters.sort
    behind = cursor(filters.after)
    best: list[tuple[int, bytes]] = []
    at = 0
    while page := snapshot.function_page(face.server, at, AT_ONCE):
        at = page[-1].place
        keys = ((_rank(view, sort), view.name) for view in page if view.name.startswith(prefix))
        best = heapq.nsmallest(filters.limit + 1, [*best, *(key for key in keys if behind is None or key > behind)])
        await asyncio.sleep(0)
    views = [(key, face.server.functions.get(key[1])) for key in best[: filters.limit]]
    rows = [_row(FunctionView(face.server, function)) for _, function in views if function is not None]
    last = best[filters.limit - 1] if len(best) > filters.limit else None
    return FunctionPage(functions=rows, next=None if last is None else shown_cursor(*last))


def _rank(view: FunctionView, sort: str) -> int:
    """The smaller, the earlier in the listing."""
    if sort == "name":
        return 0
    if sort == "waiting":
        return -(view.high + view.normal + view.low + view.blocked)
    if sort == "oldest_waiting":
        return -int(1000 * view.oldest_waiting)
    return -int(getattr(view, sort))


async def _as_known(face: Face, prefix: bytes, filters: FunctionFilters) -> FunctionPage:
    at = _place(filters.after)
    rows: list[FunctionRow] = []
    while page := snapshot.function_page(face.server, at, AT_ONCE):
        for view in page:
            at = view.place
            if view.name.startswith(prefix):
                rows.append(_row(view))
                if len(rows) == filters.limit:
                    return FunctionPage(functions=rows, next=str(at))
        await asyncio.sleep(0)
    return FunctionPage(functions=rows, next=None)


def _place(after: str) -> int:
    if not after:
        return 0
    if not (after.isascii() and after.isdigit() and len(after) < 19):
        raise no_cursor(after)
    return int(after)


@router.get(
    "/functions/{name}",
    operation_id="show_function",
    summary="Show a function",
    response_model=FunctionRow,
    responses=problems(404),
)
async def show_function(request: Request, name: str, _: Reader) -> FunctionRow:
    """A function's jobs, workers, limits and counters."""
    face = face_of(request)
    look_now(face)
    function = face.server.functions.get(to_name(name))
    if function is None:
        raise _unknown(name)
    return _row(FunctionView(face.server, function))


@router.get(
    "/functions/{name}/latest",
    operation_id="latest_jobs",
    summary="Show the latest jobs that have ended",
    response_model=Latest,
    responses=problems(404),
)
async def latest_jobs(request: Request, name: str, _: Reader, filters: Annotated[LatestFilters, Query()]) -> Latest:
    """Of the jobs that end some are kept in memory for a while, and the kinds of errors with which they failed."""
    face = face_of(request)
    function = to_name(name)
    found = face.server.ended.functions.get(function)
    if found is None:
        if function not in face.server.functions:
            raise _unknown(name)
        return Latest(jobs=[], errors=[], failures=0)
    jobs = sorted((*found.jobs, *found.failures), key=lambda job: job.ended, reverse=True)
    errors = sorted(found.errors.values(), key=lambda kind: (-kind.count, -kind.last))
    return Latest(
        jobs=[_ended(face, job) for job in jobs[: filters.limit]],
        errors=[_error(face, kind) for kind in errors],
        failures=found.failure_count,
    )


def _ended(face: Face, job: EndedJob) -> EndedRow:
    return EndedRow(
        handle=as_text(face.server.handles.make(job.number)),
        unique=to_text(job.unique),
        state=job.how,
        submitted=round(job.created, 3),
        queued=moment(job.queued),
        started=moment(job.started),
        ended=round(job.ended, 3),
        worker=as_text(job.worker) or None,
        attempts=job.attempts,
        error=as_text(job.text),
    )


def _error(face: Face, kind: ErrorKind) -> ErrorRow:
    return ErrorRow(
        state=kind.how,
        error=as_text(kind.line),
        count=kind.count,
        first=round(kind.since, 3),
        last=round(kind.last, 3),
        handle=as_text(face.server.handles.make(kind.newest)),
    )


@router.patch(
    "/functions/{name}",
    operation_id="change_function",
    summary="Pause, resume or limit a function",
    response_model=Done,
    responses=problems(409, 503),
)
async def change_function(request: Request, name: str, _: Operator, change: FunctionChange) -> Done:
    """Pauses and limits; a function that is not known yet is made known."""
    function = word(name, "The function")
    if change.max_queue is not None:
        limits = [b"%d" % limit for limit in (change.max_queue.high, change.max_queue.normal, change.max_queue.low)]
        await order(request, "limit function", name, b"maxqueue", function, *limits)
    if change.paused:
        reason = [word(part, "The reason") for part in change.reason.split()]
        await order(request, "pause function", name, b"pause", function, *reason)
    elif change.paused is not None:
        try:
            await order(request, "resume function", name, b"resume", function)
        except Problem as problem:
            if problem.slug != "not-paused":
                raise
    return Done()


@router.delete(
    "/functions/{name}",
    operation_id="drop_function",
    summary="Drop a function",
    response_model=Done,
    responses=problems(404, 409),
)
async def drop_function(request: Request, name: str, _: Operator) -> Done:
    """Forget a function; its jobs that wait are cancelled. 409: it has workers, running jobs or dead letters."""
    if to_name(name) not in face_of(request).server.functions:
        raise _unknown(name)
    try:
        await order(request, "drop function", name, b"drop", b"function", word(name, "The function"))
    except Problem as problem:
        raise Problem(409, "in-use", problem.detail) if problem.slug == "err" else problem from None
    return Done()


def _unknown(name: str) -> Problem:
    return Problem(404, "unknown-function", f"No function {name!r} is known")
