"""``geartrain store export`` and ``import``: jobs out of a store, and into one from elsewhere."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import click

from geartrain.cli.amounts import bytes_text
from geartrain.cli.printable import printable
from geartrain.cli.progress import Progress
from geartrain.cli.store_options import (
    JSON,
    LEAVE_ABOVE,
    PRIORITIES,
    Reading,
    StoreCommand,
    function_argument,
    opened,
    place_options,
    workload_of,
)
from geartrain.cli.tables import show
from geartrain.cli.themes import ThemedOption
from geartrain.jobserver.records import Record, StoredJob
from geartrain.redaction import shown_url
from geartrain.store import Store, StoreError, Unreadable, engine, export, gearmand
from geartrain.store.default import default_url, make_state_folder, state_folder
from geartrain.store.import_ import Importer, ImportReport, dead_jobs
from geartrain.wire.text import as_text

SHOWN = 20  # of those that could not be read

_ABOUT_IMPORT = """Take jobs over from elsewhere. Run it while neither side is used; the source is left as it is.

\b
--from may be
  a queue that gearmand has kept:
    gearmand+sqlite:////var/lib/gearman/queue.db       ?table=gearman_queue
    gearmand+mysql://user:password@host/database       ?table=gearman_queue
    gearmand+postgresql://user:password@host/database  ?table=queue
    gearmand+redis://:password@host:6379/0             ?prefix=_gear_
    gearmand+memcached://a:11211,b:11211               ?prefix=gear_
  a file that `geartrain store export` has made, or - for the standard input
  another store, by its URL

From gearmand jobs get new handles, since it keeps none; from an export or a store they keep theirs, as long as the
store has not given the same ones out.

