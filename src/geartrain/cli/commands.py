"""The commands below ``geartrain``, each imported only when it is asked for, and how all of them end.

0    done
1    a job failed, or the job server could not start
2    the command was not understood
3    no job server, or no store, could be reached, or the connection was lost
4    the time limit was up
5    the job server refused a request, as when a function's queue is full, or uses the store
130  interrupted by Ctrl-C
"""

from __future__ import annotations

import importlib
import io
import os
import sys
import traceback
from collections.abc import Mapping, Sequence

import click

from geartrain.cli.printable import complain
from geartrain.errors import (
    AddressError,
    ConnectError,
    ConnectionLostError,
    GeartrainError,
    ServerError,
    TimedOutError,
)
from geartrain.redaction import learn, redacted

COMMANDS: Mapping[str, tuple[str, str]] = {
    "serve": ("Run a job server.", "server"),
    "submit": ("Submit jobs and show what comes of them.", "cli"),
    "work": ("Do jobs with a shell command.", "cli"),
    "admin": ("Look into job servers, and change their limits.", "cli"),
    "policy": ("Set and show what holds for a function: retries, limits.", "cli"),
    "fleet": ("Look after job servers that take over from each other.", "cli"),
    "schedule": ("Have jobs made at their times, again and again.", "cli"),
    "pause": ("Hand out no more jobs of a function.", "cli"),
    "resume": ("Hand out jobs of a function again.", "cli"),
    "why": ("Say why a job waits.", "cli"),
    "show": ("Show a job, and how its attempts ended.", "cli"),
    "result": ("Print the result of a job, or wait for it.", "cli"),
    "retry": ("Have a dead job tried again, or a delayed one now.", "cli"),
    "priority": ("Change the priority of a job that waits.", "cli"),
    "dead": ("Look at dead letters, try them again, throw them away.", "cli"),
    "check": ("Judge job servers, as a plugin of Nagios and the like.", "cli"),
    "check_gearman": ("The same with mod_gearman's options and texts.", "cli"),
    "monitoring": ("Print alert rules for Prometheus, a dashboard for Grafana.", "cli"),
    "token": ("Make a token for the HTTP face.", "http,cli"),
    "store": ("Look into a store of jobs, move jobs in and out.", "server,cli"),
    "version": ("Say which geartrain this is.", "cli"),
}
"""What each command does, and the extra of the package that it needs."""

_SHARED: Mapping[str, str] = {
    **dict.fromkeys(("pause", "resume"), "pause"),
    **dict.fromkeys(("why", "show", "result", "retry", "priority"), "job"),
}
"""Commands that share a module, ``geartrain.cli.<this>``, which has all of them in ``commands``."""

_EXIT_CODES: Sequence[tuple[type[GeartrainError], int]] = (
    (AddressError, 2),
    (ConnectError, 3),
    (ConnectionLostError, 3),
    (TimedOutError, 4),
    (ServerError, 5),
)
INTERRUPTED = 130


class Commands(click.Group):
    """A group that imports a command's module, ``geartrain.cli.<name>``, when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        try:
            module = importlib.import_module(f"geartrain.cli.{_SHARED.get(cmd_name, cmd_name)}")
        except ModuleNotFoundError as error:
            if not error.name or error.name.startswith("geartrain"):
                raise
            raise click.ClickException(
                f"`geartrain {cmd_name}` needs {error.name}: pip install 'geartrain[{COMMANDS[cmd_name][1]}]'"
            ) from None
        command: click.Command = module.commands[cmd_name] if cmd_name in _SHARED else module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, what) for name, (what, _) in COMMANDS.items()])


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`geartrain COMMAND --help` tells all about a command.",
)
def geartrain() -> None:
    """A Gearman for today: job server, clients and workers that speak the Gearman protocol."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and tell its errors in a line; the exit code. No error shows a password, wherever it was put."""
    variables = [value for name, value in os.environ.items() if name.startswith("GEAR")]
    for given in (*(sys.argv[1:] if arguments is None else arguments), *variables):
        learn(given)
    try:
        ended = geartrain.main(arguments, "geartrain", standalone_mode=False)
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        click.echo(redacted(shown.getvalue()), nl=False, err=True)
        return error.exit_code
    except click.Abort:
        return INTERRUPTED
    except GeartrainError as error:
        complain(str(error))
        return exit_code(error)
    except BrokenPipeError:
        # Whoever read our output has had enough; keep Python from stumbling over it once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception:
        click.echo(redacted(traceback.format_exc()), nl=False, err=True)
        return 1
    return ended if isinstance(ended, int) else 0


def exit_code(error: GeartrainError) -> int:
    """The exit code that stands for an error."""
    return next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), 1)
