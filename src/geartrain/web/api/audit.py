"""``/api/v1/audit``: who has done what."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from geartrain.web.api.asking import MAX_PAGE, Model, Operator, face_of, moment

router: Final = APIRouter(tags=["audit"])


class AuditEntry(BaseModel):
    """An action that changed something, or a request that was refused."""

    number: int = Field(description="Counts up from 1 since the job server was started")
    time: float
    who: str = Field(description="The token's name; over the Gearman port what the peer calls itself")
    host: str
    via: Literal["http", "gearman"]
    action: str
    target: str
    outcome: str = Field(description="`done`, or the kind of problem")


class AuditPage(BaseModel):
    """Some of them, newest first."""

    entries: list[AuditEntry]
    next: int | None = Field(description="`after` of the next page; null: there is none")


class AuditFilters(Model):
    """Which entries are meant."""

    who: str | None = None
    action: str | None = Field(None, description="How the action begins", examples=["cancel"])
    after: int | None = Field(None, ge=0, lt=2**62, description="`next` of the page before")
    limit: int = Field(100, ge=1, le=MAX_PAGE)


@router.get("/audit", operation_id="list_audit", summary="Who has done what", response_model=AuditPage)
async def list_audit(request: Request, _: Operator, filters: Annotated[AuditFilters, Query()]) -> AuditPage:
    """The newest first: the last 1,000 actions, and as many requests that were refused."""
    found = (
        entry
        for entry in face_of(request).audit.newest(filters.after)
        if filters.who in (None, entry.who) and entry.action.startswith(filters.action or "")
    )
    entries = [AuditEntry(**{**entry._asdict(), "time": moment(entry.time)}) for entry in islice(found, filters.limit)]
    more = next(found, None)
    return AuditPage(entries=entries, next=entries[-1].number if more is not None else None)
