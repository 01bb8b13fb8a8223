"""``/api/v1/dead``: dead letters, and what can be done about them."""

from __future__ import annotations

import asyncio
import heapq
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field, model_validator
from starlette.responses import Response

from geartrain.jobserver import snapshot
from geartrain.jobserver.policy import REASONS, reason_name
from geartrain.jobserver.snapshot import LetterView
from geartrain.web.api.asking import (
    MAX_PAGE,
    Model,
    Operator,
    Reader,
    ask,
    face_of,
    handle_word,
    order,
    problems,
    value_of,
    word,
)
from geartrain.web.api.content import Content, content_alone
from geartrain.web.names import to_name, to_text
from geartrain.web.problems import Problem
from geartrain.wire.text import as_text

if TYPE_CHECKING:
    from geartrain.jobserver import JobServer
    from geartrain.jobserver.letter_groups import LetterGroup

router: Final = APIRouter(tags=["dead letters"])

Reason = Literal["fail", "exception", "timeout", "lost", "retry", "reject", "expired", "dropped"]
GroupNumber = Annotated[int, Field(ge=1, lt=2**53, description="One of those that `GET /dead/groups` tells")]
MAX_HANDLES: Final = 100
AT_ONCE: Final = 500  # letters or groups that are looked at in one go
SHOWN_TEXT: Final = 200  # bytes of a text
CONTINUED: Final = bytes(range(0x80, 0xC0))  # what is left of a character of UTF-8 that was cut through


class Letter(BaseModel):
    """A job that did not succeed and is kept."""

    handle: str
    function: str
    unique: str
    died: float
    reason: str = Field(description=f"One of {', '.join(REASONS)}")
    attempts: int
    size: int = Field(description="Bytes of the workload")
    text: str = Field(description="The end of that with which its last attempt failed")


class LetterPage(BaseModel):
    """Dead letters, the longest dead first."""

    letters: list[Letter]
    next: int | None = Field(description="`after` of the next page; null: there is none")


class Group(BaseModel):
    """Dead letters of one function that died for one reason and with one line of error."""

    group: int = Field(description="The number of the group; no other will ever have it")
    function: str
    reason: str = Field(description=f"One of {', '.join(REASONS)}")
    error: str = Field(description="The first line of the error; of a traceback that of the exception")
    count: int
    oldest: float = Field(description="When the first of them died")
    newest: float
    handle: str = Field(description="That of the newest", examples=["H:here:7"])


class GroupPage(BaseModel):
    """Groups of dead letters, the largest first."""

    groups: list[Group]
    group_count: int = Field(description="How many groups are meant, on all pages")
    letter_count: int = Field(description="How many dead letters they have together")
    next: str | None = Field(description="`after` of the next page; null: there is none")


class GroupFilters(Model):
    """Which groups are meant."""

    function: str | None = Field(None, min_length=1)
    reason: Reason | None = None
    group: GroupNumber | None = None
    after: str = Field("", pattern=r"^(\d{1,18}:\d{1,18})?$", description="`next` of the page before")
    limit: int = Field(100, ge=1, le=MAX_PAGE)


class LetterFilters(Model):
    """Which dead letters are meant."""

    function: str | None = Field(None, min_length=1)
    reason: Reason | None = None
    group: GroupNumber | None = None
    after: int = Field(0, ge=0, lt=2**62, description="`next` of the page before, with the same function or group")
    limit: int = Field(100, ge=1, le=MAX_PAGE)


class Selection(Model):
    """Which dead letters are meant: `handles`, those of a `function` or a `reason` or of a `group`, or `all`."""

    handles: list[str] | None = Field(None, min_length=1, max_length=MAX_HANDLES)
    function: str | None = Field(None, min_length=1)
    reason: Reason | None = None
    group: GroupNumber | None = None
    all: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        by_kind = self.function is not None or self.reason is not None
        if (self.handles is not None) + by_kind + (self.group is not None) + self.all != 1:
            raise ValueError("write handles, or function or reason, or group, or all: true")
        return self

    def words(self) -> list[bytes]:
        """It, as words of a command."""
        if self.handles is not None:
            return [handle_word(handle) for handle in self.handles]
        return [b"all", *_words(self.function, self.reason, self.group)]

    def __str__(self) -> str:
        return " ".join(word.decode("utf-8", "backslashreplace") for word in self.words())


class RetrySelection(Selection):
    """The same; at a `rate` they are tried again one by one."""

    rate: int | None = Field(None, ge=1, le=999_999, description="How many a second, without `handles`")

    @model_validator(mode="after")
    def _check_rate(self) -> Self:
        if self.rate is not None and self.handles is not None:
            raise ValueError(f"rate={self.rate}: not with handles")
        return self

    def words(self) -> list[bytes]:
        return [*super().words(), *([] if self.rate is None else [b"rate=%d/s" % self.rate])]


class Count(BaseModel):
    """How many dead letters there were."""

    count: int


