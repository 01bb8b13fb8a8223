"""``/api/v1/dead``: dead letters, and what can be done about them."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field, model_validator

from geartrain.client.dead_letter import DeadLetter
from geartrain.jobserver.policy import REASONS
from geartrain.web.api.asking import (
    MAX_PAGE,
    Model,
    Operator,
    Reader,
    ask,
    handle_word,
    order,
    problems,
    rows_of,
    value_of,
    word,
)
from geartrain.web.api.content import Content, content
from geartrain.wire.text import as_text

router: Final = APIRouter(tags=["dead letters"])

Reason = Literal["fail", "exception", "timeout", "lost", "retry", "reject", "expired", "dropped"]
MAX_HANDLES: Final = 100


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


class LetterList(BaseModel):
    """Dead letters, the longest dead first."""

    letters: list[Letter]


class LetterFilters(Model):
    """Which dead letters are meant."""

    function: str | None = Field(None, min_length=1)
    reason: Reason | None = None
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


@router.get("/dead", operation_id="list_dead_letters", summary="List dead letters", response_model=LetterList)
async def list_dead_letters(request: Request, _: Reader, filters: Annotated[LetterFilters, Query()]) -> LetterList:
    """The longest dead first. All of them, page by page: `GET /jobs?state=dead`."""
    words = [*_words(filters.function, filters.reason), b"count=%d" % filters.limit]
    command = await ask(request, b"dead", b"list", *words, form="listing")
    return LetterList(letters=await rows_of(command, DeadLetter.read, _shown))


def _shown(letter: DeadLetter) -> Letter:
    return Letter(
        handle=as_text(letter.handle),
        function=letter.function,
        unique=letter.unique,
        died=letter.died,
        reason=letter.reason,
        attempts=letter.attempts,
        size=letter.size,
        text=letter.text,
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
