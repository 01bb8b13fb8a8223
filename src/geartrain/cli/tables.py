"""Rows as a table for people or as JSON for machines, once or again and again."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Mapping, Sequence

import click
from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from geartrain.cli.printable import printable
from geartrain.errors import GeartrainError

Row = Mapping[str, object]
_WIDE = 100_000  # a table that goes into a file or a pipe is cut nowhere


def show(fetch: Callable[[], Sequence[Row]], columns: Sequence[str], *, as_json: bool, watch: float | None) -> None:
    """Print the rows that ``fetch`` gives; with ``watch``, again each so many seconds until Ctrl-C."""
    if as_json:
        click.echo(json.dumps(fetch()))
        while watch is not None:
            time.sleep(watch)
            click.echo(json.dumps(fetch()))
        return
    console = Console() if Console().is_terminal else Console(width=_WIDE)
    if watch is None:
        console.print(table_of(fetch(), columns, framed=console.is_terminal))
        return
    try:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                live.update(_table_or_trouble(fetch, columns, console), refresh=True)
                time.sleep(watch)
    except KeyboardInterrupt:
        return


def json_of(data: bytes) -> object:
    """Bytes for machines: a text, or ``{"base64": ...}`` where they are no UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def table_of(rows: Sequence[Row], columns: Sequence[str], *, framed: bool) -> Table:
    """A table with these columns, numbers to the right; without a frame it is easy to cut into words."""
    table = Table(box=box.SIMPLE_HEAD if framed else None, pad_edge=framed, show_edge=False)
    for column in columns:
        is_number = bool(rows) and all(type(row[column]) is int for row in rows)
        table.add_column(column.replace("_", " "), justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row[column]) for column in columns))
    if not rows and framed:
        table.caption = "nothing there"
    return table


def _cell(value: object) -> Text:
    if isinstance(value, bool):
        return Text("yes" if value else "")
    if isinstance(value, (list, tuple)):
        return Text(" ".join(printable(str(item)) for item in value))
    return Text(printable(str(value)), style="dim" if value == 0 else "")


def _table_or_trouble(fetch: Callable[[], Sequence[Row]], columns: Sequence[str], console: Console) -> Table | Text:
    """The table, or why there is none just now: a job server that is restarted must not end the watch."""
    try:
        return table_of(fetch(), columns, framed=console.is_terminal)
    except GeartrainError as error:
        return Text(str(error), style="red")
