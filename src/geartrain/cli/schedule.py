"""``geartrain schedule``: jobs that a job server makes by itself, again and again."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import click

from geartrain.cli.printable import complain, printable
from geartrain.cli.servers import asking_options
from geartrain.cli.tables import Row, show
from geartrain.cli.themes import InOrder, ThemedCommand, ThemedOption
from geartrain.client import AdminClient, ScheduleDetails
from geartrain.link import Address
from geartrain.wire.text import as_text

_KEYS: Final = {
    "cron": "When: five fields, or one of @hourly, @daily, @weekly, @monthly, @yearly",
    "every": "Instead of cron: the time from run to run, such as 10m; at least 100ms",
    "zone": "Time zone of cron, such as Europe/Berlin  [default: the job server's]",
    "function": "The function of the job",
    "workload": "The job's workload  [default: none]",
    "priority": "high, normal or low  [default: normal]",
    "jitter": "Up to so much later than its time a run is made, by the name and the run  [default: 0s]",
    "missed": "Runs missed while the job server was down: none, one for all, all  [default: one]",
    "overlap": "While the last run's job is not done: allow, or skip the run  [default: allow]",
}


@click.group("schedule", cls=InOrder, epilog="`geartrain schedule COMMAND --help` tells all about a command.")
def command() -> None:
    """Have jobs made at their times, by a cron expression or at intervals.

    A schedule outlives the job server, and each of its runs is one job. Every job server makes jobs by itself: of
    several, name one with --server.

    \b
    Examples:
      geartrain schedule set nightly cron='30 2 * * *' zone=Europe/Berlin function=report
      geartrain schedule set poll every=30s function=poll overlap=skip
      geartrain schedule list
      geartrain schedule show nightly
    """


class _SetCommand(ThemedCommand):
    """Its help explains each key."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Keys"):
            formatter.write_dl(list(_KEYS.items()))
        super().format_options(ctx, formatter)


def _pairs(ctx: click.Context, parameter: click.Parameter, written: Sequence[str]) -> Mapping[str, str]:
    for word in written:
        key, equals, _ = word.partition("=")
        if not key or not equals:
            raise click.BadParameter(
                f"{word!r} is no KEY=VALUE, such as every=10m; `geartrain schedule set --help` lists the keys",
                ctx,
                parameter,
            )
    return dict(word.split("=", 1) for word in written)


def _set(servers: tuple[Address, ...], timeout: float, as_json: bool, name: str, keys: Mapping[str, str]) -> None:
    client = AdminClient(servers, timeout=timeout)
    client.schedule_set(name, keys)
    found = client.show_schedule(name)
    if as_json:
        click.echo(json.dumps([_details(schedule) for schedule in found]))
        return
    for schedule in found:
        click.echo("next runs" + (f" at {schedule.server}:" if len(found) > 1 else ":"))
        _print_runs(schedule)


def _show(servers: tuple[Address, ...], timeout: float, as_json: bool, name: str) -> None:
    found = AdminClient(servers, timeout=timeout).show_schedule(name)
    if as_json:
        click.echo(json.dumps([_details(schedule) for schedule in found]))
        return
    for schedule in found:
        if len(found) > 1:
            click.echo(f"at {schedule.server}")
        rows = {"name": schedule.name, "set by": schedule.source, **schedule.keys}
        if schedule.workload:
            rows["workload"] = repr(schedule.workload)[2:-1]
        rows["last run"] = _local(schedule.last_run)
        rows["last job"] = schedule.job or ""
        for key, value in rows.items():
            click.echo(f"{key + ':':10} {printable(value)}".rstrip())
        click.echo("paused: no runs are made" if schedule.is_paused else "next runs:")
        if not schedule.is_paused:
            _print_runs(schedule)


def _print_runs(schedule: ScheduleDetails) -> None:
    for run in schedule.next_runs:
        click.echo(f"  {run:%a} {run.isoformat(' ')}")


def _details(schedule: ScheduleDetails) -> Row:
    return {
        "server": str(schedule.server),
        "name": schedule.name,
        "source": schedule.source,
        "paused": schedule.is_paused,
        "keys": schedule.keys,
        "workload": as_text(schedule.workload),
        "last_run": schedule.last_run,
        "job": schedule.job,
        "next_runs": [run.isoformat() for run in schedule.next_runs],
    }


