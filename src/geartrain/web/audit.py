"""Who has done what: an entry for each action that changes something, and for each request that was refused.

Each is a line ``audit`` of the log and one of ``--http-audit``, and the newest are kept for whoever asks the API. Those
who are turned away may come again and again: so they have a place of their own, and do not push out what was done.
"""

from __future__ import annotations

import heapq
import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from geartrain.redaction import redacted
from geartrain.wire.text import as_text

if TYPE_CHECKING:
    from geartrain.jobserver import Peer
    from geartrain.web.audit_file import AuditFile

log: Final = logging.getLogger("geartrain.audit")

KEPT: Final = 1000  # entries of what was done, and as many of what was refused
LONGEST: Final = 500  # letters of what somebody has sent, in an entry that is kept
DONE: Final = "done"
HTTP: Final = "http"
GEARMAN: Final = "gearman"
REFUSED: Final = "request_refused"
OF_EVENTS: Final[Mapping[str, tuple[str, str]]] = {
    "drain_ordered": ("drain server", ""),
    "function_dropped": ("drop function", "function"),
    "function_paused": ("pause function", "function"),
    "function_resumed": ("resume function", "function"),
    "job_cancelled": ("cancel job", "handle"),
    "limits_set": ("limit function", "function"),
    "peer_disconnected": ("disconnect", "connection"),
    "policy_set": ("set policy", "name"),
    "policy_unset": ("unset policy", "name"),
}
"""The events by which text commands over the Gearman port are known: each with its action, and the field of its target.

What comes for each of many jobs is not among them."""


class Entry(NamedTuple):
    """One action. ``via`` says by which protocol; by ``gearman`` ``who`` is only what the peer calls itself."""

    number: int
    time: float
    who: str
    host: str
    via: str
    action: str
    target: str
    outcome: str


class Audit:
    """The newest actions, and where all of them go."""

    def __init__(self, file: AuditFile | None) -> None:
        self._file = file
        self._number = 0
        self._done: deque[Entry] = deque(maxlen=KEPT)
        self._refused: deque[Entry] = deque(maxlen=KEPT)

    def note(self, who: str, host: str, action: str, target: str = "", outcome: str = DONE) -> None:
        """``who`` has asked from ``host`` for an ``action`` on ``target``; the ``outcome`` is ``done``, or why not."""
        self._keep(self._done, (who, host, HTTP, action, target, outcome), is_known=True)

    def turn_away(self, who: str, host: str, action: str, outcome: str, *, is_known: bool) -> None:
        """A request was refused. Of many by nobody who ``is_known`` the file too has only the first of each second."""
        self._keep(self._refused, (who, host, HTTP, action, "", outcome), is_known)

    def hear(self, event: str, peer: Peer | None, fields: Mapping[str, object]) -> None:
        """An event of the job server, which may be of a text command over the Gearman port; the log has it already."""
        if peer is None or peer.fd < 0:  # ours have been noted
            return
        who, host = as_text(peer.client_id) or "-", peer.host
        if event in OF_EVENTS:
            action, target = OF_EVENTS[event]
            self._keep(self._done, (who, host, GEARMAN, action, str(fields.get(target, "")), DONE), is_known=True)
        elif event == REFUSED:
            request = (who, host, GEARMAN, str(fields["request"]), "", "not-allowed")
            self._keep(self._refused, request, is_known=False)

    def newest(self, before: int | None = None) -> Iterator[Entry]:
        """The entries, newest first; those ``before`` a number."""
        both = heapq.merge(reversed(self._done), reversed(self._refused), key=_number, reverse=True)
        return (entry for entry in both if before is None or entry.number < before)

    def _keep(self, ring: deque[Entry], said: tuple[str, str, str, str, str, str], is_known: bool) -> None:
        self._number += 1
        who, host, via, action, target, outcome = said
        entry = Entry(self._number, time.time(), who, host, via, _shown(action), _shown(target), outcome)
        ring.append(entry)
        fields = {"who": who, "host": host, "action": action, "target": target, "outcome": outcome}
        level = logging.INFO if outcome == DONE else logging.WARNING
        if via == HTTP:
            log.log(level, "audit", extra={"fields": fields, "each": ring is self._done})
        if self._file is not None:
            self._file.write(level, {**fields, "via": via}, each=is_known)


def _number(entry: Entry) -> int:
    return entry.number


def _shown(text: str) -> str:
    return redacted(text[:LONGEST])
