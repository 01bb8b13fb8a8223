"""``geartrain check_gearman``: mod_gearman's plugin of that name, with its options, its texts and its exit codes.

What is judged and told is what mod_gearman 5 does, with three differences: the worst of several queues decides, not the
last one; an answer of any length is read; and Unix sockets may be named.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NoReturn

import click

from geartrain.cli.check import CRITICAL, OK, STATES, UNKNOWN, WARNING, Plugin, worst
from geartrain.cli.printable import printable
from geartrain.cli.themes import ThemedOption
from geartrain.client import AdminClient, Client, FunctionStatus
from geartrain.errors import AddressError, GeartrainError, TimedOutError
from geartrain.link import Address, parse_addresses
from geartrain.redaction import redacted
from geartrain.version import VERSION
from geartrain.wire.text import as_text

_NAME: Final = "check_gearman"
_JOBS, _WORKERS = (10, 100), (25, 50)  # warning, critical

_QUEUES, _JOB = "Judging queues", "Sending a test job"


class _Getopt(Plugin):
    """As a program that reads its options with getopt: what it does not know is told with the usage, and UNKNOWN."""

    def misused(self, why: str) -> NoReturn:
        _usage(f"Error - {why}")

    def give_up(self, why: str) -> NoReturn:
        _end(UNKNOWN, f"{_NAME} UNKNOWN - {_clean(why)}")


def _check(
    hosts: Sequence[str],
    timeout: int,
    job_warning: int,
    job_critical: int,
    worker_warning: int,
    worker_critical: int,
    queue: str | None,
    critical_without: bool,
    unique: str,
    send: str | None,
    expect: str | None,
    in_background: bool,
    verbose: int,
    port: str | None,
) -> NoReturn:
    if not hosts:
        _usage("Error - no hostname given")
    if send is not None and not queue:
        _usage("Error - need queue (-q) when sending job")
    try:
        addresses = [parse_addresses(host.removeprefix("="))[-1] for host in hosts]
    except AddressError as error:
        _usage(f"Error - {error}")
    server = addresses[-1]
    try:
        if send is not None and queue:
            _send(addresses, timeout, queue, send, expect, unique, in_background, verbose)
        jobs, workers = (job_warning, job_critical), (worker_warning, worker_critical)
        _judge(server, timeout, queue, jobs, workers, critical_without)
    except TimedOutError:
        _end(CRITICAL, f"timeout while waiting for {server}")
    except GeartrainError as error:
        _end(CRITICAL, f"{_NAME} CRITICAL - {_clean(str(error))}")


def _judge(
    server: Address,
    timeout: float,
    queue: str | None,
    jobs: tuple[int, int],
    workers: tuple[int, int],
    critical_without: bool,
) -> NoReturn:
    """Judge the queues by their waiting jobs and their workers."""
    client = AdminClient(str(server), timeout=timeout, connect_timeout=timeout)
    rows = [row for row in client.status() if queue is None or row.function == queue]
    version = next(iter(client.version().values()))
    judged = [_verdict(row, jobs, workers, critical_without) for row in rows]
    if queue is not None and not rows:
        judged.append((WARNING, f"Queue {queue} not found"))
    state = worst(each for each, _ in judged)
    text = "".join(text for _, text in judged)
    if state == OK:
        running, waiting = sum(row.running for row in rows), sum(row.queued for row in rows)
        text = f"{_jobs(running)} running and {_jobs(waiting)} waiting. Version: {version}"
    numbers = "".join(
        f"'{name}_waiting'={row.queued};{jobs[0]};{jobs[1]};0 '{name}_running'={row.running} "
        f"'{name}_worker'={row.workers};{workers[0]};{workers[1]};0 "
        for row in rows
        for name in [_clean(row.function).replace("'", "''").replace("=", "_")]
    )
    _end(state, f"{_NAME} {STATES[state]} - {_clean(text)}|{numbers}")


def _verdict(
    row: FunctionStatus, jobs: tuple[int, int], workers: tuple[int, int], critical_without: bool
) -> tuple[int, str]:
    waiting, able = row.queued, row.workers
    if waiting > 0 and able == 0:
        return CRITICAL, f"Queue {row.function} has {_jobs(waiting)} without any worker. "
    for state, most_waiting, most_able in ((CRITICAL, jobs[1], workers[1]), (WARNING, jobs[0], workers[0])):
        if 0 < most_waiting <= waiting:
            return state, f"Queue {row.function} has {waiting} waiting job{'' if waiting == 1 else 's'}. "
        if 0 < most_able <= able:
            return state, f"Queue {row.function} has {able} worker. "
        if critical_without and able == 0:
            return CRITICAL, f"Queue {row.function} has no worker. "
    return OK, ""


def _send(
    addresses: Sequence[Address],
    timeout: float,
    queue: str,
    text: str,
    expected: str | None,
    unique: str,
    in_background: bool,
    verbose: int,
) -> NoReturn:
    """Have a job done, and judge its result; one that begins with a number and a colon says the state itself."""
    with Client([str(address) for address in addresses], connect_timeout=timeout) as client:
        try:
            if in_background:
                client.submit_background(queue, text.encode(), unique=unique, priority="high", timeout=timeout)
                result = "sending background job succeeded"
            else:
                result = as_text(client.run(queue, text.encode(), unique=unique, priority="high", timeout=timeout))
        except GeartrainError as error:
            why = str(error).strip().splitlines()[-1:]  # of a traceback what was raised
            _end(CRITICAL, f"{_NAME} CRITICAL - job failed: {_clean(''.join(why))}")
    if verbose:
        click.echo(f"result: {printable(result)}", err=True)
    shown = printable(result.rstrip("\n"))
    if expected is not None and not in_background:
        if expected in result:
            _end(OK, f"{_NAME} OK - send worker '{text}' response: '{shown}'")
        _end(CRITICAL, f"{_NAME} CRITICAL - send worker: '{text}' response: '{shown}', expected '{expected}'")
    if len(result) > 1 and result[0] in "0123" and result[1] == ":":
        _end(int(result[0]), shown[2:])  # as it is: it may have numbers of its own behind a |
    _end(OK, f"{_NAME} OK - {shown}")


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count} jobs"


def _clean(text: str) -> str:
    """Without what would begin the numbers."""
    return printable(redacted(text)).replace("|", "_")


def _usage(why: str = "") -> NoReturn:
    usage = command.get_help(click.Context(command, info_name=f"geartrain {_NAME}"))
    _end(UNKNOWN, f"{redacted(why)}\n\n{usage}" if why else usage)


def _version(ctx: click.Context, parameter: click.Parameter, is_asked: bool) -> None:
    if is_asked:
        _end(UNKNOWN, f"{_NAME}: version {VERSION} of geartrain")


def _help(ctx: click.Context, parameter: click.Parameter, is_asked: bool) -> None:
    if is_asked:
        _usage()


def _end(state: int, line: str) -> NoReturn:
    click.echo(line)
    raise click.exceptions.Exit(state)


def _threshold(flag: str, name: str, default: int, what: str) -> click.Option:
    return ThemedOption(
        [flag, name], type=int, default=default, show_default=True, metavar="N", theme=_QUEUES, help=f"{what}; 0: none."
    )


command = _Getopt(
    _NAME,
    callback=_check,
    context_settings={"help_option_names": ["--help"]},
    help="mod_gearman's plugin for Nagios and the like: the same options, texts and exit codes.\n\nThresholds are those"
    " of each queue. Jobs that wait without any worker are critical.",
    params=[
        ThemedOption(
            ["-H", "hosts"],
            multiple=True,
            metavar="HOST[:PORT]",
            help="The job server; of several the last one is judged, and any gets the test job.",
        ),
        ThemedOption(
            ["-t", "timeout"],
            type=click.IntRange(min=1),
            default=10,
            show_default=True,
            metavar="SECONDS",
            help="How long it may take.",
        ),
        ThemedOption(["-v", "verbose"], count=True, help="Tell more, on the standard error."),
        ThemedOption(["-V"], is_flag=True, is_eager=True, expose_value=False, callback=_version, help="The version."),
        ThemedOption(
            ["-h"], is_flag=True, is_eager=True, expose_value=False, callback=_help, help="This, and UNKNOWN."
        ),
        ThemedOption(["-q", "queue"], metavar="QUEUE", theme=_QUEUES, help="This queue alone."),
        _threshold("-w", "job_warning", _JOBS[0], "Waiting jobs that are a warning"),
        _threshold("-c", "job_critical", _JOBS[1], "Waiting jobs that are critical"),
        _threshold("-W", "worker_warning", _WORKERS[0], "Workers, or more, that are a warning"),
        _threshold("-C", "worker_critical", _WORKERS[1], "Workers, or more, that are critical"),
        ThemedOption(
            ["-x", "critical_without"], is_flag=True, theme=_QUEUES, help="A queue without any worker is critical."
        ),
        ThemedOption(["-s", "send"], metavar="TEXT", theme=_JOB, help="Have QUEUE do a job with this workload."),
        ThemedOption(["-e", "expect"], metavar="TEXT", theme=_JOB, help="What must be in its result."),
        ThemedOption(
            ["-u", "unique"], metavar="KEY", default="check", show_default=True, theme=_JOB, help="Its unique key."
        ),
        ThemedOption(
            ["-a", "in_background"], is_flag=True, theme=_JOB, help="In the background: its result is not seen."
        ),
        click.Option(["-p", "port"], hidden=True),  # read by the original, and not used
    ],
)
