"""Names as they stand in listings, where whatever could end a line, turn text round or steer a terminal is escaped.

A binary packet carries a name as it is; only text that people and scripts read line by line is made safe. Names keep
their backslashes, as gearmand has them; values that can be read back do not (section 4.4).
"""

from __future__ import annotations

from typing import Final

_CONTROLS: Final = bytes([*range(32), 127])
_ESCAPES: Final[dict[int, str]] = {
    **{code: f"\\x{code:02x}" for code in _CONTROLS},
    **{code: f"\\u{code:04x}" for code in range(0x80, 0xA0)},  # control characters that are two bytes in UTF-8
    **{0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0xA0)},  # and those that are one byte, no UTF-8
    **{code: f"\\u{code:04x}" for code in (*range(0x2028, 0x202F), *range(0x2066, 0x206A))},  # line ends, direction
    9: "\\t",
    10: "\\n",
    13: "\\r",
}


def show_name(name: bytes) -> bytes:
    """The name with unsafe characters as ``\\n``, ``\\t``, ``\\r``, ``\\x1b`` or ``\\u2028``; all else as it is."""
    if name.isascii() and len(name.translate(None, _CONTROLS)) == len(name):
        return name
    return name.decode("utf-8", "surrogateescape").translate(_ESCAPES).encode("utf-8", "surrogateescape")


def show_value(value: bytes) -> bytes:
    """The value as ``show_name`` has it, with each backslash as ``\\\\``: it can be read back byte for byte."""
    return show_name(value.replace(b"\\", b"\\\\"))
