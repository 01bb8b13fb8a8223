"""``/api/v1/dead``: dead letters, and what can be done about them."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final, Literal, Self

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field, model_validator

from geartrain.jobserver import snapshot
from geartrain.jobserver.policy import REASONS
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
from geartrain.web.api.content import Content, content
from geartrain.web.names import to_name, to_text
from geartrain.wire.text import as_text

router: Final = APIRouter(tags=["dead letters"])

Reason = Literal["fail", "exception", "timeout", "lost", "retry", "reject", "expired", "dropped"]
MAX_HANDLES: Final = 100
AT_ONCE: Final = 500  # letters that are looked at in one go
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


class LetterFilters(Model):
    """Which dead letters are meant."""

    function: str | None = Field(None, min_length=1)
    reason: Reason | None = None
    after: int = Field(0, ge=0, lt=2**62, description="`next` of the page before, with the same function")
    limit: int = Field(100, ge=1, le=MAX_PAGE)


class Selection(Model):
    """Which dead letters are meant: `handles`, those of a `function` or a `reason`, or `all`."""

    handles: list[str] | None = Field(None, min_length=1, max_length=MAX_HANDLES)
    function: str | None = Field(None, min_length=1)
    reason: Reason | None = None
    all: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        by_kind = self.function is not None or self.reason is not None
        if (self.handles is not None) + by_kind + self.all != 1:
            raise ValueError("write handles, or function or reason, or all: true")
        return self

    def words(self) -> list[bytes]:
        """It, as words of a command."""
        if self.handles is not None:
            return [handle_word(handle) for handle in self.handles]
        return [b"all", *_words(self.function, self.reason)]

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


@router.get("/dead", operation_id="list_dead_letters", summary="List dead letters", response_model=LetterPage)
async def list_dead_letters(request: Request, _: Reader, filters: Annotated[LetterFilters, Query()]) -> LetterPage:
    """The longest dead first, page by page; what dies or is tried again meanwhile is neither doubled nor left out."""
    face = face_of(request)
    name = None if filters.function is None else to_name(filters.function)
    at = filters.after
    found: list[Letter] = []
    while page := snapshot.letter_page(face.server, name, at, AT_ONCE):
        for view in page:
            if filters.reason in (None, view.reason):
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
        died=view.died,
        reason=view.reason,
        attempts=view.attempts,
        size=view.size,
        text=as_text(text),
    )


@router.get(
    "/dead/{handle}/workload",
    operation_id="dead_workload",
    summary="The workload of a dead letter",
    response_model=Content,
    responses=problems(404, 409),
)
async def dead_workload(request: Request, handle: str, _: Reader) -> Content:
    """409: it is large, and in the store alone."""
    command = await ask(request, b"dead", b"workload", handle_word(handle), form="data")
    return content(command.data()[1])


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


def _words(function: str | None, reason: str | None) -> list[bytes]:
    words = [b"function=" + word(function, "The function")] if function is not None else []
    return [*words, *([b"reason=" + reason.encode()] if reason is not None else [])]
