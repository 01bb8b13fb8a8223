"""What a worker says once in its log, whichever of its threads and processes comes across it, and however often."""

from __future__ import annotations

import hashlib
import mmap

_SIZE = 8  # bytes that stand for a text
_ROOM = 512  # texts


class Once:
    """The texts that were said, in memory that all processes share which are forked after this was made."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, _SIZE * _ROOM)

    def is_new(self, text: str) -> bool:
        """Whether ``text`` has not been said; from now on it has. When there is no room for more nothing is new."""
        digest = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=_SIZE).digest()
        for start in range(0, _SIZE * _ROOM, _SIZE):
            known = self._page[start : start + _SIZE]
            if known == digest:
                return False
            if not any(known):
                self._page[start : start + _SIZE] = digest
                return True
        return False
