"""Times as people write them: 30s, 500ms, 5m, 2h, 1d, or plain seconds."""

from __future__ import annotations

import re

_SECONDS_PER = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_WRITTEN = re.compile(r"\s*(\d+\.?\d*|\.\d+)\s*(ms|s|m|h|d|)\s*")

FORMS = "write a time such as 2.5, 30s, 5m or 500ms"


def read_seconds(text: str) -> float:
    """The seconds that are meant. Raises ValueError, with a remedy, for what is no time."""
    match = _WRITTEN.fullmatch(text)
    if match is None:
        raise ValueError(FORMS)
    return float(match[1]) * _SECONDS_PER[match[2]]
