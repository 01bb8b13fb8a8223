"""No password is told by a command, whatever is wrong with the value that holds it, or with where it was put."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from geartrain.cli.commands import run
from geartrain.cli.gearmand_options import REFUSED, SECRETS, WITHOUT_MEANING
from geartrain.daemon.config import Config, flag_of
from geartrain.errors import ConfigError
from geartrain.store import StoreError, engine
from learned import nothing_learned

SECRET = "Sesame-77"
URL = f"postgresql://u:{SECRET}@127.0.0.1:1/db"
WRITTEN = (
    URL, f" postgresql://u:{SECRET}@127.0.0.1:1/db ", f"PostgreSQL://u:{SECRET}@127.0.0.1:1/db", f"nope://u:{SECRET}@h",
    f"postgresql://u:{SECRET}@127.0.0.1:99999/db", f"postgresql://u:x@{SECRET}@127.0.0.1:1/db",
    f"postgresql://u:x/{SECRET}@127.0.0.1:1/db", f"postgresql://u:x#{SECRET}@127.0.0.1:1/db",
    f"postgresql://u:x?{SECRET}@127.0.0.1:1/db", f"postgresql://u:[{SECRET}@127.0.0.1:1/db",
    f"postgresql://u:x {SECRET}@127.0.0.1:1/db", f"postgresql://u:%2F{SECRET}@127.0.0.1:1/db",
    f"postgresql://u:{SECRET}%ZZ@127.0.0.1:1/db", f"postgresql://127.0.0.1:1/db?password={SECRET}",
    f"postgresql://u@h:{SECRET}/db",
    f"postgresql://u:{SECRET}/db", f"postgresql:/u:{SECRET}@h/db", f"postgresql:u:{SECRET}@h/db",
    f"mysql://u:{SECRET}@127.0.0.1:1/db", f"mysql://u:{SECRET}@127.0.0.1:1",
    f"redis://:{SECRET}@127.0.0.1:1", f"redis://{SECRET}@127.0.0.1:1", f"redis://:x/{SECRET}@127.0.0.1:1",
    f"redis://:{SECRET}@127.0.0.1:port", f"redis://:{SECRET}", f"redis://:[{SECRET}@127.0.0.1:1",
    f"memcached://u:{SECRET}@a,b", f"sqlite:///?password={SECRET}", f"u:{SECRET}@127.0.0.1:1",
    f"host=x password={SECRET}", f"host=x password = 'x {SECRET}'", rf"host=x password='it\'s {SECRET}'",
    f"host=127.0.0.1 port=1 password='x {SECRET}",
)  # fmt: skip
EVERY_WAY_TO_WRITE_IT = pytest.mark.parametrize("written", WRITTEN, ids=map(str, range(len(WRITTEN))))

Tell = Callable[..., "Told"]


class Told:
    """What a command has told, in which no password may be."""

    def __init__(self, code: int, text: str) -> None:
        assert SECRET.lower() not in text.lower().replace("_", "-"), text
        assert "Traceback" not in text, text
        self.code = code
        self.text = text


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Tell:
    """Run a command within the test, in a process that has learned no password before."""
    monkeypatch.chdir(tmp_path)  # for files that are named as the password is
    monkeypatch.setenv("GEARTRAIN_STORE", f"sqlite:///{tmp_path}/queue.sqlite")

    def tell(*arguments: str) -> Told:
        with nothing_learned():
            code = run(arguments)
        return Told(code, "".join(capsys.readouterr()))

    return tell


def tell_apart(*arguments: str, **environment: str) -> Told:
    """Run a command as a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "geartrain", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
    )
    return Told(done.returncode, done.stdout + done.stderr)


# ── put in the wrong place ──────────────────────────────────────────────────────────────────────────────────────────


