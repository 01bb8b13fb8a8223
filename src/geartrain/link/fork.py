"""Links are of one process: a forked child lets go of them at once, without ending them for its parent.

A socket that both have would mix their packets, and the job server would not notice that the parent has died as long as
the child lives. A fork concerns the whole process, so this is the one place where all its links are known.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Abandonable(Protocol):
    """What is to be let go of in a forked child."""

    def abandon(self) -> None:
        """Let go of the connection, without ending it for the parent."""


_links: weakref.WeakSet[Abandonable] = weakref.WeakSet()


def abandon_when_forked(link: Abandonable) -> None:
    """Have a link abandoned in every child that this process forks from now on."""
    _links.add(link)


def _abandon_all() -> None:
    for link in list(_links):
        link.abandon()
    _links.clear()


os.register_at_fork(after_in_child=_abandon_all)
