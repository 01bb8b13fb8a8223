"""``geartrain policy``: what the job server does for a function beyond handing out its jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from geartrain.cli.printable import complain
from geartrain.cli.servers import asking_options
from geartrain.cli.tables import Row, show
from geartrain.cli.themes import InOrder, ThemedCommand, ThemedOption
from geartrain.client import AdminClient, FunctionPolicy
from geartrain.link import Address


@click.group("policy", cls=InOrder, epilog="`geartrain policy COMMAND --help` tells all about a command.")
def command() -> None:
    """Set and show policies of functions: how often a job is tried, which limits hold, which results are kept.

    A policy has a function's name, or a pattern such as mail.* for many; the most exact one holds. It outlives the job
    server. A function without a policy behaves as in any Gearman.

    \b
    Examples:
      geartrain policy set resize attempts=5 backoff=exponential delay=2s
      geartrain policy set 'mail.*' rate=100/min
      geartrain policy show resize
      geartrain policy unset resize
    """


class _SetCommand(ThemedCommand):
    """Its help explains each key."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from geartrain.jobserver.policy import KEYS

        with formatter.section("Keys"):
            formatter.write_dl([(key, f"{meaning}.  [{form}]") for key, (form, meaning) in KEYS.items()])
        super().format_options(ctx, formatter)


def _pairs(ctx: click.Context, parameter: click.Parameter, written: Sequence[str]) -> Mapping[str, str]:
    for word in written:
        key, equals, _ = word.partition("=")
        if not key or not equals:
            raise click.BadParameter(
                f"{word!r} is no KEY=VALUE, such as attempts=5; `geartrain policy set --help` lists the keys",
                ctx,
                parameter,
            )
    return dict(word.split("=", 1) for word in written)


def _set(servers: tuple[Address, ...], timeout: float, name: str, keys: Mapping[str, str]) -> None:
    AdminClient(servers, timeout=timeout).policy_set(name, keys)


def _unset(servers: tuple[Address, ...], timeout: float, name: str) -> int:
    if AdminClient(servers, timeout=timeout).policy_unset(name):
        return 0
    complain(
        f"no command has set a policy of the name {name}: `geartrain policy show` lists all;"
        " those of source file are changed in the job server's configuration file"
    )
    return 1


def _show(servers: tuple[Address, ...], timeout: float, function: str | None, as_json: bool) -> None:
    client = AdminClient(servers, timeout=timeout)

    def fetch() -> Sequence[Row]:
        policies = client.policies() if function is None else client.policy_of(function)
        return [_row(policy, as_json) for policy in policies]

    columns = ["name", "source", "policy"]
    show(fetch, columns if len(client.addresses) == 1 else ["server", *columns], as_json=as_json, watch=None)


def _row(policy: FunctionPolicy, as_json: bool) -> Row:
    policies = policy.keys if as_json else [f"{key}={value}" for key, value in policy.keys.items()]
    return {"server": str(policy.server), "name": policy.name, "source": policy.source, "policy": policies}


command.add_command(
    _SetCommand(
        "set",
        callback=_set,
        help="""Set keys of the policy of the function or pattern NAME.

Keys that are not named stay as they are; KEY= without a value takes the key away. If anything is wrong with a value
nothing is changed. Times are 500ms, 30s, 5m, 2h, 1d; sizes are 4096, 64KiB, 1MiB.

\b
Examples:
  geartrain policy set resize attempts=5 retry_on=exception,timeout,lost delay=2s
  geartrain policy set resize timeout=10m expires=1d
  geartrain policy set 'import.*' concurrency=4 key_concurrency=1
  geartrain policy set report results=1h result_size=10MiB
  geartrain policy set resize timeout=
""",
        params=[
            click.Argument(["name"]),
            click.Argument(["keys"], nargs=-1, required=True, metavar="KEY=VALUE...", callback=_pairs),
            *asking_options(),
        ],
    )
)
command.add_command(
    ThemedCommand(
        "unset",
        callback=_unset,
        help="""Take away what commands have set for NAME.

What the configuration file says of that name holds again. The exit code is 1 if there was nothing.

\b
Example:
  geartrain policy unset resize
""",
        params=[click.Argument(["name"]), *asking_options()],
    )
)
command.add_command(
    ThemedCommand(
        "show",
        callback=_show,
        help="""Show all policies, or the one that holds for FUNCTION.

\b
Examples:
  geartrain policy show
  geartrain policy show mail.welcome
  geartrain policy show --json
""",
        params=[
            click.Argument(["function"], required=False),
            ThemedOption(["--json", "as_json"], is_flag=True, theme="Output", help="A JSON list, for machines."),
            *asking_options(),
        ],
    )
)
