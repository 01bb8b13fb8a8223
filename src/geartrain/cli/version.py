"""``geartrain version``: which geartrain this is, and in which form its core and its transport run."""

from __future__ import annotations

import platform
import sys

import click

from geartrain.daemon.transport import has_epoll, has_uvloop
from geartrain.version import VERSION
from geartrain.wire.primitives import COMPILED


@click.command("version")
def command() -> None:
    """Say which geartrain this is, whether its core runs compiled or interpreted, and what carries connections.

    The core is what does no input and output: packets, the job server's rules, the sessions of clients and workers.
    """
    form = "compiled" if COMPILED else "interpreted (install a C compiler and install geartrain again for more speed)"
    others = "asyncio with uvloop" if has_uvloop() else "asyncio alone"
    transport = f"epoll, compiled ({others} by --transport asyncio)" if has_epoll() else others
    click.echo(f"geartrain {VERSION}")
    click.echo(f"core: {form}")
    click.echo(f"transport: {transport}")
    click.echo(f"Python {platform.python_version()} on {sys.platform}")
