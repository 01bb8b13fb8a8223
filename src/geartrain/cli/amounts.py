"""Bytes, spans of time and moments, as people read them."""

from __future__ import annotations

import time


def bytes_text(size: int) -> str:
    """As in 912 B, 1.2 MB."""
    amount = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 99.95 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:,.1f} TB"


def span_text(seconds: float) -> str:
    """As in 40s, 5m 12s, 3h 5m, 12d 4h."""
    whole = max(round(seconds), 0)
    for large, small, letters in ((86400, 3600, "dh"), (3600, 60, "hm"), (60, 1, "ms")):
        if whole >= large:
            return f"{whole // large}{letters[0]} {whole % large // small}{letters[1]}"
    return f"{whole}s"


def moment_text(seconds: float) -> str:
    """A Unix time as the date and time here."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
