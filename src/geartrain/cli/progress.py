"""A progress bar on the standard error, if that is a terminal; else nothing at all."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import rich.progress


class Progress:
    """A bar that appears when the first progress is shown, and vanishes at the end."""

    def __init__(self) -> None:
        self._is_wanted = sys.stderr.isatty()
        self._bar: rich.progress.Progress | None = None
        self._task: rich.progress.TaskID | None = None

    def show(self, done: int, total: int | None) -> None:
        """So much is done of ``total``; None for an unknown one."""
        if not self._is_wanted:
            return
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

            columns = BarColumn(bar_width=None), MofNCompleteColumn(), TimeElapsedColumn()
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("", total=None)
            self._bar.start()
        assert self._task is not None
        self._bar.update(self._task, completed=done, total=total or None)

    @contextlib.contextmanager
    def hidden(self) -> Iterator[None]:
        """Out of the way while something else may be written to the terminal."""
        if self._bar is None or not sys.stdout.isatty():
            yield
            return
        self._bar.stop()
        yield
        self._bar.start()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