@EVERY_WAY_TO_WRITE_IT
def test_the_value_of_another_option(written: str, tell: Tell) -> None:
    for option in ("port", "config", "config-file", "job-retries", "max-packet", "socket-mode", "verbose", "log-format",
                   "queue-type", "protocol", "drain-timeout", "keepalive", "stroe", "password", "syslog"):  # fmt: skip
        told = tell("serve", "--check-args", f"--{option}={written}")
        assert told.code in (1, 2)
        assert f"--{option}" in told.text or "configuration file" in told.text
    for option in ("listen", "log-file", "pid-file", "user", "time-zone", "job-handle-prefix"):
        tell("serve", "--check-args", f"--{option}={written}")


@pytest.mark.parametrize("option", ["listen", "log-file", "pid-file", "user", "time-zone"])
def test_an_option_that_is_found_wrong_only_at_the_start(option: str) -> None:
    told = tell_apart("serve", "--port=0", f"--{option}={URL}", GEARTRAIN_STORE="memory:")
    assert told.code == 1
    assert f"--{option} is 'postgresql:/" in told.text


@EVERY_WAY_TO_WRITE_IT
def test_a_word_too_many(written: str, tell: Tell) -> None:
    for command in ("serve --check-args", "store check", "store import --from x", "version"):
        told = tell(*command.split(), written)
        assert told.code == 2
        assert "Got unexpected extra argument" in told.text
    assert "No such command" in tell(written).text


@EVERY_WAY_TO_WRITE_IT
def test_words_in_the_file_of_gearmands_options(written: str, tell: Tell, tmp_path: Path) -> None:
    file = tmp_path / "gearmand.conf"
    for line in ('"{}"', '--port="{}"', '--port "{}"', "--libpq-conninfo {}", "--stroe='{}", '--port=x # "{}"'):
        file.write_text(line.format(written) + "\n")
        tell("serve", "--check-args", f"--config-file={file}")


@pytest.mark.parametrize("name", [*WITHOUT_MEANING, *REFUSED])
def test_gearmands_options(name: str, tell: Tell) -> None:
    option = f"--{name.replace('_', '-')}"
    for written in (f"host=x password={SECRET}", URL, *([SECRET, f"'x {SECRET}'"] if option in SECRETS else [])):
        tell("serve", "--check-args", f"{option}={written}")
        tell("serve", "--check-args", option, written)
        tell("serve", "--check-args", f"{option}{written}")


def test_every_secret_option_is_known_as_one() -> None:
    assert {f"--{name.replace('_', '-')}" for name in Config.fields() if flag_of(name).is_secret} <= set(SECRETS)


@pytest.mark.parametrize("option", SECRETS)
def test_a_secret_whose_quotes_were_forgotten(option: str, tell: Tell) -> None:
    told = tell("serve", "--check-args", option, "host=x", SECRET, "--port=4730")
    assert told.code == 2
    assert "unexpected extra argument (***)" in told.text


