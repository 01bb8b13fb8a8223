"""How members ask each other: with text commands at the address that each advertises.

A question begins with ``local``, so that whoever is asked answers with what it knows itself.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from geartrain.client.command import Command, Form, ask_async
from geartrain.errors import GeartrainError, ServerError
from geartrain.link.address import Address

CONNECT_TIMEOUT: Final = 1.0  # seconds
ANSWER_TIMEOUT: Final = 3.0

_LISTINGS: Final = (b"status", b"prioritystatus", b"workers", b"show job", b"show jobs", b"show unique", b"fleet")
_DATA: Final = (b"result", b"dead workload")


def form_of(line: bytes) -> Form:
    """What the answer to a text command looks like."""
    words = b" ".join(line.lower().split()) + b" "
    if words.startswith(tuple(each + b" " for each in _LISTINGS)):
        return "listing"
    return "data" if words.startswith(tuple(each + b" " for each in _DATA)) else "line"


async def ask(address: str, line: bytes, *, timeout: float | None = ANSWER_TIMEOUT) -> bytes:  # noqa: ASYNC109
    """The whole answer of the member at this address, a refusal as well. Raises GeartrainError if there is none."""
    command = Command(b"local", line, form=form_of(line))
    with suppress(ServerError):  # its words are the answer
        await ask_async(command, Address.parse(address), connect_timeout=CONNECT_TIMEOUT, timeout=timeout)
    answer = command.answer()
    if not answer:
        raise GeartrainError(f"{address} gave no answer")
    return answer
