"""Bytes of the protocol as text, for people to read."""

from __future__ import annotations


def as_text(data: bytes) -> str:
    """A name, a handle or the like as text; bytes that are no UTF-8 are written as escapes."""
    return data.decode("utf-8", "backslashreplace")
