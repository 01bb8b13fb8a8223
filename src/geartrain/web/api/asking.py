"""What the operations of the API share: who asks, names and bytes in JSON, text commands that are told to the audit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel, ConfigDict

from geartrain.client.command import Command, Form
from geartrain.link.address import Address
from geartrain.web import commands
from geartrain.web.access import Identity
from geartrain.web.names import to_name, to_text
from geartrain.web.problems import Problem

if TYPE_CHECKING:
    from geartrain.web.face import Face

HERE: Final = Address("localhost")  # what a client's readers take for the server that was asked
MAX_PAGE: Final = 1000
_NOTED: Final = (401, 403)  # what the audit log has been told when the answer is made
_AT_ONCE: Final = 200  # lines that are read in one go
Row = TypeVar("Row")
Shown = TypeVar("Shown")


class Model(BaseModel):
    """What is sent: nothing is overlooked."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Done(BaseModel):
    """It has been done."""

    ok: bool = True


# ── who asks, and what of ───────────────────────────────────────────────────────────────────────────────────────────


def face_of(request: Request) -> Face:
    """What the parts of the HTTP face share."""
    face: Face = request.app.state.face
    return face


def identity_of(request: Request) -> Identity:
    """Who asks."""
    identity: Identity = request.scope["identity"]
    return identity


async def _reader(request: Request) -> Identity:
    identity = identity_of(request)
    identity.need("read")
    return identity


async def _operator(request: Request) -> Identity:
    identity = identity_of(request)
    identity.need("operate")
    return identity


async def _result_reader(request: Request) -> Identity:
    identity = identity_of(request)
    if "*" not in identity.patterns:  # who may submit any job may hear how it ended
        identity.need("read")
    return identity


Reader = Annotated[Identity, Depends(_reader)]
ResultReader = Annotated[Identity, Depends(_result_reader)]
Operator = Annotated[Identity, Depends(_operator)]


def look_now(face: Face) -> None:
    """Have the job server know the time, so that what is read of it is of now."""
    face.host.open_iteration()


def word(name: str, what: str) -> bytes:
    """A name that can be told in a text command. Raises Problem."""
    encoded = to_name(name)
    if not encoded or any(byte <= 32 for byte in encoded):
        raise Problem(
            422,
            "invalid",
            f"{what} {name!r} is empty, or holds blanks or control characters: text commands can't name it",
        )
    return encoded


def handle_word(handle: str) -> bytes:
    """A handle for a text command. Raises Problem if it is none."""
    encoded = to_name(handle)
    if not encoded or any(byte <= 32 for byte in encoded):
        raise unknown_job(handle)
    return encoded


def unknown_job(handle: str) -> Problem:
    """The refusal of a handle that means nothing."""
    return Problem(404, "unknown-job", f"No job {handle!r} is known: it has ended, or never was")


async def unknown_here(request: Request, handle: str) -> Problem:
    """The refusal where only the job server that has a job can answer: whether another member of the fleet has it."""
    if face_of(request).host.fleet is not None:
        with suppress(Problem):
            await ask(request, b"show", b"status", handle_word(handle))
            detail = (
                f"The job {handle} is at another job server of the fleet; ask for its state here, or for this there"
            )
            return Problem(409, "at-another-member", detail, handle=handle)
    return unknown_job(handle)


async def ask(request: Request, *words: bytes, form: Form = "line") -> Command:
    """Ask a text command for whoever asks us. Raises Problem."""
    return await commands.ask(face_of(request).host, identity_of(request), *words, form=form)


async def order(request: Request, action: str, target: str, *words: bytes) -> Command:
    """The same for one that changes something, which the audit log is told, with how it went."""
    identity = identity_of(request)
    try:
        command = await ask(request, *words)
    except Problem as problem:
        if problem.status not in _NOTED:
            face_of(request).audit.note(identity.name, identity.host, action, target, problem.slug)
        raise
    face_of(request).audit.note(identity.name, identity.host, action, target)
    return command


def value_of(command: Command) -> str:
    """What stands behind OK."""
    return command.answer().removeprefix(b"OK").strip().decode("utf-8", "backslashreplace")


async def rows_of(command: Command, read: Callable[[Address, bytes], Row], show: Callable[[Row], Shown]) -> list[Shown]:
    """The lines of a listing, read as the client reads them, and as they are shown. Raises Problem."""
    rows = []
    for number, line in enumerate(command.lines()):
        if number % _AT_ONCE == _AT_ONCE - 1:
            await asyncio.sleep(0)
        try:
            rows.append(show(read(HERE, line)))
        except ValueError:
            raise unreadable(command) from None
    return rows


def unreadable(command: Command) -> Problem:
    """The refusal for what is our own fault."""
    return Problem(500, "unreadable-answer", f"The answer to {command!r} can't be read")


def moment(value: float) -> float | None:
    """A Unix time, if there is one."""
    return round(value, 3) if value > 0 else None


def now() -> float:
    """The Unix time."""
    return time.time()


def cursor(after: str) -> tuple[int, bytes] | None:
    """Of a listing in some order, what the last row of the page before was sorted by: its rank and its name.

    None: there was no page before. Raises Problem.
    """
    if not after:
        return None
    number, colon, name = after.partition(":")
    digits = number.removeprefix("-")
    if not (colon and digits.isascii() and digits.isdigit() and len(digits) <= 19):
        raise no_cursor(after)
    return int(number), to_name(name)


def shown_cursor(rank: int, name: bytes) -> str:
    """The same as the next page is asked with."""
    return f"{rank}:{to_text(name)}"


def no_cursor(after: str) -> Problem:
    """The refusal of what is no cursor of this listing."""
    return Problem(422, "invalid", f"after is {after!r}: it is `next` of a page that was sorted in the same way")


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What an operation may answer beside what every one may; ``document`` gives them their schema."""
    return {status: {"description": _MEANINGS[status]} for status in statuses}


_MEANINGS: Final[Mapping[int, str]] = {
    400: "The request can't be understood",
    401: "A token is needed, or is not known",
    403: "The token has no right to this",
    404: "There is no such thing",
    408: "The body came too slowly",
    409: "It is not in a state for this",
    413: "The body is too large",
    421: "The job server does not know itself by this name",
    422: "A value is not allowed; the problem names it, and what is",
    429: "Too many wrong tokens",
    500: "The job has failed",
    502: "The job has sent too much",
    503: "The job server has no room for it at the moment, or is about to stop: try again",
    504: "Not within the time that was given",
}
