"""The text command ``result``: how a job ended, by its handle or by function and unique."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from geartrain.jobserver.model import DEAD
from geartrain.jobserver.results import FAILED, cache_key
from geartrain.jobserver.rights import READ, SUBMIT
from geartrain.jobserver.rules.answers import ask_elsewhere, error, refuse
from geartrain.jobserver.rules.results import last_words, result_head, wait_for_result
from geartrain.wire.text import as_text

if TYPE_CHECKING:
    from geartrain.jobserver.model import Job, Peer
    from geartrain.jobserver.results import Result
    from geartrain.jobserver.state import State

_GONE: Final = b"ERR UNKNOWN_JOB The+job+has+ended+and+its+result+is+not+kept\r\n"


def _result(state: State, peer: Peer, arguments: list[bytes]) -> None:
    """``result HANDLE [wait]`` or ``result unique FUNCTION UNIQUE [wait]``."""
    result: Result | None = None
    job: Job | None = None
    by_unique = arguments[0].lower() == b"unique"
    names = 3 if by_unique else 1
    waits = arguments[names:] == [b"wait"]
    if len(arguments) < names or (len(arguments) > names and not waits):
        refuse(peer, b"INVALID_ARGUMENTS", "Write result HANDLE [wait] or result unique FUNCTION UNIQUE [wait]")
        return
    if by_unique:
        name, unique = unquoted(arguments[1]), unquoted(arguments[2])
        function = state.functions.get(name)
        job = None if function is None else function.uniques.get(unique)
        result = state.results.latest(cache_key(name, unique, b""))
    else:
        number = int(state.handles.number(arguments[0]))
        job = state.jobs.get(number) if number >= 0 else None
        result = state.results.by_number.get(number)
    if result is not None and (job is None or job.state == DEAD):
        peer.send(result_head(result.outcome, result.size))
        if result.size > 0:
            peer.send(result.data)
    elif job is None and not by_unique:
        otherwise = error(
            b"UNKNOWN_JOB",
            f"Nothing is kept of {as_text(arguments[0])}: it never was, or its function has no policy results",
        )
        ask_elsewhere(state, peer, arguments[0], otherwise)
    elif job is None:
        what = " ".join([as_text(word) for word in arguments[:names]])
        refuse(peer, b"UNKNOWN_JOB", f"Nothing is kept of {what}: it never was, or its function has no policy results")
    elif job.state == DEAD:
        letter = state.dead.all.get(int(job.number))
        text = b"" if letter is None else last_words(letter.reason, letter.text)
        peer.send(result_head(FAILED, len(text)) + text)
    elif not waits:
        refuse(peer, b"NOT_READY", "The job still waits or runs; result HANDLE wait answers when it has ended")
    elif not wait_for_result(state, peer, int(job.number), _GONE):
        refuse(peer, b"NO_ROOM", "Too many wait for this result, or this connection does already")


def unquoted(word: bytes) -> bytes:
    """A word of a text command, with the bytes that are written as %XX."""
    parts = word.split(b"%")
    found = [parts[0]]
    for part in parts[1:]:
        try:
            found.append(bytes([int(part[:2], 16)]) + part[2:])
        except ValueError:
            found.append(b"%" + part)
    return b"".join(found)


COMMANDS: Final[dict[bytes, tuple[Callable[[State, Peer, list[bytes]], None], int, int]]] = {
    b"result": (_result, READ | SUBMIT, 1),
}
"""As the table in ``admin``: the rule, the right it needs, and how many arguments make it known."""
