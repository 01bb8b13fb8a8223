"""``/api/v1/functions``: functions with their jobs, limits and counters, and what can be done about them."""

from __future__ import annotations

import asyncio
import heapq
from typing import TYPE_CHECKING, Annotated, Final, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from geartrain.jobserver import snapshot
from geartrain.jobserver.snapshot import FunctionView
from geartrain.web.api.asking import (
    MAX_PAGE,
    Done,
    Model,
    Operator,
    Reader,
    face_of,
    look_now,
    order,
    problems,
    word,
)
from geartrain.web.names import to_name, to_text
from geartrain.web.problems import Problem

if TYPE_CHECKING:
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
    sort: Literal["known", "name", "total", "running", "workers"] = Field(
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
    behind = _cursor(filters.after) if filters.after else None
    best: list[tuple[int, bytes]] = []
    at = 0
    while page := snapshot.function_page(face.server, at, AT_ONCE):
        at = page[-1].place
        keys = (
            (0 if sort == "name" else -int(getattr(view, sort)), view.name)
            for view in page
            if view.name.startswith(prefix)
        )
        best = heapq.nsmallest(filters.limit + 1, [*best, *(key for key in keys if behind is None or key > behind)])
        await asyncio.sleep(0)
    views = [(key, face.server.functions.get(key[1])) for key in best[: filters.limit]]
    rows = [_row(FunctionView(face.server, function)) for _, function in views if function is not None]
    last = best[filters.limit - 1] if len(best) > filters.limit else None
    return FunctionPage(functions=rows, next=None if last is None else f"{last[0]}:{to_text(last[1])}")


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
        raise _no_cursor(after)
    return int(after)


def _cursor(after: str) -> tuple[int, bytes]:
    number, colon, name = after.partition(":")
    digits = number.removeprefix("-")
    if not (colon and digits.isascii() and digits.isdigit() and len(digits) < 19):
        raise _no_cursor(after)
    return int(number), to_name(name)


def _no_cursor(after: str) -> Problem:
    return Problem(422, "invalid", f"after is {after!r}: it is `next` of a page that was sorted in the same way")


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
