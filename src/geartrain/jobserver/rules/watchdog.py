"""The watchdog: a job that may start never waits beside an idle worker able to do it, and if one does, it is said.

The rules see to that by themselves (``waking``). The watchdog looks at a page of functions now and then, and what it
finds twice in a row is a fault of this program: it is logged with all that is known, counted, and the worker is woken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from geartrain.jobserver.rules.waking import first_asleep, wake
from geartrain.native import i64
from geartrain.wire.text import as_text

if TYPE_CHECKING:
    from geartrain.jobserver.model import Function
    from geartrain.jobserver.state import State

_PAGE: Final = 500  # functions in one look


@final
class Watchdog:
    """Looks for jobs that wait beside idle workers; the driver calls ``look`` every few seconds."""

    def __init__(self, state: State) -> None:
        self.state: State = state
        self.at: i64 = 0
        self.suspects: dict[Function, None] = {}

    def look(self) -> None:
        """Look at some functions, and again at those that were found the last time."""
        state = self.state
        if state.withholding:
            return
        suspects = self.suspects
        self.suspects = {}
        for function in suspects:
            if not function.forgotten and _is_breach(function):
                self._say(function)
        last = state.function_roll.last_place
        page = state.function_roll.page(self.at, last, _PAGE)
        state.cost += len(page)
        self.at = page[-1].place if page and page[-1].place < last else 0
        for function in page:
            if function.queued > 0 and _is_breach(function):
                self.suspects[function] = None

    def _say(self, function: Function) -> None:
        state = self.state
        sleeper = first_asleep(function)
        assert sleeper is not None
        function.counters.stuck += 1
        gate = function.gate
        fields: dict[str, object] = {
            "function": as_text(function.shown),
            "ready": int(function.ready),
            "queued": int(function.queued),
            "running": int(function.running),
            "workers": int(function.workers),
            "woken": int(function.woken),
            "policy": "" if function.policy is None else function.policy.text,
            "gate": "" if gate is None else f"{gate.tokens} tokens, {gate.startable} of {gate.counted} may start",
        }
        state.event("job_stuck", sleeper.peer, fields)
        wake(state, function)


def _is_breach(function: Function) -> bool:
    """Whether jobs of a function may start, a worker able to do them sleeps, and nobody has been woken for them."""
    return function.ready > 0 and function.woken == 0 and first_asleep(function) is not None
