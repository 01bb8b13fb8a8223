"""Who has done what: one line for each action that changes something, and for each that was refused.

The lines are events of the logger ``geartrain.audit``; ``--audit-log`` has them in a file of their own as well.
"""

from __future__ import annotations

import logging
from typing import Final

log: Final = logging.getLogger("geartrain.audit")


def note(who: str, host: str, action: str, target: str = "", outcome: str = "done", **more: object) -> None:
    """``who`` has asked from ``host`` for an ``action`` on ``target``; the ``outcome`` is ``done``, or why not."""
    fields = {"who": who, "host": host, "action": action, "target": target, "outcome": outcome, **more}
    is_done = outcome == "done"  # whoever is turned away may come again and again
    log.log(logging.INFO if is_done else logging.WARNING, "audit", extra={"fields": fields, "each": is_done})
