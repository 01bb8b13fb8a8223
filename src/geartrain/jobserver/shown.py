"""Names as they stand in listings: what could end a line, begin a column or steer a terminal is escaped.

A binary packet carries a name as it is; only text that people and scripts read line by line is made safe.
"""

from __future__ import annotations

from typing import Final

_CONTROLS: Final = bytes([*range(32), 127])
_ESCAPES: Final[dict[int, bytes]] = {9: b"\\t", 10: b"\\n", 13: b"\\r"}


def show_name(name: bytes) -> bytes:
    """The name with control characters as ``\\n``, ``\\t``, ``\\r`` or ``\\x1b``; all other bytes as they are.

    UTF-8 that means a control character of the second set (U+0080 to U+009F) is escaped as well, since terminals obey
    those too.
    """
    if len(name.translate(None, _CONTROLS)) == len(name) and b"\xc2" not in name:
        return name
    shown: list[bytes] = []
    at = 0
    while at < len(name):
        byte = name[at]
        if byte == 0xC2 and at + 1 < len(name) and 0x80 <= name[at + 1] < 0xA0:
            shown.append(b"\\x%02x" % name[at + 1])
            at += 1
        elif byte < 32 or byte == 127:
            shown.append(_ESCAPES.get(byte, b"\\x%02x" % byte))
        else:
            shown.append(name[at : at + 1])
        at += 1
    return b"".join(shown)
