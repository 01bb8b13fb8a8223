"""The option that says which job servers a command speaks to, the same for all commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from geartrain.cli.themes import ThemedOption
from geartrain.errors import AddressError
from geartrain.link.address import ENVIRONMENT_VARIABLE, Address, parse_addresses
from geartrain.units import read_seconds

THEME = "Job servers"


def seconds_above_0(ctx: click.Context, parameter: click.Parameter, written: str | None) -> float | None:
    """The callback of options that take a time, in seconds or as 500ms, 30s, 5m."""
    if written is None:
        return None
    try:
        seconds = read_seconds(written)
    except ValueError as error:
        raise click.BadParameter(f"{written!r}: {error}", ctx, parameter) from None
    if seconds <= 0:
        raise click.BadParameter(f"{written!r} is not above 0", ctx, parameter)
    return seconds


def _parse(ctx: click.Context, parameter: click.Parameter, written: Sequence[str]) -> tuple[Address, ...]:
    try:
        return parse_addresses(list(written) if written else None)
    except AddressError as error:
        place = "" if written else f"the environment variable {ENVIRONMENT_VARIABLE}: "
        raise click.BadParameter(f"{place}{error}", ctx, parameter) from None


def server_option(**settings: Any) -> ThemedOption:
    """``--server``, which gives the command a tuple of addresses called ``servers``."""
    return ThemedOption(
        ["-s", "--server", "servers"],
        metavar="ADDRESS",
        multiple=True,
        callback=_parse,
        theme=THEME,
        help="A job server: host, host:port, [::1]:4730 or unix:/path; several joined by commas, or repeat the option."
        f"  [default: ${ENVIRONMENT_VARIABLE}, else localhost:4730]",
        **settings,
    )


def asking_options() -> list[click.Parameter]:
    """``--server`` and ``--timeout``, of commands that ask job servers and wait for the answers."""
    timeout = ThemedOption(
        ["--timeout"],
        metavar="SECONDS",
        default="10",
        show_default=True,
        callback=seconds_above_0,
        theme=THEME,
        help="How long a server may take to answer.",
    )
    return [server_option(), timeout]
