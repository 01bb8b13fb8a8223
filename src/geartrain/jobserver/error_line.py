"""The one line of an error by which it is told from others: its first, and of a traceback that of the exception."""

from __future__ import annotations

from typing import Final

LONGEST_LINE: Final = 200  # bytes

_TRACEBACK: Final = b"Traceback (most recent call last):"
_INDENTED: Final = (b"", b" ", b"\t", b"\r", b"\n")
_CONTINUED: Final = bytes(range(0x80, 0xC0))  # the later bytes of a character of UTF-8


def error_line(text: bytes) -> bytes:
    """That line of the text with which a job has failed."""
    start = text.rfind(_TRACEBACK)  # of those that led to one another the last has come to the worker
    if start < 0:
        line = text.lstrip()
    else:
        at = text.find(b"\n", start)
        while at >= 0 and text[at + 1 : at + 2] in _INDENTED:  # as its frames are
            at = text.find(b"\n", at + 1)
        line = text[start:] if at < 0 else text[at + 1 :]
    end = line.find(b"\n")
    if end >= 0:
        line = line[:end]
    if len(line) > LONGEST_LINE:
        line = cut(line, LONGEST_LINE)
    return line.rstrip()


def cut(text: bytes, size: int) -> bytes:
    """So many bytes of a text at most, and no part of a character."""
    if len(text) <= size:
        return text
    if text[size] not in _CONTINUED:
        return text[:size]
    kept = text[:size].rstrip(_CONTINUED)
    return kept[:-1] if size - len(kept) < 4 else text[:size]
