"""Which function and which unique a key means, where gearmand has joined the two by a hyphen.

Either may have hyphens of its own, so some keys can be read in several ways. They are read if only one hyphen is there,
if the unique is a UUID (libgearman's uniques are), or if the function is one of those that a person has named; the rest
is left where it is, since a job in the wrong function's queue is a lost one.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

_WITH_UUID: Final = re.compile(rb"(.+)-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})", re.DOTALL | re.IGNORECASE)


def split(name: bytes, functions: Collection[bytes]) -> tuple[bytes, bytes]:
    """The function and the unique that ``name`` joins. Raises ValueError, with the remedy, if that can't be told."""
    named = [function for function in functions if name.startswith(function + b"-")]
    if named:
        function = max(named, key=len)
        return function, name[len(function) + 1 :]
    with_uuid = _WITH_UUID.fullmatch(name)
    if with_uuid is not None:
        return with_uuid[1], with_uuid[2]
    function, hyphen, unique = name.partition(b"-")
    if not hyphen:
        raise ValueError("it has no hyphen between a function and a unique")
    if b"-" in unique and unique != b"-":  # a single one is the protocol's own word
        shown = name.decode("utf-8", "backslashreplace")
        first, last = shown.partition("-")[0], shown.rpartition("-")[0]
        raise ValueError(
            f"its hyphens can be read in several ways: name the function, by --function {first} or up to"
            f" --function {last}"
        )
    return function, unique
