"""The command ``geartrain`` itself: help, laziness, and kind words where a part is not installed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from geartrain.cli.commands import COMMANDS
from geartrain.version import VERSION
from geartrain.wire.primitives import COMPILED

HEAVY = ("rich", "pydantic", "pydantic_settings", "uvloop", "asyncio", "geartrain.jobserver", "geartrain.worker")


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)


def geartrain(*arguments: str, without: str = "", print_modules: bool = False) -> subprocess.CompletedProcess[str]:
    """Run ``geartrain`` in a Python that lacks the packages ``without``, and let it tell what it has imported."""
    code = ["import sys", f"sys.argv = {['geartrain', *arguments]}"]
    code += [f"sys.modules[{name!r}] = None" for name in without.split()]
    if print_modules:
        code.append("import atexit; atexit.register(lambda: print('MODULES', *sys.modules))")
    code.append("from geartrain.cli.main import main; main()")
    return python("\n".join(code))


def test_help_lists_every_command() -> None:
    done = geartrain("--help")
    assert done.returncode == 0
    for name, (what, _) in COMMANDS.items():
        assert f"  {name} " in done.stdout
        assert what in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [*COMMANDS, "admin status", "admin limit", "store import", "store list", "policy set", "dead list", "dead purge"],
)
def test_every_command_has_help_that_fits_a_terminal(arguments: str) -> None:
    done = geartrain(*arguments.split(), "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: geartrain ")
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_the_way_in_imports_nothing_that_it_does_not_need() -> None:
    modules = geartrain("--help", print_modules=True).stdout.rpartition("MODULES ")[2].split()
    assert "click" in modules
    assert not set(HEAVY) & set(modules)


@pytest.mark.parametrize("command", ["submit", "work", "admin", "policy", "pause", "why", "result", "dead"])
def test_tools_do_not_import_the_server(command: str) -> None:
    modules = set(geartrain(command, "--help", print_modules=True).stdout.rpartition("MODULES ")[2].split())
    assert not {"pydantic", "uvloop", "geartrain.jobserver", "geartrain.daemon.daemon"} & modules


@pytest.mark.parametrize(
    ("arguments", "without", "told"),
    [
        ("serve", "click", "the commands are not installed with the plain package: pip install 'geartrain[cli]'"),
        ("serve -h", "pydantic_settings", "`geartrain serve` needs pydantic_settings: pip install 'geartrain[server]'"),
        ("admin -h", "rich", "`geartrain admin` needs rich: pip install 'geartrain[cli]'"),
    ],
)
def test_what_is_not_installed_is_named_with_its_remedy(arguments: str, without: str, told: str) -> None:
    done = geartrain(*arguments.split(), without=without)
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_the_server_runs_without_the_tools_and_without_uvloop() -> None:
    done = geartrain("serve", "--check-args", without="rich uvloop")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_version_says_in_which_form_the_rules_run() -> None:
    done = geartrain("version")
    assert done.stdout.startswith(f"geartrain {VERSION}\ncore: {'compiled' if COMPILED else 'interpreted'}")
    assert geartrain("serve", "--version").stdout == f"geartrain {VERSION}\n"


def test_an_unknown_command_is_told_with_what_may_be_meant() -> None:
    done = geartrain("submitt")
    assert done.returncode == 2
    assert "submit" in done.stderr
