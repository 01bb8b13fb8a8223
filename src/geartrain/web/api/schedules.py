"""``/api/v1/schedules``: jobs that are made at set times."""

from __future__ import annotations

import asyncio
import base64
import binascii
import heapq
import math
from collections.abc import Callable, Iterator
from datetime import tzinfo
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, Field, model_validator

from geartrain.client.schedule import KnownSchedule, ScheduleDetails, schedule_word
from geartrain.daemon.schedule import in_zone, read_keys, read_schedule
from geartrain.daemon.schedules import SHOWN_RUNS
from geartrain.web.api.asking import (
    HERE,
    MAX_PAGE,
    Done,
    Model,
    Operator,
    Reader,
    ask,
    cursor,
    face_of,
    order,
    problems,
    shown_cursor,
    unreadable,
    value_of,
    word,
)
from geartrain.web.api.content import Content, content
from geartrain.web.api.job_selection import Priority
from geartrain.web.names import to_name
from geartrain.web.turns import in_turns
from geartrain.wire.text import as_text

router: Final = APIRouter(tags=["schedules"])
AT_ONCE: Final = 500  # schedules that are looked at in one go
NEVER: Final = 2**62  # behind each time in milliseconds
Name = Annotated[str, Path(examples=["nightly"])]
Operation = TypeVar("Operation", bound=Callable[..., Any])


def _of_schedule(
    method: str, action: str, summary: str, model: type[BaseModel], *refusals: int, path: str = ""
) -> Callable[[Operation], Operation]:
    """The decorator of an operation on one schedule."""
    return router.api_route(
        f"/schedules/{{name}}{path}",
        methods=[method],
        operation_id=f"{action}_schedule",
        summary=summary,
        response_model=model,
        responses=problems(*refusals),
    )


_NEXT_RUNS: Final = (
    f"The next {SHOWN_RUNS} runs, without jitter, as the clocks of its time zone show them; none while it is paused"
)


class ScheduleRow(BaseModel):
    """A schedule in a listing."""

    name: str
    paused: bool
    next_run: float | None
    next_runs: list[str] = Field(description=_NEXT_RUNS)
    last_run: float | None
    function: str
    keys: dict[str, str] = Field(description="As they were set, without the workload")


class SchedulePage(BaseModel):
    """Some schedules."""

    schedules: list[ScheduleRow]
    next: str | None = Field(description="`after` of the next page; null: there is none")


class ScheduleFilters(Model):
    """Which schedules are meant, and in which order."""

    name: str | None = Field(None, description="The one of this name")
    find: str = Field("", description="What its name or that of its function holds, in capitals or not")
    sort: Literal["name", "next_run"] = Field(
        "name", description="next_run: the next to run first; behind them those that are paused or never run again"
    )
    after: str = Field("", description="`next` of the page before")
    limit: int = Field(100, ge=1, le=MAX_PAGE)


class Schedule(BaseModel):
    """All about one schedule."""

    name: str
    source: str = Field(description="command, or file for the configuration file")
    paused: bool
    last_run: float | None
    job: str | None = Field(description="The handle of the last job")
    keys: dict[str, str]
    workload: Content
    next_runs: list[str] = Field(description=_NEXT_RUNS)


class NewSchedule(Model):
    """All keys of a schedule: either `cron` or `every`, and the job that is made."""

    function: str = Field(min_length=1, examples=["report"])
    cron: str | None = Field(None, examples=["30 2 * * *"])
    every: str | None = Field(None, description="Such as 10m", examples=["10m"])
    zone: str | None = Field(None, description="A time zone such as Europe/Berlin")
    workload: str | None = None
    workload_base64: str | None = Field(None, description="The workload as any bytes, instead of `workload`")
    priority: Priority | None = None
    jitter: str | None = Field(None, description="By up to how much a run is later than its time, such as 30s")
    missed: Literal["none", "one", "all"] | None = None
    overlap: Literal["allow", "skip"] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.workload is not None and self.workload_base64 is not None:
            raise ValueError("write either workload or workload_base64")
        if self.workload_base64 is not None:
            try:
                base64.b64decode(self.workload_base64, validate=True)
            except binascii.Error as error:
                raise ValueError(f"workload_base64 is no base64: {error}") from None
        return self

    def words(self) -> list[bytes]:
        """All keys as words; one that is not set is taken away."""
        keys: dict[str, Any] = self.model_dump(exclude={"workload_base64"})
        keys["function"] = to_name(self.function)
        if self.workload_base64 is not None:
            keys["workload"] = base64.b64decode(self.workload_base64)
        return [schedule_word(key, value) for key, value in keys.items()]


class Run(BaseModel):
    """A run that was made by hand."""

    handle: str


