"""``geartrain admin``: what job servers are doing, and the few things that can be changed while they run."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import click

from geartrain.cli.printable import complain, printable
from geartrain.cli.servers import asking_options, seconds_above_0
from geartrain.cli.tables import Row, show
from geartrain.cli.themes import InOrder, ThemedCommand, ThemedOption
from geartrain.client import AdminClient, FunctionDetails
from geartrain.link import Address
from geartrain.wire.text import as_text

_OUTPUT = "Output"
_COUNT = click.IntRange(min=0)


@click.group(
    "admin",
    cls=InOrder,
    epilog="Where several servers are named, their numbers are added up and their rows joined. "
    "`geartrain admin COMMAND --help` tells all about a command.",
)
def command() -> None:
    """Look into job servers, and change their limits.

    \b
    Examples:
      geartrain admin status
      geartrain admin status --watch 1 --server a:4730,b:4730
      geartrain admin limit resize 1000
      geartrain admin jobs --json
    """


def _listing(
    name: str,
    about: str,
    columns: Sequence[str],
    rows: Callable[[AdminClient], Sequence[Row]],
    *,
    of_functions: bool = False,
) -> None:
    """Add a command that lists rows."""

    def run(
        servers: tuple[Address, ...], timeout: float, as_json: bool, watch: float | None, functions: Sequence[str] = ()
    ) -> None:
        client = AdminClient(servers, timeout=timeout)

        def fetch() -> Sequence[Row]:
            return [row for row in rows(client) if not functions or row["function"] in functions]

        show(fetch, columns, as_json=as_json, watch=watch)

    parameters: list[click.Parameter] = [
        ThemedOption(["--json", "as_json"], is_flag=True, theme=_OUTPUT, help="A JSON list, for machines."),
        ThemedOption(
            ["--watch"],
            is_flag=False,
            flag_value="2",
            callback=seconds_above_0,
            metavar="[SECONDS]",
            theme=_OUTPUT,
            help="Look again each so many seconds (2 if none are given), until Ctrl-C.",
        ),
        *asking_options(),
    ]
    if of_functions:
        parameters.insert(0, click.Argument(["functions"], nargs=-1, metavar="[FUNCTION]..."))
    command.add_command(ThemedCommand(name, callback=run, params=parameters, help=about))


def _value(name: str, about: str, ask: Callable[[AdminClient], dict[Address, Any]]) -> None:
    """Add a command that shows one value of each server."""

    def run(servers: tuple[Address, ...], timeout: float, as_json: bool) -> None:
        values = {str(address): value for address, value in ask(AdminClient(servers, timeout=timeout)).items()}
        if as_json:
            click.echo(json.dumps(values))
        elif len(values) == 1:
            click.echo(*values.values())
        else:
            rows = [{"server": server, name: value} for server, value in values.items()]
            show(lambda: rows, ["server", name], as_json=False, watch=None)

    as_json = ThemedOption(["--json", "as_json"], is_flag=True, theme=_OUTPUT, help="A JSON object, by server.")
    command.add_command(ThemedCommand(name, callback=run, params=[as_json, *asking_options()], help=about))


def _order(name: str, about: str, run: Callable[..., int | None], *parameters: click.Parameter) -> None:
    """Add a command that changes something."""
    command.add_command(ThemedCommand(name, callback=run, params=[*parameters, *asking_options()], help=about))


def _status(client: AdminClient) -> Sequence[Row]:
    return [
        {
            "function": row.function,
            "queued": row.queued,
            "running": row.running,
            "total": row.total,
            "workers": row.workers,
        }
        for row in client.status()
    ]


def _priorities(client: AdminClient) -> Sequence[Row]:
    columns = ("function", "high", "normal", "low", "workers")
    return [{column: getattr(row, column) for column in columns} for row in client.priority_status()]


def _connections(client: AdminClient) -> Sequence[Row]:
    columns = ("host", "fd", "id", "functions")
    rows = [{"server": str(row.server), **{name: getattr(row, name) for name in columns}} for row in client.workers()]
    return sorted(rows, key=lambda row: (row["server"], row["id"], row["host"], row["fd"]))


def _workers(client: AdminClient) -> Sequence[Row]:
    return [row for row in _connections(client) if row["functions"]]


def _jobs(client: AdminClient) -> Sequence[Row]:
    rows = [
        {
            "handle": as_text(row.handle),
            "server": str(row.handle.address),
            "background": row.is_background,
            "lost_workers": row.retries,
            "abandoned": row.is_ignored,
        }
        for row in client.show_jobs()
    ]
    return sorted(rows, key=lambda row: (row["server"], len(str(row["handle"])), row["handle"]))


def _uniques(client: AdminClient) -> Sequence[Row]:
    return [{"unique": unique} for unique in sorted(client.show_unique_jobs())]


def _function(servers: tuple[Address, ...], timeout: float, function: str, as_json: bool) -> int:
    found = [_function_row(row) for row in AdminClient(servers, timeout=timeout).show_function(function)]
    if as_json:
        click.echo(json.dumps(found))
    for row in [] if as_json else found:
        for name, value in row.items():
            if value:
                click.echo(f"{name.replace('_', ' '):17} {printable(str(value))}")
    if not found:
        complain(f"no job server knows the function {function}: no job or worker has named it, or it was idle for long")
    return 0 if found else 1


def _function_row(row: FunctionDetails) -> dict[str, object]:
    values = {field.name: getattr(row, field.name) for field in fields(row) if field.name != "counters"}
    return {**values, "server": str(row.server), **row.counters}


def _create(servers: tuple[Address, ...], timeout: float, function: str) -> None:
    AdminClient(servers, timeout=timeout).create_function(function)


def _drop(servers: tuple[Address, ...], timeout: float, function: str) -> None:
    AdminClient(servers, timeout=timeout).drop_function(function)


def _limit(
    servers: tuple[Address, ...],
    timeout: float,
    function: str,
    limit: int | None,
    high: int | None,
    normal: int | None,
    low: int | None,
) -> None:
    AdminClient(servers, timeout=timeout).max_queue(function, limit, high=high, normal=normal, low=low)


def _cancel(servers: tuple[Address, ...], timeout: float, handles: Sequence[str]) -> int:
    client = AdminClient(servers, timeout=timeout)
    unknown = [handle for handle in handles if not client.cancel_job(handle)]
    for handle in unknown:
        click.echo(f"geartrain: no job server knows the job {handle}: it has ended, or never was", err=True)
    return 1 if unknown else 0


def _disconnect(servers: tuple[Address, ...], timeout: float, fd: int, id: str | None) -> int:
    client = AdminClient(servers, timeout=timeout)
    meant = [peer for peer in client.workers() if peer.fd == fd and id in (None, peer.id)]
    if len(meant) > 1:
        raise click.UsageError(f"{len(meant)} job servers have a connection {fd}: name one with --server")
    if meant and client.disconnect(meant[0]):
        return 0
    complain(f"there is no connection {fd}{f' of {id}' if id else ''}: `geartrain admin connections` lists them")
    return 1


def _drain(servers: tuple[Address, ...], timeout: float) -> None:
    AdminClient(servers, timeout=timeout).drain()


_FUNCTION = click.Argument(["function"])

_listing(
    "status",
    "The jobs of each function, and the workers able to do them.",
    ("function", "queued", "running", "total", "workers"),
    _status,
    of_functions=True,
)
_listing(
    "priorities",
    "The queued jobs of each function by priority.",
    ("function", "high", "normal", "low", "workers"),
    _priorities,
    of_functions=True,
)
command.add_command(
    ThemedCommand(
        "function",
        callback=_function,
        params=[
            click.Argument(["function"]),
            ThemedOption(["--json", "as_json"], is_flag=True, theme=_OUTPUT, help="A JSON list, for machines."),
            *asking_options(),
        ],
        help="What each server knows of FUNCTION: its jobs, its policy, and all that was counted, such as retries and"
        " results that were given again. What is 0 is left out, but for machines.",
    )
)
_listing(
    "workers",
    "The connected workers and the functions that each can do.",
    ("server", "id", "host", "fd", "functions"),
    _workers,
)
_listing(
    "connections",
    "Every connection: workers, clients and administrators.",
    ("server", "id", "host", "fd", "functions"),
    _connections,
)
_listing(
    "jobs",
    "Every job that is queued or running. An abandoned one runs though nobody waits for it any more.",
    ("handle", "server", "background", "lost_workers", "abandoned"),
    _jobs,
)
_listing("uniques", "The unique keys of the jobs that are queued or running.", ("unique",), _uniques)
_value("version", "The version of each job server.", AdminClient.version)
_value("pid", "The process id of each job server.", AdminClient.getpid)
_value("verbose", "How much each job server logs.", AdminClient.verbose)
_order("create", "Make FUNCTION known before any worker or job names it.", _create, _FUNCTION)
_order(
    "drop",
    "Forget FUNCTION and its queued jobs. It must have no workers, running jobs or dead letters.",
    _drop,
    _FUNCTION,
)
_order(
    "limit",
    "Limit the jobs of FUNCTION. Beyond LIMIT jobs, queued and running together, submissions are refused. 0, or no "
    "limit at all, lifts the limits. A limit for one priority holds for the submissions of that priority.",
    _limit,
    _FUNCTION,
    click.Argument(["limit"], required=False, type=_COUNT),
    ThemedOption(["--high"], type=_COUNT, metavar="N", theme="Limits", help="For jobs of high priority."),
    ThemedOption(["--normal"], type=_COUNT, metavar="N", theme="Limits", help="For jobs of normal priority."),
    ThemedOption(["--low"], type=_COUNT, metavar="N", theme="Limits", help="For jobs of low priority."),
)
_order(
    "cancel",
    "Cancel jobs by their HANDLES. A queued job is dropped; of a running one its clients are told that it failed. Dead "
    "letters have ended: `geartrain dead purge` throws them away.",
    _cancel,
    click.Argument(["handles"], nargs=-1, required=True, metavar="HANDLE..."),
)
_order(
    "disconnect",
    "Close the connection that `geartrain admin connections` shows with this FD, if it calls itself ID. Jobs that it "
    "ran wait again, and whoever is at its other end may come again.",
    _disconnect,
    click.Argument(["fd"], type=_COUNT),
    click.Argument(["id"], required=False),
)
_order(
    "drain",
    "Have job servers take no more connections and jobs, let the jobs that run end, and stop: as SIGUSR1 does.",
    _drain,
)
