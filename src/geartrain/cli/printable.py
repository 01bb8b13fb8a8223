"""Text made fit for a terminal: what strangers wrote, and what goes wrong."""

from __future__ import annotations

import click

from geartrain.redaction import redacted


def printable(text: str) -> str:
    """The text with all that could move a terminal's cursor, or hide, written as an escape; TABs are left."""
    return "".join(letter if letter.isprintable() or letter == "\t" else repr(letter)[1:-1] for letter in text)


def complain(text: str) -> None:
    """Say on the standard error what is wrong, without the passwords in it."""
    for line in redacted(text).splitlines():
        click.echo(f"geartrain: {line}", err=True)
