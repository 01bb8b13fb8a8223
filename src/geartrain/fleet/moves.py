"""Jobs go to where workers are: from a member that has none for them, or too few, to one that has.

Once a second each member looks at its functions. Of those whose jobs have waited for a while it asks the others how
many workers they have; what nobody waits for here goes there. Nothing is asked while no job waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from geartrain.client.command import quoted
from geartrain.errors import GeartrainError
from geartrain.fleet import links
from geartrain.jobserver.rules.result_commands import unquoted

if TYPE_CHECKING:
    from geartrain.jobserver import JobServer
    from geartrain.jobserver.model import Function

WAITED: Final = 1.0  # seconds after which a job is to go where a worker is
WAITED_BEHIND_OTHERS: Final = 2.0  # the same where there are workers here too
AT_ONCE: Final = 20_000  # jobs of one function that go to one member in a round
FOR_EACH_IDLE: Final = 4  # jobs for each idle worker elsewhere, where there are workers here too
ASKED: Final = 500  # functions that others are asked about in a round
PAGE: Final = 2000  # functions in a look
QUIET: Final = 3  # rounds that are left out after one in which nobody had workers


class Able:
    """How many workers a member has for a function."""

    def __init__(self, idle: int, workers: int, queued: int) -> None:
        self.idle = idle
        self.workers = workers
        self.queued = queued


def able_lines(server: JobServer, names: list[bytes]) -> Iterator[bytes]:
    """The answer to ``fleet able``: of each function that has workers here how many are idle, how many there are, and
    how many of its jobs wait."""
    for name in names:
        function = server.functions.get(unquoted(name))
        if function is not None and function.workers > 0 and not function.is_paused:
            idle = min(int(function.sleepers), int(function.workers)) if function.ready == 0 else 0
            yield b"%b\t%d\t%d\t%d\n" % (name, idle, function.workers, function.ready)


class Moves:
    """Finds what is to go where."""

    def __init__(self, server: JobServer) -> None:
        self._server = server
        self._place = 0  # on the roll of functions, up to where the last look came
        self._left_out = 0

    def wanting(self) -> list[Function]:
        """Functions whose jobs have waited too long, of the next page of the roll."""
        server = self._server
        roll = server.function_roll
        page = roll.page(self._place, roll.last_place, PAGE)
        self._place = int(page[-1].place) if page and page[-1].place < roll.last_place else 0
        return [function for function in page if function.ready > 0 and self._has_waited(function)][:ASKED]

    def _has_waited(self, function: Function) -> bool:
        first = function.queue(function.best_priority()).first
        patience = WAITED if function.workers == 0 else WAITED_BEHIND_OTHERS
        return first is not None and self._server.now - first.queued_at >= patience

    async def round(self, members: dict[int, str], open_iteration: Callable[[], None]) -> int:
        """Ask these members, and let go what is theirs to do; how many jobs are to go."""
        if self._left_out > 0 or not members:
            self._left_out -= 1
            return 0
        wanting = self.wanting()
        if not wanting:
            return 0
        line = b"fleet able " + b" ".join(quoted(function.name) for function in wanting)
        answers = await asyncio.gather(*(_ask(address, line) for address in members.values()))
        able: dict[bytes, list[tuple[int, Able]]] = {}
        for member, answer in zip(members, answers, strict=True):
            for name, found in answer.items():
                able.setdefault(name, []).append((member, found))
        if not able:
            self._left_out = QUIET
            return 0
        open_iteration()
        count = 0
        for function in wanting:
            count += self._let_go(function, able.get(function.name, []))
        return count

    def _let_go(self, function: Function, able: list[tuple[int, Able]]) -> int:
        """Let the jobs of a function go to those who have workers: all of them, or as many as idle ones can do."""
        server = self._server
        count = 0
        if function.workers > 0:
            for member, each in able:
                if each.idle > 0 and each.queued == 0:
                    most = min(each.idle * FOR_EACH_IDLE, int(function.ready))
                    count += server.give_away(function.name, member, most)
            return count
        left = int(function.ready)
        workers = sum(each.workers for _, each in able)
        for member, each in sorted(able, key=lambda one: one[1].idle):
            share = max(left * each.workers // workers, 1) if workers > each.workers else left
            count += server.give_away(function.name, member, min(share, AT_ONCE))
            left -= share
            workers -= each.workers
            if left <= 0:
                break
        return count


async def _ask(address: str, line: bytes) -> dict[bytes, Able]:
    try:
        answer = await links.ask(address, line)
    except GeartrainError:
        return {}
    found = {}
    for row in answer.split(b"\n"):
        name, *numbers = row.split(b"\t")
        if len(numbers) == 3 and all(number.isdigit() for number in numbers):
            found[unquoted(name)] = Able(*map(int, numbers))
    return found
