"""The pages of docs/, done as they say: files are written, commands are run, and what they print is compared.

    ```python title="worker.py"      a file, for the commands on the same page; so is ```php title="worker.php"
    ```python title="Celery"         a program of others: it is only read
    ```console                       after "$ " a command; below it what it prints, with … for whatever comes
    $ python worker.py &             one that goes on running till the page's end
    $ xdg-open http://127.0.0.1/     the text that Chromium shows when all that it waits for has come

What only looks at jobs (``LOOKS``) is asked again till it prints that: a reader's next command comes later than ours.

Each page begins in an empty folder. A page that starts no job server finds one, and one that speaks of DATABASE_URL a
PostgreSQL. The ports 8080, 8081, 4730 and the like stand for free ones, and nothing is installed.
"""

from __future__ import annotations

import ast
import configparser
import contextlib
import html
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from geartrain.wire.packets import LAYOUTS
from servers import PATIENCE, free_port, missing, needs, running_geartrain, wait_until
from services import PostgreSQL, running

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
LIMIT = 60  # seconds that a command may take
LOOKS = ("geartrain why ", "geartrain show ", "geartrain dead list", "geartrain fleet ", "geartrain admin status")
_BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]*)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_PORT = re.compile(r"\b(?:473\d|808[01])\b")


class Page:
    """One page at work in ``folder``."""

    def __init__(self, path: Path, folder: Path) -> None:
        self._text = path.read_text()
        self._folder = folder
        self._ports: dict[str, str] = {}
        self._running: list[subprocess.Popen[bytes]] = []
        self._environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTEST_ADDOPTS": "-p no:cacheprovider",
            "GEARTRAIN_PORT": self._free("4730"),
            "GEARTRAIN_LISTEN": "127.0.0.1",
            "GEARTRAIN_STORE": "memory:",
            "GEARMAN_SERVERS": f"127.0.0.1:{self._free('4730')}",
        }

    @property
    def has_commands(self) -> bool:
        return "```console" in self._text

    @property
    def serves(self) -> bool:
        return "$ geartrain serve" in self._text

    @property
    def needs_php(self) -> bool:
        return "$ php " in self._text

    @property
    def needs_http(self) -> bool:
        return "--http" in self._text

    @property
    def needs_database(self) -> bool:
        return "DATABASE_URL" in self._text

    def set(self, name: str, value: str) -> None:
        """Set a variable of the environment."""
        self._environment[name] = value

    @property
    def port(self) -> int:
        return int(self._free("4730"))

    def follow(self) -> None:
        """Do what the page says, from its top to its end."""
        text = _PORT.sub(lambda found: self._free(found[0]), self._text)
        for language, title, body in _BLOCK.findall(text):
            if language == "console":
                for command, printed in _commands(body):
                    self._run(command, printed)
            elif language == "python":
                ast.parse(body, title)
            elif language == "ini":
                configparser.RawConfigParser(strict=False).read_string(body)
            elif language == "yaml":
                yaml.safe_load(body)
            if "." in title:
                (self._folder / title).write_text(body)

    def end(self) -> None:
        """End what still runs, the job servers last; each must leave in good order."""
        for process in reversed(self._running):
            os.killpg(process.pid, signal.SIGTERM)
            assert process.wait(20) in (0, -signal.SIGTERM), process.args

    def _run(self, command: str, printed: str) -> None:
        if command.startswith("pip install"):
            return
        if command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            self.set(name, value)
            return
        if command.endswith(" &"):
            command = "exec " + command.removesuffix(" &")
            process = subprocess.Popen(
                command, shell=True, cwd=self._folder, env=self._environment_of(command), start_new_session=True
            )
            self._running.append(process)
            if "geartrain serve" in command or "uvicorn" in command:
                ports = [int(port) for port in re.findall(r"--(?:port |http \S+:)(\d+)", command)]
                if "--port" not in command:
                    ports.append(self.port)
                wait_until(lambda: all(map(_listens, ports)) or process.poll() is not None, f"{command} listens", 20)
            return
        pattern = ".*".join(map(re.escape, printed.strip().split("…"))) if printed else ".*"
        until = time.monotonic() + PATIENCE if command.startswith(LOOKS) else 0.0
        while not re.fullmatch(pattern, shown := self._shown(command), re.DOTALL):
            assert time.monotonic() < until, f"{command} printed\n{shown}"

    def _shown(self, command: str) -> str:
        """What a command prints, without the blanks that fill up the last column of a table."""
        environment = self._environment_of(command)
        if command.startswith("xdg-open "):
            return _text_of(command.removeprefix("xdg-open "), self._folder)
        done = subprocess.run(
            command, shell=True, cwd=self._folder, env=environment, capture_output=True, text=True, timeout=LIMIT
        )
        assert done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}{done.stderr}"
        return re.sub(r" +$", "", done.stdout.strip(), flags=re.MULTILINE)

    def _environment_of(self, command: str) -> dict[str, str]:
        """PHP names its job server itself: those of the variable libgearman would take besides, and wait for ever."""
        is_php = command.removeprefix("exec ").startswith("php ")
        return {name: value for name, value in self._environment.items() if not (is_php and name == "GEARMAN_SERVERS")}

    def _free(self, written: str) -> str:
        if written not in self._ports:
            self._ports[written] = str(free_port())
        return self._ports[written]


