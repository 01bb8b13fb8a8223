"""``geartrain why``, ``show``, ``result``, ``retry`` and ``priority``: one job, by its handle."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields

import click

from geartrain.cli.amounts import bytes_text, moment_text, span_text
from geartrain.cli.commands import exit_code
from geartrain.cli.printable import complain, lines_of, printable
from geartrain.cli.servers import asking_options, seconds_above_0
from geartrain.cli.tables import json_of, show
from geartrain.cli.themes import ThemedCommand, ThemedOption
from geartrain.client import AdminClient, Client, JobAttempt, JobDetails, Priority
from geartrain.errors import JobError, JobRaisedError, ServerError
from geartrain.link import Address
from geartrain.wire.text import as_text

_OUTPUT = "Output"
_HANDLES = "A HANDLE may be written with its server, as host:port//H:host:1; then only that one is asked."


def _why(servers: tuple[Address, ...], timeout: float, handle: str, as_json: bool) -> None:
    sentence = AdminClient(servers, timeout=timeout).why(handle)
    click.echo(json.dumps({"handle": handle, "why": sentence}) if as_json else printable(sentence))


def _show(servers: tuple[Address, ...], timeout: float, handle: str, as_json: bool) -> None:
    job = AdminClient(servers, timeout=timeout).show_job(handle)
    if as_json:
        click.echo(json.dumps(as_row(job)))
    else:
        describe(job)


def as_row(job: JobDetails) -> dict[str, object]:
    """A job for machines; what is not known is null."""
    row = {field.name: getattr(job, field.name) for field in fields(job) if field.name not in ("data", "history")}
    return {
        **row,
        "handle": as_text(job.handle),
        "server": str(job.handle.address),
        "text": None if job.data is None else json_of(job.data),
        "history": [_attempt(attempt) for attempt in job.history],
    }


def _attempt(attempt: JobAttempt) -> dict[str, object]:
    row = asdict(attempt)
    del row["data"]
    return {**row, "text": json_of(attempt.data)}


def describe(job: JobDetails) -> None:
    """Print a job for people, with its attempts."""
    now = time.time()
    values = {
        "handle": str(job.handle),
        "function": job.function,
        "unique": job.unique,
        "state": job.state,
        "why": job.why,
        "priority": f"{job.priority}, {'background' if job.background else 'foreground'}" if job.priority else None,
        "clients": job.clients or None,
        "workload": None if job.size is None else bytes_text(job.size),
        "created": _past(job.created, now),
        "stored": _past(job.stored_at, now),
        "due": None if job.due is None else f"{moment_text(job.due)} (in {span_text(job.due - now)})",
        "attempts": f"{job.attempts} of {job.max_attempts}" if job.max_attempts else job.attempts or None,
        "worker": job.worker,
        "running since": _past(job.running_since, now),
        "died": _past(job.died, now),
        "reason": job.reason,
        "outcome": job.outcome,
        "result": None if job.result_size is None else bytes_text(job.result_size),
        "kept until": None if job.kept_until is None else moment_text(job.kept_until),
    }
    for name, value in values.items():
        if value:
            click.echo(f"{name:13} {printable(str(value))}")
    text = job.text if job.text is not None else job.history[-1].text if job.history else ""
    for line in lines_of(text):
        if line:
            click.echo(f"  {line}")
    if job.history:
        click.echo()
        rows = [
            {
                "attempt": attempt.number,
                "began": moment_text(attempt.started),
                "took": f"{max(attempt.ended - attempt.started, 0):.3f} s",
                "ended_by": attempt.reason,
                "worker": attempt.worker,
                "text": lines_of(attempt.text)[-1],  # of a traceback the end says most
            }
            for attempt in job.history
        ]
        show(lambda: rows, list(rows[0]), as_json=False, watch=None)


def _past(moment: float | None, now: float) -> str | None:
    return None if moment is None else f"{moment_text(moment)} ({span_text(now - moment)} ago)"


def _result(
    servers: tuple[Address, ...],
    timeout: float,
    handle: str | None,
    function: str | None,
    unique: str | None,
    wait: float | None,
    as_json: bool,
) -> int:
    if (handle is None) != (function is not None and unique is not None) or (function is None) != (unique is None):
        raise click.UsageError("say which job: a HANDLE, or --function and --unique")
    with Client(servers, answer_timeout=timeout) as client:
        try:
            data = client.result(handle, function=function, unique=unique, timeout=wait or 0)
        except JobError as error:
            if as_json:
                _print_json(handle, "failed", error.data if isinstance(error, JobRaisedError) else b"")
            else:
                complain("\n".join(map(printable, str(error).splitlines())))
            return 1
    if as_json:
        _print_json(handle, "completed", data)
    else:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    return 0


def _print_json(handle: str | None, ended: str, data: bytes) -> None:
    click.echo(json.dumps({"handle": handle, "ended": ended, "data": json_of(data)}))


def _retry(servers: tuple[Address, ...], timeout: float, handles: Sequence[str]) -> int:
    return each(handles, AdminClient(servers, timeout=timeout).retry)


def each(handles: Sequence[str], do: Callable[[str], None]) -> int:
    """Do it with each job; the exit code is that of the first refusal, which is told as all others are."""
    code = 0
    for handle in handles:
        try:
            do(handle)
        except ServerError as error:
            complain(str(error))
            code = code or exit_code(error)
    return code


def _priority(servers: tuple[Address, ...], timeout: float, handle: str, priority: Priority) -> None:
    AdminClient(servers, timeout=timeout).priority(handle, priority)


_HANDLE = click.Argument(["handle"])


def _json_option(what: str) -> ThemedOption:
    return ThemedOption(["--json", "as_json"], is_flag=True, theme=_OUTPUT, help=f"A JSON {what}, for machines.")


commands: Mapping[str, click.Command] = {
    "why": ThemedCommand(
        "why",
        callback=_why,
        help="""Say why a job waits, in a sentence.