def _list(servers: tuple[Address, ...], timeout: float, as_json: bool) -> None:
    client = AdminClient(servers, timeout=timeout)

    def fetch() -> Sequence[Row]:
        rows = []
        for schedule in client.schedules():
            row: dict[str, object] = {"server": str(schedule.server), "name": schedule.name}
            if as_json:
                runs: dict[str, object] = {"next_run": schedule.next_run, "last_run": schedule.last_run}
                row |= {"paused": schedule.is_paused, **runs, "function": schedule.function, "keys": schedule.keys}
            else:
                row["when"] = schedule.keys.get("cron") or f"every {schedule.keys.get('every')}"
                row["function"] = schedule.function
                row["next run"] = "paused" if schedule.is_paused else _local(schedule.next_run)
                row["last run"] = _local(schedule.last_run)
            rows.append(row)
        return rows

    columns = ["name", "when", "function", "next run", "last run"]
    show(fetch, columns if len(client.addresses) == 1 else ["server", *columns], as_json=as_json, watch=None)


def _local(moment: float | None) -> str:
    """A time as the clocks here show it."""
    if moment is None:
        return "none"
    return datetime.datetime.fromtimestamp(int(moment)).astimezone().isoformat(" ")


def _run(servers: tuple[Address, ...], timeout: float, as_json: bool, name: str) -> None:
    handles = AdminClient(servers, timeout=timeout).schedule_run(name)
    if as_json:
        click.echo(json.dumps([{"server": str(each.address), "handle": as_text(each)} for each in handles]))
        return
    for handle in handles:
        click.echo(as_text(handle))


def _order(name: str, about: str, order: Callable[[AdminClient, str], bool]) -> None:
    """Add a command that changes something about one schedule."""

    def run(servers: tuple[Address, ...], timeout: float, as_json: bool, schedule: str) -> int:
        is_done = order(AdminClient(servers, timeout=timeout), schedule)
        if as_json:
            click.echo(json.dumps({"done": is_done}))
        elif not is_done:
            complain(f"no command has set a schedule {schedule}: `geartrain schedule list` lists all")
        return 0 if is_done else 1

    params = [click.Argument(["schedule"], metavar="NAME"), _json("A JSON object, for machines."), *asking_options()]
    command.add_command(ThemedCommand(name, callback=run, help=about, params=params))


def _json(about: str) -> ThemedOption:
    return ThemedOption(["--json", "as_json"], is_flag=True, theme="Output", help=about)


_NAME: Final = click.Argument(["name"])

command.add_command(
    _SetCommand(
        "set",
        callback=_set,
        help="""Make the schedule NAME, or change keys of it, and show its next runs.

Keys that are not named stay as they are; KEY= without a value takes the key away. If anything is wrong with a value
nothing is changed.

\b
Examples:
  geartrain schedule set nightly cron='30 2 * * *' zone=Europe/Berlin function=report
  geartrain schedule set nightly priority=low jitter=10m missed=none
  geartrain schedule set poll every=30s function=poll overlap=skip
""",
        params=[
            _NAME,
            click.Argument(["keys"], nargs=-1, required=True, metavar="KEY=VALUE...", callback=_pairs),
            _json("A JSON list, for machines."),
            *asking_options(),
        ],
    )
)
_order(
    "unset",
    "Forget the schedule NAME. If the configuration file has one of that name it counts again.",
    AdminClient.schedule_unset,
)
_order("pause", "Make no runs of the schedule NAME until it is resumed.", AdminClient.schedule_pause)
_order(
    "resume",
    "Make runs of the schedule NAME again, from now on: those of the pause are left out.",
    AdminClient.schedule_resume,
)
command.add_command(
    ThemedCommand(
        "run",
        callback=_run,
        help="Submit the job of the schedule NAME now, whatever its times, and print its handle.",
        params=[_NAME, _json("A JSON list, for machines."), *asking_options()],
    )
)
command.add_command(
    ThemedCommand(
        "list",
        callback=_list,
        help="Show all schedules, with their next and last runs.",
        params=[_json("A JSON list, for machines."), *asking_options()],
    )
)
command.add_command(
    ThemedCommand(
        "show",
        callback=_show,
        help="Show all about the schedule NAME, and its next five runs.",
        params=[_NAME, _json("A JSON list, for machines."), *asking_options()],
    )
)
