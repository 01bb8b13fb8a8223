"""``geartrain submit``: submit jobs from a shell, and pass on what comes of them."""

from __future__ import annotations

import datetime
import os
import sys
import time
from collections.abc import Iterator, Sequence

import click

from geartrain.cli.commands import exit_code
from geartrain.cli.printable import printable
from geartrain.cli.progress import Progress
from geartrain.cli.servers import seconds_above_0, server_option
from geartrain.cli.themes import ThemedCommand, ThemedOption
from geartrain.client import (
    Client,
    DataEvent,
    JobEvent,
    Priority,
    SentAgainEvent,
    StatusEvent,
    SubmittedJob,
    WarningEvent,
)
from geartrain.errors import ConnectError, ConnectionLostError, GeartrainError, JobRaisedError, TimedOutError
from geartrain.link import Address
from geartrain.units import read_seconds

_JOB, _INPUT = "Job", "Input"

_ABOUT = """Submit jobs and show what comes of them.

Each DATA is the workload of one job; without any, all of the standard input is. Results go to the standard output as
they come: of a single job byte for byte, of several jobs in their order and each ended by a newline. Warnings and
errors go to the standard error.

\b
Examples:
  echo hello | geartrain submit reverse
  geartrain submit resize a.png b.png c.png
  geartrain submit -n resize < list-of-images
  geartrain submit --background --unique daily --when 03:00 report ""

\b
Exit codes:
  0  all jobs are done, or accepted in the background
  1  a job failed
  2  the command was not understood
  3  no job server could be reached, or the connection was lost
  4  the time limit was up; the job itself goes on
  5  the job server refused a job, as when a function's queue is full
"""


def _when(ctx: click.Context, parameter: click.Parameter, written: str | None) -> datetime.datetime | float | None:
    """A moment: a time from now, the next such time of day, a date with time, or Unix time."""
    if written is None:
        return None
    if written.isdigit() and len(written) >= 9:
        return float(written)
    now = datetime.datetime.now()
    try:
        if not written.isdigit():
            return now + datetime.timedelta(seconds=read_seconds(written))
    except ValueError:
        pass
    try:
        moment = datetime.datetime.combine(now.date(), datetime.time.fromisoformat(written))
        return moment if moment > now else moment + datetime.timedelta(days=1)
    except ValueError:
        pass
    try:
        return datetime.datetime.fromisoformat(written)
    except ValueError:
        raise click.BadParameter(
            f"{written!r} is no time: write 5m, 18:30, 2030-01-31T18:30, or Unix time", ctx, parameter
        ) from None


def _submit(
    servers: tuple[Address, ...],
    function: str,
    data: Sequence[str],
    unique: str | None,
    high: bool,
    low: bool,
    background: bool,
    when: datetime.datetime | float | None,
    lines: bool,
    parallel: int,
    timeout: float | None,
) -> int:
    if high and low:
        raise click.UsageError("a job has high priority or low, not both")
    if lines and data:
        raise click.UsageError("--lines reads jobs from the standard input: leave out DATA")
    is_single = len(data) == 1 or not (data or lines)
    if unique is not None and not is_single:
        raise click.UsageError("--unique names one job: submit several jobs one by one")
    priority: Priority = "high" if high else "low" if low else "normal"
    workloads = _workloads(data, lines)
    with Client(servers) as client:
        if background or when is not None:
            if is_single:
                handle = client.submit_background(
                    function, next(workloads), unique=unique, priority=priority, when=when, timeout=timeout
                )
                click.echo(printable(str(handle)))
                return 0
            for handle in client.map_background(function, workloads, window=parallel, priority=priority, when=when):
                click.echo(printable(str(handle)))
            return 0
        if is_single:
            return _follow(client.submit(function, next(workloads), unique=unique, priority=priority), timeout)
        jobs = client.map_jobs(function, workloads, window=parallel, priority=priority, timeout=timeout)
        return _collect(jobs, len(data) or None)