@router.get(
    "/dead",
    operation_id="list_dead_letters",
    summary="List dead letters",
    response_model=LetterPage,
    responses=problems(404),
)
async def list_dead_letters(request: Request, _: Reader, filters: Annotated[LetterFilters, Query()]) -> LetterPage:
    """The longest dead first, page by page; what dies or is tried again meanwhile is neither doubled nor left out."""
    face = face_of(request)
    name = None if filters.function is None else to_name(filters.function)
    if filters.group is not None:
        group = face.server.dead.groups.by_number.get(filters.group)
        if group is None:
            detail = f"There is no group {filters.group} of dead letters: it has gone, or never was"
            raise Problem(404, "unknown-group", detail)
        if name not in (None, group.function):
            return LetterPage(letters=[], next=None)
        name = group.function
    at = filters.after
    found: list[Letter] = []
    while page := snapshot.letter_page(face.server, name, at, AT_ONCE):
        for view in page:
            if filters.reason in (None, view.reason) and filters.group in (None, view.group):
                if len(found) == filters.limit:
                    return LetterPage(letters=found, next=at)
                found.append(_shown(view))
            at = view.place
        await asyncio.sleep(0)
    return LetterPage(letters=found, next=None)


def _shown(view: LetterView) -> Letter:
    text = view.text
    if len(text) > SHOWN_TEXT:  # of a traceback the end says most
        text = b"..." + text[-SHOWN_TEXT:].lstrip(CONTINUED)
    return Letter(
        handle=as_text(view.handle),
        function=to_text(view.function),
        unique=to_text(view.unique),
        died=round(view.died, 3),
        reason=view.reason,
        attempts=view.attempts,
        size=view.size,
        text=as_text(text),
    )


@router.get("/dead/groups", operation_id="list_dead_groups", summary="Group dead letters", response_model=GroupPage)
async def list_dead_groups(request: Request, _: Reader, filters: Annotated[GroupFilters, Query()]) -> GroupPage:
    """What dead letters have in common: the largest groups first. A group may be tried again or purged as a whole."""
    server = face_of(request).server
    function = None if filters.function is None else to_name(filters.function)
    reason = None if filters.reason is None else REASONS.index(filters.reason)
    by_number = server.dead.groups.by_number
    groups = list(by_number.values())
    if filters.group is not None:
        groups = [by_number[filters.group]] if filters.group in by_number else []
    size, colon, number = filters.after.partition(":")
    behind = (int(size), int(number)) if colon else (2**62, 0)
    best: list[tuple[int, int, LetterGroup]] = []
    group_count = letter_count = 0
    for at in range(0, len(groups), AT_ONCE):
        keys = [
            (len(group.letters), group.number, group)
            for group in groups[at : at + AT_ONCE]
            if group.letters and function in (None, group.function) and reason in (None, group.reason)
        ]
        group_count += len(keys)
        letter_count += sum(key[0] for key in keys)
        best = heapq.nlargest(filters.limit + 1, [*best, *(key for key in keys if key[:2] < behind)])
        await asyncio.sleep(0)
    last = best[filters.limit - 1] if len(best) > filters.limit else None
    return GroupPage(
        groups=[_group(server, group) for *_, group in best[: filters.limit] if group.letters],
        group_count=group_count,
        letter_count=letter_count,
        next=None if last is None else f"{last[0]}:{last[1]}",
    )


def _group(server: JobServer, group: LetterGroup) -> Group:
    number = next(reversed(group.letters))
    return Group(
        group=group.number,
        function=to_text(group.function),
        reason=reason_name(group.reason),
        error=as_text(group.line),
        count=len(group.letters),
        oldest=round(next(iter(group.letters.values())), 3),
        newest=round(group.letters[number], 3),
        handle=as_text(server.handles.make(number)),
    )


@router.get(
    "/dead/{handle}/workload",
    operation_id="dead_workload",
    summary="The workload of a dead letter",
    response_model=Content,
    responses=problems(404, 409),
)
async def dead_workload(request: Request, handle: str, _: Reader) -> Response:
    """409: it is large, and in the store alone."""
    command = await ask(request, b"dead", b"workload", handle_word(handle), form="data")
    return await content_alone(command.data()[1])


@router.post(
    "/dead/retry",
    operation_id="retry_dead_letters",
    summary="Try dead letters again",
    response_model=Count,
    responses=problems(404, 503),
)
async def retry_dead_letters(request: Request, _: Operator, selection: RetrySelection) -> Count:
    """They wait again, with all their attempts before them. With a `rate` the job server goes on by itself."""
    command = await order(request, "retry dead letters", str(selection), b"dead", b"retry", *selection.words())
    return Count(count=int(value_of(command)))


@router.post(
    "/dead/purge",
    operation_id="purge_dead_letters",
    summary="Throw dead letters away",
    response_model=Count,
    responses=problems(404, 503),
)
async def purge_dead_letters(request: Request, _: Operator, selection: Selection) -> Count:
    """They are gone for good."""
    command = await order(request, "purge dead letters", str(selection), b"dead", b"purge", *selection.words())
    return Count(count=int(value_of(command)))


def _words(function: str | None, reason: str | None, group: int | None) -> list[bytes]:
    words = [b"function=" + word(function, "The function")] if function is not None else []
    words += [b"reason=" + reason.encode()] if reason is not None else []
    return [*words, *([b"group=%d" % group] if group is not None else [])]