@router.get("/schedules", operation_id="list_schedules", summary="List schedules", response_model=SchedulePage)
async def list_schedules(request: Request, _: Reader, filters: Annotated[ScheduleFilters, Query()]) -> SchedulePage:
    """Schedules, a page at a time."""
    behind = cursor(filters.after)
    command = await ask(request, b"schedule", b"list", form="listing")
    lines = command.lines()
    best: list[tuple[int, bytes, bytes]] = []
    try:
        for at in range(0, len(lines), AT_ONCE):
            keys = (key for line in lines[at : at + AT_ONCE] if (key := _key(line, filters)) is not None)
            best = heapq.nsmallest(
                filters.limit + 1, [*best, *(key for key in keys if behind is None or key[:2] > behind)]
            )
            await asyncio.sleep(0)
        rows = [_row(KnownSchedule.read(HERE, line)) for *_, line in best[: filters.limit]]
    except ValueError:
        raise unreadable(command) from None
    await in_turns(_add_runs(rows, face_of(request).server.settings.zone))
    last = best[filters.limit - 1] if len(best) > filters.limit else None
    return SchedulePage(schedules=rows, next=None if last is None else shown_cursor(*last[:2]))


def _key(line: bytes, filters: ScheduleFilters) -> tuple[int, bytes, bytes] | None:
    """What a line of the listing is sorted by, and the line; None: it is not meant."""
    name, paused, next_run, _, function, _ = line.split(b"\t")
    if filters.name is not None and as_text(name) != filters.name:
        return None
    if filters.find and filters.find.lower() not in f"{as_text(name)} {as_text(function)}".lower():
        return None
    rank = 0
    if filters.sort == "next_run":
        run = float(next_run)
        rank = NEVER if paused == b"1" or run == math.inf else int(1000 * run)
    return rank, name, line


def _add_runs(rows: list[ScheduleRow], zone: tzinfo) -> Iterator[None]:
    for row in rows:
        if row.next_run is not None and not row.paused:
            keys = row.keys
            row.next_runs = _runs(keys.get("cron", ""), keys.get("every", ""), keys.get("zone", ""), zone, row.next_run)
        yield


@lru_cache(maxsize=10_000)  # it may take a millisecond, and is the same until its next run
def _runs(cron: str, every: str, own_zone: str, zone: tzinfo, run: float) -> list[str]:
    """The runs from this one on."""
    keys = {"cron": cron, "every": every, "zone": own_zone, "function": "any"}
    schedule = read_schedule(b"any", read_keys(keys), zone)
    runs: list[str] = []
    while len(runs) < SHOWN_RUNS and run < math.inf:
        runs.append(in_zone(run, schedule.zone))
        run = schedule.next_after(run)
    return runs


def _row(schedule: KnownSchedule) -> ScheduleRow:
    return ScheduleRow(
        name=schedule.name,
        paused=schedule.is_paused,
        next_run=schedule.next_run,
        next_runs=[],
        last_run=schedule.last_run,
        function=schedule.function,
        keys=schedule.keys,
    )


@_of_schedule("GET", "show", "Show a schedule", Schedule, 404)
async def show_schedule(request: Request, name: Name, _: Reader) -> Schedule:
    """All about a schedule, and its next runs."""
    command = await ask(request, b"schedule", b"show", word(name, "The schedule"), form="listing")
    try:
        details = ScheduleDetails.read(HERE, command.lines())
    except (ValueError, KeyError):
        raise unreadable(command) from None
    return Schedule(
        name=details.name,
        source=details.source,
        paused=details.is_paused,
        last_run=details.last_run,
        job=details.job,
        keys=details.keys,
        workload=content(details.workload),
        next_runs=[] if details.is_paused else [run.isoformat() for run in details.next_runs],
    )


@_of_schedule("PUT", "set", "Make or replace a schedule", Done, 400, 503)
async def set_schedule(request: Request, name: Name, _: Operator, schedule: NewSchedule) -> Done:
    """The keys that are given hold from now on, and no others."""
    encoded = word(name, "The schedule")
    await order(request, "set schedule", name, b"schedule", b"set", encoded, *schedule.words())
    return Done()


@_of_schedule("DELETE", "unset", "Forget a schedule", Done, 404)
async def unset_schedule(request: Request, name: Name, _: Operator) -> Done:
    """One of the configuration file counts again."""
    await order(request, "unset schedule", name, b"schedule", b"unset", word(name, "The schedule"))
    return Done()


@_of_schedule("POST", "pause", "Pause a schedule", Done, 404, 503, path="/pause")
async def pause_schedule(request: Request, name: Name, _: Operator) -> Done:
    """Make no runs until it is resumed."""
    await order(request, "pause schedule", name, b"schedule", b"pause", word(name, "The schedule"))
    return Done()


@_of_schedule("POST", "resume", "Resume a schedule", Done, 404, path="/resume")
async def resume_schedule(request: Request, name: Name, _: Operator) -> Done:
    """Make its runs again, from now on."""
    await order(request, "resume schedule", name, b"schedule", b"resume", word(name, "The schedule"))
    return Done()


@_of_schedule("POST", "run", "Run a schedule now", Run, 404, 503, path="/run")
async def run_schedule(request: Request, name: Name, _: Operator) -> Run:
    """Submit its job now; the answer comes when that is kept."""
    command = await order(request, "run schedule", name, b"schedule", b"run", word(name, "The schedule"))
    return Run(handle=value_of(command))
