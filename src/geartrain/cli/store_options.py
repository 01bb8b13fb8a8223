"""What all commands of ``geartrain store`` share: which store, what of it, and how a store that fails is told."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import click

from geartrain.cli.printable import complain, printable
from geartrain.cli.progress import Progress
from geartrain.cli.themes import ThemedCommand, ThemedOption
from geartrain.jobserver.records import StoredJob
from geartrain.redaction import shown_url
from geartrain.store import Store, StoreDownError, StoreInUseError, Unreadable, engine

PLACE, SELECTION = "Store", "Selection"
PRIORITIES = ("high", "normal", "low")
LEAVE_ABOVE = 64 << 10  # bytes; larger workloads are read one by one, so that few of them are in memory at once

JSON = ThemedOption(["--json", "as_json"], is_flag=True, theme="Output", help="JSON, for machines.")


class StoreCommand(ThemedCommand):
    """A command that tells by its exit code when the store is down (3) or in use (5)."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except StoreDownError as error:
            complain(str(error))
            return 3
        except StoreInUseError as error:
            complain(f"{error}; to look into it while it runs, ask it by `geartrain admin`")
            return 5


def place_options(*spellings: str) -> list[click.Parameter]:
    """``--store`` (or as it is spelled) and ``--config``, which give the command a ``store_url``."""
    return [
        ThemedOption(
            [*(spellings or ("--store",)), "store_url"],
            metavar="URL",
            callback=_find_place,
            theme=PLACE,
            help="The store.  [default: that of geartrain serve]",
        ),
        ThemedOption(
            ["--config"],
            metavar="FILE",
            is_eager=True,
            expose_value=False,
            callback=_remember_config,
            theme=PLACE,
            help="The file with the options of geartrain serve.  [default: $GEARTRAIN_CONFIG]",
        ),
    ]


def _remember_config(ctx: click.Context, parameter: click.Parameter, written: str | None) -> None:
    ctx.meta["geartrain.config"] = written


def _find_place(ctx: click.Context, parameter: click.Parameter, written: str | None) -> str:
    from geartrain.daemon.config import Config

    config = ctx.meta.get("geartrain.config")
    url = written or Config.load({"config": config} if config else {}).store
    if url.startswith("memory:"):
        raise click.BadParameter("memory: keeps nothing, so there is nothing to look at", ctx, parameter)
    return url


def function_argument() -> click.Argument:
    return click.Argument(["functions"], nargs=-1, metavar="[FUNCTION]...")


@contextlib.contextmanager
def opened(url: str, may_be_new: bool = False) -> Iterator[Store]:
    """The store, held as a job server holds it; one that is new is told, unless it may be. Raises StoreError."""
    store = engine(url)
    store.open()
    try:
        if not may_be_new and store.next_number() == 1 and not store.count():
            complain(f"{shown_url(url)} is new: no job has been kept there so far")
        yield store
    finally:
        store.close()


class Reading:
    """The jobs of a store, or those of ``functions`` alone, with a progress bar.

    Workloads above ``leave_above`` bytes are left in the store. What can't be read is told on the standard error, and
    ``code`` is the exit code that follows from it.
    """

    def __init__(self, store: Store, functions: Sequence[str] = (), leave_above: int = 0) -> None:
        self.unreadable: list[Unreadable] = []
        self._store = store
        self._wanted = {name.encode("utf-8", "surrogateescape") for name in functions}
        self._leave_above = leave_above

    def __iter__(self) -> Iterator[StoredJob]:
        with Progress() as bar:
            total = self._store.count()
            for seen, job in enumerate(self._store.load(self._leave_above), 1):
                if seen % 1000 == 0:
                    bar.show(seen, total)
                if isinstance(job, Unreadable):
                    self.unreadable.append(job)
                    text = f"job {job.number} can't be read and has been quarantined: {job.reason}"
                    click.echo(f"geartrain: {printable(text)}", err=True)
                elif not self._wanted or job.function in self._wanted:
                    yield job

    @property
    def code(self) -> int:
        return 1 if self.unreadable else 0


def workload_of(store: Store, job: StoredJob) -> bytes:
    """The workload, wherever it is. Raises KeyError if it can't be read."""
    return job.workload if job.workload is not None else store.read(job.number)
