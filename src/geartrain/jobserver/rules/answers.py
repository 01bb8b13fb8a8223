"""The forms of answers to text commands: ``OK``, an error with words, a listing (section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from geartrain.jobserver.model import MOVING
from geartrain.jobserver.rules.long_work import Listing, begin
from geartrain.jobserver.shown import show_name
from geartrain.wire.packets import ERROR, pack_response
from geartrain.wire.text import as_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from geartrain.jobserver.model import Job, Peer
    from geartrain.jobserver.state import State

OK: Final = b"OK\r\n"
DOT: Final = b".\n"
_CHUNK: Final = 16 * 1024  # bytes of a listing that are made in one go


def refuse(peer: Peer, code: bytes, text: str) -> None:
    """``ERR CODE Some+words``."""
    peer.send(error(code, text))


def error(code: bytes, text: str) -> bytes:
    """The line that ``refuse`` sends."""
    return b"ERR %b %b\r\n" % (code, show_name(text.encode("utf-8", "backslashreplace")).replace(b" ", b"+"))


def find_job(state: State, peer: Peer, handle: bytes, otherwise: bytes = b"") -> Job | None:
    """The job with this handle, for a text command; None if it is not here, and the peer is told.

    In a fleet another member may answer, which is asked the same. ``otherwise``: what is said if nobody knows it.
    """
    number = state.handles.number(handle)
    job = state.jobs.get(number) if number >= 0 else None
    if job is not None and job.flags & MOVING == 0:
        return job
    ask_elsewhere(
        state,
        peer,
        handle,
        otherwise or error(b"UNKNOWN_JOB", f"No job {as_text(handle)} is known: it has ended, or never was"),
    )
    return None


def ask_elsewhere(state: State, peer: Peer, handle: bytes, otherwise: bytes) -> None:
    """What a text command asks of this job is not known here: another member of the fleet is asked, if there is one."""
    elsewhere = state.elsewhere
    if elsewhere is None:
        peer.send(otherwise)
    else:
        elsewhere.ask(peer, state.handles.number(handle), handle, elsewhere.line, otherwise)


def acknowledge(state: State, peer: Peer, answer: bytes = OK) -> None:
    """Answer a command that may have changed what is kept: once the store has it."""
    if not state.durable:
        peer.send(answer)
    elif state.store.trouble:
        peer.send(not_stored(state.store.trouble))
    else:
        peer.send(answer)
        state.changes.promise(peer.defer(), state.store.under_way is not None)


def not_stored(reason: str) -> bytes:
    """The answer to a command that took effect, and would be forgotten if the job server died now."""
    return error(b"NOT_STORED", f"It is in force, and will be stored when the store takes it: {reason}")


def refusal(reason: str) -> bytes:
    """The answer to a submission that the store has not taken, or whose result it has not."""
    return pack_response(ERROR, b"QUEUE_ERROR", b"The job could not be stored: " + reason.encode())


def list_lines(state: State, peer: Peer, lines: Iterator[bytes]) -> None:
    """Send a listing, as fast as the peer reads it."""
    begin(state, Listing(state, peer, _chunks(lines)))


def _chunks(parts: Iterator[bytes]) -> Iterator[bytes]:
    """The lines, or parts of them, in chunks, and the dot that ends them."""
    chunk: list[bytes] = []
    size = 0
    for part in parts:
        chunk.append(part)
        size += len(part)
        if size >= _CHUNK:
            yield b"".join(chunk)
            chunk = []
            size = 0
    chunk.append(DOT)
    yield b"".join(chunk)