It may be run again: what is in the store already is left out. But jobs that have been done meanwhile would come back.
"""


def add_to(group: click.Group) -> None:
    """Add the two commands."""
    group.add_command(
        StoreCommand(
            "export",
            callback=_export,
            help="Write the jobs, all or those of FUNCTIONs, as lines of JSON. The store keeps them.",
            params=[
                function_argument(),
                ThemedOption(
                    ["-o", "--output"],
                    metavar="FILE",
                    default="-",
                    theme="Output",
                    help="Where to write them; it is there when it is complete.  [default: standard output]",
                ),
                *place_options(),
            ],
        )
    )
    group.add_command(
        StoreCommand(
            "import",
            callback=_import,
            help=_ABOUT_IMPORT,
            params=[
                ThemedOption(["--from", "source"], metavar="SOURCE", required=True, theme="Source", help="See above."),
                ThemedOption(
                    ["--function", "functions"],
                    multiple=True,
                    metavar="NAME",
                    theme="Source",
                    help="A function's name, for keys of gearmand's in Redis and memcached whose hyphens can be read in"
                    " several ways. May be repeated.",
                ),
                ThemedOption(["--dry-run"], is_flag=True, theme="Doing", help="Read and report, but take nothing."),
                JSON,
                *place_options("--to", "--store"),
            ],
        )
    )


# ── export ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _export(store_url: str, functions: Sequence[str], output: str) -> int:
    with opened(store_url) as store, _written(output) as file:
        found = Reading(store, functions, LEAVE_ABOVE)
        dead = set() if functions else dead_jobs(store)
        file.write(export.head(0 if functions else store.count(), store.next_number()))
        count = 0
        for job in found:
            try:
                job.workload = workload_of(store, job)
            except KeyError as error:
                found.unreadable.append(Unreadable(job.number, str(error)))
                click.echo(f"geartrain: job {job.number} was left out, since its workload can't be read", err=True)
                continue
            file.write(export.line(job, job.number in dead))
            count += 1
        records = 0
        if not functions:
            for record in store.records():
                file.write(export.record_line(record))
                records += 1
    also = f", and {records:,} records" if records else ""
    click.echo(f"{count:,} jobs were written{also}", err=True)
    return found.code


@contextlib.contextmanager
def _written(output: str) -> Iterator[BinaryIO]:
    """A file that takes its name when all of it is there."""
    if output == "-":
        yield sys.stdout.buffer
        return
    path = Path(output)
    part = path.with_name(path.name + ".part")
    try:
        # Payloads are for nobody else to read.
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise StoreError(f"{error.filename or output} can't be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


# ── import ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Source:
    """Where jobs come from: how many there are (0: unknown), the first number not given out there, and the jobs
    with the records behind them.

    ``dead`` has the numbers of those jobs that are dead letters, each one when it comes; ``notes`` are for a person to
    read when all has come.
    """

    def __init__(
        self,
        total: int,
        next_number: int,
        jobs: Iterable[StoredJob | Record | Unreadable],
        dead: Container[int] = (),
        notes: Sequence[str] = (),
    ) -> None:
        self.total = total
        self.next_number = next_number
        self.jobs = jobs
        self.dead = dead
        self.notes = notes


@contextlib.contextmanager
def _opened_source(source: str, functions: Sequence[str]) -> Iterator[Source]:
    if source.startswith(gearmand.PREFIX):
        queue = gearmand.open_queue(source, [name.encode("utf-8", "surrogateescape") for name in functions])
        with contextlib.closing(queue):
            yield Source(queue.count(), 1, queue.jobs(), notes=queue.notes)
    elif "://" in source:
        store = engine(source)
        store.open()
        with contextlib.closing(store):

            def jobs() -> Iterator[StoredJob | Record | Unreadable]:
                for job in store.load(LEAVE_ABOVE):
                    if isinstance(job, StoredJob) and job.workload is None:
                        try:
                            job.workload = store.read(job.number)
                        except KeyError as error:
                            yield Unreadable(job.number, f"its workload can't be read: {error}")
                            continue
                    yield job
                yield from store.records()

            yield Source(store.count(), store.next_number(), jobs(), dead_jobs(store))
    else:
        try:
            file = sys.stdin.buffer if source == "-" else open(source, "rb")  # noqa: SIM115 - closed below
        except OSError as error:
            raise StoreError(f"{source} can't be read: {error.strerror}") from error
        with file:
            found = export.Export(file, "the standard input" if source == "-" else source)
            yield Source(found.jobs, found.next_number, found, found.dead)


def _import(store_url: str, source: str, functions: Sequence[str], dry_run: bool, as_json: bool) -> int:
    with _opened_source(source, functions) as came, _target(store_url) as store:
        importer = Importer(store, came.next_number, time.time(), dry_run, came.dead)
        try:
            with Progress() as bar:
                for steps, total in ((importer.look(), store.count()), (importer.take(came.jobs), came.total)):
                    for seen in steps:
                        if seen % 1000 == 0:
                            bar.show(seen, total)
        finally:
            _report(importer.report, came, shown_url(source), shown_url(store_url), dry_run, as_json)
    return 1 if importer.report.unreadable or importer.report.too_large else 0


@contextlib.contextmanager
def _target(url: str) -> Iterator[Store]:
    if url == default_url():
        try:
            make_state_folder()
        except OSError as error:
            raise StoreError(f"{state_folder()} can't be made: {error.strerror}") from error
    with opened(url, may_be_new=True) as store:
        yield store


def _report(taken: ImportReport, came: Source, source: str, store: str, dry_run: bool, as_json: bool) -> None:
    rows = [
        {
            "function": as_text(function),
            "priority": PRIORITIES[priority],
            "jobs": count,
            "later": taken.later[function, priority],
            "bytes": taken.size[function, priority],
        }
        for (function, priority), count in sorted(taken.jobs.items())
        if count
    ]
    unreadable = (f"job {each.number}: {each.reason}" if each.number else each.reason for each in taken.unreadable)
    left_out = [*unreadable, *taken.too_large]
    if as_json:
        told = {"from": source, "to": store, "dry_run": dry_run, "taken": rows, "there": taken.there,
                "records": taken.records, "left_out": left_out, "new_handles": taken.renumbered,
                "notes": list(came.notes)}  # fmt: skip
        click.echo(json.dumps(told))
        return
    if rows:
        shown = [{**row, "bytes": bytes_text(int(str(row["bytes"])))} for row in rows]
        show(lambda: shown, ("function", "priority", "jobs", "later", "bytes"), as_json=False, watch=None)
        click.echo()
    total = sum(taken.jobs.values())
    happened = "would be taken" if dry_run else "were taken"
    click.echo(f"{total:,} jobs {happened} from {printable(source)} into {printable(store)}")
    if taken.records:
        click.echo(f"{taken.records:,} records {happened}")
    if taken.there:
        click.echo(f"{taken.there:,} are there already, and were left out")
    if taken.renumbered:
        got = "would get" if dry_run else "got"
        click.echo(f"{taken.renumbered:,} {got} new handles, since theirs had been given out")
    for note in came.notes:
        click.echo(f"note: {printable(note)}")
    if left_out:
        click.echo(f"{len(left_out):,} could not be taken:", err=True)
        for reason in left_out[:SHOWN]:
            click.echo(f"  {printable(reason)}", err=True)
        if len(left_out) > SHOWN:
            click.echo(f"  ... and {len(left_out) - SHOWN:,} more; --json lists all of them", err=True)
