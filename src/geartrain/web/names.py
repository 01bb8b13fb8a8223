"""Names of any bytes as text, for JSON and paths, and back.

Text in UTF-8 stands as it is; any other byte is written ``\\xNN``, and a backslash is doubled, so that nothing is told
in two ways.
"""

from __future__ import annotations

import re
from typing import Final

_ESCAPE: Final = re.compile(rb"\\(?:\\|x([0-9a-fA-F]{2}))")


def to_text(name: bytes) -> str:
    """A name as text."""
    if name.isascii() and b"\\" not in name:
        return name.decode("ascii")
    return name.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def to_name(text: str) -> bytes:
    """The name that a text means."""
    encoded = text.encode("utf-8", "surrogateescape")
    if b"\\" not in encoded:
        return encoded
    return _ESCAPE.sub(lambda match: b"\\" if match[1] is None else bytes([int(match[1], 16)]), encoded)
