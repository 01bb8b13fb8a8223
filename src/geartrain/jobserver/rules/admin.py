"""The administrative text protocol (section 4): one line asks, one line or a listing answers.

Line ends are mixed as gearmand's are: data lines, the closing dot and ``OK value`` end in LF, plain ``OK`` and every
``ERR`` in CR LF. Names in listings are made safe to read (``shown``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

from geartrain.jobserver import snapshot
from geartrain.jobserver.chores import Chore
from geartrain.jobserver.model import DEAD
from geartrain.jobserver.rights import OPERATE, READ
from geartrain.jobserver.rules import job_commands, policy_commands, result_commands
from geartrain.jobserver.rules.answers import OK, find_job, list_lines, refuse
from geartrain.jobserver.rules.departure import hang_up
from geartrain.jobserver.rules.gating import refit
from geartrain.jobserver.rules.long_work import begin
from geartrain.jobserver.rules.outcome import cancel
from geartrain.jobserver.rules.policing import forget_pause
from geartrain.jobserver.rules.watching import tell_policy
from geartrain.jobserver.shown import show_name
from geartrain.jobserver.watching import CANCELLED
from geartrain.native import i64
from geartrain.wire.text import as_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from geartrain.jobserver.model import Function, Peer
    from geartrain.jobserver.state import State

MAX_WORDS: Final = 5
_AT_ONCE: Final = 200  # jobs in one slice
_UNKNOWN_JOB: Final = b"ERR UNKNOWN_JOB\r\n"
_COST: Final = 80  # of a command, and of each few words more


def answer(state: State, peer: Peer, line: bytes) -> None:
    """Answer one text line; a long listing is made as the peer reads it."""
    words = line.partition(b"\0")[0].split(b" ")
    state.cost += _COST * (1 + len(words) // 4)
    command = words[0].lower()
    elsewhere = state.elsewhere
    if elsewhere is not None:
        elsewhere.is_local = command == b"local" and len(words) > 1
        if elsewhere.is_local:  # another member asks, which would be asked in turn
            del words[0]
            command = words[0].lower()
        elsewhere.line = b" ".join(words)
    arguments = [word for word in words[1:] if word]
    extension = state.commands.get(command)
    if extension is None and len(arguments) + 1 > MAX_WORDS and command not in WORDY:
        peer.send(b"ERR TOO_MANY_WORDS A+command+has+at+most+%d+words\r\n" % MAX_WORDS)
        hang_up(state, peer)
        return
    known = COMMANDS.get(command)
    right = known[1] if known is not None else extension[1] if extension is not None else 0
    if extension is None and (known is None or len(arguments) < known[2]):
        peer.send(b"ERR UNKNOWN_COMMAND Unknown+server+command%b\r\n" % words[0])
    elif peer.rights & right == 0:
        peer.send(b"ERR NOT_ALLOWED This+connection+has+no+right+to+%b\r\n" % command)
        state.event("request_refused", peer, {"request": command.decode("ascii")})
    elif extension is not None:
        extension[0](peer, arguments)
    elif known is not None:
        known[0](state, peer, arguments)


def _status(state: State, peer: Peer, _: list[bytes]) -> None:
    list_lines(state, peer, _status_lines(state))


def _priority_status(state: State, peer: Peer, _: list[bytes]) -> None:
    list_lines(state, peer, _priority_lines(state))


def _workers(state: State, peer: Peer, _: list[bytes]) -> None:
    list_lines(state, peer, _peer_lines(state))


def _show(state: State, peer: Peer, arguments: list[bytes]) -> None:
    what = b" ".join(arguments).lower()
    if what == b"jobs":
        list_lines(state, peer, _job_lines(state))
    elif what == b"unique jobs":
        list_lines(state, peer, _unique_lines(state))
    elif what.startswith(b"function ") and len(arguments) == 2:
        job_commands.show_function(state, peer, arguments[1])
    elif what.startswith(b"job ") and len(arguments) == 2:
        job_commands.show_job(state, peer, arguments[1])
    elif what.startswith(b"status ") and len(arguments) == 2:
        job_commands.show_status(state, peer, arguments[1])
    else:
        peer.send(b"ERR UNKNOWN_SHOW_ARGUMENTS\r\n")


# The lines of listings are made by generator functions, since compiled code makes a list of a generator expression. One
# of any length comes in parts.


def _status_lines(state: State) -> Iterator[bytes]:
    for view in snapshot.functions(state):
        yield b"%b\t%d\t%d\t%d\n" % (view.shown, view.total, view.running, view.workers)


def _priority_lines(state: State) -> Iterator[bytes]:
    for view in snapshot.functions(state):
        normal = view.normal + view.delayed  # delayed jobs have normal priority and count as waiting (section 4.2)
        yield b"%b\t%d\t%d\t%d\t%d\n" % (view.shown, view.high, normal, view.low, view.workers)


def _peer_lines(state: State) -> Iterator[bytes]:
    """``fd ip id : function ...``, last registered first; a line comes in parts, since it may be long."""
    for view in snapshot.peers(state):
        yield b"%d %b %b :" % (view.fd, view.host.encode(), view.shown_id)
        for name in snapshot.abilities(state, view):
            state.cost += 3
            yield b" " + name
        yield b"\n"


def _job_lines(state: State) -> Iterator[bytes]:
    """``handle, retries, ignore, queued``: ignored is a running job nobody waits for, queued means background."""
    for view in snapshot.jobs(state):
        yield b"%b\t%d\t%d\t%d\n" % (view.handle, view.attempts, view.is_unwanted, view.background)


def _unique_lines(state: State) -> Iterator[bytes]:
    for view in snapshot.jobs(state):
        unique = show_name(view.unique)
        yield (b"\\x2e" if unique == b"." else unique) + b"\n"  # a dot by itself ends a listing


def _version(state: State, peer: Peer, _: list[bytes]) -> None:
    peer.send(b"OK %b\n" % state.settings.version)


def _getpid(state: State, peer: Peer, _: list[bytes]) -> None:
    peer.send(b"OK %d\n" % state.settings.process_id)


def _verbose(state: State, peer: Peer, _: list[bytes]) -> None:
    peer.send(b"OK %b\n" % state.settings.verbosity)


def _create(state: State, peer: Peer, arguments: list[bytes]) -> None:
    if len(arguments) != 2 or arguments[0].lower() != b"function":
        _incomplete(peer, b"create")
    elif arguments[1] in state.functions or state.may_create(arguments[1]):
        state.create_function(arguments[1])
        peer.send(OK)
    else:
        peer.send(b"ERR CREATE_FUNCTION %b\r\n" % arguments[1])


def _drop(state: State, peer: Peer, arguments: list[bytes]) -> None:
    """Drop a function without workers and running jobs; jobs that wait there are cancelled."""
    if len(arguments) != 2 or arguments[0].lower() != b"function":
        _incomplete(peer, b"drop")
        return
    function = state.functions.get(arguments[1])
    if function is None:
        peer.send(b"ERR function not found\r\n")
    elif function.workers or function.running:
        peer.send(b"ERR there are still connected workers or executing clients\r\n")
    elif state.dead.count(function) > 0:
        peer.send(b"ERR there are dead letters: try them again or purge them before\r\n")
    else:
        forget_pause(state, function)
        state.forget_function(function)
        tells = function.policy is not None and bool(function.policy.webhook)
        function.policy = None
        if function.gate is not None:
            function.gate.paused = False
        begin(state, DropFunction(state, peer, function, tells))


@final
class DropFunction(Chore):
    """Cancels the jobs that wait in a function that is known no more, some at a time, and says OK when all are gone.

    Those that wait for their key go back to the function's queues before. ``tells``: the policy that it had named a
    webhook.
    """

    def __init__(self, state: State, peer: Peer, function: Function, tells: bool) -> None:
        super().__init__(peer)
        self.state: State = state
        self.peer: Peer = peer
        self.function: Function = function
        self.tells: bool = tells
        self.count: i64 = 0

    def step(self) -> bool:
        state = self.state
        function = self.function
        left = _AT_ONCE
        while left > 0:
            job = (
                function.high.first
                or function.normal.first
                or function.low.first
                or function.later.first
                or function.held.first
            )
            if job is None:
                break
            if self.tells:
                tell_policy(state, job, CANCELLED, b"")
            cancel(state, job)
            self.count += 1
            state.cost += 10
            left -= 1
        if left == 0:
            return False
        gate = function.gate
        if gate is not None:
            if not gate.moving:
                refit(state, function)
            state.cost += 10
            if function.gate is not None or function.queued > 0:
                return False
        shown = as_text(function.shown)
        state.event("function_dropped", self.peer, {"function": shown, "jobs": int(self.count)})
        if not (self.peer.gone or self.peer.closing):
            self.peer.send(OK)
        return True


def _maxqueue(state: State, peer: Peer, arguments: list[bytes]) -> None:
    """One limit for all priorities, or those for high, normal and low; none at all lifts them (section 3.10)."""
    if not arguments:
        _incomplete(peer, b"maxqueue")
        return
    limits = [_limit(word) for word in arguments[1:]]
    if len(limits) == 1:
        limits = limits * 3
    limits += [0] * (3 - len(limits))
    high, normal, low = limits[0], limits[1], limits[2]
    name = arguments[0]
    if name not in state.functions:
        if not any(limits):
            peer.send(OK)  # it has none
            return
        if not state.may_create(name):
            peer.send(b"ERR MAXQUEUE The+job+server+has+no+room+for+this+function+or+its+name+is+too+long\r\n")
            return
    function = state.create_function(name)
    was_limited = function.limited
    function.max_high, function.max_normal, function.max_low = high, normal, low
    if function.limited:
        state.note_busy(function)
    elif was_limited:
        state.note_idle(function)
    fields: dict[str, object] = {"function": as_text(function.shown), "high": high, "normal": normal, "low": low}
    state.event("limits_set", peer, fields)
    peer.send(OK)


def _limit(word: bytes) -> int:
    return min(int(word), 2**32) if word.isdigit() and len(word) < 20 else 0


def _cancel(state: State, peer: Peer, arguments: list[bytes]) -> None:
    if len(arguments) != 2 or arguments[0].lower() != b"job":
        peer.send(b"ERR UNKNOWN_ERROR\r\n")
        return
    handle = arguments[1]
    job = find_job(state, peer, handle, _UNKNOWN_JOB)
    if job is None:
        return
    if job.state == DEAD:
        peer.send(_UNKNOWN_JOB)
        return
    cancel(state, job)
    state.event("job_cancelled", peer, {"handle": as_text(handle), "function": as_text(job.function.shown)})
    peer.send(OK)


def _disconnect(state: State, peer: Peer, arguments: list[bytes]) -> None:
    """Close the connection that ``workers`` lists with this fd; a host and an id that are told have to be its own.

    So it is not another one that was made since, and has the number now.
    """
    number = arguments[0]
    fd = int(number) if number.isdigit() and len(number) < 10 else -1
    found: Peer | None = None
    state.cost += len(state.peers) // 4
    if fd >= 0:
        for other in state.peers:
            if other.fd == fd and not (other.gone or other.closing):
                found = other
                break
    if found is not None:
        whole = [found.host.encode(), *found.shown_id.split()]
        if arguments[1:] not in ([], whole[:1], whole):
            found = None
    if found is None:
        refuse(peer, b"UNKNOWN_CONNECTION", f"There is no connection {as_text(b' '.join(arguments))}: it may have gone")
        return
    fields: dict[str, object] = {"connection": f"{found.fd} {as_text(found.shown_name)}"}
    state.event("peer_disconnected", peer, fields)
    peer.send(OK)
    hang_up(state, found)


def _incomplete(peer: Peer, command: bytes) -> None:
    peer.send(b"ERR INVALID_ARGUMENTS An+incomplete+set+of+arguments+was+sent+to+this+command+%b\r\n" % command)


COMMANDS: Final[dict[bytes, tuple[Callable[[State, Peer, list[bytes]], None], int, int]]] = {
    b"status": (_status, READ, 0),
    b"prioritystatus": (_priority_status, READ, 0),
    b"workers": (_workers, READ, 0),
    b"show": (_show, READ, 1),
    b"version": (_version, READ, 0),
    b"getpid": (_getpid, READ, 0),
    b"verbose": (_verbose, READ, 0),
    b"create": (_create, OPERATE, 0),
    b"drop": (_drop, OPERATE, 0),
    b"maxqueue": (_maxqueue, OPERATE, 0),
    b"cancel": (_cancel, OPERATE, 2),
    b"disconnect": (_disconnect, OPERATE, 1),
    **policy_commands.COMMANDS,
    **job_commands.COMMANDS,
    **result_commands.COMMANDS,
}
"""Each text command: its rule, the right it needs, and how many arguments make it known."""

WORDY: Final = frozenset((b"disconnect", *policy_commands.COMMANDS, *job_commands.COMMANDS, *result_commands.COMMANDS))
"""Commands that gearmand does not have, and that may have any number of words."""
