"""``geartrain dead``: jobs that did not succeed and are kept."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Sequence

import click

from geartrain.cli.amounts import moment_text
from geartrain.cli.job import as_row, describe, each
from geartrain.cli.printable import lines_of, preview
from geartrain.cli.servers import asking_options
from geartrain.cli.tables import Row, json_of, show
from geartrain.cli.themes import InOrder, ThemedCommand, ThemedOption
from geartrain.client import AdminClient, DeadLetter
from geartrain.errors import ServerError
from geartrain.link import Address
from geartrain.wire.text import as_text

_SELECTION = "Which"
_COLUMNS = ("handle", "function", "unique", "died", "reason", "attempts", "size", "text")


@click.group("dead", cls=InOrder, epilog="`geartrain dead COMMAND --help` tells all about a command.")
def command() -> None:
    """Look at dead letters: jobs that did not succeed and are kept, as the policy of their function says.

    \b
    Examples:
      geartrain dead list
      geartrain dead show H:web1:42
      geartrain dead retry --function resize --rate 10/s
      geartrain dead purge --reason expired
    """


def _list(
    servers: tuple[Address, ...],
    timeout: float,
    function: str | None,
    reason: str | None,
    count: int | None,
    as_json: bool,
) -> None:
    letters = AdminClient(servers, timeout=timeout).dead_letters(function or "", reason or "", count)
    columns = _COLUMNS if len(servers) == 1 else (*_COLUMNS, "server")
    show(lambda: [_row(letter, as_json) for letter in letters], columns, as_json=as_json, watch=None)


def _row(letter: DeadLetter, as_json: bool) -> Row:
    row = {name: getattr(letter, name) for name in _COLUMNS}
    row |= {"handle": as_text(letter.handle), "server": str(letter.handle.address)}
    if as_json:
        return {**row, "text": json_of(letter.data)}
    return {**row, "died": moment_text(letter.died), "text": lines_of(letter.text)[-1]}


def _show(servers: tuple[Address, ...], timeout: float, handle: str, workload: bool, as_json: bool) -> None:
    client = AdminClient(servers, timeout=timeout)
    if workload:
        sys.stdout.buffer.write(client.dead_workload(handle))
        sys.stdout.buffer.flush()
        return
    job = client.show_job(handle)
    data: bytes | None = None
    trouble = ""
    try:
        data = client.dead_workload(job.handle)
    except ServerError as error:
        if error.code != "IN_STORE":
            raise
        trouble = error.text
    if as_json:
        click.echo(json.dumps({**as_row(job), "workload": None if data is None else base64.b64encode(data).decode()}))
        return
    describe(job)
    click.echo()
    for line in [trouble] if data is None else preview(data):
        click.echo(f"  {line}")


def _retry(
    servers: tuple[Address, ...],
    timeout: float,
    handles: Sequence[str],
    function: str | None,
    reason: str | None,
    everything: bool,
    rate: int | None,
) -> int:
    client = AdminClient(servers, timeout=timeout)
    _check(handles, function, reason, everything)
    if handles:
        if rate is not None:
            raise click.UsageError("--rate is for many: with --function, --reason or --all")
        return each(handles, client.dead_retry)
    count = client.dead_retry_all(function or "", reason or "", rate=rate)
    click.echo(f"{count:,} jobs {'wait again' if rate is None else f'will wait again, {rate} each second'}")
    return 0


def _purge(
    servers: tuple[Address, ...],
    timeout: float,
    handles: Sequence[str],
    function: str | None,
    reason: str | None,
    everything: bool,
    yes: bool,
) -> int:
    client = AdminClient(servers, timeout=timeout)
    _check(handles, function, reason, everything)
    if handles:
        return each(handles, client.dead_purge)
    if not yes:
        count = len(client.dead_letters(function or "", reason or ""))
        if not count:
            click.echo("no such dead letters")
            return 0
        if not click.confirm(f"Throw {count:,} dead letters away for good?", err=True):
            click.echo("nothing was thrown away")
            return 1
    click.echo(f"{client.dead_purge_all(function or '', reason or ''):,} dead letters were thrown away")
    return 0


def _check(handles: Sequence[str], function: str | None, reason: str | None, everything: bool) -> None:
    if bool(handles) + bool(function or reason) + everything != 1:
        raise click.UsageError("say which dead letters: name HANDLEs, give --function or --reason, or say --all")


def _rate(ctx: click.Context, parameter: click.Parameter, written: str | None) -> int | None:
    if written is None:
        return None
    count = written.removesuffix("/s")
    if not (count.isascii() and count.isdigit() and 0 < int(count) < 10**6):
        raise click.BadParameter(f"{written!r} is no rate: write a whole number a second, such as 10/s", ctx, parameter)
    return int(count)


def _selection(*, everything: bool = True) -> list[click.Parameter]:
    options: list[click.Parameter] = [
        ThemedOption(["--function"], metavar="NAME", theme=_SELECTION, help="Those of this function."),
        ThemedOption(
            ["--reason"],
            metavar="REASON",
            theme=_SELECTION,
            help="Those that died by this: fail, exception, timeout, lost, reject, expired or dropped.",
        ),
    ]
    if everything:
        options.append(ThemedOption(["--all", "everything"], is_flag=True, theme=_SELECTION, help="All of them."))
    return options


_HANDLES = click.Argument(["handles"], nargs=-1, metavar="[HANDLE]...")
_JSON = ThemedOption(["--json", "as_json"], is_flag=True, theme="Output", help="JSON, for machines.")

command.add_command(
    ThemedCommand(
        "list",
        callback=_list,
        help="""List dead letters, the longest dead first.

\b
Examples:
  geartrain dead list
  geartrain dead list --function resize --reason timeout
  geartrain dead list --count 20 --json
""",
        params=[
            *_selection(everything=False),
            ThemedOption(
                ["--count"], type=click.IntRange(min=1), metavar="N", theme=_SELECTION, help="So many at most."
            ),
            _JSON,
            *asking_options(),
        ],
    )
)
command.add_command(
    ThemedCommand(
        "show",
        callback=_show,
        help="""Show a dead letter: why it died, its attempts, and the beginning of its workload.

\b
Examples:
  geartrain dead show H:web1:42
  geartrain dead show H:web1:42 --workload > workload
""",
        params=[
            click.Argument(["handle"]),
            ThemedOption(["--workload"], is_flag=True, theme="Output", help="The workload alone, byte for byte."),
            _JSON,
            *asking_options(),
        ],
    )
)
command.add_command(
    ThemedCommand(
        "retry",
        callback=_retry,
        help="""Have dead letters wait again, with all their attempts before them.

\b
Examples:
  geartrain dead retry H:web1:42 H:web1:43
  geartrain dead retry --function resize --reason lost
  geartrain dead retry --all --rate 10/s
""",
        params=[
            _HANDLES,
            *_selection(),
            ThemedOption(
                ["--rate"],
                callback=_rate,
                metavar="N/s",
                theme="Doing",
                help="So many each second; the job server goes on by itself.  [default: all at once]",
            ),
            *asking_options(),
        ],
    )
)
command.add_command(
    ThemedCommand(
        "purge",
        callback=_purge,
        help="""Throw dead letters away for good. Of many it asks before it does.

\b
Examples:
  geartrain dead purge H:web1:42
  geartrain dead purge --function resize --reason expired
  geartrain dead purge --all --yes
""",
        params=[
            _HANDLES,
            *_selection(),
            ThemedOption(["--yes", "-y"], is_flag=True, theme="Doing", help="Do not ask."),
            *asking_options(),
        ],
    )
)
