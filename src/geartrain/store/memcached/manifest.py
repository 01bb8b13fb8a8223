"""The manifest: one small item on each node that is trusted, that says what the cluster keeps and who may change it.

It is rewritten when the nodes or the log's beginning change, not with each batch. A manifest counts when all its
members have it, or a later one; nothing is acknowledged before. So a node with a manifest that is not a member of the
one that counts has missed something, and a node without a manifest has nothing or is being filled.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Final

from geartrain.store.base import StoreError

VERSION: Final = 2


@dataclass(frozen=True)
class Manifest:
    """``members`` are the nodes that are trusted; segments ``first`` up to ``next`` and maybe some more are kept.

    ``epoch`` counts the owners, ``revision`` the manifests of one owner.

    Those from ``swept`` to ``first`` may not be deleted yet. ``sessions`` are (name, first segment) of the job servers
    that wrote them; the name is part of a segment's key, so that nobody writes over another's.
    """

    epoch: int
    revision: int
    owner: str
    members: tuple[str, ...]
    sessions: tuple[tuple[str, int], ...]
    swept: int = 0
    first: int = 0
    next: int = 0
    next_number: int = 1
    version: int = VERSION

    @property
    def age(self) -> tuple[int, int]:
        """What is larger for a later manifest."""
        return self.epoch, self.revision

    def dump(self) -> bytes:
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    def session_of(self, n: int) -> str:
        """Whose the ``n``-th segment is."""
        return next((name for name, first in reversed(self.sessions) if first <= n), self.sessions[0][0])

    def sessions_from(self, first: int) -> tuple[tuple[str, int], ...]:
        """Those sessions that have segments from ``first`` on."""
        ends = [begin for _, begin in self.sessions[1:]]
        return tuple(
            session for session, end in zip(self.sessions, [*ends, None], strict=True) if end is None or end > first
        )


def parse(raw: bytes, shown: str) -> Manifest:
    """The manifest of an item. Raises StoreError if it is none, or one of a newer geartrain."""
    try:
        found: dict[str, Any] = json.loads(raw)
        version = found["version"]
        if version <= VERSION:
            found["members"] = tuple(found["members"])
            found["sessions"] = tuple((name, first) for name, first in found["sessions"])
            return Manifest(**found)
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"the store {shown}: what is kept there under its names is not ours: give it another namespace"
        ) from error
    raise StoreError(
        f"the store {shown} has version {version}, and this geartrain knows it up to {VERSION}: start the newer"
        " geartrain that has written it, or give this one another namespace"
    )
