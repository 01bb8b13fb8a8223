"""Names as they stand in listings, where whatever could end a line, turn text round or steer a terminal is escaped.

A binary packet carries a name as it is; only text that people and scripts read line by line is made safe.
"""

from __future__ import annotations

import re
from typing import Final

_CONTROLS: Final = bytes([*range(32), 127])
# Control characters, also as single bytes that are no UTF-8 (which decode to U+DC80 and up), what Unicode knows as
# ends of lines, and what changes the direction of text.
_UNSAFE: Final = re.compile("[\0-\x1f\x7f-\x9f\udc80-\udc9f\u2028-\u202e\u2066-\u2069]")
_ESCAPES: Final[dict[str, str]] = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}


def show_name(name: bytes) -> bytes:
    """The name with unsafe characters as ``\\n``, ``\\t``, ``\\r``, ``\\x1b`` or ``\\u2028``; all else as it is."""
    if name.isascii() and len(name.translate(None, _CONTROLS)) == len(name):
        return name
    text = name.decode("utf-8", "surrogateescape")
    return _UNSAFE.sub(_escaped, text).encode("utf-8", "surrogateescape")


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    code = ord(character)
    if character in _ESCAPES:
        return _ESCAPES[character]
    if code >= 0xDC80:
        code -= 0xDC00
    elif code >= 0x80:
        return f"\\u{code:04x}"
    return f"\\x{code:02x}"