\b
Examples:
  geartrain why H:web1:42
  geartrain why db1:4730//H:web1:42 --json
""",
        epilog=_HANDLES,
        params=[_HANDLE, _json_option("object"), *asking_options()],
    ),
    "show": ThemedCommand(
        "show",
        callback=_show,
        help="""Show what the job server knows of a job, and how its attempts ended.

\b
Examples:
  geartrain show H:web1:42
  geartrain show H:web1:42 --json
""",
        epilog=_HANDLES,
        params=[_HANDLE, _json_option("object"), *asking_options()],
    ),
    "result": ThemedCommand(
        "result",
        callback=_result,
        help="""Print the result of a job, byte for byte, or wait for it.

Job servers keep results of the functions that have a policy for it: `geartrain policy set FUNCTION results=1h`.

\b
Examples:
  geartrain result H:web1:42
  geartrain result H:web1:42 --wait 30s
  geartrain result --function resize --unique cat.jpg

\b
Exit codes:
  0  the job has ended well
  1  it failed; the text with which it did is printed on the standard error
  4  it has not ended (within SECONDS)
  5  no job server knows the job, or keeps its result
""",
        epilog=_HANDLES,
        params=[
            click.Argument(["handle"], required=False),
            ThemedOption(["--function"], metavar="NAME", theme="Job", help="Instead of a handle, with --unique."),
            ThemedOption(["--unique"], metavar="KEY", theme="Job", help="The unique key that it was submitted with."),
            ThemedOption(
                ["--wait"],
                metavar="SECONDS",
                callback=seconds_above_0,
                theme="Job",
                help="Wait so long for a job that has not ended.  [default: do not wait]",
            ),
            _json_option("object"),
            *asking_options(),
        ],
    ),
    "retry": ThemedCommand(
        "retry",
        callback=_retry,
        help="""Have jobs tried again.

A dead job waits again, with all its attempts before it. A delayed one, also one that pauses between two attempts, is
due now.

\b
Example:
  geartrain retry H:web1:42
""",
        epilog=_HANDLES,
        params=[click.Argument(["handles"], nargs=-1, required=True, metavar="HANDLE..."), *asking_options()],
    ),
    "priority": ThemedCommand(
        "priority",
        callback=_priority,
        help="""Change the priority of a job that waits; it goes to the end of that queue.

\b
Example:
  geartrain priority H:web1:42 high
""",
        epilog=_HANDLES,
        params=[
            _HANDLE,
            click.Argument(["priority"], type=click.Choice(["high", "normal", "low"])),
            *asking_options(),
        ],
    ),
}
