"""The forms of answers to text commands: ``OK``, an error with words, a listing (section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from geartrain.jobserver.rules.long_work import Listing, begin
from geartrain.jobserver.shown import show_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from geartrain.jobserver.model import Peer
    from geartrain.jobserver.state import State

OK: Final = b"OK\r\n"
DOT: Final = b".\n"
_CHUNK: Final = 16 * 1024  # bytes of a listing that are made in one go


def refuse(peer: Peer, code: bytes, text: str) -> None:
    """``ERR CODE Some+words``."""
    words = show_name(text.encode("utf-8", "backslashreplace")).replace(b" ", b"+")
    peer.send(b"ERR %b %b\r\n" % (code, words))


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