def _text_of(url: str, folder: Path) -> str:
    """What a page shows in a browser."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
               f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=20000", "--dump-dom"]  # fmt: skip
    command = [needs("chromium", "chromium"), *options, url]
    page = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=True).stdout
    text = html.unescape(re.sub(r"<script.*?</script>|<[^>]*>", "", page, flags=re.DOTALL))
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())


def _commands(body: str) -> Iterator[tuple[str, str]]:
    """Each command, with what is printed below it."""
    for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        command, _, printed = part.partition("\n")
        yield command, printed


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(DOCS)))
def test_a_page_does_what_it_says(path: Path, tmp_path: Path) -> None:
    page = Page(path, tmp_path)
    if not page.has_commands:
        page.follow()
        return
    pytest.importorskip("geartrain.daemon.config")
    if page.needs_http:
        pytest.importorskip("geartrain.web")
    if page.needs_php and b"gearman" not in subprocess.check_output([needs("php", "php-cli"), "-m"]).split():
        missing("needs PHP's gearman extension: install the package php-gearman")
    server = contextlib.nullcontext() if page.serves else running_geartrain("--store=memory:", port=page.port)
    with server, contextlib.ExitStack() as stack:
        if page.needs_database:
            page.set("DATABASE_URL", stack.enter_context(running(PostgreSQL)).url().partition("?")[0])
        try:
            page.follow()
        finally:
            page.end()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(DOCS)))
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)):
        if not target.startswith("https://"):
            page, _, anchor = target.partition("#")
            there = path.parent / page if page else path
            assert there.exists(), target
            assert not anchor or anchor in _anchors(there), target


def _anchors(path: Path) -> set[str]:
    """What the headings of a page are called in links."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


def test_every_page_is_in_the_navigation() -> None:
    told = yaml.safe_load((DOCS.parent / "mkdocs.yml").read_text())["nav"]
    assert sorted(str(path.relative_to(DOCS)) for path in PAGES) == sorted(_pages(told))


def _pages(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    else:
        for part in entry.values() if isinstance(entry, dict) else entry:
            yield from _pages(part)


def test_the_reference_names_what_exists() -> None:
    for path in (DOCS / "reference").glob("*.md"):
        for name in re.findall(r"^::: (\S+)$", path.read_text(), re.MULTILINE):
            module, _, attribute = name.rpartition(".")
            if attribute[0].isupper():
                assert hasattr(__import__(module, fromlist=[attribute]), attribute), name
            else:
                __import__(name)


def test_every_public_name_is_in_the_reference() -> None:
    import geartrain
    import geartrain.client
    import geartrain.errors

    told = "".join(path.read_text() for path in (DOCS / "reference").glob("*.md"))
    names = {*geartrain.__all__, *geartrain.client.__all__} - {"__version__", "JobEvent", "Priority", "When"}
    if "::: geartrain.errors\n" in told:  # tells them all
        names -= vars(geartrain.errors).keys()
    missing = [name for name in names if not re.search(rf"^::: \S+\.{name}$", told, re.MULTILINE)]
    assert not missing


CITED = re.compile(r"[Ss]ections? (\d+(?:\.\d+)?(?:(?:, | to | and )\d+(?:\.\d+)?)*)")


def test_every_section_that_is_cited_is_there() -> None:
    headings = set(
        re.findall(r"^#{2,3} (\d+(?:\.\d+)?)\.? ", (DOCS.parent / "docs/protocol.md").read_text(), re.MULTILINE)
    )
    cited: dict[str, str] = {}
    for folder in ("src", "tests", "docs"):
        for path in (DOCS.parent / folder).rglob("*.[pm][yd]"):
            for numbers in CITED.findall(path.read_text()):
                cited.update((number, str(path)) for number in re.findall(r"\d+(?:\.\d+)?", numbers))
    assert len(cited) > 20
    assert not {number: path for number, path in cited.items() if number not in headings}


def test_the_protocols_table_of_packet_types_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| (\d+) \| ([A-Z]\w+) \| [^|]*\|([^|]*)\|", (DOCS / "protocol.md").read_text(), re.MULTILINE)
    told: dict[int, tuple[str, int]] = {}
    for number, name, arguments in rows:
        same_as = re.fullmatch(r" as (\d+) ", arguments)
        count = told[int(same_as[1])][1] if same_as else len(arguments.split(",")) if arguments.strip() else 0
        told[int(number)] = (name, count)
    assert told == {number: (name, len(arguments)) for number, (name, _, arguments) in LAYOUTS.items()}


def test_the_pages_made_from_the_code_are_current() -> None:
    done = subprocess.run(
        [sys.executable, str(DOCS.parent / "tools/write-reference"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
