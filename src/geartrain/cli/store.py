"""``geartrain store``: look into a store that no job server uses at the moment, move jobs in and out, and tidy up."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

import click

from geartrain.cli import store_moving
from geartrain.cli.amounts import bytes_text, moment_text, span_text
from geartrain.cli.printable import preview, printable
from geartrain.cli.progress import Progress
from geartrain.cli.servers import seconds_above_0
from geartrain.cli.store_options import (
    JSON,
    LEAVE_ABOVE,
    PRIORITIES,
    SELECTION,
    Reading,
    StoreCommand,
    function_argument,
    opened,
    place_options,
    workload_of,
)
from geartrain.cli.tables import Row, show
from geartrain.cli.themes import InOrder, ThemedOption
from geartrain.jobserver.records import Batch, Record, StoredJob
from geartrain.redaction import shown_url
from geartrain.store import StoreError, Unreadable, export
from geartrain.wire.text import as_text

REMOVED_AT_ONCE = 1000


@click.group(
    "store",
    cls=InOrder,
    epilog="""The store is the one that `geartrain serve` would use: that of --store, of GEARTRAIN_STORE, of the file
that --config or GEARTRAIN_CONFIG names, or the default. While a job server uses it, ask that: `geartrain admin`.

\b
Exit codes:
  0  done
  1  something could not be read, taken or done
  2  the command was not understood
  3  the store can't be reached
  5  a job server uses the store

