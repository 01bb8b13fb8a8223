"""``/api/v1/jobs/cancel``, ``/priority`` and ``/retry``: one order to many jobs, chosen as in a listing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Self

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, model_validator

from geartrain.jobserver import snapshot
from geartrain.web.api.asking import Operator, face_of
from geartrain.web.api.job_selection import PRIORITIES, JobSelection, Priority

if TYPE_CHECKING:
    from geartrain.jobserver.snapshot import JobView
    from geartrain.web.access import Identity

AT_ONCE: Final = 500  # jobs that are looked at in one go
LONGEST_TURN: Final = 0.005  # seconds that one go takes, whatever becomes of the jobs
SHARE: Final = 1  # how much longer than one go takes the next has to wait
MOST_LOOKED_AT: Final = 100_000  # for one request
router: Final = APIRouter(tags=["jobs"])


class ManyJobs(JobSelection):
    """Which jobs are meant: those of which all of this is true; `all` where nothing else is said."""

    all: bool = False
    dry_run: bool = Field(False, description="Only count them")
    after: int = Field(0, ge=0, lt=2**62, description="`next` of the answer before")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.said()) == self.all:
            raise ValueError("write which jobs are meant, or all: true")
        return self

    def said(self) -> dict[str, str]:
        """What was said of the jobs."""
        return {name: str(value) for name in JobSelection.model_fields if (value := getattr(self, name)) is not None}

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.said().items()) or "all"


class ManyPriorities(ManyJobs):
    """The same, and another priority for them."""

    new_priority: Priority


class ManyDone(BaseModel):
    """What has become of it."""

    count: int = Field(description="Jobs for which it was done; with `dry_run` those for which it would be")
    next: int | None = Field(
        description=f"`after` of the order to go on with: {MOST_LOOKED_AT} jobs were looked at; null: that was all"
    )


@router.post("/jobs/cancel", operation_id="cancel_jobs", summary="Cancel many jobs", response_model=ManyDone)
async def cancel_jobs(request: Request, identity: Operator, selection: ManyJobs) -> ManyDone:
    """Jobs that wait are taken away; those that run go on at their workers, and nobody hears of them."""
    return await _do(
        request, identity, "cancel jobs", selection, lambda view: view.state != "dead", face_of(request).server.cancel
    )


@router.post(
    "/jobs/priority",
    operation_id="change_priorities",
    summary="Change the priority of many jobs",
    response_model=ManyDone,
)
async def change_priorities(request: Request, identity: Operator, selection: ManyPriorities) -> ManyDone:
    """Jobs that wait go to the end of another queue; `priority` is which they have, `new_priority` which they get."""
    server = face_of(request).server
    priority = PRIORITIES.index(selection.new_priority)
    return await _do(
        request,
        identity,
        f"change priority to {selection.new_priority}",
        selection,
        lambda view: view.state not in ("running", "dead") and view.priority != priority,
        lambda number: server.change_priority(number, priority),
    )


@router.post("/jobs/retry", operation_id="retry_jobs", summary="Try many jobs again", response_model=ManyDone)
async def retry_jobs(request: Request, identity: Operator, selection: ManyJobs) -> ManyDone:
    """Dead jobs wait again, with all their attempts before them, and delayed ones are due now."""
    return await _do(
        request,
        identity,
        "retry jobs",
        selection,
        lambda view: view.state in ("dead", "delayed"),
        face_of(request).server.retry,
    )


async def _do(
    request: Request,
    identity: Identity,
    action: str,
    selection: ManyJobs,
    is_fit: Callable[[JobView], bool],
    do: Callable[[int], bool],
) -> ManyDone:
    """Do something to all that are meant and fit for it, some at a time; those that come meanwhile are left alone."""
    face = face_of(request)
    face.host.open_iteration()
    server = face.server
    chosen = selection.chosen(server.wall)
    end = int(server.next_number)
    at = selection.after
    count = looked_at = 0
    spent = 0.0
    try:
        while looked_at < MOST_LOOKED_AT:
            async with face.listing:
                if looked_at:  # the more it takes, the longer all others have their turn
                    await asyncio.sleep(SHARE * spent)
                before = time.perf_counter()
                face.host.open_iteration()
                views, until = snapshot.job_page(server, at, AT_ONCE)
                looked_at += AT_ONCE
                for passed, view in enumerate(views, 1):
                    if view.number >= end:
                        until = -1
                        break
                    if not (is_fit(view) and chosen.means(view)):
                        continue
                    count += selection.dry_run or do(view.number)
                    if time.perf_counter() - before > LONGEST_TURN:
                        looked_at += passed - AT_ONCE
                        until = view.number
                        break
                spent = time.perf_counter() - before
            if until < 0:
                return ManyDone(count=count, next=None)
            at = until
        return ManyDone(count=count, next=at)
    finally:
        if not selection.dry_run:
            face.audit.note(identity.name, identity.host, action, f"{selection}: {count} jobs")
