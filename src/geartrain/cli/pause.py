"""``geartrain pause`` and ``resume``: whether jobs of a function are handed out."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Mapping, Sequence

import click

from geartrain.cli.printable import complain
from geartrain.cli.servers import asking_options
from geartrain.cli.themes import ThemedCommand
from geartrain.client import AdminClient
from geartrain.link import Address


def _pause(servers: tuple[Address, ...], timeout: float, function: str, reason: Sequence[str]) -> None:
    AdminClient(servers, timeout=timeout).pause(function, " ".join(reason), who=_who())


def _resume(servers: tuple[Address, ...], timeout: float, functions: Sequence[str]) -> int:
    client = AdminClient(servers, timeout=timeout)
    running = [function for function in functions if not client.resume(function)]
    for function in running:
        complain(f"{function} was not paused")
    return 1 if running else 0


def _who() -> str:
    """Who is at work, as user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in a container
        user = "somebody"
    return "_".join(f"{user}@{socket.gethostname()}".split())


commands: Mapping[str, click.Command] = {
    "pause": ThemedCommand(
        "pause",
        callback=_pause,
        help="""Hand out no more jobs of FUNCTION.

Jobs that run go on. Submissions are taken and kept. The pause outlives the job server, and `geartrain why` tells who
made it, when, and the REASON.

\b
Examples:
  geartrain pause resize
  geartrain pause resize the disk is full
""",
        params=[
            click.Argument(["function"]),
            click.Argument(["reason"], nargs=-1, metavar="[REASON]..."),
            *asking_options(),
        ],
    ),
    "resume": ThemedCommand(
        "resume",
        callback=_resume,
        help="""Hand out jobs of each FUNCTION again.

The exit code is 1 if one was not paused.

\b
Example:
  geartrain resume resize
""",
        params=[click.Argument(["functions"], nargs=-1, required=True, metavar="FUNCTION..."), *asking_options()],
    ),
}