@EVERY_WAY_TO_WRITE_IT
def test_the_address_of_a_job_server(written: str, tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in ("submit f", "work f true", "admin status"):
        assert tell(*command.split(), "--server", written).code in (2, 3)
        with monkeypatch.context() as patch:
            patch.setenv("GEARMAN_SERVERS", written)
            assert tell(*command.split()).code in (2, 3)


# ── the file and the environment ────────────────────────────────────────────────────────────────────────────────────


@EVERY_WAY_TO_WRITE_IT
def test_a_file(written: str, tell: Tell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEARTRAIN_STORE")
    file = tmp_path / "config.toml"
    for line in (
        "store = [{0}]", "store = {{ a = {{ b = [[{0}]] }} }}", "[store]\nurl = {0}", "[[store]]\nurl = {0}",
        "stor = {0}", "colour = [{0}]", "{0} = 1", "store.{0} = 1", "{0} = 1\n{0} = 2", "[{0}]\n[{0}]", "store = {0} x",
        "store = {0}\nstore = {0}", "store = {0}\nport = 0x", "port = {0}", "listen = [{0}, 5]", "verbose = {0}",
    ):  # fmt: skip
        file.write_text(line.format(json.dumps(written)) + "\n")
        told = tell("serve", "--check-args", f"--config={file}")
        assert told.code == 1
        assert str(file) in told.text


@EVERY_WAY_TO_WRITE_IT
def test_a_file_that_is_no_toml(written: str, tell: Tell, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    for line in ("{0}", "store = {0}", 'store = "{0}', "store = '''{0}", "store = ['{0}'"):
        file.write_text(line.format(written))
        told = tell("serve", "--check-args", f"--config={file}")
        assert told.code == 1
        assert f"{file} is not a TOML file" in told.text


@EVERY_WAY_TO_WRITE_IT
def test_the_environment(written: str, tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PORT", "MAX_MEMORY", "VERBOSE", "CONFIG", "LISTEN", "STROE"):
        with monkeypatch.context() as patch:
            patch.setenv(f"GEARTRAIN_{name}", written)
            told = tell("serve", "--check-args")
        if name in ("PORT", "MAX_MEMORY", "VERBOSE"):
            assert f"GEARTRAIN_{name}" in told.text


# ── a store that can't be used ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "written", [*WRITTEN, SECRET, f"{SECRET}@h", f"u:{SECRET}", f"sqlite:{SECRET}", f"sqlite:////nowhere/x?a={SECRET}"]
)
def test_a_store_that_can_not_be_used(written: str, tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = [
        ("check", "--store", written),
        ("export", "--store", written),
        ("import", "--from", f"gearmand+{written}"),
    ]
    if "://" in written:  # else it is the path of a file
        commands.append(("import", "--from", written))
    for command in commands:
        told = tell("store", *command)
        assert told.code in (1, 3)
        assert told.text.startswith("geartrain: ")


@pytest.mark.parametrize("log", ["text", "json"])
@pytest.mark.parametrize("written", [f"redis://:x/{SECRET}@h", URL, f"nope://u:{SECRET}@h", SECRET])
def test_a_start_without_its_store(log: str, written: str, tmp_path: Path) -> None:
    file = tmp_path / "log"
    options = ("--port=0", f"--log-file={file}", f"--log-format={log}", "--verbose=DEBUG")
    told = tell_apart("serve", *options, GEARTRAIN_STORE=written)
    assert told.code == 1
    assert "--store can't be used: " in told.text
    assert "not_started" in Told(0, file.read_text()).text


# ── what fails inside ───────────────────────────────────────────────────────────────────────────────────────────────


def _fail(url: str) -> None:
    """As a library does that tells what it was given."""
    try:
        raise ValueError(f"no such place: {url!r}", {"password": url})
    except ValueError as error:
        raise KeyError(url) from error


def test_a_traceback(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geartrain.cli.store_options.engine", _fail)
    with nothing_learned():
        code = run(["store", "check", "--store", URL])
    told = "".join(capsys.readouterr())
    assert code == 1
    assert "no such place: 'postgresql://u:***@127.0.0.1:1/db'" in told
    assert "The above exception was the direct cause" in told
    assert SECRET not in told


@EVERY_WAY_TO_WRITE_IT
def test_the_errors_of_the_interface(written: str) -> None:
    told = []
    for wrong in ({"stor": written}, {"store": [written]}, {"port": written}, {"listen": {written: written}}):
        with pytest.raises(ValidationError) as invalid:
            Config(**wrong)
        with nothing_learned(), pytest.raises(ConfigError) as refusal:
            Config.load(wrong)
        told += [f"{error} {error!r}" for error in (invalid.value, refusal.value)]
    with nothing_learned(), pytest.raises(StoreError) as refused:
        engine(written).open()
    error: BaseException | None = refused.value
    while error is not None:
        told.append(f"{error} {error!r}")
        error = error.__cause__
    for text in told:
        assert SECRET not in text


def test_what_the_interface_shows() -> None:
    config = Config.load({"store": URL})
    store = engine(URL)
    for text in (repr(config), str(config), repr(store), str(store)):
        assert SECRET not in text
