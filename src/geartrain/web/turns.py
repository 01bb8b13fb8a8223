"""Long work within the daemon's loop, with a turn for everybody else now and then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Final

_LONGEST: Final = 0.002  # seconds of work between two turns of the loop


async def in_turns(work: Iterator[None]) -> None:
    """Do work that may be left alone for a moment wherever it yields, so that the loop gets its turns."""
    begun = time.perf_counter()
    for _ in work:
        if time.perf_counter() - begun > _LONGEST:
            await asyncio.sleep(0)
            begun = time.perf_counter()
