"""How functions get their policies and pauses, and how both outlast a restart.

A policy is kept as a record under its name or pattern, a pause under its function's name.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final, final

from geartrain.jobserver.chores import REQUEST_COST, Chore
from geartrain.jobserver.gates import may_count_anew
from geartrain.jobserver.model import REMEMBERED, Gate
from geartrain.jobserver.policies import MAX_PATTERNS, MAX_POLICIES
from geartrain.jobserver.policy import read_policy
from geartrain.jobserver.records import ATTEMPTS_KIND, DEAD_KIND, RESULT_KIND, Record, number_of
from geartrain.jobserver.results import Result
from geartrain.jobserver.rules.dead_letters import restore_letter
from geartrain.jobserver.rules.gating import refit
from geartrain.jobserver.rules.keeping import forget, keep
from geartrain.jobserver.rules.long_work import begin
from geartrain.jobserver.rules.waking import wake
from geartrain.native import i64, u8
from geartrain.wire.text import as_text

if TYPE_CHECKING:
    from geartrain.jobserver.model import Function, Peer
    from geartrain.jobserver.state import State

POLICY_KIND: Final = "policy"
PAUSE_KIND: Final = "pause"

_PAUSE: Final = Struct(">d")  # since when, Unix time; behind it who paused it and why
_AT_ONCE: Final = 500  # functions in one slice


def set_policy(state: State, peer: Peer, name: bytes, words: list[str]) -> None:
    """Merge ``key=value`` words into the policy of exactly this name. Raises ValueError, and changes nothing."""
    policies = state.policies
    before = policies.named(name)
    policy = read_policy(words, before)
    if policy is None:
        of_file = policies.of_file.get(name)
        if of_file is not None:
            raise ValueError(f"nothing is left, and {of_file.text} of the configuration file would hold: change that")
        if name in policies.of_command:
            unset_policy(state, peer, name)
        return
    if before is not None and policy.given == before.given:
        return
    if len(name) > state.max_function:
        raise ValueError(f"a function's name has {state.max_function} bytes at most")
    if name not in policies.of_command:
        if len(policies.of_command) >= MAX_POLICIES:
            raise ValueError(f"there are {MAX_POLICIES} policies, and there may be no more")
        if b"*" in name and len(policies.patterns) >= MAX_PATTERNS:
            raise ValueError(f"there are {MAX_PATTERNS} patterns, and there may be no more")
    _check_moving(state, name)
    text = policy.text.encode("utf-8", "surrogateescape")
    if not keep(state, Record(POLICY_KIND, name, text)):
        raise ValueError("it can't be kept: the memory is full, or the store takes nothing at the moment")
    policies.set(name, policy)
    state.cost += 200
    state.event("policy_set", peer, {"name": as_text(name), "policy": as_text(text)})
    _apply(state, name)


def unset_policy(state: State, peer: Peer, name: bytes) -> bool:
    """Take a policy away that a command has set; one of the configuration file of the same name counts again."""
    if name not in state.policies.of_command:
        return False
    _check_moving(state, name)
    state.policies.unset(name)
    forget(state, POLICY_KIND, name)
    state.event("policy_unset", peer, {"name": as_text(name)})
    _apply(state, name)
    return True


def _check_moving(state: State, name: bytes) -> None:
    function = state.functions.get(name)
    gate = None if function is None else function.gate
    if gate is not None and gate.moving:
        raise ValueError("its jobs are still being moved after the last change: try again in a moment")
    if function is not None and gate is not None and gate.keys is not None and not may_count_anew(function):
        raise ValueError("jobs are still there that were counted by keys many changes ago: try again when they are not")


def _apply(state: State, name: bytes) -> None:
    function = state.functions.get(name)
    if b"*" in name:
        if state.policies.applying:
            state.policies.again = True
        else:
            begin(state, Applying(state))
    elif function is not None:
        fit(state, function)


def fit(state: State, function: Function) -> None:
    """Give a function the policy that it should have, and what follows from that."""
    policy = state.policy_for(function.name)
    if policy is not function.policy:
        function.policy = policy
        refit(state, function)


@final
class Applying(Chore):
    """Functions get the policy that they should have, some at a time, since a pattern has changed."""

    def __init__(self, state: State) -> None:
        super().__init__(None)
        self.state: State = state
        self.at: i64 = 0
        self.until: i64 = state.function_roll.last_place
        state.policies.applying = True

    def step(self) -> bool:
        state = self.state
        policies = state.policies
        functions = state.function_roll.page(self.at, self.until, _AT_ONCE)
        before: i64 = state.cost
        for function in functions:
            if state.cost - before >= REQUEST_COST:
                break
            gate = function.gate
            if gate is None or not gate.moving:
                fit(state, function)
            state.cost += 20
            self.at = function.place
        if functions:
            return False
        if policies.again:
            policies.again = False
            self.at = 0
            self.until = state.function_roll.last_place
            return False
        policies.applying = False
        return True


def pause(state: State, function: Function, who: bytes, since: float) -> None:
    """Hand out no job of a function until it is resumed; submissions are kept."""
    gate = function.gate
    if gate is None:
        gate = Gate(function.generation)
        function.gate = gate
    gate.paused = True
    gate.paused_since = since
    gate.paused_by = who
    state.note_busy(function)


def resume(state: State, function: Function) -> bool:
    """Hand out the jobs of a function again; False if it was not paused."""
    gate = function.gate
    if gate is None or not gate.paused:
        return False
    gate.paused = False
    forget_pause(state, function)
    policy = function.policy
    if gate.leaving is None and (policy is None or not policy.is_gated):
        function.gate = None
    if function.first_sleeper is not None:
        wake(state, function)
    if function.workers == 0:
        state.note_idle(function)
    return True


def forget_pause(state: State, function: Function) -> None:
    """Keep it no longer that a function is paused."""
    forget(state, PAUSE_KIND, function.name)


def keep_pause(state: State, function: Function, who: bytes) -> bool:
    """Pause a function and keep that over a restart; False if it can't be kept."""
    if not keep(state, Record(PAUSE_KIND, function.name, _PAUSE.pack(state.wall) + who)):
        return False
    pause(state, function, who, state.wall)
    return True


