"""``/api/v1/jobs``: what is known of jobs, their results, and what can be done about them."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from geartrain.client.command import Command
from geartrain.client.job_details import JobDetails
from geartrain.client.submission import JobHandle
from geartrain.jobserver import snapshot
from geartrain.jobserver.ended import ABANDONED, CANCELLED, COMPLETED, FAILED
from geartrain.jobserver.letters import unpack_attempts
from geartrain.jobserver.model import SPILLED, STORED
from geartrain.jobserver.policy import reason_name
from geartrain.jobserver.snapshot import JobView
from geartrain.web.api.asking import (
    HERE,
    MAX_PAGE,
    Done,
    Model,
    Operator,
    Reader,
    ResultReader,
    ask,
    face_of,
    handle_word,
    look_now,
    moment,
    now,
    order,
    problems,
    unknown_here,
    unknown_job,
    unreadable,
    value_of,
)
from geartrain.web.api.content import BYTES, Content, answer, content_alone
from geartrain.web.api.job_selection import PRIORITIES, JobSelection, Priority
from geartrain.web.names import to_name, to_text
from geartrain.web.problems import Problem
from geartrain.web.requests import header
from geartrain.wire.text import as_text

if TYPE_CHECKING:
    from geartrain.jobserver.ended import EndedJob

AT_ONCE: Final = 1000  # jobs that are looked at in one go
LEFT_OUT_AT_ONCE: Final = 10_000  # the same, where the job server itself leaves most of them out
SHARE: Final = 1  # how much longer than looking at so many takes the next have to wait
MOST_LOOKED_AT: Final = 100_000  # for one request
router: Final = APIRouter(tags=["jobs"])


class Progress(BaseModel):
    """How far a worker has said to be."""

    numerator: int
    denominator: int


class JobRow(BaseModel):
    """A job in a listing."""

    handle: str = Field(examples=["H:here:7"])
    function: str
    unique: str
    state: str = Field(description="queued, blocked (a limit keeps it), delayed, running or dead")
    priority: str
    background: bool
    size: int = Field(description="Bytes of the workload; 0 of one that is large and in the store alone")
    clients: int = Field(description="How many wait for it")
    attempts: int = Field(description="Those that did not succeed")
    progress: Progress | None
    created: float
    due: float | None
    queued_at: float | None
    started_at: float | None
    worker: str | None = Field(description="Where it runs: the worker's id (`-`: it has none) and its host")
    connection: int | None = Field(description="The number of its worker's connection")


class JobPage(BaseModel):
    """Some jobs."""

    jobs: list[JobRow]
    next: int | None = Field(description="`after` of the next page; null: there is none")


class Attempt(BaseModel):
    """An attempt that did not succeed."""

    number: int
    started: float
    ended: float
    reason: str
    worker: str
    text: str


class Job(BaseModel):
    """All that is known of a job; null is not known, or not the case.

    Of one that has ended the result is known if that is kept; and its times, worker, attempts and error for a while, if
    it is one of the latest of its function (`GET /functions/{name}/latest`).
    """

    handle: str = Field(examples=["H:here:7"])
    state: str = Field(description="queued, blocked, delayed, running, dead or ended")
    function: str
    unique: str
    priority: str
    background: bool
    size: int | None
    created: float | None
    due: float | None
    attempts: int
    max_attempts: int | None
    clients: int
    stored: bool | None = Field(description="Whether it would outlive the job server")
    stored_at: float | None = Field(
        description="When the store had committed it; null also if that was before a restart or very many commits ago"
    )
    worker: str | None
    connection: int | None = Field(description="The number of its worker's connection, while it runs")
    running_since: float | None
    queued: float | None = Field(description="When it came into its queue last")
    started: float | None = Field(description="When its last attempt began")
    ended: float | None
    progress: Progress | None
    died: float | None
    reason: str | None = Field(description="Why it is dead, or has failed")
    text: str | None = Field(description="With what its last attempt failed")
    outcome: str | None = Field(description="Of one that has ended: completed, failed, cancelled or abandoned")
    result_size: int | None
    kept_until: float | None
    why: str | None = Field(description="Why it is not handed out, if that is known at once")
    history: list[Attempt]


class JobStatus(BaseModel):
    """Whether a job is known, and how far it is: an answer to any handle."""

    handle: str
    known: bool = Field(description="Whether `GET /jobs/{handle}` tells something")
    events: bool = Field(description="Whether `GET /jobs/{handle}/events` does")
    state: str | None = Field(description="queued, blocked, delayed, running, dead or ended; null: it is not known")
    progress: Progress | None


class Why(BaseModel):
    """Why a job waits, in a sentence."""

    handle: str
    why: str


class Result(BaseModel):
    """How a job has ended."""

    handle: str
    state: Literal["completed", "failed"]
    result: Content | None = Field(default=None, description="Of one that has completed")
    error: Content | None = Field(default=None, description="With what it failed, as far as its worker said")


class NewPriority(Model):
    """Another priority."""

    priority: Priority


class JobFilters(JobSelection):
    """Which jobs are meant."""

    order: Literal["oldest", "newest"] = Field("oldest", description="Which come first")
    after: int = Field(0, ge=0, lt=2**62, description="`next` of the page before")
    limit: int = Field(100, ge=1, le=MAX_PAGE)


def _row(view: JobView) -> JobRow:
    worker = view.worker
    return JobRow(
        handle=as_text(view.handle),
        function=to_text(view.function),
        unique=to_text(view.unique),
        state=view.state,
        priority=PRIORITIES[view.priority],
        background=view.background,
        size=view.size,
        clients=view.clients,
        attempts=view.attempts,
        progress=_progress(view),
        created=round(view.created, 3),
        due=moment(view.due),
        queued_at=moment(view.queued_at),
        started_at=moment(view.started_at),
        worker=None if worker is None else as_text(worker.shown_name),
        connection=None if worker is None else worker.place,
    )


def _progress(view: JobView) -> Progress | None:
    if not view.denominator:
        return None
    return Progress(numerator=view.numerator, denominator=view.denominator)


@router.get("/jobs", operation_id="list_jobs", summary="List jobs", response_model=JobPage)
async def list_jobs(request: Request, _: Reader, filters: Annotated[JobFilters, Query()]) -> JobPage:
    """Jobs that wait, run or are dead, in the order of their submission, or the other way round.

    A page ends when it is full, or when very many were looked at.
    """
    face = face_of(request)
    look_now(face)
    chosen = filters.chosen(face.server.wall)
    found: list[JobRow] = []
    is_newest_first = filters.order == "newest"
    page = snapshot.job_page_back if is_newest_first else snapshot.job_page
    at = filters.after or (int(face.server.next_number) if is_newest_first else 0)
    at_once = LEFT_OUT_AT_ONCE if chosen.state or chosen.function is not None else AT_ONCE
    looked_at = 0
    spent = 0.0
    while len(found) < filters.limit and looked_at < MOST_LOOKED_AT:
        async with face.listing:
            if looked_at:  # the more it takes, the longer all others have their turn
                await asyncio.sleep(SHARE * spent)
            before = time.perf_counter()
            count = at_once if looked_at else filters.limit  # mostly they all fit
            views, until = page(face.server, at, count, chosen.state, chosen.function)
            for view in views:
                if chosen.means(view):
                    found.append(_row(view))
                    if len(found) == filters.limit:
                        until = view.number
                        break
            spent = time.perf_counter() - before
        if until < 0:
            return JobPage(jobs=found, next=None)
        looked_at += min(count, abs(until - at))
        at = until
    return JobPage(jobs=found, next=at)


@router.get(
    "/jobs/{handle}", operation_id="show_job", summary="Show a job", response_model=Job, responses=problems(404)
)
async def show_job(request: Request, handle: str, _: Reader) -> Job:
    """All that is known of a job, with its attempts; of one that has ended, whether its result is kept."""
    server = face_of(request).server
    number = server.handles.number(handle_word(handle))
    try:
        command = await ask(request, b"show", b"job", handle_word(handle), form="listing")
        details = _details(handle, command)
    except Problem as problem:
        if problem.slug != "unknown-job" or number not in server.ended.by_number:
            raise
        details = JobDetails(JobHandle(handle_word(handle), HERE), state="ended")
    history = [
        Attempt(**{name: getattr(attempt, name) for name in Attempt.model_fields}) for attempt in details.history
    ]
    values: dict[str, Any] = {name: getattr(details, name, None) for name in Job.model_fields}
    values |= {"handle": handle, "history": history}
    job = server.jobs.get(number)
    if job is not None:
        view = JobView(server, job)
        values |= {
            "function": to_text(view.function),
            "unique": to_text(view.unique),
            "progress": _progress(view),
            "stored": job.stored in (STORED, SPILLED),
            "queued": moment(view.queued_at),
            "started": moment(view.started_at),
            "connection": None if view.worker is None else view.worker.place,
        }
    ended = server.ended.by_number.get(number)
    if ended is not None and details.state in ("ended", "dead"):
        values |= _of_ended(ended, details)
    return Job(**values)


@router.get("/jobs/{handle}/status", operation_id="job_status", summary="Ask for a job", response_model=JobStatus)
async def job_status(request: Request, handle: str, _: Reader) -> JobStatus:
    """Whether a job is known and what it does, in few words; of one that is not known it is no fault to ask."""
    face = face_of(request)
    server = face.server
    number = int(server.handles.number(to_name(handle)))
    job = server.jobs.get(number) if number > 0 else None
    view = None if job is None else JobView(server, job)
    has_ended = number in server.results.by_number or number in server.ended.by_number
    return JobStatus(
        handle=handle,
        known=view is not None or has_ended,
        events=number > 0 and face.events.knows(number),
        state=view.state if view is not None else "ended" if has_ended else None,
        progress=None if view is None else _progress(view),
    )


def _details(handle: str, command: Command) -> JobDetails:
    try:
        return JobDetails.read(to_name(handle), HERE, command.lines())
    except (ValueError, KeyError):
        raise unreadable(command) from None


def _of_ended(ended: EndedJob, details: JobDetails) -> dict[str, Any]:
    """What is known of a job that has ended lately; a dead letter knows the most of it itself."""
    values: dict[str, Any] = {
        "queued": moment(ended.queued),
        "started": moment(ended.started),
        "ended": moment(ended.ended),
        "worker": as_text(ended.worker) or None,
    }
    if details.state == "dead":
        return values
    is_failure = ended.how not in (COMPLETED, CANCELLED, ABANDONED)
    history = [
        Attempt(
            number=attempt.number,
            started=round(attempt.started, 3),
            ended=round(attempt.ended, 3),
            reason=reason_name(attempt.reason),
            worker=as_text(attempt.worker),
            text=as_text(attempt.text),
        )
        for attempt in unpack_attempts(ended.history)
    ]
    return values | {
        "function": to_text(ended.function),
        "unique": to_text(ended.unique),
        "priority": PRIORITIES[ended.priority],
        "background": ended.background,
        "size": ended.size,
        "created": moment(ended.created),
        "stored_at": moment(ended.stored_at),
        "attempts": ended.attempts,
        "outcome": details.outcome or ("failed" if is_failure else ended.how),
        "reason": ("fail" if ended.how == FAILED else ended.how) if is_failure else None,
        "text": as_text(ended.text) if is_failure else None,
        "history": history,
    }


@router.get(
    "/jobs/{handle}/why",
    operation_id="explain_job",
    summary="Why a job waits",
    response_model=Why,
    responses=problems(404),
)
async def explain_job(request: Request, handle: str, _: Reader) -> Why:
    """Why a job waits, or what else is the matter with it."""
    command = await ask(request, b"why", handle_word(handle))
    return Why(handle=handle, why=value_of(command))


@router.get(
    "/jobs/{handle}/workload",
    operation_id="job_workload",
    summary="The workload of a job",
    response_model=Content,
    responses=problems(404, 409),
)
async def job_workload(request: Request, handle: str, _: Reader) -> Response:
    """Of a job that waits, runs or is dead. 409: it is large, and in the store alone."""
    server = face_of(request).server
    job = server.jobs.get(server.handles.number(handle_word(handle)))
    if job is None:
        raise await unknown_here(request, handle)
    if job.stored == SPILLED:
        detail = "The workload is large and in the store alone; it is read when the job is handed out"
        raise Problem(409, "in-store", detail, handle=handle)
    return await content_alone(job.workload)


@router.get(
    "/jobs/{handle}/result",
    operation_id="job_result",
    summary="A job's result",
    response_model=Result,
    responses={
        **problems(404, 409, 500),
        200: {"content": {BYTES: {"schema": {"type": "string", "format": "binary"}}}},
    },
)
async def job_result(
    request: Request,
    handle: str,
    _: ResultReader,
    wait: Annotated[float, Query(ge=0, le=3600, description="Seconds to wait; --http-timeout at most")] = 0,
) -> Response:
    """The result that is kept under the policy `results` of its function. 409: the job has not ended.

    With `Accept: application/octet-stream` the result alone; then a failed job is a problem.
    """
    words = [b"result", handle_word(handle), *([b"wait"] if wait else [])]
    until = now() + min(wait, face_of(request).config.http_timeout)
    try:
        while True:
            try:
                command = await _within(request, words, max(until - now(), 0.001) if wait else 0)
                break
            except Problem as problem:
                if problem.slug != "moved" or now() > until:
                    raise
    except Problem as problem:
        if problem.slug not in ("not-ready", "moved"):
            raise
        detail = f"The job {handle} still waits or runs: ask again, or with ?wait=SECONDS to be answered at its end"
        raise Problem(409, "not-ready", detail, handle=handle) from None
    outcome, data = command.data()
    if outcome == [b"completed"]:
        if wants_bytes(request):
            return Response(data, media_type=BYTES)
        return await answer(Result(handle=handle, state="completed"), "result", data)
    if wants_bytes(request):
        raise Problem(
            500, "job-failed", as_text(data) or "The job has failed; nothing is known about it", handle=handle
        )
    return await answer(Result(handle=handle, state="failed"), "error", data)


async def _within(request: Request, words: list[bytes], seconds: float) -> Command:
    """The answer to ``result``, given up when it does not come in time, or when the client goes."""
    asking = asyncio.create_task(ask(request, *words, form="data"))
    protocol = request.scope["geartrain.protocol"]
    protocol.on_lost(asking.cancel)
    try:
        done, _ = await asyncio.wait([asking], timeout=seconds or None)
        if not done:
            raise Problem(409, "not-ready", "Not within the time")
        return asking.result()
    except asyncio.CancelledError:
        if asking.done():
            raise ConnectionError("the client has gone") from None
        raise
    finally:
        asking.cancel()
        protocol.on_lost(_nothing)


def wants_bytes(request: Request) -> bool:
    """Whether the mere bytes are asked for."""
    return header(request.scope, b"accept").partition(";")[0].strip().lower() == BYTES


@router.delete(
    "/jobs/{handle}", operation_id="cancel_job", summary="Cancel a job", response_model=Done, responses=problems(404)
)
async def cancel_job(request: Request, handle: str, _: Operator) -> Done:
    """A job that waits is taken away; one that runs goes on at its worker, and nobody hears of it."""
    try:
        await order(request, "cancel job", handle, b"cancel", b"job", handle_word(handle))
    except Problem as problem:
        raise unknown_job(handle) if problem.status == 404 else problem from None
    return Done()


@router.post(
    "/jobs/{handle}/retry",
    operation_id="retry_job",
    summary="Try a job again",
    response_model=Done,
    responses=problems(404, 409),
)
async def retry_job(request: Request, handle: str, _: Operator) -> Done:
    """A dead job waits again, with all its attempts before it, and a delayed one is due now."""
    await order(request, "retry job", handle, b"retry", handle_word(handle))
    return Done()


@router.post(
    "/jobs/{handle}/priority",
    operation_id="change_priority",
    summary="Change a job's priority",
    response_model=Done,
    responses=problems(404, 409),
)
async def change_priority(request: Request, handle: str, _: Operator, asked: NewPriority) -> Done:
    """A job that waits goes to the end of another queue."""
    await order(request, "change priority", handle, b"priority", handle_word(handle), asked.priority.encode())
    return Done()


def _nothing() -> None:
    pass
