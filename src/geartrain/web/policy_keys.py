"""What is told of the keys of policies beside the table of ``jobserver.policy``: examples, and where to read on."""

from __future__ import annotations

import re
from typing import Final

from geartrain.jobserver.policy import KEYS

PAGES: Final = {
    "retries": ("attempts", "retry_on", "backoff", "delay", "max_delay", "jitter"),
    "timeout": ("timeout",),
    "expires": ("expires",),
    "dead-letters": ("dead", "dead_count"),
    "concurrency": ("concurrency", "key_concurrency", "key_separator"),
    "rate": ("rate", "burst", "key_rate", "key_burst"),
    "queue-limit": ("queue", "when_full"),
    "weight-and-ageing": ("weight", "ageing"),
    "results": ("results", "result_size", "stale"),
    "webhook": ("webhook",),
}
"""Which page of docs/policies tells all about which keys."""

PAGE_OF: Final = {key: page for page, keys in PAGES.items() for key in keys}

EXAMPLES: Final = {
    "attempts": "5", "retry_on": "timeout,lost", "backoff": "linear", "delay": "2s", "max_delay": "10m",
    "jitter": "0.2", "timeout": "30s", "expires": "1h", "dead": "30d", "dead_count": "1000",
    "concurrency": "20", "key_concurrency": "2", "key_separator": "/", "rate": "100/min", "burst": "10",
    "key_rate": "5/s", "key_burst": "3", "queue": "10000", "when_full": "drop-oldest", "weight": "3", "ageing": "10m",
    "results": "1h", "result_size": "64KiB", "stale": "10m", "webhook": "https://example.com/jobs",
}  # fmt: skip
"""A value that each key may have, and that is not its default."""

_WRITTEN: Final = {"all four": "fail,exception,timeout,lost", "a colon": ":"}  # defaults, as they may be written
_DEFAULT: Final = re.compile(r"(.*) \(default: ([^,)]*)(.*)\)")


def explained(key: str) -> tuple[str, str]:
    """What a key means, and its default, as the table has both in one; no default: it is not set."""
    meaning = KEYS[key][1]
    match = _DEFAULT.fullmatch(meaning)
    if match is None:
        return meaning, ""
    return match[1] + (f" ({match[3].lstrip(', ')})" if match[3] else ""), _WRITTEN.get(match[2], match[2])
