"""The command ``geartrain``: the way in, which needs nothing but the standard library until it knows what to do."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command that the arguments name, and leave the process with its exit code."""
    try:
        from geartrain.cli.commands import run
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        sys.exit("geartrain: the commands are not installed with the plain package: pip install 'geartrain[cli]'")
    sys.exit(run())