def _workloads(data: Sequence[str], lines: bool) -> Iterator[bytes]:
    if data:
        yield from map(os.fsencode, data)
        return
    if sys.stdin.isatty():
        click.echo("Reading from the terminal; end the input with Ctrl-D on a line of its own.", err=True)
    if lines:
        for line in sys.stdin.buffer:
            yield line.removesuffix(b"\n")
    else:
        yield sys.stdin.buffer.read()


def _follow(job: SubmittedJob, timeout: float | None) -> int:
    """Pass on all that comes of one job, as it comes."""
    deadline = None if timeout is None else time.monotonic() + timeout
    with Progress() as progress:
        while True:
            left = None if deadline is None else max(deadline - time.monotonic(), 0)
            try:
                event = next(job.events(left), None)
            except TimedOutError:
                raise TimedOutError(f"no result within {timeout:g} s; the job itself goes on") from None
            if event is None:
                break
            if isinstance(event, StatusEvent):
                progress.show(event.numerator, event.denominator)
            else:
                with progress.hidden():
                    _tell(event)
    try:
        _write(job.result())
    except JobRaisedError as error:
        _complain(error)
        return exit_code(error)
    return 0


def _collect(jobs: Iterator[SubmittedJob], total: int | None) -> int:
    """Pass on the results of many jobs; the exit code is that of the first failure."""
    code = 0
    with Progress() as progress:
        for number, job in enumerate(jobs, 1):
            with progress.hidden():
                for event in job.events():
                    _tell(event)
                try:
                    _write(job.result() + b"\n")
                except (ConnectError, ConnectionLostError):
                    raise
                except GeartrainError as error:
                    _complain(error, f"job {number}: ")
                    code = code or exit_code(error)
            progress.show(number, total)
    return code


def _tell(event: JobEvent) -> None:
    if isinstance(event, DataEvent):
        _write(event.data)
    elif isinstance(event, WarningEvent):
        sys.stderr.buffer.write(event.data)
        sys.stderr.buffer.flush()
    elif isinstance(event, SentAgainEvent):
        click.echo(f"geartrain: lost {event.lost}; the job starts again elsewhere", err=True)


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _complain(error: GeartrainError, which: str = "") -> None:
    lines = str(error).splitlines() or [""]
    click.echo(f"geartrain: {which}{printable(lines[0])}", err=True)
    for line in lines[1:]:
        click.echo(printable(line), err=True)


command = ThemedCommand(
    "submit",
    callback=_submit,
    help=_ABOUT,
    params=[
        click.Argument(["function"]),
        click.Argument(["data"], nargs=-1),
        ThemedOption(
            ["-b", "--background"], is_flag=True, theme=_JOB, help="Print the job's handle instead of waiting for it."
        ),
        ThemedOption(["-H", "-I", "--high"], is_flag=True, theme=_JOB, help="Before jobs of normal priority."),
        ThemedOption(["-L", "--low"], is_flag=True, theme=_JOB, help="After jobs of normal priority."),
        ThemedOption(
            ["-u", "--unique"],
            metavar="KEY",
            theme=_JOB,
            help="Join a job of the same function and key that is queued or running already.",
        ),
        ThemedOption(
            ["--when"],
            metavar="TIME",
            callback=_when,
            theme=_JOB,
            help="Run it in the background, no earlier than in 5m, at 18:30, at 2030-01-31T18:30, or at a Unix time.",
        ),
        ThemedOption(
            ["--timeout"],
            metavar="SECONDS",
            callback=seconds_above_0,
            theme=_JOB,
            help="How long to wait for a job.  [default: for ever]",
        ),
        ThemedOption(["-n", "--lines"], is_flag=True, theme=_INPUT, help="A job for each line, without its newline."),
        ThemedOption(
            ["--parallel"],
            metavar="N",
            type=click.IntRange(min=1),
            default=64,
            show_default=True,
            theme=_INPUT,
            help="Of several jobs, so many are underway at once.",
        ),
        server_option(),
    ],
)
