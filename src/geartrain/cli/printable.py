"""Text made fit for a terminal: what strangers wrote, and what goes wrong."""

from __future__ import annotations

from collections.abc import Iterator

import click

from geartrain.redaction import redacted

SHOWN_BYTES = 2000  # of a workload


def printable(text: str) -> str:
    """The text with all that could move a terminal's cursor, or hide, written as an escape; TABs are left."""
    return "".join(letter if letter.isprintable() or letter == "\t" else repr(letter)[1:-1] for letter in text)


def lines_of(text: str) -> list[str]:
    """The lines of a text such as a traceback."""
    return [printable(line) for line in text.split("\n")]


def complain(text: str) -> None:
    """Say on the standard error what is wrong, without the passwords in it."""
    for line in redacted(text).splitlines():
        click.echo(f"geartrain: {line}", err=True)


def preview(workload: bytes) -> Iterator[str]:
    """The beginning of a workload: as text if it is some, else as hexadecimal digits."""
    start = workload[:SHOWN_BYTES]
    text = start.decode("utf-8", "ignore")
    if len(text.encode()) > len(start) - 4 and "\0" not in text:
        yield from map(printable, text.splitlines())
    else:
        for at in range(0, len(start), 16):
            row = start[at : at + 16]
            signs = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
            yield f"{at:06x}  {row.hex(' '):47}  {signs}"
    if len(workload) > SHOWN_BYTES:
        yield f"... and {len(workload) - SHOWN_BYTES:,} bytes more; --workload gives all of them"
