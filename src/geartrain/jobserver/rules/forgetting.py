"""Functions that have been idle for long are forgotten, so that names used once do not stay for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from geartrain.jobserver.agenda import Source
from geartrain.jobserver.chores import ITERATION_COST
from geartrain.jobserver.gates import has_memory

if TYPE_CHECKING:
    from geartrain.jobserver.state import State


@final
class IdleFunctions(Source):
    """Forgets the functions that have had no jobs, workers and limits for ``forget_after`` seconds."""

    def __init__(self, state: State) -> None:
        super().__init__()
        self.state: State = state

    def next_at(self) -> float:
        if not self.state.idle:
            return 0.0
        for function in self.state.idle:
            return function.idle_since + self.state.settings.forget_after
        return 0.0

    def run(self) -> None:
        state = self.state
        if not state.idle:
            return
        until = state.now - state.settings.forget_after
        while state.cost < ITERATION_COST:
            function = next(iter(state.idle), None)
            if function is None or function.idle_since > until:
                return
            gate = function.gate
            if gate is not None and has_memory(gate, state.now):
                state.note_idle(function)  # as if it had become so just now
            else:
                state.forget_function(function)
            state.cost += 10
