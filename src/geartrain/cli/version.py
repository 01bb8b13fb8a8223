"""``geartrain version``: which geartrain this is, and in which form its core runs."""

from __future__ import annotations

import platform
import sys

import click

from geartrain.version import VERSION
from geartrain.wire.primitives import COMPILED


@click.command("version")
def command() -> None:
    """Say which geartrain this is, and whether its core runs compiled or interpreted.

    The core is what does no input and output: packets, the job server's rules, the sessions of clients and workers.
    """
    form = "compiled" if COMPILED else "interpreted (install a C compiler and install geartrain again for more speed)"
    click.echo(f"geartrain {VERSION}")
    click.echo(f"core: {form}")
    click.echo(f"Python {platform.python_version()} on {sys.platform}")