def take_back(state: State, kind: str, key: bytes) -> None:
    """Another member of the fleet has removed a record: it is kept no longer, and the store is not told."""
    state.memory += state.records.put(Record(kind, key, None))
    function = state.functions.get(key)
    if kind == POLICY_KIND and key in state.policies.of_command:
        state.policies.unset(key)
        _apply(state, key)
    elif kind == PAUSE_KIND and function is not None:
        resume(state, function)


def restore(state: State, record: Record) -> None:
    """Take over a record that the store has kept from before."""
    state.memory += state.records.put(record)
    value = record.value or b""
    if record.kind == POLICY_KIND:
        try:
            policy = read_policy(value.decode("utf-8", "surrogateescape").split(" "))
        except ValueError as error:
            state.event("policy_unreadable", None, {"name": as_text(record.key), "reason": str(error)})
            return
        if policy is not None:
            state.policies.set(record.key, policy)
            _apply(state, record.key)
    elif record.kind == PAUSE_KIND and len(value) >= _PAUSE.size:
        pause(state, state.create_function(record.key), value[_PAUSE.size :], _PAUSE.unpack_from(value)[0])
    elif record.kind == DEAD_KIND:
        restore_letter(state, record)
    elif record.kind == RESULT_KIND:
        number = number_of(record.key)
        if number > 0:
            state.results.put(Result(number, record))
    elif record.kind == ATTEMPTS_KIND:
        job = state.jobs.get(number_of(record.key))
        if job is None:
            forget(state, record.kind, record.key)
        else:
            job.marks = u8(job.marks | REMEMBERED)
    elif record.kind in state.heirs:
        state.heirs[record.kind](record)
