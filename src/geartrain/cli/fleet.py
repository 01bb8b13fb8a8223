"""``geartrain fleet``: job servers that take over from each other."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Final

import click

from geartrain.cli.printable import complain
from geartrain.cli.servers import asking_options, seconds_above_0
from geartrain.cli.tables import Row, show
from geartrain.cli.themes import InOrder, ThemedCommand, ThemedOption
from geartrain.client import AdminClient, FleetMember
from geartrain.errors import ServerError
from geartrain.link import Address

_SHOWN_ADOPTIONS: Final = 10
_MEMBERS: Final = ["member", "address", "state", "leader", "draining", "lease", "since", "version"]
_ADOPTIONS: Final = ["from", "adopted by", "jobs", "begun", "last"]


@click.group("fleet", cls=InOrder, epilog="`geartrain fleet COMMAND --help` tells all about a command.")
def command() -> None:
    """Look after job servers that share one database and take over from each other.

    Any member knows the whole fleet: of several servers the first one that can be reached is asked.

    \b
    Examples:
      geartrain fleet status
      geartrain fleet functions
      geartrain fleet drain 7
      geartrain fleet forget 5
    """


def _status(servers: tuple[Address, ...], timeout: float, as_json: bool, watch: float | None) -> None:
    client = AdminClient(servers, timeout=timeout)
    if as_json:
        members = [asdict(member) for member in client.fleet_status()]
        adoptions = [asdict(adoption) for adoption in client.fleet_history().adoptions]
        click.echo(json.dumps({"members": members, "adoptions": adoptions}))
        return
    show(lambda: [_row(member) for member in client.fleet_status()], _MEMBERS, as_json=False, watch=watch)
    try:
        adoptions_of = client.fleet_history().adoptions[:_SHOWN_ADOPTIONS]
    except ServerError as error:  # the database is away, and the members are as they were found last
        complain(str(error))
        return
    if adoptions_of:
        rows: list[Row] = [
            {
                "from": each.estate or "before the fleet",
                "adopted by": each.heir,
                "jobs": each.jobs,
                "begun": _local(each.first),
                "last": _local(each.last),
            }
            for each in adoptions_of
        ]
        click.echo()
        show(lambda: rows, _ADOPTIONS, as_json=False, watch=None)


def _row(member: FleetMember) -> Row:
    return {
        "member": member.id,
        "address": member.address,
        "state": member.state,
        "leader": member.is_leader,
        "draining": member.is_draining,
        "lease": f"{member.lease:.1f} s" if member.ended is None else "",
        "since": _local(member.ended or member.joined),
        "version": member.version,
    }


def _local(moment: float) -> str:
    """A time as the clocks here show it."""
    return datetime.datetime.fromtimestamp(int(moment)).astimezone().isoformat(" ")


def _functions(servers: tuple[Address, ...], timeout: float, as_json: bool, watch: float | None) -> None:
    client = AdminClient(servers, timeout=timeout)
    columns = ("function", "queued", "running", "total", "workers")

    def fetch() -> Sequence[Row]:
        return [{column: getattr(row, column) for column in columns} for row in client.fleet_functions()]

    show(fetch, columns, as_json=as_json, watch=watch)


def _drain(servers: tuple[Address, ...], timeout: float, member: int, off: bool) -> None:
    AdminClient(servers, timeout=timeout).fleet_drain(member, not off)


def _forget(servers: tuple[Address, ...], timeout: float, member: int) -> None:
    AdminClient(servers, timeout=timeout).fleet_forget(member)


def _listing(name: str, about: str, run: Callable[..., None]) -> None:
    params: list[click.Parameter] = [
        ThemedOption(["--json", "as_json"], is_flag=True, theme="Output", help="JSON, for machines."),
        ThemedOption(
            ["--watch"],
            is_flag=False,
            flag_value="2",
            callback=seconds_above_0,
            metavar="[SECONDS]",
            theme="Output",
            help="Look again each so many seconds (2 if none are given), until Ctrl-C.",
        ),
        *asking_options(),
    ]
    command.add_command(ThemedCommand(name, callback=run, params=params, help=about))


_MEMBER: Final = click.Argument(["member"], type=click.IntRange(min=1), metavar="ID")

_listing(
    "status",
    """Show the members, who leads, how long each lease holds, and who has adopted jobs of whom.

A lease is renewed twice a second, and is 3 to 4 seconds of a member that is well. The leader makes the runs of
schedules. `since` is when a member joined, or when it ended.

\b
Examples:
  geartrain fleet status
  geartrain fleet status --watch
  geartrain fleet status --json
""",
    _status,
)
_listing(
    "functions",
    """Show the jobs and workers of each function in the whole fleet.

`geartrain admin status` shows those of the servers that it asks.

\b
Examples:
  geartrain fleet functions
  geartrain fleet functions --watch 1
""",
    _functions,
)
command.add_command(
    ThemedCommand(
        "drain",
        callback=_drain,
        help="""Have the member ID give away the jobs that wait there.

It goes on to serve clients and workers, and what runs there ends there. Before its machine is taken down, stop it: that
hands over the rest. Turned --off it keeps what it gets as before.

\b
Examples:
  geartrain fleet drain 7
  geartrain fleet drain 7 --off
""",
        params=[
            _MEMBER,
            ThemedOption(["--off"], is_flag=True, help="Have it keep jobs again."),
            *asking_options(),
        ],
    )
)
command.add_command(
    ThemedCommand(
        "forget",
        callback=_forget,
        help="""Take the member ID for dead, or list it no more when it has gone.

Members do so by themselves; it is needed only where nobody else is left who could. A live member, whose lease is
renewed, is not forgotten: stop it.

\b
Example:
  geartrain fleet forget 5
""",
        params=[_MEMBER, *asking_options()],
    )
)