`geartrain store COMMAND --help` tells all about a command.""",
)
def command() -> None:
    """Look into a store of jobs while no job server uses it, move jobs in and out, and tidy up.

    \b
    Examples:
      geartrain store list
      geartrain store show H:myhost:12
      geartrain store import --from gearmand+sqlite:////var/lib/gearman/queue.db --dry-run
      geartrain store export -o jobs.jsonl
      geartrain store purge resize --older-than 30d
      geartrain store check --store postgresql://user:password@host/database
    """


# ── list ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _list(store_url: str, functions: Sequence[str], each: bool, limit: int | None, as_json: bool) -> int:
    now = time.time()
    with opened(store_url) as store:
        found = Reading(store, functions)
        rows = list(_job_rows(found, limit) if each else _summary_rows(found, now))
        code = found.code
    columns = list(_JOB_COLUMNS if each else _SUMMARY_COLUMNS)
    show(lambda: rows if as_json else [_for_people(row, now) for row in rows], columns, as_json=as_json, watch=None)
    return code


_SUMMARY_COLUMNS = ("function", "priority", "jobs", "later", "bytes", "oldest")
_JOB_COLUMNS = ("number", "function", "unique", "priority", "bytes", "created", "due", "attempts")


def _summary_rows(jobs: Iterable[StoredJob], now: float) -> Iterator[Row]:
    counts: Counter[tuple[bytes, int]] = Counter()
    later: Counter[tuple[bytes, int]] = Counter()
    sizes: Counter[tuple[bytes, int]] = Counter()
    oldest: defaultdict[tuple[bytes, int], float] = defaultdict(lambda: now)
    for job in jobs:
        key = (job.function, job.priority)
        counts[key] += 1
        later[key] += job.due > now
        sizes[key] += job.size
        oldest[key] = min(oldest[key], job.created)
    for key in sorted(counts):
        function, priority = key
        yield {
            "function": as_text(function),
            "priority": PRIORITIES[priority],
            "jobs": counts[key],
            "later": later[key],
            "bytes": sizes[key],
            "oldest": oldest[key],
        }


def _job_rows(jobs: Iterable[StoredJob], limit: int | None) -> Iterator[Row]:
    for seen, job in enumerate(jobs):
        if seen == limit:
            return
        yield {
            "number": job.number,
            "function": as_text(job.function),
            "unique": as_text(job.unique),
            "priority": PRIORITIES[job.priority],
            "bytes": job.size,
            "created": job.created,
            "due": job.due,
            "attempts": job.attempts,
        }


def _for_people(row: Row, now: float) -> Row:
    shown = dict(row)
    for name, value in row.items():
        if name == "bytes" and isinstance(value, int):
            shown[name] = bytes_text(value)
        elif name == "due" and isinstance(value, float):
            shown[name] = f"in {span_text(value - now)}" if value > now else ""
        elif name in ("oldest", "created") and isinstance(value, float):
            shown[name] = f"{span_text(now - value)} ago"
    return shown


# ── show ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _number(ctx: click.Context, parameter: click.Parameter, written: str) -> int:
    number = written.rpartition(":")[2]
    if not number.isdecimal():
        raise click.BadParameter(
            f"{written!r} is no job: write a handle such as H:myhost:12, or the number at its end", ctx, parameter
        )
    return int(number)


def _show(store_url: str, number: int, workload: bool, as_json: bool) -> int:
    with opened(store_url) as store:
        found = Reading(store)
        job = next((job for job in found if job.number == number), None)
        if job is None:
            raise StoreError(f"the store keeps no job {number}: it has ended, or never was")
        try:
            job.workload = workload_of(store, job)
        except KeyError as error:
            raise StoreError(f"the workload of job {number} can't be read: {error}") from error
    if workload:
        sys.stdout.buffer.write(job.workload)
    elif as_json:
        sys.stdout.buffer.write(export.line(job))
    else:
        _describe(job)
    return found.code


def _describe(job: StoredJob) -> None:
    now = time.time()
    fields = {
        "number": str(job.number),
        "function": as_text(job.function),
        "unique": as_text(job.unique),
        "priority": PRIORITIES[job.priority],
        "created": f"{moment_text(job.created)} ({span_text(now - job.created)} ago)",
        "due": f"{moment_text(job.due)} (in {span_text(job.due - now)})" if job.due > now else "",
        "lost workers": str(job.attempts or ""),
        "reducer": as_text(job.reducer),
        "workload": bytes_text(job.size),
    }
    for name, value in fields.items():
        if value:
            click.echo(f"{name:13} {printable(value)}")
    assert job.workload is not None
    for line in preview(job.workload):
        click.echo(f"  {line}")


# ── purge ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _purge(
    store_url: str,
    functions: Sequence[str],
    older_than: float | None,
    everything: bool,
    kind: str | None,
    dry_run: bool,
    yes: bool,
) -> int:
    if everything + bool(functions or older_than is not None) + (kind is not None) != 1:
        raise click.UsageError("say which jobs: name FUNCTIONs, give --older-than, or say --all; or --records KIND")
    if kind is not None:
        return _purge_records(store_url, kind, dry_run, yes)
    before = time.time() - older_than if older_than is not None else None
    with opened(store_url) as store:
        found = Reading(store, functions)
        counts: Counter[bytes] = Counter()
        numbers = []
        for job in found:
            if before is None or job.created < before:
                counts[job.function] += 1
                numbers.append(job.number)
        if counts:
            rows = [{"function": as_text(name), "jobs": count} for name, count in sorted(counts.items())]
            show(lambda: rows, ("function", "jobs"), as_json=False, watch=None)
        if not _is_to_be_removed("jobs", len(numbers), dry_run, yes):
            return found.code if dry_run or not numbers else 1
        with Progress() as bar:
            for start in range(0, len(numbers), REMOVED_AT_ONCE):
                batch = Batch(1)
                batch.removed = numbers[start : start + REMOVED_AT_ONCE]
                store.commit(batch)
                bar.show(start, len(numbers))
        click.echo(f"{len(numbers):,} jobs were removed")
        return found.code


def _purge_records(store_url: str, kind: str, dry_run: bool, yes: bool) -> int:
    with opened(store_url) as store:
        names = [Record(record.kind, record.key, None) for record in store.records(kind)]
        if not _is_to_be_removed("records", len(names), dry_run, yes):
            return 0 if dry_run or not names else 1
        for start in range(0, len(names), REMOVED_AT_ONCE):
            batch = Batch(1)
            batch.records = names[start : start + REMOVED_AT_ONCE]
            store.commit(batch)
        click.echo(f"{len(names):,} records were removed")
        return 0


def _is_to_be_removed(what: str, count: int, dry_run: bool, yes: bool) -> bool:
    if dry_run or not count:
        click.echo(f"{count:,} {what} would be removed" if dry_run else f"no such {what}")
        return False
    if not yes and not click.confirm(f"Remove {count:,} {what} for good?", err=True):
        click.echo("nothing was removed")
        return False
    return True


# ── check ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _check(store_url: str, as_json: bool) -> int:
    with opened(store_url) as store:
        abilities = store.abilities
        found = Reading(store, leave_above=LEAVE_ABOVE)
        size = count = 0
        for job in found:
            count += 1
            size += job.size
            try:
                workload_of(store, job)
            except KeyError as error:
                found.unreadable.append(Unreadable(job.number, f"its workload can't be read: {error}"))
        quarantined = {each.number: each.reason for each in (*store.quarantined(), *found.unreadable)}
        told = {
            "store": shown_url(store_url),
            "engine": abilities.name,
            "in_use": False,
            "survives": abilities.survives,
            "shared": abilities.shared,
            "max_workload": abilities.max_workload,
            "jobs": count,
            "bytes": size,
            "records": dict(Counter(record.kind for record in store.records())),
            "next_number": store.next_number(),
            "quarantined": [{"number": number, "reason": reason} for number, reason in quarantined.items()],
        }
    if as_json:
        click.echo(json.dumps(told))
    else:
        _tell(told, quarantined)
    return 1 if quarantined else 0


def _tell(told: dict[str, object], quarantined: dict[int, str]) -> None:
    limit = told["max_workload"]
    records = told["records"]
    assert isinstance(records, dict)
    lines = {
        "store": told["store"],
        "engine": told["engine"],
        "survives": told["survives"],
        "reached from": "other machines as well" if told["shared"] else "this machine alone",
        "workloads": f"up to {bytes_text(limit)}" if isinstance(limit, int) and limit else "of any size",
        "in use": "by nobody else",
        "jobs": f"{told['jobs']:,}, {bytes_text(int(str(told['bytes'])))}; all of them were read",
        "records": ", ".join(f"{count:,} of {kind}" for kind, count in sorted(records.items())) or "none",
        "next number": f"{told['next_number']}",
        "quarantined": f"{len(quarantined):,} that can't be made sense of" if quarantined else "none",
    }
    for name, value in lines.items():
        click.echo(f"{name:13} {printable(str(value))}")
    for number, reason in quarantined.items():
        click.echo(f"  {number}: {printable(reason)}")


# ── the commands ────────────────────────────────────────────────────────────────────────────────────────────────────

_HANDLE = click.Argument(["number"], metavar="HANDLE", callback=_number)

command.add_command(
    StoreCommand(
        "list",
        callback=_list,
        help="The jobs that are kept, by function and priority, or one by one.",
        params=[
            function_argument(),
            ThemedOption(["--jobs", "each"], is_flag=True, theme=SELECTION, help="A row for each job, in their order."),
            ThemedOption(
                ["--limit"], type=click.IntRange(min=1), metavar="N", theme=SELECTION, help="With --jobs: N at most."
            ),
            JSON,
            *place_options(),
        ],
    )
)
command.add_command(
    StoreCommand(
        "show",
        callback=_show,
        help="One job: what is kept of it, and the beginning of its workload. The number at the end of HANDLE will do.",
        params=[
            _HANDLE,
            ThemedOption(["--workload"], is_flag=True, theme="Output", help="The workload alone, byte for byte."),
            JSON,
            *place_options(),
        ],
    )
)
store_moving.add_to(command)
command.add_command(
    StoreCommand(
        "purge",
        callback=_purge,
        help="Remove jobs for good: those of FUNCTIONs, those of some age, or all. It asks before it does.",
        params=[
            function_argument(),
            ThemedOption(
                ["--older-than"],
                callback=seconds_above_0,
                metavar="TIME",
                theme=SELECTION,
                help="Only jobs that were submitted so long ago: 12h, 30d.",
            ),
            ThemedOption(["--all", "everything"], is_flag=True, theme=SELECTION, help="All jobs."),
            ThemedOption(
                ["--records", "kind"],
                metavar="KIND",
                theme=SELECTION,
                help="No jobs, but the records of this kind; `geartrain store check` tells which kinds there are.",
            ),
            ThemedOption(["--dry-run"], is_flag=True, theme="Doing", help="Say what would be removed, and leave it."),
            ThemedOption(["--yes", "-y"], is_flag=True, theme="Doing", help="Do not ask."),
            *place_options(),
        ],
    )
)
command.add_command(
    StoreCommand(
        "check",
        callback=_check,
        help="Read all jobs, and tell what the store promises and what it keeps. What can't be made sense of is"
        " quarantined and told, and the exit code is 1.",
        params=[JSON, *place_options()],
    )
)
