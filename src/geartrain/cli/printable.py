"""Text from strangers, made fit for a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with all that could move a terminal's cursor, or hide, written as an escape; TABs are left."""
    return "".join(letter if letter.isprintable() or letter == "\t" else repr(letter)[1:-1] for letter in text)
