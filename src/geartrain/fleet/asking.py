"""What is asked here about a job of another member is asked there, and its answer passed on.

The database says whose a stored job is. Of what it does not have, the member to which the job's number was given may
know, or for a result any. A job that is on its way, or whose owner has just ended, is looked for again for a moment.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from geartrain.errors import GeartrainError
from geartrain.fleet import links
from geartrain.store.base import StoreError
from geartrain.store.fleet import BLOCK
from geartrain.wire.packets import STATUS_RES, pack_response

if TYPE_CHECKING:
    from geartrain.jobserver.elsewhere import Question
    from geartrain.store.fleet import FleetStore

AGAIN: Final = 0.1  # seconds, growing
PATIENCE: Final = 4.0  # seconds until a job that nobody can be asked about is not known
AT_ONCE: Final = 64  # questions under way at the same time


class Asking:
    """Finds the answers to questions about jobs that are not here."""

    def __init__(self, address_of: Callable[[int], str], others: Callable[[], list[str]]) -> None:
        """``address_of``: where a live member is reached, ours included; empty if it does not live."""
        self._address_of = address_of
        self._others = others
        self._blocks: list[tuple[int, int]] = []  # the first number of each, and the member it was given to, sorted
        self._limit = asyncio.Semaphore(AT_ONCE)

    async def answer(
        self, store: FleetStore, questions: Sequence[Question], give: Callable[[Question, bytes | None], object]
    ) -> None:
        """Find each question's answer, and give it; None: nobody knows the job."""
        loop = asyncio.get_running_loop()
        waiting = list(questions)
        pause = AGAIN
        give_up_at = loop.time() + PATIENCE
        while waiting:
            numbers = sorted({question.number for question in waiting})
            try:
                owners = await loop.run_in_executor(None, store.owners, numbers)
                if any(number not in owners and not self._giver(number) for number in numbers):
                    self._blocks = sorted((await loop.run_in_executor(None, store.born_at)).items())
            except StoreError:
                owners = {}
            answers = await asyncio.gather(*(self._one(question, owners) for question in waiting))
            again = []
            for question, answer in zip(waiting, answers, strict=True):
                if answer is _LATER and loop.time() < give_up_at:
                    again.append(question)
                elif answer is _LATER:
                    give(question, _unreachable(question) if question.number in owners else None)
                else:
                    give(question, answer or None)
            waiting = again
            if waiting:
                await asyncio.sleep(pause)
                pause *= 1.5

    async def _one(self, question: Question, owners: dict[int, int]) -> bytes:
        """The answer; empty: nobody knows the job. ``_LATER``: it may be known in a moment."""
        owner = owners.get(question.number)
        if owner is not None:
            address = self._address_of(owner)
            if not address:
                return _LATER  # on its way, or to be adopted
            answer = await self._ask(address, question)
            # It may have ended in between; else it is in the database, and so somebody's.
            return answer if answer is _LATER or not _is_unknown(answer) else _LATER
        first = self._address_of(self._giver(question.number))
        for address in [first] if first else self._others():
            answer = await self._ask(address, question)
            if answer is not _LATER and not _is_unknown(answer):
                return answer
        return b""

    def _giver(self, number: int) -> int:
        """The member that has given out this number; 0: none that is known."""
        at = bisect_right(self._blocks, (number, 1 << 62)) - 1
        first, member = self._blocks[at] if at >= 0 else (0, 0)
        return member if first <= number < first + BLOCK else 0

    async def _ask(self, address: str, question: Question) -> bytes:
        line = question.line or b"show status " + question.handle
        waits = line.endswith(b" wait")
        async with self._limit:
            try:
                answer = await links.ask(address, line, timeout=None if waits else links.ANSWER_TIMEOUT)
            except GeartrainError:
                return _LATER
        if question.line or _is_unknown(answer):
            return answer
        words = answer.split()
        return pack_response(STATUS_RES, question.handle, *words[1:5]) if len(words) == 5 else b""


_LATER: Final = b"later"


def _unreachable(question: Question) -> bytes:
    """The answer about a job that the database has, and whose owner does not answer: it is there, and does not run.

    Sooner or later its owner does, or another one has it.
    """
    if not question.line:
        return pack_response(STATUS_RES, question.handle, b"1", b"0", b"0", b"0")
    if question.line.startswith(b"show status "):
        return b"OK 1 0 0 0\n"
    return b"ERR UNREACHABLE The+job+is+at+a+job+server+of+the+fleet+that+does+not+answer:+ask+again+in+a+moment\r\n"


def _is_unknown(answer: bytes) -> bool:
    return answer.startswith(b"ERR UNKNOWN_JOB")
